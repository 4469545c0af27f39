"""The content hash after each request: what the archive records is what the machine would store."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.base.ids import Index, Term
from raftdb.command import encode_request
from tests.machine.support import Database, Entry

STATEMENTS = (
    "CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT, y UNIQUE)",
    "INSERT INTO a(y) VALUES (1), (2), (3)",
    "CREATE TABLE r(x REAL, y AS (x * 2), z)",
    "INSERT INTO r VALUES (1, 'a'), (2, 'b')",
    "UPDATE r SET z = 'c' WHERE x = 1",
    "INSERT INTO a(y) VALUES (9), (1)",
    "INSERT OR ROLLBACK INTO a(y) VALUES (1)",
    "INSERT OR FAIL INTO a(y) VALUES (20), (1)",
    "CREATE VIRTUAL TABLE f USING fts5(t)",
    "INSERT INTO f VALUES ('one two'), ('three')",
    "INSERT INTO a(y) VALUES (30)",
    "ALTER TABLE a ADD COLUMN w REAL DEFAULT 5",
    "UPDATE a SET w = 7 WHERE x = 1",
    "ALTER TABLE a RENAME TO b",
    "DROP TABLE r",
    "DELETE FROM f",
    "CREATE TABLE c AS SELECT * FROM b",
    "INSERT INTO missing VALUES (1)",
    "PRAGMA user_version = 7",
    "ANALYZE",
    "DELETE FROM b",
    "DROP TABLE b",
    "INSERT INTO c VALUES (1, 2, 3)",
)

PLAIN = (
    "CREATE TABLE a(x INTEGER PRIMARY KEY, y UNIQUE)",
    "CREATE TABLE b(x INTEGER PRIMARY KEY, y)",
    "INSERT INTO a(y) VALUES (1)",
    "INSERT INTO a(y) VALUES (2)",
    "INSERT INTO a(y) VALUES (2)",
    "INSERT INTO a(y) VALUES (3)",
    "UPDATE a SET y = y",
    "INSERT INTO b(y) VALUES (1)",
    "INSERT INTO b(y) VALUES (2)",
    "INSERT INTO a(y) VALUES (4)",
    "ALTER TABLE a RENAME TO c",
    "INSERT INTO c(y) VALUES (5)",
    "INSERT INTO c(y) VALUES (6)",
    "INSERT INTO b SELECT x + 10, y FROM c",
    "DROP TABLE b",
    "INSERT INTO c(y) VALUES (7)",
    "CREATE TABLE b(x INTEGER PRIMARY KEY, y)",
    "INSERT INTO b(y) VALUES (1)",
    "INSERT INTO b(y) VALUES (2)",
    "DELETE FROM c",
    "INSERT INTO c(y) VALUES (1)",
)
"""Runs of changes to one table, which are hashed in a way of their own, and what ends them."""


@pytest.mark.parametrize("together", [1, 2, 5, len(STATEMENTS)])
@pytest.mark.parametrize("statements", [STATEMENTS, PLAIN], ids=["all", "plain"])
def test_each_request_has_the_hash_that_the_database_would_store(
    tmp_path: Path, together: int, statements: tuple[str, ...]
) -> None:
    """Once one by one, reading the stored hash after each; then `together` to an entry."""
    single = Database(tmp_path / "single")
    stored: list[bytes] = []
    requests = [single.request(sql) for sql in statements]
    for request in requests:
        single.apply(request)
        stored.append(single.machine.content_hash().total)
    grouped = Database(tmp_path / "grouped")
    recorded: dict[tuple[int, int], bytes] = {}
    times: list[int] = []

    def recorder(time_ms: int, items: object) -> None:
        times.append(time_ms)
        for index, position, total in items:  # type: ignore[attr-defined]
            recorded[index, position] = total

    grouped.machine.record_hashes(recorder)
    payloads = [encode_request(request) for request in requests]
    groups = [payloads[at : at + together] for at in range(0, len(payloads), together)]
    first = grouped.next_index
    entries = [
        Entry(Index(first + number), Term(1), tuple(group)) for number, group in enumerate(groups)
    ]
    grouped.machine.apply(entries)
    flat = [
        recorded[first + number // together, number % together] for number in range(len(stored))
    ]
    assert flat == stored
    assert len(recorded) == len(stored)
    assert times == sorted(times)
    assert grouped.machine.recompute_content_hash().total == stored[-1]
    single.close()
    grouped.close()
