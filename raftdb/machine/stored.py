"""Reads what raftdb stored in a database: used by everything that only looks."""

from __future__ import annotations

import json
from typing import Any

import apsw

from raftdb.base.errors import ConfigError
from raftdb.base.frozen import frozen
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.machine.format import FORMAT_FENCED, FORMAT_VERSION, MARK, PREFIX
from raftdb.machine.layout import Run, read_images, read_layout
from raftdb.machine.rowhash import ContentHash, RowHasher, to_bytes
from raftdb.machine.schemasum import schema_sum, users_objects

PROGRESS = (
    f"UPDATE {PREFIX}applied SET idx = ?, term = ?, position = ?, time_ms = ?,"
    " session_ms = ?, results = ?"
    f" WHERE id = 1 {MARK}"
)


@frozen
class Meta:
    """What never changes in a database."""

    history: HistoryId
    hash_key: bytes
    lineage: tuple[tuple[HistoryId, int], ...] = ()
    """Histories that this one continues, each with the highest number that a session of it has."""


def run_on(connection: apsw.Connection) -> Run:
    """Executes raftdb's own SQL on a connection."""

    def run(sql: str, parameters: tuple[Any, ...] = ()) -> apsw.Cursor:
        return connection.execute(sql, parameters)

    return run


def read_meta(run: Run, path: str) -> Meta:
    """Raises ConfigError when it is not a database of raftdb, or one of a later format."""
    try:
        rows: dict[str, Any] = dict(run(f"SELECT key, value FROM {PREFIX}meta {MARK}"))
    except (apsw.SQLError, apsw.NotADBError) as error:
        raise ConfigError(
            f"{path} is not a database of raftdb: {error}",
            code="not_a_database",
            detail={"file": path},
        ) from error
    version = int(rows["format_version"])
    if version not in (FORMAT_VERSION, FORMAT_FENCED):
        raise ConfigError(
            f"{path} has format {version}, and this release knows {FORMAT_VERSION} and "
            f"{FORMAT_FENCED}",
            code="database_format",
            hint="start it with the release that wrote it",
        )
    lineage = tuple((HistoryId(name), int(last)) for name, last in _lineage(rows, path))
    return Meta(HistoryId(rows["history"]), bytes.fromhex(rows["hash_key"]), lineage)


def _lineage(rows: dict[str, Any], path: str) -> list[Any]:
    try:
        found = json.loads(rows.get("lineage", "[]"))
        return [(name, last) for name, last in found]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} has a damaged lineage: {error}") from error


def write_configuration(run: Run, index: int, body: bytes) -> None:
    """All members of the cluster as of entry `index` (0: the founding list), in the transaction
    that applies it (rule C2)."""
    value = index.to_bytes(8, "big") + body
    run(f"INSERT OR REPLACE INTO {PREFIX}meta VALUES ('configuration', ?) {MARK}", (value,))


def read_configuration(run: Run) -> tuple[int, bytes] | None:
    """(index, body) of the last one that was applied, if there ever was one."""
    rows = list(run(f"SELECT value FROM {PREFIX}meta WHERE key = 'configuration' {MARK}"))
    if not rows:
        return None
    value = bytes(rows[0][0])
    return int.from_bytes(value[:8], "big"), value[8:]


def seed_configuration(connection: apsw.Connection, body: bytes) -> None:
    """Write it, durably, unless there is one."""
    run = run_on(connection)
    if read_configuration(run) is None:
        run(f"PRAGMA synchronous = FULL {MARK}")
        with connection:
            write_configuration(run, 0, body)
        run(f"PRAGMA synchronous = NORMAL {MARK}")


@frozen
class Progress:
    """How far the database is: all of entry `index`, and `position` requests of the next one."""

    index: Index
    term: Term
    position: int
    time_ms: int
    """Logged time: of the last request, in Unix milliseconds. It never runs backwards."""
    session_ms: int
    """Session time: the sum of logged time's steps, each at most SESSION_STEP_MS_MAX."""
    results: bytes
    """The chain over all replies."""


def shown_index(progress: Progress) -> int:
    """The newest entry of which something is there. What was shown must be waited for elsewhere, so
    half of an entry counts as that entry."""
    return progress.index + (1 if progress.position else 0)


def read_progress(run: Run) -> Progress:
    """As of the last commit, or of the transaction that `run` reads in."""
    [(index, term, position, time_ms, session_ms, results)] = run(
        f"SELECT idx, term, position, time_ms, session_ms, results FROM {PREFIX}applied {MARK}"
    )
    return Progress(Index(index), Term(term), position, time_ms, session_ms, results)


def size_bytes(run: Run) -> int:
    """Of the database, as the transaction sees it."""
    [(pages,)] = run(f"PRAGMA page_count {MARK}")
    [(page_bytes,)] = run(f"PRAGMA page_size {MARK}")
    return int(pages) * int(page_bytes)


def stored_hash(run: Run, key: bytes) -> ContentHash:
    """The content hash as it was kept incrementally. Inside a read transaction."""
    parts: dict[str, dict[str, bytes]] = {"t": {}, "s": {}, "q": {}}
    query = f"SELECT kind, name, total FROM {PREFIX}hash ORDER BY name {MARK}"
    for kind, name, total in run(query):
        parts[kind][name] = total
    return _content_hash(run, RowHasher(key), parts["t"], parts["s"][""], parts["q"][""])


def recomputed_hash(run: Run, key: bytes) -> ContentHash:
    """The content hash from the rows themselves: reads everything. Inside a read transaction."""
    hasher = RowHasher(key)
    rows = users_objects(
        run(f"SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema {MARK}")
    )
    schema = to_bytes(schema_sum(hasher, run, rows))
    sequences = to_bytes(0)
    tables: dict[str, bytes] = {}
    for kind, name, _on, root, _sql in sorted(rows, key=lambda row: str(row[1])):
        if kind != "table" or not root:
            continue
        if name == "sqlite_sequence":
            sequences = to_bytes(hasher.sum(run(f"SELECT name, seq FROM sqlite_sequence {MARK}")))
        else:
            images = read_images(run, name, read_layout(run, name))
            tables[name] = to_bytes(hasher.sum(images))
    return _content_hash(run, hasher, tables, schema, sequences)


def _content_hash(
    run: Run, hasher: RowHasher, tables: dict[str, bytes], schema: bytes, sequences: bytes
) -> ContentHash:
    progress = read_progress(run)
    return ContentHash(
        index=progress.index,
        position=progress.position,
        total=hasher.total(tables, schema, sequences),
        tables=tables,
        schema=schema,
        sequences=sequences,
        results=progress.results,
    )


def other_history(path: str, found: HistoryId, wanted: HistoryId) -> ConfigError:
    """The error of a database that belongs elsewhere."""
    return ConfigError(
        f"{path} belongs to history {found}, not {wanted}",
        code="wrong_history",
        hint="the directory is another cluster's, or was restored: check the path",
    )
