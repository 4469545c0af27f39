"""Durability levels: what a success reply waits for, beyond the quorum. As text and as a value.

    quorum              a majority of the voters has it on disk: always waited for
    locations=3         and so have voters in 3 distinct regions
    locations=3@zone    the same, of zones
    archive             a restore from a destination of the archive would find it
    archive=2           from each of 2 destinations

A level is a list of conditions, joined by commas: `locations=2,archive`. All of them hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from raftdb.base.errors import ConfigError
from raftdb.base.locations import REGION

LOCATIONS_MAX = 64
ARCHIVES_MAX = 4
_ARCHIVE = re.compile(r"archive(?:=([1-9]))?")
_LOCATIONS = re.compile(r"locations=([0-9]{1,3})(?:@(region|zone))?")
_HINT = "such as quorum, locations=2, locations=3@zone or archive; joined by commas"


@dataclass(frozen=True, slots=True)
class Durability:
    """What a success reply waits for."""

    locations: int = 0
    """In so many distinct locations it is on disk; 0: wherever the quorum is."""
    level: str = REGION
    """What counts as distinct: `region` or `zone`."""
    archive: int = 0
    """A restore from so many destinations of the archive would find it."""

    def __str__(self) -> str:
        parts = []
        if self.locations:
            where = "" if self.level == REGION else f"@{self.level}"
            parts.append(f"locations={self.locations}{where}")
        if self.archive:
            parts.append("archive" if self.archive == 1 else f"archive={self.archive}")
        return ",".join(parts) or "quorum"

    @property
    def is_plain(self) -> bool:
        """The quorum is all that it asks for."""
        return self.locations == 0 and self.archive == 0


QUORUM = Durability()


@lru_cache(maxsize=64)
def parse_durability(text: str) -> Durability:
    """Read a level, as users write it. Raises ConfigError."""
    if text == "quorum":
        return QUORUM
    locations, level, archive = 0, REGION, 0
    for part in text.split(","):
        if (match := _LOCATIONS.fullmatch(part)) is not None and not locations:
            locations, level = int(match[1]), match[2] or REGION
            if not 1 <= locations <= LOCATIONS_MAX:
                raise ConfigError(
                    f"{locations} locations cannot be asked for",
                    hint=f"1 to {LOCATIONS_MAX}; {_HINT}",
                )
        elif (match := _ARCHIVE.fullmatch(part)) is not None and not archive:
            archive = int(match[1] or 1)
            if archive > ARCHIVES_MAX:
                raise ConfigError(
                    f"{archive} destinations cannot be asked for", hint=f"1 to {ARCHIVES_MAX}"
                )
        else:
            raise ConfigError(f"{text[:80]!r} is no durability level", hint=_HINT)
    return Durability(locations, level, archive)
