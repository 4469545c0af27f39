"""What is meant to bring a cluster down: a clear error or the right answer, the same content on all
nodes, the same leader, and others that are served meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import raftdb
from raftdb.base.errors import Error
from raftdb.ops.found import found_local
from tests.embedded.conftest import Members

MIB = 1 << 20
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
BILLION = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000) "
TRIAL_MS = 1_500


def values(count: int) -> str:
    return f"SELECT count(*) FROM (VALUES {','.join(['(?)'] * count)})"


HOSTILE: dict[str, tuple[str, tuple[Any, ...], str | int]] = {
    # name: statement, parameters, code of the error or the value
    "cross join of millions": ("SELECT count(*) FROM big a, big b, big c", (), "too_long"),
    "a billion groups": (f"{BILLION} SELECT count(*) FROM n GROUP BY i", (), "too_long"),
    "blob of 100 MB": ("SELECT ?", (b"x" * (100 * MIB),), "too_large"),
    "blob above the limit": ("SELECT ?", (b"x" * (16 * MIB + 1),), "value_too_large"),
    "most parameters": (values(32_766), tuple(range(32_766)), 32_766),
    "one parameter more": (values(32_767), tuple(range(32_767)), "too_many_parameters"),
    "two parameters more": (values(32_768), tuple(range(32_768)), "too_many_parameters"),
    "longest statement": (f"SELECT 7 --{'x' * (MIB - 11)}", (), 7),
    "one byte more": (f"SELECT 7 --{'x' * (MIB - 10)}", (), "sql_too_long"),
    "deep parentheses": (f"SELECT {'(' * 5_000}1{')' * 5_000}", (), "sql"),
    "deep NOT": (f"SELECT {'NOT ' * 100_000}1", (), "sql"),
    "deep subqueries": (f"{'SELECT * FROM (' * 2_000}SELECT 1{')' * 2_000}", (), "sql"),
    "deep JSON": ("SELECT json(?)", ("[" * 100_000 + "]" * 100_000,), "sql"),
    "huge LIKE": ("SELECT 'x' LIKE ?", ("%a" * 100_000,), "sql"),
    "huge GLOB": ("SELECT 'x' GLOB ?", ("*a" * 100_000,), "sql"),
    "zeroblob(2^31)": ("SELECT zeroblob(2147483648)", (), "too_big"),
    "randomblob(2^31 - 1)": ("SELECT length(randomblob(2147483647))", (), "too_big"),
    "printf('%*d')": ("SELECT printf('%*d', 2147483647, 1)", (), "too_big"),
    "printf of 4 MB": ("SELECT length(printf('%*d', 4000000, 1))", (), 4_000_000),
    "a million elements": (
        "SELECT sum(value) FROM json_each(?)",
        (f"[{','.join(['1'] * 1_000_000)}]",),
        1_000_000,
    ),
    "501 terms": (" UNION ALL ".join(["SELECT 1"] * 501), (), "sql"),
    "1,001 arguments": (f"SELECT max({','.join(['1'] * 1_001)})", (), "sql"),
}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """Impatient with statements, patient with each other: three nodes share one interpreter."""
    directory = tmp_path_factory.mktemp("hostile") / "cluster"
    founded = found_local(directory)
    nodes = {}
    for one in founded.members:
        path = directory / one.node_id / "raftdb.toml"
        text = path.read_text()
        limits = f"\n[limits]\nwrite_ms_max = {TRIAL_MS}\nfetch_bytes_max = 100000\n"
        timing = "\n[timing]\nelection_min_ms = 3000.0\nelection_max_ms = 4500.0\n"
        timing += "leader_timeout_ms = 4500.0\n"
        path.write_text(text.replace("\n[limits]\n", limits).replace("\n[timing]\n", timing))
        nodes[str(one.node_id)] = raftdb.Node(path).start()
    found = Members(directory, founded, nodes)
    yield found
    for node in nodes.values():
        node.stop()


@pytest.fixture
def db(members: Members) -> Iterator[raftdb.Connection]:
    """A client of the leader over the network, and what must be true afterwards."""
    with raftdb.connect(members.founded.url, timeout=30.0) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
        connection.execute("CREATE TABLE IF NOT EXISTS others (a)")
        connection.execute("CREATE TABLE IF NOT EXISTS big (a)")
        connection.execute("DELETE FROM big")
        connection.executemany("INSERT INTO big VALUES (?)", [(n,) for n in range(3_000)])
        term = connection.status()["term"]
        yield connection
        assert connection.status()["term"] == term, "the leader is the same"
        index = connection.content_hash()["index"]
    totals = set()
    for node in members.running():
        with node.connect(read="local") as local:
            totals.add(local.content_hash(index=index, timeout=30.0)["total"])
    assert len(totals) == 1


def code_of(error: Error) -> str:
    """Of what took too long, however that was noticed."""
    assert error.outcome == "not_applied"
    too_long = ("statement_too_long", "deadline", "query_too_long")
    return "too_long" if error.code in too_long else error.code


@pytest.mark.parametrize("kind", ["read", "write"])
def test_each_has_a_clear_answer(db: raftdb.Connection, kind: str) -> None:
    for name, (sql, parameters, expected) in HOSTILE.items():
        if kind == "write" and name in ("longest statement", "one byte more"):
            # As long with another verb as without.
            sql = sql.replace("SELECT 7 --" + "x" * 14, "SELECT 7 --")
        found: Any
        try:
            if kind == "read":
                timeout = 0.3 if expected == "too_long" else 10.0
                [found] = db.execute(sql, parameters, timeout=timeout).fetchone() or [None]
            else:
                db.execute(f"INSERT INTO t {sql}", parameters, timeout=20.0)
                [found] = db.execute("SELECT a FROM t ORDER BY rowid DESC LIMIT 1").fetchone()
        except Error as error:
            found = code_of(error)
        assert found == expected, (name, kind)


def test_what_runs_without_an_end_is_in_nobodys_way(
    members: Members, db: raftdb.Connection
) -> None:
    """An endless write, and as many endless reads as there are lanes but one."""
    outcomes: list[str] = []

    def run(sql: str, timeout: float) -> None:
        with raftdb.connect(members.founded.url, timeout=timeout) as other:
            try:
                other.execute(sql).fetchall()
            except Error as error:
                outcomes.append(code_of(error))

    endless_write = f"{ENDLESS} INSERT INTO t SELECT count(*) FROM n"
    endless_read = f"{ENDLESS} SELECT count(*) FROM n"
    threads = [threading.Thread(target=run, args=(endless_write, 60.0))]
    threads += [threading.Thread(target=run, args=(endless_read, 1.5)) for _ in range(3)]
    for thread in threads:
        thread.start()
    served = 0
    while threads[0].is_alive():
        db.execute("INSERT INTO others VALUES (?)", (served,))
        assert db.execute("SELECT max(a) FROM others").fetchone() == (served,)
        served += threads[0].is_alive()
    for thread in threads:
        thread.join(30)
    assert outcomes == ["too_long"] * 4
    assert served > 0, "writes and reads of others, while it ran"


def test_more_rows_than_a_fetch_takes(db: raftdb.Connection) -> None:
    """One row may be longer than a page; no result may be longer than the bound."""
    rows = db.execute("SELECT zeroblob(3000000) FROM big LIMIT 3", stream=True)
    assert [len(row[0]) for row in rows] == [3_000_000] * 3
    with pytest.raises(Error) as caught:
        db.execute("SELECT zeroblob(40000000)").fetchone()
    assert caught.value.code == "result_too_large"
