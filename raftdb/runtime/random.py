"""The real Random."""

from __future__ import annotations

import os
import random


class RealRandom:
    """Election jitter from a generator seeded by the system; identifiers from the system itself."""

    __slots__ = ("_generator",)

    def __init__(self) -> None:
        self._generator = random.Random(os.urandom(32))

    def random(self) -> float:
        """A float in [0, 1), quick and not for secrets."""
        return self._generator.random()

    def randbytes(self, count: int) -> bytes:
        """`count` bytes of the system's cryptographic generator."""
        return os.urandom(count)
