"""What a node notes when the end of its log is lost, and with it what it had promised.

    <data_dir>/amnesia.json   since when, whether it was a voter, and whether it is one no more

Safety does not rest on this file: as long as the damaged log lies there, each start finds it anew
and asks anew. `relieved_index` allows the next start to found a new log; it is taken back before
that log is used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from raftdb.base.atomic import replace_file
from raftdb.base.layout import amnesia_path
from raftdb.base.ports import Files, Log

FORMAT = 1
FILE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Amnesia:
    """The file's content."""

    file: str
    reason: str
    found_ms: int
    """Unix time in milliseconds."""
    voter: bool
    """It was one, and asks to be one again."""
    relieved_index: int = 0
    """By a committed configuration at or before this index it votes no more; a database of that
    entry or a later one will do to begin with. 0: not known yet, or used already."""


def write_amnesia(files: Files, data_dir: str, amnesia: Amnesia) -> None:
    """Durable on return. Raises OSError."""
    text = json.dumps({"format": FORMAT, **asdict(amnesia)}, indent=2) + "\n"
    replace_file(files, amnesia_path(data_dir), text.encode())


def remove_amnesia(files: Files, data_dir: str) -> None:
    """Durable on return. Raises OSError."""
    path = amnesia_path(data_dir)
    if files.exists(path):
        files.remove(path)
        files.sync_directory(data_dir)


def read_amnesia(files: Files, data_dir: str, log: Log) -> Amnesia | None:
    """None when there is none. One that does not read says as little as possible: the cluster is
    asked again."""
    path = amnesia_path(data_dir)
    if not files.exists(path):
        return None
    try:
        return _parse(files.read_file(path))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("amnesia_note_unreadable", file=path, error=str(error))
        return Amnesia("", "not known any more", 0, voter=True)


def _parse(data: bytes) -> Amnesia:
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"it has {len(data)} bytes")
    value: dict[str, Any] = json.loads(data)
    if value["format"] != FORMAT:
        raise ValueError(f"its format is {value['format']!r}")
    return Amnesia(
        str(value["file"]),
        str(value["reason"]),
        int(value["found_ms"]),
        value["voter"] is not False,
        int(value["relieved_index"]),
    )
