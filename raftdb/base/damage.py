"""What a node knows of damage to its own files: found, noted durably, healed from the others.

    <data_dir>/damage.json   what was found last, and when copies were fetched because of it

The note is written before the node ends to begin anew, and read by that new beginning: without it
a damaged page would be found only when it is read again. It is gone with what it speaks of: a note
on a database speaks of one generation, one on the log of one segment.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import asdict, dataclass, replace
from typing import Any

from raftdb.base.atomic import replace_file
from raftdb.base.errors import Error, JournalCorruptError
from raftdb.base.ports import Files, Log

DAMAGE_FILE = "damage.json"
FORMAT = 1
FILE_BYTES_MAX = 65_536
HEALS_KEPT = 8
DATABASE, LOG, LOG_END = "database", "log", "log_end"

DATABASE_CODES = frozenset(
    {
        "page_damaged",
        "page_unreadable",
        "database_corrupt",
        "current_unreadable",
        "database_missing",
        "not_a_database",
        "write_ahead_log_damaged",
    }
)
"""Errors that say: this node's database is no good, and nothing is wrong with anything else."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One finding."""

    kind: str
    """`database`, `log`, or `log_end`: what this node promised is lost (raftdb.base.amnesia)."""
    file: str
    """Path; `` where not even that is known."""
    offset: int
    """In bytes; -1 when the place in the file is not known (yet)."""
    reason: str
    found_ms: int
    """Unix time in milliseconds."""

    def __str__(self) -> str:
        where = f"{self.file}, offset {self.offset}" if self.offset >= 0 else self.file
        return f"{self.reason} ({where})" if where and where not in self.reason else self.reason


@dataclass(frozen=True, slots=True)
class DamageNote:
    """The file's content."""

    damage: Damage | None = None
    healed_ms: tuple[int, ...] = ()
    """When healing began, the newest last."""

    def healing(self, now_ms: int) -> DamageNote:
        """The same, with one more beginning."""
        return replace(self, healed_ms=(*self.healed_ms, now_ms)[-HEALS_KEPT:])


def damage_of(error: BaseException, now_ms: int) -> Damage | None:
    """The finding that an error speaks of; None when it speaks of something else."""
    if isinstance(error, JournalCorruptError):
        kind = LOG
    elif isinstance(error, Error) and error.code in DATABASE_CODES:
        kind = DATABASE
    else:
        return None
    detail = error.detail
    return Damage(
        kind, str(detail.get("file", "")), int(detail.get("offset", -1)), error.message, now_ms
    )


def note_path(data_dir: str) -> str:
    """Where the note lies."""
    return posixpath.join(data_dir, DAMAGE_FILE)


def write_note(files: Files, data_dir: str, note: DamageNote) -> None:
    """Durable on return. Raises OSError."""
    value = {
        "format": FORMAT,
        "damage": None if note.damage is None else asdict(note.damage),
        "healed_ms": list(note.healed_ms),
    }
    replace_file(files, note_path(data_dir), (json.dumps(value, indent=2) + "\n").encode())


def read_note(files: Files, data_dir: str, log: Log) -> DamageNote:
    """The note, or an empty one. One that does not read counts for nothing: what it spoke of is
    found again when it is read again."""
    path = note_path(data_dir)
    if not files.exists(path):
        return DamageNote()
    try:
        return _parse(files.read_file(path))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("damage_note_unreadable", file=path, error=str(error))
        return DamageNote()


def _parse(data: bytes) -> DamageNote:
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"it has {len(data)} bytes")
    value: dict[str, Any] = json.loads(data)
    if value["format"] != FORMAT:
        raise ValueError(f"its format is {value['format']!r}")
    found, damage = value["damage"], None
    if found is not None:
        damage = Damage(
            str(found["kind"]),
            str(found["file"]),
            int(found["offset"]),
            str(found["reason"]),
            int(found["found_ms"]),
        )
    return DamageNote(damage, tuple(int(one) for one in value["healed_ms"])[-HEALS_KEPT:])
