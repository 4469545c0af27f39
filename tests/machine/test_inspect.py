"""Looking into a stopped database, and comparing how nodes compute."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from raftdb.base.errors import ConfigError, ProtocolError
from raftdb.machine import Fingerprint, arithmetic_sample, fingerprint, inspect_database
from raftdb.machine.fingerprint import _ARITHMETIC, _SAMPLE
from tests.machine.support import FILES, HISTORY, START_MS, Database, raw_connection


@pytest.fixture
def stopped(database: Database) -> Database:
    database.run("CREATE TABLE t(a)", "CREATE TABLE u(a)", "INSERT INTO t VALUES (1), (2)")
    database.run("CREATE VIRTUAL TABLE f USING fts5(x)")
    database.machine.close()
    return database


def test_report(stopped: Database) -> None:
    report = inspect_database(stopped.directory, files=FILES)
    assert (report.history, report.index, report.term, report.position) == (HISTORY, 3, 1, 0)
    assert report.time_ms == START_MS + 3000
    assert report.content_matches is True
    assert report.integrity == ()
    [session] = report.sessions
    assert (session.number, session.label, session.sequence) == (stopped.session, "test", 2)
    assert session.idle_ms == 0
    assert {table.name: table.rows for table in report.tables if table.name in "tu"} == {
        "t": 2,
        "u": 0,
    }
    assert "f_data" in {table.name for table in report.tables}
    assert report.page_bytes == 4096
    assert report.database_bytes > 0
    assert report.wal_bytes > 0
    quick = inspect_database(stopped.directory, files=FILES, full=False)
    assert quick.content_matches is None
    assert quick.content == report.content
    assert {table.rows for table in quick.tables} == {-1}
    stopped.machine = stopped.open()
    assert stopped.machine.content_hash() == report.content


def test_damage_is_reported(stopped: Database) -> None:
    path = Path(stopped.directory) / "generation-000001" / "database.sqlite"
    raw = raw_connection(path)
    raw.execute("UPDATE t SET a = 5; PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    [(page,)] = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'u'")
    raw.close()
    assert inspect_database(stopped.directory, files=FILES).content_matches is False
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    report = inspect_database(stopped.directory, files=FILES)
    assert report.content_matches is False
    assert report.integrity
    path.write_bytes(b"\xa5" * 4096)
    with pytest.raises(ConfigError):
        inspect_database(stopped.directory, files=FILES)
    with pytest.raises(ConfigError, match="has no database"):
        inspect_database(str(path.parent), files=FILES)
    path.write_bytes(data)


def test_fingerprints() -> None:
    mine = fingerprint()
    assert mine == fingerprint()
    assert mine.sqlite_version == apsw.sqlite_lib_version()
    assert Fingerprint.from_wire(mine.to_wire()) == mine
    assert mine.differences(mine) == []
    other = replace(mine, arithmetic="0" * 32)
    assert other.to_bytes() != mine.to_bytes()
    [difference] = mine.differences(other)
    assert "arithmetic" in difference
    with pytest.raises(ProtocolError):
        Fingerprint.from_wire({"format_version": "x"})


def test_a_sample_sees_what_differs_in_one_result_of_many() -> None:
    """The sine of one processor in a thousand arguments: with and without fused multiplication."""
    connection = apsw.Connection(":memory:")
    rows = list(connection.execute(_SAMPLE))
    assert len(rows) == 2_000
    assert all(isinstance(value, float | str) for row in rows for value in row)
    assert len({row[0] for row in rows}) > 1_990
    assert len(arithmetic_sample()) == 32
    seen: list[float] = []

    def other(x: float) -> float:
        seen.append(x)
        return math.nextafter(math.sin(x), 2) if len(seen) == 1_234 else math.sin(x)

    connection.create_scalar_function("sin", other, 1, deterministic=True)
    changed = list(connection.execute(_SAMPLE))
    assert [n for n, row in enumerate(changed) if row != rows[n]] == [1_233]


def test_the_arithmetic_of_this_build_on_this_kind_of_machine() -> None:
    """Changes when the pinned build or the C library computes differently: then nodes of both kinds
    must not meet, and this line needs a look."""
    lines = [text for (text,) in apsw.Connection(":memory:").execute(_ARITHMETIC)]
    assert len(lines) == 3
    assert all(isinstance(line, str) and line for line in lines)
    assert lines[0].startswith("0.1 0.09983341664682815")
    assert lines[2] == "1.7976931348623157e+308 4.9406564584124654e-324 0.0 Inf"
