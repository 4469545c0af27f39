"""Free pages given back: the file is shorter, and nothing else is different."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.errors import Error, NotSupportedError
from raftdb.machine import PAGE_BYTES
from raftdb.machine.generations import current
from raftdb.node.vacuum import Vacuum
from raftdb.ops.vacuum import NodeVacuum, vacuum_nodes
from tests.machine.support import FILES, Database, raw_connection, replay
from tests.machine.transactions import Transaction, committed
from tests.node.fakes import HandLoop

ROWS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    " INSERT INTO {} SELECT {}hex(randomblob(200)) FROM n"
)


@pytest.fixture
def holey(database: Database) -> Database:
    """More than half of its pages are free, and what stays lies at the end."""
    database.run(
        "CREATE TABLE gone(a)",
        "CREATE TABLE stays(a)",
        "CREATE TABLE keyed(i PRIMARY KEY, a) WITHOUT ROWID",
        "CREATE INDEX by_a ON stays(a)",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
    )
    database.run(ROWS.format("gone", ""))
    database.run(ROWS.format("stays", ""), ROWS.format("keyed", "i, "))
    database.run("INSERT INTO f SELECT substr(a, 1, 20) FROM stays")
    # Row ids with holes, of a table that has no key of its own.
    database.run("DELETE FROM stays WHERE rowid % 3 = 0", "DROP TABLE gone")
    database.machine.checkpoint()
    return database


def file_of(database: Database) -> str:
    return f"{current(FILES, database.directory)}/database.sqlite"


def test_only_the_file_is_different(holey: Database, tmp_path: Path) -> None:
    content = holey.machine.content_hash()
    rows = holey.rows("SELECT rowid, a FROM stays ORDER BY rowid")
    before = os.path.getsize(file_of(holey))
    stream = holey.machine.open_stream()
    transaction = Transaction(holey)
    transaction.run("INSERT INTO stays VALUES ('in between')")
    given_back = 0
    while True:
        done = holey.machine.vacuum(64)
        given_back += done.given_back
        assert done.given_back <= 64
        # Requests, queries and an open transaction go on between the steps.
        holey.run("INSERT INTO keyed VALUES (hex(randomblob(9)), 1)")
        assert holey.rows("SELECT count(*) FROM stays") == [(2_000,)]
        if not done.free:
            break
    assert given_back > 200
    assert transaction.rows("SELECT count(*) FROM stays") == [(2_001,)]
    assert committed(transaction.commit())
    stream.close()
    holey.machine.checkpoint()
    assert os.path.getsize(file_of(holey)) < before * 3 / 4
    assert holey.rows("SELECT rowid, a FROM stays WHERE a <> 'in between' ORDER BY 1") == rows
    assert holey.rows("PRAGMA integrity_check") == [("ok",)]
    holey.check_hash()
    assert holey.machine.content_hash().tables["f_data"] == content.tables["f_data"]
    # A replica that never did it holds the same, and row ids go on alike.
    holey.run("INSERT INTO stays VALUES ('next')", "CREATE TABLE fresh(a)", "DROP TABLE keyed")
    other = replay(tmp_path / "other", holey.entries)
    assert other.content_hash() == holey.machine.content_hash()
    other.close()
    holey.restart()
    holey.check_hash()


def test_a_database_without_room_for_it_says_so(holey: Database) -> None:
    assert holey.machine.vacuum(10_000).free == 0
    connection = raw_connection(file_of(holey))
    holey.machine.close()
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.close()
    holey.machine = holey.open()
    holey.run("DROP TABLE stays")
    assert not holey.machine.vacuum(1).possible
    [report] = vacuum_nodes({"n1": "h1"}, lambda _address: Asked(holey), lambda _report: None)
    assert "founded" in report.problem


class Asked:
    """A connection to one node: its Vacuum, on a loop run by hand."""

    def __init__(self, database: Database, refused: Error | None = None) -> None:
        self.loop = HandLoop()
        ports: Any = SimpleNamespace(clock=self.loop, executor=self.loop)
        self.vacuum = Vacuum(database.machine, ports, lambda **_local: refused)

    def ask(self, what: str, *, anywhere: bool, timeout: float) -> Any:
        assert (what, anywhere) == ("vacuum", True)
        answers: list[Any] = []
        self.vacuum.ask({}, timeout, lambda answer, error: answers.append((answer, error)))
        self.loop.run()
        [(answer, error)] = answers
        if error is not None:
            raise error
        return answer.body

    def close(self) -> None:
        pass


def test_one_node_after_the_other_until_nothing_is_free(holey: Database) -> None:
    before = os.path.getsize(file_of(holey))
    told: list[NodeVacuum] = []
    refused = NotSupportedError("not here")
    nodes = {"h1": Asked(holey), "h2": Asked(holey, refused), "h3": Asked(holey)}
    members = {"n1": "h1", "n2": "h2", "n3": "h3"}
    first, second, third = vacuum_nodes(members, nodes.__getitem__, told.append)
    assert first.given_back_bytes > 200 * PAGE_BYTES
    assert (first.free_bytes, first.problem) == (0, "")
    assert first.file_bytes == os.path.getsize(file_of(holey))
    assert first.file_bytes == before - first.given_back_bytes
    assert second.problem == "not here"
    assert (third.given_back_bytes, third.file_bytes) == (0, first.file_bytes)
    assert [one.node_id for one in told] == ["n1", "n2", "n3"]
    assert "checkpoint" in nodes["h1"].loop.lanes
