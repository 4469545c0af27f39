"""Durability levels: what a success reply waits for, beyond the quorum. As text and as a value.

    quorum              a majority of the voters has it on disk: always waited for
    locations=3         and so have voters in 3 distinct regions
    locations=3@zone    the same, of zones

A level is a list of conditions, joined by commas; further kinds have their place here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from raftdb.base.errors import ConfigError
from raftdb.base.locations import REGION

LOCATIONS_MAX = 64
_LOCATIONS = re.compile(r"locations=([0-9]{1,3})(?:@(region|zone))?")
_HINT = "such as quorum, locations=2 or locations=3@zone"


@dataclass(frozen=True, slots=True)
class Durability:
    """What a success reply waits for."""

    locations: int = 0
    """In so many distinct locations it is on disk; 0: wherever the quorum is."""
    level: str = REGION
    """What counts as distinct: `region` or `zone`."""

    def __str__(self) -> str:
        if not self.locations:
            return "quorum"
        return f"locations={self.locations}" + ("" if self.level == REGION else f"@{self.level}")

    @property
    def is_plain(self) -> bool:
        """The quorum is all that it asks for."""
        return self.locations == 0


QUORUM = Durability()


@lru_cache(maxsize=64)
def parse_durability(text: str) -> Durability:
    """Read a level, as users write it. Raises ConfigError."""
    if text == "quorum":
        return QUORUM
    match = _LOCATIONS.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text[:80]!r} is no durability level", hint=_HINT)
    count = int(match[1])
    if not 1 <= count <= LOCATIONS_MAX:
        raise ConfigError(
            f"{count} locations cannot be asked for", hint=f"1 to {LOCATIONS_MAX}; {_HINT}"
        )
    return Durability(count, match[2] or REGION)
