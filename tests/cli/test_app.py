"""The command's frame: help, errors, exit codes, completion, and what is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raftdb._version import __version__
from raftdb.base.errors import (
    APPLIED,
    AuthError,
    ConfigError,
    DeadlineError,
    Error,
    FatalError,
    IntegrityError,
    InternalError,
    NotLeaderError,
    OverloadedError,
    ProgrammingError,
    UnavailableError,
)
from raftdb.base.exits import ExitCode, exit_code
from raftdb.cli.app import COMMANDS
from raftdb.cli.sql import _import_format
from raftdb.ops.found import found_local
from tests.cli.conftest import Command


def test_version_and_help(raftdb: Command) -> None:
    assert raftdb("--version").out == f"raftdb, version {__version__}\n"
    text = raftdb("--help").out
    for name in COMMANDS:
        assert f"  {name} " in text
    assert "Exit codes" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_with_an_example(raftdb: Command, name: str) -> None:
    done = raftdb(name, "--help")
    assert done.code == 0
    assert "Example" in done.out or "Commands:" in done.out


def test_usage_errors(raftdb: Command) -> None:
    done = raftdb("nonsense")
    assert done.code == 2
    assert "No such command 'nonsense'" in done.err
    assert done.out == ""
    assert raftdb("init").code == 2


def test_errors_as_json_lines(raftdb: Command) -> None:
    done = raftdb("status", "--json")
    assert done.code == 2
    assert done.out == ""
    error = json.loads(done.err)["error"]
    assert error["code"] == "config"
    assert error["exit_code"] == 2
    assert "RAFTDB_URL" in error["hint"]
    assert json.loads(raftdb("status", "--json", "--nope").err)["error"]["code"] == "usage"


def test_errors_as_text(raftdb: Command) -> None:
    done = raftdb("status")
    assert done.err.splitlines()[0] == "error [config]: which cluster?"
    assert done.err.splitlines()[1].startswith("  hint: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProgrammingError("x"), ExitCode.FAILED),
        (IntegrityError("x"), ExitCode.FAILED),
        (ConfigError("x"), ExitCode.USAGE),
        (AuthError("x"), ExitCode.USAGE),
        (UnavailableError("x"), ExitCode.UNREACHABLE),
        (NotLeaderError("x"), ExitCode.UNREACHABLE),
        (OverloadedError("x"), ExitCode.UNREACHABLE),
        (DeadlineError("x"), ExitCode.OUTCOME_UNKNOWN),
        (DeadlineError("x", outcome="not_applied"), ExitCode.UNREACHABLE),
        (UnavailableError("x", outcome=APPLIED), ExitCode.FAILED),
        (FatalError("x"), ExitCode.BROKEN),
        (InternalError("x"), ExitCode.BROKEN),
        (OSError("x"), ExitCode.USAGE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError(), ExitCode.BROKEN),
    ],
)
def test_exit_codes(error: BaseException, code: ExitCode) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (ZeroDivisionError("surprise"), 4, "please report it"),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (Error("odd", outcome="unknown"), 5, "outcome: unknown"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
    ],
)
def test_whatever_is_raised_becomes_an_exit_code(
    raftdb: Command,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("raftdb.cli.status.target_of", fail)
    done = raftdb("status")
    assert done.code == code
    assert words in done.err


def test_a_reader_that_has_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m raftdb.cli --help | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        (">&-", 0, ""),
        (
            "> /dev/full",
            2,
            "error [system]: No space left on device\n"
            "  hint: make room on that disk, and run the same command again\n",
        ),
    ],
)
def test_an_output_that_takes_nothing(where: str, code: int, said: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m raftdb.cli --help {where}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, said)


def test_errors_of_the_system_say_what_to_do(
    raftdb: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 13, 28, 30, 36, 40):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), "/x")

        monkeypatch.setattr("raftdb.cli.status.target_of", fail)
        done = raftdb("status", "--json")
        assert done.code == 2
        error = json.loads(done.err)["error"]
        assert error["message"] == f"/x: {os.strerror(number)}"
        assert error["hint"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(raftdb: Command, shell: str) -> None:
    assert "_RAFTDB_COMPLETE" in raftdb("completion", shell).out


def test_completion_completes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raftdb.cli"],
        env={"_RAFTDB_COMPLETE": "bash_complete", "COMP_WORDS": "raftdb st", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["plain,start", "plain,status"]


def test_a_node_does_not_carry_the_shells_libraries() -> None:
    """What `raftdb start` imports: no prompt, no progress bars, no import tools."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, raftdb.cli.start, raftdb.embedded\n"
            "print(*sorted({name.split('.')[0] for name in sys.modules}))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "apsw" in loaded
    heavy = {"prompt_toolkit", "rich", "sqlite_utils", "tabulate", "pygments", "airportsdata"}
    assert loaded & heavy == set()


def test_files_that_are_something_else_are_no_surprise(raftdb: Command, tmp_path: Path) -> None:
    """Bytes of anything, and what nests deeper than a parser goes."""
    odd, deep = tmp_path / "odd", tmp_path / "deep.json"
    odd.write_bytes(bytes(range(128, 256)))
    deep.write_text("[" * 100_000)
    place = tmp_path / "c" / "client"
    place.mkdir(parents=True)
    (tmp_path / "b").mkdir()
    shutil.copy(deep, tmp_path / "b" / "bundle.json")
    found_local(tmp_path / "d", insecure=True)
    node = tmp_path / "d" / "n1"
    commands: list[tuple[object, ...]] = [
        ("archive", "keygen", odd),
        ("rejoin", tmp_path / "b", node),
        ("recover", node, "--account", deep),
        ("recover", node, "--account", odd),
        ("join", odd, "--data", node, "--location", "a", "--peer", "h:1", "--client", "h:2"),
        ("start", "--config", odd),
        ("start", "--config", deep),
    ]
    for text in (b"a = " + b"[" * 100_000, odd.read_bytes()):
        (place / "client.toml").write_bytes(text)
        done = raftdb("status", "--dir", tmp_path / "c")
        assert (done.code, "Traceback" in done.err) == (2, False), done
    for command in commands:
        done = raftdb(*command)
        assert (done.code, "Traceback" in done.err) == (2, False), (command, done)


def test_what_import_does_not_take_has_a_way_in(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("a\n")
    with pytest.raises(ConfigError) as caught:
        _import_format(tmp_path / "data.txt")
    assert "--csv" in caught.value.hint
    (tmp_path / "d.csv").write_bytes(b"SQLite format 3\0")
    with pytest.raises(ConfigError, match="is a SQLite database") as caught:
        _import_format(tmp_path / "d.csv")
    assert "raftdb load" in caught.value.hint
    (tmp_path / "d.csv").write_text("a\n")
    assert _import_format(tmp_path / "d.csv") == "csv"
