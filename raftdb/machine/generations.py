"""Generation directories: which database file is the current one (rule M3).

    <directory>/CURRENT                   names the generation: `generation-000001` and a newline
    <directory>/generation-000001/        database.sqlite, and -wal of SQLite's making

A copy that is installed gets a directory of its own, and becomes current by one synced rename: a
new file beside the old one's write-ahead log would have that log replayed into it.
"""

from __future__ import annotations

import os
import re

from raftdb.base.errors import ConfigError
from raftdb.base.ports import Files
from raftdb.machine.format import CURRENT_FILE, DATABASE_FILE

_NAME = re.compile(r"generation-\d{6}")


def name_of(number: int) -> str:
    """The directory of generation `number`, from 1."""
    return f"generation-{number:06d}"


def named(files: Files, directory: str) -> str:
    """What CURRENT says, for comparing alone: `` when it says nothing that reads."""
    path = os.path.join(directory, CURRENT_FILE)
    return files.read_file(path).decode("ascii", "replace") if files.exists(path) else ""


def current(files: Files, directory: str) -> str | None:
    """The current generation's directory (a path), or None when there is no database.

    Raises ConfigError when CURRENT does not name one.
    """
    path = os.path.join(directory, CURRENT_FILE)
    if not files.exists(path):
        return None
    name = files.read_file(path).decode("ascii", "replace")
    if not name.endswith("\n") or not _NAME.fullmatch(name[:-1]):
        raise ConfigError(
            f"{path} does not name a generation",
            code="current_unreadable",
            detail={"file": path, "offset": 0},
            hint="it is written by raftdb alone; a node that runs fetches a copy of the database",
        )
    generation = os.path.join(directory, name[:-1])
    if not files.exists(os.path.join(generation, DATABASE_FILE)):
        raise ConfigError(
            f"{path} names {name[:-1]}, which has no {DATABASE_FILE}",
            code="database_missing",
            detail={"file": os.path.join(generation, DATABASE_FILE)},
            hint="the file was removed; a node that runs fetches a copy of the database",
        )
    return generation


def make_next(files: Files, directory: str, *, founding: bool = False) -> str:
    """Make an empty directory for the generation after the current one. Not current yet. Where it
    cannot be told which one is current, none of those that are there is used again (but by
    `founding`, which a crash may have cut short)."""
    files.make_directory(directory)
    try:
        path = current(files, directory)
    except ConfigError:
        path = None
    if path is None and founding:
        path = name_of(0)
    elif path is None:
        names = filter(_NAME.fullmatch, files.list_directory(directory))
        path = max(names, default=name_of(0))
    number = int(path[-6:]) + 1
    generation = os.path.join(directory, name_of(number))
    files.make_directory(generation)
    clear(files, generation)
    return generation


def make_current(files: Files, directory: str, generation: str) -> None:
    """Make the generation durable, and then the current one, by one rename."""
    file = files.open(os.path.join(generation, DATABASE_FILE))
    try:
        file.sync()
    finally:
        file.close()
    files.sync_directory(generation)
    files.sync_directory(directory)
    temporary = os.path.join(directory, CURRENT_FILE + ".new")
    file = files.open(temporary, create=True)
    try:
        file.truncate(0)
        file.write_at(0, (os.path.basename(generation) + "\n").encode("ascii"))
        file.sync()
    finally:
        file.close()
    files.rename(temporary, os.path.join(directory, CURRENT_FILE))
    files.sync_directory(directory)


def remove_others(files: Files, directory: str) -> None:
    """Empty all generations but the current one: those before, and one that never became it."""
    keep = current(files, directory)
    for name in files.list_directory(directory):
        path = os.path.join(directory, name)
        if _NAME.fullmatch(name) and path != keep:
            clear(files, path)


def clear(files: Files, generation: str) -> None:
    """Remove the files of a generation, durably before anything is put there again."""
    names = files.list_directory(generation)
    for name in names:
        files.remove(os.path.join(generation, name))
    if names:
        files.sync_directory(generation)
