"""Releases, and the feature level of a cluster: what nodes of two releases may do together.

A cluster has one feature level, an integer in its settings (so in the log, the same on every node).
It is raised by a command, once every member runs a release that knows it, and never lowered. Up to
then each node does only what the level allows, so any of them may go back to the release before.

Who is about to write something that the release before cannot read (a kind of request or message, a
field, another text of a logged failure) adds a name to FEATURES with the level of this release, and
asks `allows(name, level)` first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import ConfigError

SETTING = "feature_level"
"""Its name among the cluster's settings."""


@dataclass(frozen=True, slots=True)
class Release:
    """One feature level, and the first release that knows it."""

    level: int
    version: str
    brings: str
    """What it turns on, for people."""
    reads: Mapping[str, tuple[int, ...]]
    """Formats that the release reads, by the names of what a node tells who joins."""


SAMPLE = "arithmetic_sample"
"""The name of what 0.1.0 does not tell of how it computes: compared with those that do."""

RELEASES = (
    Release(
        1,
        "0.1.0",
        "what 0.1.0 does",
        {"format_version": (2,), "journal_format": (1,), "peer_protocol": (1,)},
    ),
    Release(
        2,
        "0.2.0",
        "the database's format 3, which 0.1.0 does not open; members say on every connection which "
        "release they run, and those below the level are refused",
        {"format_version": (2, 3), "journal_format": (1,), "peer_protocol": (1,)},
    ),
)
"""By level, from 1 on."""

LEVEL_MIN = 1
LEVEL_MAX = 2
"""What this release can run."""

DATABASE_FENCE = "database_fence"
"""The database's format says that older releases must not open it."""
DEMANDED_GREETING = "demanded_greeting"
"""Who does not say which release it runs, or runs one below the level, is no peer."""

HIDDEN_LAST_ROWID = "hidden_last_rowid"
"""The last rowid is refused where no name reads it, too, and in sqlite_sequence."""

LOCAL_ANSWERS = "local_answers"
"""EXPLAIN in a batch or a transaction, whose answer differs from node to node, is refused."""
USERS_CHANGES = "users_changes"
"""What raftdb writes for itself when a table with VIRTUAL columns is altered is not counted by
changes() and total_changes()."""

FEATURES: Mapping[str, int] = {
    DATABASE_FENCE: 2,
    DEMANDED_GREETING: 2,
    HIDDEN_LAST_ROWID: 2,
    LOCAL_ANSWERS: 2,
    USERS_CHANGES: 2,
}
"""By name: the level that turns it on."""

_GREETING_BYTES_MAX = 200
_LEVELS_MAX = 1_000_000
_VERSION_MAX = 40


def allows(feature: str, level: int) -> bool:
    """Whether a cluster of this feature level does that. KeyError for a name that is not listed."""
    return level >= FEATURES[feature]


def level_of(stored: Mapping[str, Any]) -> int:
    """The feature level that a cluster's settings say; 1 as long as nobody raised it."""
    value = stored.get(SETTING, 1)
    return value if type(value) is int and value >= 1 else 1


def version_for(level: int) -> str:
    """The release to install for that level, for people."""
    for release in RELEASES:
        if release.level == level:
            return f"raftdb {release.version}"
    return f"a release of raftdb that runs feature level {level}"


def range_text(low: int, high: int) -> str:
    """Such as `1-2`."""
    return str(low) if low == high else f"{low}-{high}"


def check_level(level: int, where: str) -> None:
    """Refuse to run a cluster, or its data, of a level that this release does not know."""
    if LEVEL_MIN <= level <= LEVEL_MAX:
        return
    mine = f"this release runs {range_text(LEVEL_MIN, LEVEL_MAX)}"
    if level > LEVEL_MAX:
        hint = f"install {version_for(level)}, or what runs on the other nodes (raftdb status): "
        hint += "a level that was finalized is never lowered"
    else:
        hint = f"install {version_for(LEVEL_MIN)} first, raise the level with it (raftdb upgrade "
        hint += "finalize), and then install this release"
    raise ConfigError(f"{where} has feature level {level}, and {mine}", code=SETTING, hint=hint)


@dataclass(frozen=True, slots=True)
class Announced:
    """What a node says of its release."""

    version: str
    level_min: int
    level_max: int
    level: int = 1
    """The cluster's, as that node has applied it."""

    def runs(self, level: int) -> bool:
        """Whether it can be a member of a cluster of that level."""
        return self.level_min <= level <= self.level_max

    def to_bytes(self) -> bytes:
        """200 bytes at most."""
        said = [self.version, self.level_min, self.level_max, self.level]
        return json.dumps(said).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Announced:
        """Read what `to_bytes` wrote, here or in a later release, which may say more behind.
        Raises ValueError."""
        if len(data) > _GREETING_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes")
        value = json.loads(data)
        if not isinstance(value, list) or len(value) < 4:
            raise ValueError("no list of four")
        version, low, high, level = value[:4]
        if not isinstance(version, str) or not 0 < len(version) <= _VERSION_MAX:
            raise ValueError("no version")
        if type(low) is not int or type(high) is not int or not 1 <= low <= high <= _LEVELS_MAX:
            raise ValueError("no range of levels")
        if type(level) is not int or not 1 <= level <= _LEVELS_MAX:
            raise ValueError("no level")
        return cls(version, low, high, level)


SILENT = Announced("", 1, 1)
"""Who says nothing of its release runs 0.1.0, or has not been heard yet."""
