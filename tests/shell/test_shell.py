"""Scripts, errors, exit codes and dot commands."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from raftdb.base.errors import (
    UNKNOWN,
    DeadlineError,
    FatalError,
    ProgrammingError,
    UnavailableError,
)
from raftdb.base.exits import ExitCode
from raftdb.runtime import RealClock
from raftdb.shell import COMMANDS, Hooks, Import, Settings, Shell, Style
from tests.shell.conftest import Bench

TABLE = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL);"


def test_a_script_writes_data_alone(bench: Bench) -> None:
    bench.settings.style.format = "csv"
    assert bench.run(TABLE + "SELECT * FROM t;\nSELECT count(*) AS n FROM t") == (
        "a,b\r\n1,x\r\n2,\r\nn\r\n2\r\n"
    )
    assert bench.said == ""
    assert bench.shell.exit == ExitCode.OK


def test_the_first_error_ends_a_script(bench: Bench) -> None:
    assert bench.run("SELECT 1;\n\nSELEC 2;\nSELECT 3;").count("1 |") == 2
    assert "  3 |" not in bench.output.getvalue()
    assert bench.said.splitlines() == [
        'test.sql:3: error [sql]: near "SELEC": syntax error',
        "  SELEC 2;",
        "         ^",
        "  hint: read it again",
    ]
    assert bench.shell.exit == ExitCode.FAILED


def test_without_bail_it_goes_on_and_still_fails(bench: Bench) -> None:
    bench.settings.bail = False
    assert "  3 |" in bench.run("SELEC 2;\nSELECT 3;")
    assert bench.shell.exit == ExitCode.FAILED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("no leader"), ExitCode.UNREACHABLE),
        (DeadlineError("late"), ExitCode.OUTCOME_UNKNOWN),
        (FatalError("fsync"), ExitCode.BROKEN),
        (UnavailableError("lost", outcome=UNKNOWN), ExitCode.OUTCOME_UNKNOWN),
    ],
)
def test_exit_codes(bench: Bench, error: Exception, code: ExitCode) -> None:
    bench.connection.fail_next = error  # type: ignore[assignment]
    bench.run("SELECT 1;")
    assert bench.shell.exit == code
    assert ("outcome: unknown" in bench.said) == (code != ExitCode.UNREACHABLE)


def test_the_mark_stands_below_the_byte_that_is_wrong(bench: Bench) -> None:
    before = "SELECT 'é', '日',\n  'é', "
    bench.connection.fail_next = ProgrammingError("no", detail={"offset": len(before.encode())})
    bench.run(before + "xy;")
    assert bench.said.splitlines()[1:] == ["    'é', xy;", "         ^"]


def test_an_offset_out_of_range_marks_nothing(bench: Bench) -> None:
    bench.connection.fail_next = ProgrammingError("no", detail={"offset": 999})
    bench.run("SELECT 1;")
    assert "^" not in bench.said


def test_statements_carry_the_read_level(bench: Bench) -> None:
    levels = ["local", "session", "bounded(1.5)", "linearizable"]
    bench.run("SELECT 1;\n" + "".join(f".level {one}\nSELECT 1;\n" for one in levels))
    assert bench.connection.levels == ["linearizable", *levels]
    for wrong in ("nonsense", "bounded", "bounded()"):
        bench.run(f".level {wrong}\n")
        assert f"no read level {wrong}" in bench.said
    assert bench.shell.exit == ExitCode.USAGE


def test_changes_and_timer_are_messages(bench: Bench) -> None:
    assert bench.run(f".changes on\n.timer on\n{TABLE}\nDELETE FROM t WHERE a = 1;") == ""
    assert "2 rows changed" in bench.said
    assert "1 row changed" in bench.said
    assert "Time: " in bench.said


def test_tables_schema_indexes(bench: Bench) -> None:
    bench.settings.style = Style("csv", headers=False)
    bench.run(TABLE + "CREATE INDEX i ON t (b); CREATE VIEW v AS SELECT 1; CREATE TABLE ab (x);")
    assert bench.run(".tables") == "ab,table\r\nt,table\r\nv,view\r\n"
    assert bench.run(".tables t%") == "t,table\r\n"
    assert bench.run(".schema t") == (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);\nCREATE INDEX i ON t (b);\n"
    )
    assert bench.run(".indexes") == "i,t\r\n"
    assert bench.run(".indexes ab") == ""


def test_the_schema_can_be_run_again(bench: Bench) -> None:
    bench.run(TABLE + "CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO t VALUES (9, ''); END;")
    again = Bench()
    again.run(bench.run(".schema"))
    assert again.said == ""
    assert again.run(".schema") == bench.run(".schema")
    again.connection.close()


def test_mode_headers_nullvalue(bench: Bench) -> None:
    bench.run(TABLE)
    assert bench.run(".mode csv\n.headers off\n.nullvalue -\nSELECT * FROM t;") == "1,x\r\n2,-\r\n"
    assert bench.run(".mode json\nSELECT a FROM t WHERE a = 1;") == '[{"a": 1}]\n'
    bench.run(".mode nonsense")
    assert "one of table, csv" in bench.said or "one of json" in bench.said


def test_output_and_read(bench: Bench, tmp_path: Path) -> None:
    script, target = tmp_path / "in.sql", tmp_path / "out file.csv"
    script.write_text("SELECT 1 AS a;\nSELECT 2 AS b;\n")
    with bench.shell.closing():
        assert bench.run(f".mode csv\n.output '{target}'\n.read {script}\n.output\nSELECT 3;") == (
            "3\r\n3\r\n"
        )
    assert target.read_bytes() == b"a\r\n1\r\nb\r\n2\r\n"


def test_an_error_in_a_read_script_ends_the_outer_one(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "in.sql"
    script.write_text("SELECT 1;\nnonsense;\nSELECT 2;")
    out = bench.run(f".read {script}\nSELECT 3;")
    assert "  2 |" not in out
    assert "  3 |" not in out
    assert f"{script}:2: error" in bench.said


def test_a_script_that_reads_itself_is_stopped(bench: Bench, tmp_path: Path) -> None:
    script = tmp_path / "loop.sql"
    script.write_text(f".read {script}\n")
    bench.run(f".read {script}\n")
    assert "nest deeper" in bench.said
    assert bench.shell.exit == ExitCode.USAGE


def test_a_missing_file(bench: Bench, tmp_path: Path) -> None:
    bench.run(f".read {tmp_path}/none.sql")
    assert "No such file" in bench.said
    assert bench.shell.exit == ExitCode.USAGE


def test_quit_ends_a_script(bench: Bench) -> None:
    assert bench.run(".quit\nSELECT 1;") == ""
    assert bench.shell.exit == ExitCode.OK


def test_unknown_and_ambiguous_commands(bench: Bench) -> None:
    bench.run(".nonsense")
    assert "there is no command .nonsense" in bench.said
    bench.run(".e on")
    assert "did you mean .echo or .eqp or .exit" in bench.said
    bench.run(".tabl")
    bench.run(".read a b c")
    assert "usage: .read FILE" in bench.said


def test_help_names_every_command_with_its_docstring(bench: Bench) -> None:
    bench.run(".help")
    for name, command in COMMANDS.items():
        assert command.help, f"{name} has no docstring"
        assert command.usage in bench.said
        assert command.help in bench.said
    bench.run(".help level")
    assert "it needs no leader" in bench.said


def test_hooks(bench: Bench) -> None:
    imported: list[Import] = []
    shell = Shell(
        bench.connection,
        bench.output,
        bench.messages,
        RealClock(),
        Settings(),
        Hooks(
            import_file=lambda connection, wanted, out: imported.append(wanted),
            status=lambda out: out.write("fine\n") and None,
            leader=lambda: "n2",
        ),
    )
    shell.run([".import 'a file.csv' t\n", ".status\n", ".leader\n", ".print  a   b\n"], "")
    assert imported == [Import("a file.csv", "t", "", 0, False)]
    assert bench.output.getvalue() == "fine\nn2\na b\n"
    shell.run([".import --csv --skip 2 -v --schema main f t\n", ".import -skip 1 f t\n"], "")
    shell.run([".import --ascii f t\n"], "")
    assert imported[1:] == [
        Import("f", "t", "csv", 2, True),
        Import("f", "t", "csv", 1, False),
        Import("f", "t", "ascii", 0, False),
    ]
    for wrong in ("--skip x f t", "--schema temp f t", "--tabs f t", "--csv f", "f t u"):
        shell.run([f".import {wrong}\n"], "")
        assert shell.exit == ExitCode.USAGE
    assert len(imported) == 4


def test_wide_tables_become_lines_where_there_is_a_width(bench: Bench) -> None:
    bench.settings.width = 20
    assert bench.run("SELECT 'a' AS x;").startswith("+")
    assert bench.run("SELECT 'aaaaaaaaaaaaaaaaaaaaaaaaaaa' AS x;") == (
        "x = aaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
    )


def test_bytes_that_are_no_utf8_are_an_error(bench: Bench) -> None:
    lines = io.TextIOWrapper(io.BytesIO(b"SELECT 1;\nSELECT '\xff';"), encoding="utf-8")
    bench.shell.run(lines, "stdin")
    assert "not UTF-8" in bench.said
    assert bench.shell.exit == ExitCode.USAGE


def test_json_lines_of_a_pipe(bench: Bench) -> None:
    bench.settings.style.format = "jsonl"
    out = bench.run("SELECT 9007199254740993 AS big, x'00ff' AS blob;")
    assert json.loads(out) == {"big": 9007199254740993, "blob": {"base64": "AP8="}}
