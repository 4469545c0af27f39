"""BEGIN … COMMIT, and what the connection is told besides statements."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.base.errors import UNKNOWN, UnavailableError
from raftdb.base.exits import ExitCode
from raftdb.shell.shell import STATEMENTS_MAX
from tests.shell.conftest import Bench


def test_a_transaction_is_one_request_at_its_commit(bench: Bench) -> None:
    bench.settings.style.format = "csv"
    out = bench.run(
        "CREATE TABLE t (a);\nBEGIN IMMEDIATE;\nINSERT INTO t VALUES (1);\n"
        "INSERT INTO t VALUES (2) RETURNING a;\nEND TRANSACTION;\nSELECT count(*) AS n FROM t;"
    )
    assert out == "a\r\n2\r\nn\r\n2\r\n"
    assert bench.connection.batches == [
        ["INSERT INTO t VALUES (1);", "INSERT INTO t VALUES (2) RETURNING a;"]
    ]


def test_rollback_sends_nothing(bench: Bench) -> None:
    bench.run("BEGIN;\nCREATE TABLE t (a);\nROLLBACK;\nBEGIN;COMMIT;")
    assert bench.connection.batches == []
    assert bench.run(".tables") == bench.run(".tables nothing")
    assert bench.shell.exit == ExitCode.OK


def test_an_error_is_placed_at_its_own_statement(bench: Bench) -> None:
    bench.run("CREATE TABLE t (a);\nBEGIN;\nINSERT INTO t VALUES (1);\nnonsense;\nCOMMIT;\n")
    assert "test.sql:4: error [sql]" in bench.said
    assert bench.connection.raw.execute("SELECT count(*) FROM t").fetchone() == (0,)
    assert bench.shell.gathered is None


def test_what_is_never_committed_is_never_sent(bench: Bench) -> None:
    bench.run("BEGIN;\nCREATE TABLE t (a);\n")
    assert "BEGIN without COMMIT: 1 statements were not sent" in bench.said
    assert bench.shell.exit == ExitCode.FAILED
    assert bench.connection.batches == []


def test_a_transaction_may_span_scripts(bench: Bench, tmp_path: Path) -> None:
    inner = tmp_path / "inner.sql"
    inner.write_text("CREATE TABLE t (a);")
    bench.run(f"BEGIN;\n.read {inner}\nCOMMIT;")
    assert bench.connection.batches == [["CREATE TABLE t (a);"]]
    assert bench.said == ""


@pytest.mark.parametrize("verb", ["SAVEPOINT a", "RELEASE a", "ROLLBACK TO a", "BEGIN"])
def test_what_cannot_be_kept_is_refused(bench: Bench, verb: str) -> None:
    bench.run(f"BEGIN;\n{verb};\nCOMMIT;")
    assert "error [" in bench.said
    assert bench.shell.exit == ExitCode.FAILED


def test_a_transaction_is_bounded(bench: Bench) -> None:
    bench.run("BEGIN;\n" + "SELECT 1;\n" * (STATEMENTS_MAX + 1) + "COMMIT;")
    assert f"more than {STATEMENTS_MAX} statements" in bench.said


def test_foreign_keys_are_a_setting_of_the_connection(bench: Bench) -> None:
    bench.run("PRAGMA foreign_keys = ON;")
    assert bench.connection.foreign_keys is True
    bench.run("-- as in a dump\npragma foreign_keys=off;\n")
    assert bench.connection.foreign_keys is False
    assert bench.connection.levels == []


def test_an_unknown_outcome_can_be_resumed(bench: Bench) -> None:
    bench.run(".resume")
    assert "no write whose outcome is unknown" in bench.said
    bench.connection.fail_next = UnavailableError("lost", outcome=UNKNOWN)
    bench.run("CREATE TABLE t (a);")
    bench.connection.unsettled = True
    assert "|   1 |" in bench.run(".resume")
    assert "settled" in bench.said
    assert bench.shell.exit == ExitCode.USAGE
