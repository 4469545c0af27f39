"""A look into the database of a stopped node: what it holds, and whether it is sound."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import apsw

from raftdb.base.errors import ConfigError
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.ports import Files
from raftdb.machine import generations, stored
from raftdb.machine.connections import open_reader
from raftdb.machine.format import DATABASE_FILE, MARK, PREFIX
from raftdb.machine.layout import Run, quote
from raftdb.machine.pages import open_vfs
from raftdb.machine.rowhash import ContentHash
from raftdb.machine.stored import run_on

_PROBLEMS_MAX = 20


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One open session."""

    number: int
    label: str
    sequence: int
    """Of the last request that was applied."""
    floor: int
    opened_ms: int
    """Logged time, in Unix milliseconds."""
    idle_ms: int
    """Session time since its last request."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table that holds rows (storage of virtual tables included)."""

    name: str
    rows: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """What a database directory holds."""

    path: str
    history: HistoryId
    index: Index
    """The last entry that is applied completely."""
    term: Term
    position: int
    """Requests of the entry after it that are applied already."""
    time_ms: int
    """Logged time, in Unix milliseconds."""
    content: ContentHash
    """As it was kept incrementally."""
    content_matches: bool | None
    """Whether the hash recomputed from all rows is equal; None when that was not asked for."""
    integrity: tuple[str, ...]
    """What SQLite's integrity_check found; empty when all is well, or when it was not asked for."""
    sessions: tuple[SessionReport, ...]
    tables: tuple[TableReport, ...]
    page_bytes: int
    database_bytes: int
    wal_bytes: int
    configuration: tuple[int, bytes] | None = None
    """The members, as consensus encodes them, and the entry that brought them."""


def inspect_database(directory: str, *, files: Files, full: bool = True) -> DatabaseReport:
    """Look into the current generation, changing nothing in it. `full` reads every page and row:
    integrity, the hash recomputed, rows counted (otherwise -1).

    Raises ConfigError when there is no database of raftdb, or none that can be read at all.
    """
    generation = generations.current(files, directory)
    if generation is None:
        raise ConfigError(f"{directory} has no database", code="database_missing")
    path = os.path.join(generation, DATABASE_FILE)
    try:
        connection = open_reader(path, open_vfs("").name)
        try:
            connection.execute(f"BEGIN {MARK}")
            return _report(run_on(connection), path, files, full)
        finally:
            connection.close(True)
    except apsw.Error as error:
        raise ConfigError(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            code="database_corrupt",
            hint="the file is damaged: replace this node by a new member",
        ) from error


def _report(run: Run, path: str, files: Files, full: bool) -> DatabaseReport:
    meta = stored.read_meta(run, path)
    progress = stored.read_progress(run)
    content = stored.stored_hash(run, meta.hash_key)
    [(page_bytes,)] = run(f"PRAGMA page_size {MARK}")
    return DatabaseReport(
        path=path,
        history=meta.history,
        index=progress.index,
        term=progress.term,
        position=progress.position,
        time_ms=progress.time_ms,
        content=content,
        content_matches=_matches(run, meta, content) if full else None,
        integrity=_integrity(run) if full else (),
        sessions=tuple(_sessions(run, progress.session_ms)),
        tables=tuple(
            TableReport(name, _count(run, name) if full else -1, total)
            for name, total in content.tables.items()
        ),
        page_bytes=page_bytes,
        database_bytes=stored.size_bytes(run),
        wal_bytes=_size(files, path + "-wal"),
        configuration=stored.read_configuration(run),
    )


def _matches(run: Run, meta: stored.Meta, content: ContentHash) -> bool:
    try:
        return stored.recomputed_hash(run, meta.hash_key) == content
    except (apsw.Error, UnicodeError):
        return False


def _integrity(run: Run) -> tuple[str, ...]:
    try:
        rows = [str(text) for (text,) in run(f"PRAGMA integrity_check({_PROBLEMS_MAX}) {MARK}")]
    except apsw.Error as error:
        return (f"{type(error).__name__}: {error}",)
    return () if rows == ["ok"] else tuple(rows)


def _count(run: Run, table: str) -> int:
    try:
        [(count,)] = run(f"SELECT count(*) FROM main.{quote(table)} {MARK}")
    except apsw.Error:
        return -1
    return int(count)


def _sessions(run: Run, session_ms: int) -> list[SessionReport]:
    rows: Any = run(
        "SELECT number, label, sequence, floor, opened_ms, ? - used_ms"
        f" FROM {PREFIX}session ORDER BY number {MARK}",
        (session_ms,),
    )
    return [SessionReport(*row) for row in rows]


def _size(files: Files, path: str) -> int:
    if not files.exists(path):
        return 0
    file = files.open(path)
    try:
        return file.size()
    finally:
        file.close()
