"""The slow scrub of the content: real machines, a loop run by hand, rows changed behind SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.config import ScrubConfig
from raftdb.base.errors import ConfigError, FatalError
from raftdb.machine.generations import current
from raftdb.node import ContentScrub
from raftdb.node.comparison import AGREES, QUARANTINED
from raftdb.node.scrub_content import CHUNK_ROWS, FIRST_S, WAL_GROWN_BYTES
from tests.machine.support import FILES, Database, raw_connection
from tests.node.fakes import HandLoop
from tests.node.test_comparison import Member, Recorder, Trio

SCHEMA = (
    "CREATE TABLE a(id INTEGER PRIMARY KEY, t)",
    "CREATE TABLE b(k PRIMARY KEY, v REAL, g AS (k || '!')) WITHOUT ROWID",
    "CREATE TABLE c(x, y AS (x + 1))",
    "CREATE VIRTUAL TABLE f USING fts5(t)",
    "CREATE INDEX a_t ON a(t)",
)
MANY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    " INSERT INTO a SELECT i, 'row ' || i FROM n"
)


class Slow(HandLoop):
    """Each piece of work takes a millisecond."""

    def submit(self, lane: str, work: Any, done: Any) -> None:
        def timed() -> Any:
            self.now_s += 0.001
            return work()

        super().submit(lane, timed, done)


class Node:
    """A database and its scrub."""

    def __init__(self, path: Path, every_s: float = 3600.0) -> None:
        self.database = Database(path)
        self.loop = Slow()
        self.log = Recorder()
        self.wal_bytes = 0
        self.wrong: list[str] = []
        ports: Any = SimpleNamespace(clock=self.loop, executor=self.loop, log=self.log)
        machine: Any = SimpleNamespace(
            open_scan=self.database.machine.open_scan, wal_bytes=lambda: self.wal_bytes
        )
        self.scrub = ContentScrub(machine, self.wrong.append, ports, every_s, 0.1)
        self.scrub.start()

    @property
    def last(self) -> Any:
        return self.scrub.facts()["last"]

    def close(self) -> None:
        self.scrub.stop()
        self.loop.run()
        self.database.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "database")
    made.database.run(*SCHEMA, MANY.format(2_300))
    made.database.run("INSERT INTO b VALUES (1, 2), ('x', 5.5)", "INSERT INTO f VALUES ('hi you')")
    made.database.run("INSERT INTO c VALUES (1), (NULL)")
    yield made
    made.close()


def behind(database: Database, sql: str) -> None:
    """Change the file as nothing that is logged would."""
    generation = current(FILES, database.directory)
    connection = raw_connection(f"{generation}/database.sqlite")
    connection.execute(sql)
    connection.close()


def test_rows_add_up_and_take_their_share_of_the_time(node: Node) -> None:
    node.loop.pass_time(FIRST_S - 1)
    assert node.last is None
    node.loop.pass_time(20)
    assert node.last["result"] == "equal"
    assert (2_300 < node.last["rows"] < 2_400, node.last["tables"]) == (True, 8)
    assert (node.last["indexes"], node.last["skipped"]) == (1, [])
    assert node.wrong == []
    # 2,300 rows are five pieces of 1 ms, and nine more each of pause.
    pieces = node.loop.lanes.count("scrub")
    assert pieces >= 9 * 2 + 8
    assert node.last["seconds"] > 0.009 * (2_300 // CHUNK_ROWS + 8)
    assert node.scrub.facts()["table"] == ""
    # Once more an hour later, with other content, on the same scan.
    node.database.run("DELETE FROM a WHERE id % 2", "DROP TABLE c")
    node.loop.pass_time(3_600)
    assert (node.last["result"], node.last["tables"]) == ("equal", 7)
    assert len(node.log.named("scrub_equal")) == 2


@pytest.mark.parametrize(
    ("table", "sql"),
    [
        ("a", "UPDATE a SET t = 'rom 7' WHERE id = 7"),
        ("a", "DELETE FROM a WHERE id = 2299"),
        ("a", "UPDATE a SET t = CAST(x'ff' AS TEXT) WHERE id = 7"),
        ("b", "UPDATE b SET v = 5.25 WHERE k = 'x'"),
        ("c", "INSERT INTO c VALUES (9)"),
        ("f_content", "UPDATE f_content SET c0 = 'hi me'"),
    ],
)
def test_what_changed_behind_sqlite_is_found(node: Node, table: str, sql: str) -> None:
    behind(node.database, sql)
    node.loop.pass_time(FIRST_S + 20)
    assert len(node.wrong) == 1
    assert f"table {table} " in node.wrong[0]
    assert (node.last["result"], node.last["table"]) == ("differs", table)


def test_a_block_of_zeros_that_no_checksum_tells_is_found(node: Node) -> None:
    """The checksum of a page of zeros is zero, and the last page of a long value ends with it."""
    node.database.run(("INSERT INTO c VALUES (?)", ("lost " * 1500,)))
    node.database.machine.checkpoint()
    # The write-ahead log begins again: the page is in the file alone.
    node.database.run("INSERT INTO b VALUES (3, 3)")
    path = Path(f"{current(FILES, node.database.directory)}/database.sqlite")
    data = path.read_bytes()
    pages = [data[place : place + 4096] for place in range(0, len(data), 4096)]
    [number] = [n for n, page in enumerate(pages) if page[:4] == bytes(4) and b"lost lost" in page]
    with path.open("r+b") as file:
        file.seek(number * 4096)
        file.write(bytes(4096))
    node.loop.pass_time(FIRST_S + 20)
    [wrong] = node.wrong
    assert "table c " in wrong


def test_an_index_that_says_something_else_is_found(node: Node) -> None:
    behind(node.database, "UPDATE a SET t = 'rom 7' WHERE id = 7")
    generation = current(FILES, node.database.directory)
    file = raw_connection(f"{generation}/database.sqlite")
    [(text, root)] = file.execute("SELECT sql, rootpage FROM sqlite_schema WHERE name = 'a_t'")
    file.execute("PRAGMA writable_schema = ON")
    file.execute("DELETE FROM sqlite_schema WHERE name = 'a_t'")
    file.execute("PRAGMA writable_schema = RESET")
    file.execute("UPDATE a SET t = 'row 7' WHERE id = 7")
    file.execute("PRAGMA writable_schema = ON")
    file.execute("INSERT INTO sqlite_schema VALUES ('index', 'a_t', 'a', ?, ?)", (root, text))
    file.close()
    node.loop.pass_time(FIRST_S + 20)
    assert len(node.wrong) == 1
    assert "index a_t of table a " in node.wrong[0]
    found = (node.last["result"], node.last["table"], node.last["index"])
    assert found == ("differs", "a", "a_t")
    [fields] = node.log.named("scrub_differs")
    assert fields["index"] == "a_t"


def test_writers_come_first(node: Node) -> None:
    """The write-ahead log may grow by so much and no more: then the table waits for another pass,
    and before that the scan hurries."""
    node.loop.pass_time(FIRST_S - 1)
    while node.scrub.facts()["table"] != "a" or node.scrub.facts()["rows"] < CHUNK_ROWS:
        node.loop.pass_time(0.001)
    node.wal_bytes = WAL_GROWN_BYTES * 3 // 5
    before_s = node.loop.now_s
    while node.scrub.facts()["rows"] < 3 * CHUNK_ROWS:
        node.loop.pass_time(0.001)
    assert node.loop.now_s - before_s < 0.02, "as fast as it can"
    node.wal_bytes = WAL_GROWN_BYTES * 2
    node.loop.pass_time(20)
    assert (node.last["result"], node.last["skipped"]) == ("incomplete", ["a"])
    assert node.log.named("scrub_incomplete")
    # It holds no snapshot: a checkpoint is complete.
    assert node.database.machine.checkpoint() == node.database.machine.applied()[0]
    node.loop.pass_time(3_600)
    assert node.last["result"] == "equal"


def test_an_index_that_cannot_be_compared_is_named(node: Node) -> None:
    node.database.run("CREATE TABLE h(rowid, oid, _rowid_)", "CREATE INDEX h_oid ON h(oid)")
    node.database.run("INSERT INTO h VALUES (1, 2, 3)")
    node.loop.pass_time(FIRST_S + 60)
    assert (node.last["result"], node.last["skipped"]) == ("equal", [])
    assert node.last["not_compared"] == ["h index h_oid"]
    assert [one["indexes"] for one in node.log.named("scrub_not_compared")] == ["h index h_oid"]
    # Once it is gone, it is missed by nobody.
    node.database.run("DROP INDEX h_oid")
    node.loop.pass_time(3_600)
    assert node.last["not_compared"] == []


def test_it_ends_when_the_node_does_and_never_begins_if_told_so(tmp_path: Path) -> None:
    node = Node(tmp_path / "one")
    node.database.run(*SCHEMA, MANY.format(3_000))
    node.scrub.begin()
    node.loop.step()
    node.close()
    assert node.last is None
    off = Node(tmp_path / "two", every_s=0.0)
    off.loop.pass_time(10 * 86_400)
    assert off.loop.lanes == []
    off.close()
    with pytest.raises(ConfigError, match="content_share_percent"):
        ScrubConfig(content_share_percent=0)
    with pytest.raises(ConfigError, match="content_hours"):
        ScrubConfig(content_hours=-1)


def test_a_page_that_does_not_read_stops_the_node(node: Node) -> None:
    class Damaged:
        rows = 0

        def __getattr__(self, _name: str) -> Any:
            raise FatalError("a page", code="page_damaged")

    node.scrub._scan = Damaged()
    with pytest.raises(FatalError):
        node.loop.pass_time(FIRST_S + 1)


def test_such_a_node_answers_nobody_until_it_has_another_database(tmp_path: Path) -> None:
    """Its digests agree with those of the others: that is no reason to serve again."""
    trio = Trio(tmp_path)
    trio.write("CREATE TABLE t(a)")
    wrong: Member = trio.members["n2"]
    wrong.comparison.quarantine("the rows of table t in this node's file are not what was written")
    assert not wrong.serves
    for _life in range(2):
        trio.write("INSERT INTO t VALUES (1)")
        trio.loop.pass_time(3)
        assert trio.states() == [AGREES, QUARANTINED, AGREES]
        refused = wrong.comparison.refusal(local=True)
        assert refused is not None
        assert "table t" in refused.message
        wrong.comparison.stop()
        wrong.comparison = wrong.make()
        wrong.comparison.start()
    wrong.comparison.stop()
    # A copy of another member's database stands in its place.
    machine: Any = wrong.database.machine
    machine._copied = (machine.applied()[0], 1)
    wrong.comparison = wrong.make()
    wrong.comparison.start()
    trio.write("INSERT INTO t VALUES (2)")
    trio.loop.pass_time(3)
    assert trio.states() == [AGREES] * 3
    assert not (wrong.path / "quarantine.json").exists()
    for member in trio.members.values():
        member.comparison.stop()
        member.database.close()
