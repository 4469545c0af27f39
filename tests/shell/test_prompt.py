"""The prompt, typed at by a pipe: lines, history, completion."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from raftdb.base.errors import UnavailableError
from raftdb.base.exits import ExitCode
from raftdb.shell.prompt import SqlCompleter, history_path, open_history, run_prompt
from tests.shell.conftest import Bench


def type_in(bench: Bench, text: str) -> list[str]:
    """Type at the prompt; returns what is in the history afterwards, newest first."""
    bench.settings.bail = False
    bench.settings.changes = True
    history = InMemoryHistory()
    with create_pipe_input() as pipe:
        pipe.send_text(text)
        run_prompt(bench.shell, "test", pipe, DummyOutput(), history)
    return list(history.get_strings())[::-1]


def test_a_statement_over_several_lines_is_one(bench: Bench) -> None:
    typed = type_in(bench, "CREATE TABLE t (\ra\r);\rINSERT INTO t VALUES (5);\r.quit\r")
    assert typed == [".quit", "INSERT INTO t VALUES (5);", "CREATE TABLE t (\na\n);"]
    assert bench.connection.raw.execute("SELECT a FROM t").fetchall() == [(5,)]
    assert "1 row changed" in bench.said


def test_an_error_does_not_end_the_session(bench: Bench) -> None:
    type_in(bench, "nonsense;\rSELECT 77 AS n;\r\x04")
    assert "error [sql]" in bench.said
    assert "77" in bench.output.getvalue()


def test_control_c_forgets_the_line_and_control_d_leaves(bench: Bench) -> None:
    type_in(bench, "SELECT 1\x03SELECT 2 AS two;\r\x04")
    assert "two" in bench.output.getvalue()
    assert bench.said == ""


def test_the_rest_of_a_line_is_not_run_after_an_error(bench: Bench) -> None:
    type_in(bench, "nonsense; SELECT 77 AS n;\r\x04")
    assert "77" not in bench.output.getvalue()


def test_an_interrupted_statement_says_what_is_not_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.connection, "execute", interrupted)
    type_in(bench, "INSERT INTO t VALUES (1);\r\x04")
    assert "may have been applied" in bench.said


def completions(bench: Bench, text: str, completer: SqlCompleter | None = None) -> list[str]:
    completer = completer or SqlCompleter(bench.shell)
    found = completer.get_completions(Document(text), CompleteEvent(completion_requested=True))
    return [one.text for one in found]


def test_completion_of_keywords_names_and_commands(bench: Bench) -> None:
    bench.run("CREATE TABLE airports (iata TEXT, name TEXT);")
    assert "SELECT" in completions(bench, "SEL")
    assert "select" in completions(bench, "sel")
    assert completions(bench, "SELECT * FROM airp") == ["airports"]
    assert completions(bench, "SELECT ia") == ["iata"]
    assert completions(bench, ".ti") == [".timer"]
    assert completions(bench, "") == []


def test_names_are_read_again_after_the_schema_changed(bench: Bench) -> None:
    completer = SqlCompleter(bench.shell)
    assert completions(bench, "air", completer) == []
    bench.run("CREATE TABLE airports (x);")
    assert completions(bench, "air", completer) == ["airports"]
    reads = len(bench.connection.levels)
    completions(bench, "air", completer)
    assert len(bench.connection.levels) == reads
    assert bench.connection.levels[0] == "local"


def test_completion_never_fails(bench: Bench) -> None:
    bench.connection.fail_next = UnavailableError("no leader")
    assert "SELECT" in completions(bench, "SEL")
    assert bench.shell.exit == ExitCode.OK


def test_the_history_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    history = open_history(path)
    assert isinstance(history, FileHistory)
    history.store_string("SELECT 'secret'")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    open_history(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_history_that_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert isinstance(open_history(blocked / "history"), InMemoryHistory)


def test_where_the_history_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "raftdb" / "history"
    monkeypatch.setenv("RAFTDB_HISTORY", str(tmp_path / "h"))
    assert history_path() == tmp_path / "h"
