"""The real Random."""

from __future__ import annotations

import os
import random
import threading

POOL_BYTES = 1024


class RealRandom:
    """Election jitter from a generator seeded by the system; identifiers from the system itself."""

    __slots__ = ("_generator", "_lock", "_pid", "_pool")

    def __init__(self) -> None:
        self._generator = random.Random(os.urandom(32))
        self._lock = threading.Lock()
        self._pool = b""
        self._pid = 0

    def random(self) -> float:
        """A float in [0, 1), quick and not for secrets."""
        return self._generator.random()

    def randbytes(self, count: int) -> bytes:
        """`count` bytes of the system's cryptographic generator, each handed out once. From any
        thread. Asked for in larger pieces: every write needs eight, and a system call is dear."""
        if count > POOL_BYTES // 8:
            return os.urandom(count)
        with self._lock:
            # A forked child has a copy of the pool, which its parent uses.
            if len(self._pool) < count or self._pid != os.getpid():
                self._pool, self._pid = os.urandom(POOL_BYTES), os.getpid()
            taken, self._pool = self._pool[:count], self._pool[count:]
        return taken
