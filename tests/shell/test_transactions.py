"""BEGIN … COMMIT, and what the connection is told besides statements."""

from __future__ import annotations

from pathlib import Path

from raftdb.base.errors import UNKNOWN, UnavailableError
from raftdb.base.exits import ExitCode
from tests.shell.conftest import Bench


def test_statements_of_a_transaction_are_executed_at_once(bench: Bench) -> None:
    bench.settings.style.format = "csv"
    out = bench.run(
        "CREATE TABLE t (a);\nBEGIN IMMEDIATE;\nINSERT INTO t VALUES (1);\n"
        "INSERT INTO t VALUES (2) RETURNING a;\nSELECT sum(a) AS s FROM t;\nEND TRANSACTION;\n"
        "SELECT count(*) AS n FROM t;"
    )
    assert out == "a\r\n2\r\ns\r\n3\r\nn\r\n2\r\n"
    # A transaction reads its own snapshot: no read level is asked for.
    assert bench.connection.levels == ["linearizable", *[None] * 5, "linearizable"]


def test_rollback_and_savepoints(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (a);\nBEGIN;\nINSERT INTO t VALUES (1);\nSAVEPOINT s;\n"
        "INSERT INTO t VALUES (2);\nROLLBACK TO s;\nRELEASE s;\nCOMMIT;\n"
        "BEGIN;\nDELETE FROM t;\nROLLBACK;\n"
    )
    assert bench.connection.raw.execute("SELECT a FROM t").fetchall() == [(1,)]
    assert bench.shell.exit == ExitCode.OK


def test_what_is_never_committed_is_rolled_back_and_told(bench: Bench) -> None:
    bench.run("BEGIN;\nCREATE TABLE t (a);\n")
    assert "BEGIN without COMMIT: nothing of it was applied" in bench.said
    assert bench.shell.exit == ExitCode.FAILED
    assert not bench.connection.in_transaction
    assert bench.connection.raw.execute("SELECT * FROM sqlite_schema").fetchall() == []


def test_an_error_is_placed_at_its_own_statement_and_nothing_is_applied(bench: Bench) -> None:
    bench.run("CREATE TABLE t (a);\nBEGIN;\nINSERT INTO t VALUES (1);\nnonsense;\nCOMMIT;\n")
    assert "test.sql:4: error [sql]" in bench.said
    assert bench.connection.raw.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_transaction_may_span_scripts(bench: Bench, tmp_path: Path) -> None:
    inner = tmp_path / "inner.sql"
    inner.write_text("CREATE TABLE t (a);")
    bench.run(f"BEGIN;\n.read {inner}\nCOMMIT;")
    assert bench.connection.raw.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert bench.said == ""


def test_an_unknown_outcome_can_be_resumed(bench: Bench) -> None:
    bench.run(".resume")
    assert "no write whose outcome is unknown" in bench.said
    bench.connection.fail_next = UnavailableError("lost", outcome=UNKNOWN)
    bench.run("CREATE TABLE t (a);")
    bench.connection.unsettled = True
    assert "|   1 |" in bench.run(".resume")
    assert "settled" in bench.said
    assert bench.shell.exit == ExitCode.USAGE
