"""Random interleavings of interactive transactions and plain writes, against one SQLite that runs
the committed ones alone, in the order of their commits: same results, same content."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftdb.command import Failed, Results
from tests.machine.support import Database, replay
from tests.machine.transactions import Transaction, committed

SCHEMA = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER UNIQUE CHECK (a < 90), b)",
    "CREATE TABLE c (t REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE log (n INTEGER PRIMARY KEY AUTOINCREMENT, what)",
    "CREATE TRIGGER tr AFTER UPDATE ON t BEGIN INSERT INTO log (what) VALUES (new.id); END",
    "INSERT INTO t VALUES (1, 10, 0), (2, 20, 0), (3, 30, 0)",
)
SMALL = st.integers(1, 5)
STATEMENTS = st.one_of(
    st.just("SELECT sum(a), count(*) FROM t"),
    st.just("SELECT * FROM log"),
    st.just("DELETE FROM c"),
    st.just("CREATE TABLE IF NOT EXISTS n (x)"),
    st.just("INSERT INTO n SELECT count(*) FROM t"),
    st.just("DROP TABLE n"),
    st.sampled_from(["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "SAVEPOINT r", "RELEASE r"]),
    st.builds("SELECT a, b FROM t WHERE id = {}".format, SMALL),
    st.builds("UPDATE t SET a = a + {} WHERE id = {}".format, SMALL, SMALL),
    st.builds("UPDATE t SET b = b + {} WHERE id = {} RETURNING b".format, SMALL, SMALL),
    st.builds("DELETE FROM t WHERE id = {}".format, SMALL),
    st.builds("INSERT INTO c VALUES ({})".format, SMALL),
    st.builds(
        "INSERT OR {} INTO t (id, a, b) VALUES ({}, {} * 10, 1), ({}, {} * 10, 2)".format,
        st.sampled_from(["ABORT", "FAIL", "IGNORE", "REPLACE", "ROLLBACK"]),
        SMALL,
        SMALL,
        SMALL,
        SMALL,
    ),
)
COMMIT, ROLLBACK, PLAIN = "commit", "rollback", "plain"
ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(
            STATEMENTS, STATEMENTS, STATEMENTS, st.sampled_from([COMMIT, COMMIT, ROLLBACK, PLAIN])
        ),
    ),
    max_size=40,
)


@dataclass
class Open:
    """One open transaction, and what its client saw."""

    transaction: Transaction
    seen: list[tuple[str, Any]] = field(default_factory=list)


class Model:
    """The machine, the clients, and the serial SQLite."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = Database(directory / "one")
        self.database.run(*SCHEMA)
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.raw.execute("PRAGMA foreign_keys = ON")
        for sql in SCHEMA:
            self.raw.execute(sql)
        self.open: dict[int, Open] = {}
        self.writes = 0

    def act(self, client: int, action: str) -> None:
        if action == PLAIN:
            self.writes += 1
            self.database.run(f"UPDATE t SET a = a + 1 WHERE id = {1 + self.writes % 3}")
            self.raw.execute(f"UPDATE t SET a = a + 1 WHERE id = {1 + self.writes % 3}")
            return
        if action in (COMMIT, ROLLBACK):
            one = self.open.pop(client, None)
            if one is not None:
                self.finish(one, action)
            return
        one = self.open.get(client)
        if one is None:
            one = self.open[client] = Open(Transaction(self.database))
        reply = one.transaction.step(action)
        one.seen.append((action, _shown(reply)))
        if one.transaction.ended:
            self.open.pop(client).transaction.end()

    def finish(self, one: Open, action: str) -> None:
        if action == ROLLBACK or one.transaction.workspace.keys_are_due():
            one.transaction.end()
        elif not one.transaction.wrote:
            # It saw one state, and that was a committed one: no check is needed, none is made.
            one.transaction.end()
        elif committed(one.transaction.commit()):
            self.check_serial(one)

    def check_serial(self, one: Open) -> None:
        self.raw.execute("BEGIN")
        for sql, seen in one.seen:
            try:
                shown: Any = tuple(self.raw.execute(sql).fetchall())
            except sqlite3.Error as error:
                shown = str(error)
            assert seen == shown, sql
        self.raw.execute("COMMIT")

    def check_content(self) -> None:
        for one in self.open.values():
            one.transaction.end()
        tables = [n for (n,) in self.raw.execute("SELECT name FROM sqlite_schema WHERE sql > ''")]
        for name in tables:
            if name not in ("tr", "sqlite_sequence"):
                rows = self.raw.execute(f"SELECT rowid, * FROM {name}").fetchall()
                assert self.database.rows(f"SELECT rowid, * FROM {name}") == rows
        self.database.check_hash()
        other = replay(self.directory / "two", self.database.entries)
        assert other.content_hash() == self.database.machine.content_hash()
        other.close()

    def close(self) -> None:
        self.raw.close()
        self.database.close()


def _shown(reply: Any) -> Any:
    if isinstance(reply, Failed):
        return reply.error.message
    assert isinstance(reply, Results)
    return reply.statements[0].rows if reply.statements else ()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(ACTIONS)
def test_committed_transactions_are_serial(actions: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(Path(directory))
        try:
            for client, action in actions:
                model.act(client, action)
            model.check_content()
        finally:
            model.close()
