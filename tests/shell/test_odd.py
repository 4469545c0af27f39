"""Odd input and odd outputs: nothing but what should ends the shell, and nothing is done unsaid."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TextIO

import pytest

from raftdb.base.exits import ExitCode
from raftdb.ops.positional import load_positional
from raftdb.runtime import RealClock
from raftdb.shell import Hooks, Import, Settings, Shell
from raftdb.shell.formats import unique_names
from raftdb.shell.statements import StatementReader, is_complete
from tests.shell.conftest import Bench
from tests.shell.fake import FakeConnection
from tests.shell.test_prompt import type_in


class Closed(io.StringIO):
    """Who read it has gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_went_away_is_no_failed_statement() -> None:
    connection, messages = FakeConnection(), io.StringIO()
    shell = Shell(connection, Closed(), messages, RealClock(), Settings())
    with pytest.raises(BrokenPipeError):
        shell.run(io.StringIO("SELECT 1;\nCREATE TABLE t (a);"), "-c")
    assert messages.getvalue() == ""
    assert shell.exit == ExitCode.OK
    connection.close()


def test_a_file_that_cannot_take_more_is_named(bench: Bench) -> None:
    bench.settings.bail = False
    bench.run(".output /dev/full\nSELECT 1;\n.output\nSELECT 2;\n.once /dev/full\nSELECT 3;")
    assert "No space left on device: /dev/full" in bench.said
    assert "None" not in bench.said
    assert "| 2 |" in bench.output.getvalue().replace("   ", " ")
    assert bench.shell.exit == ExitCode.USAGE


@pytest.mark.parametrize("odd", ["\0", "\udcff", "a\0b"])
def test_what_is_in_no_statement_of_sqlite_is_an_error_of_that_statement(
    bench: Bench, odd: str
) -> None:
    bench.settings.bail = False
    shown = bench.run(f"SELECT 1;\nSELECT '{odd}';\nSELECT 3 AS three;")
    assert "test.sql:2: error" in bench.said
    assert "three" in shown
    assert not is_complete(f"SELECT '{odd}'")
    assert [one.line for one in StatementReader().feed(f"SELECT '{odd}';")] == [1]


def test_a_script_that_breaks_off_leaves_no_transaction_to_the_next(bench: Bench) -> None:
    bench.settings.bail = False
    bench.run("CREATE TABLE t (a);\nBEGIN; INSERT INTO t VALUES (1);\nSELECT 'never closed")
    assert not bench.connection.in_transaction
    assert "nothing of it was applied" in bench.said
    lines = io.TextIOWrapper(io.BytesIO(b"BEGIN;\nINSERT INTO t VALUES (2);\n\xff"), "utf-8")
    bench.shell.run(lines, "stdin")
    assert not bench.connection.in_transaction
    bench.run("COMMIT;")
    assert bench.connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_an_import_that_is_not_utf8_ends_neither_shell_nor_script(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"a,b\n1,x\n2,\xe9\n")

    def load(_connection: object, wanted: Import, _messages: TextIO) -> None:
        load_positional(
            bench.connection, Path(wanted.file), "t", "csv", 1, RealClock(), bench.shell.say
        )

    bench.run("CREATE TABLE t (a, b);")
    bench.shell.hooks = Hooks(import_file=load)
    type_in(bench, f".import --csv --skip 1 {path} t\rSELECT 77 AS n;\r\x04")
    assert "not UTF-8" in bench.said
    assert "77" in bench.output.getvalue()


class Compared(str):
    """Counts how often it is compared."""

    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_two_thousand_columns_of_one_name() -> None:
    Compared.count = 0
    names = unique_names([Compared("n")] * 2000)
    assert len(set(names)) == 2000
    assert names[:3] == ["n", "n_2", "n_3"]
    assert Compared.count < 100_000
    assert unique_names(["a", "a_2", "a", "a_2"]) == ["a", "a_2", "a_3", "a_2_2"]
