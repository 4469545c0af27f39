"""`.import --csv` and `--ascii`: what the sqlite3 shell makes of the same files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import ConfigError
from raftdb.ops.load import LoadError
from raftdb.ops.positional import load_positional
from raftdb.runtime import RealClock
from tests.shell.fake import FakeConnection

CSV = 'a,b,c\r\n1,2.5,x\r\n01,"q ""z"", \n two",\n3\n4,5,6,7\n\n'
ASCII = "a\x1fb\x1fc\x1e1\x1fz\x1f x\ny\x1e2\x1f3\x1e"
NOTES = [
    ":5: expected 3 columns but found 1 - filling the rest with NULL",
    ":6: expected 3 columns but found 4 - extras ignored",
    ":7: expected 3 columns but found 1 - filling the rest with NULL",
]


@pytest.fixture
def connection() -> Iterator[FakeConnection]:
    made = FakeConnection()
    yield made
    made.close()


def load(connection: FakeConnection, path: Path, style: str, skip: int) -> tuple[int, list[str]]:
    notes: list[str] = []
    report = load_positional(connection, path, "t", style, skip, RealClock(), notes.append)
    return report.rows, notes


@pytest.mark.parametrize("style", ["csv", "ascii"])
@pytest.mark.parametrize("table", ["", "CREATE TABLE t (a INT, b, c TEXT)"])
@pytest.mark.parametrize("skip", [0, 1])
def test_it_is_as_the_shell_of_sqlite_has_it(
    connection: FakeConnection, tmp_path: Path, style: str, table: str, skip: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes((CSV if style == "csv" else ASCII).encode())
    if table:
        connection.raw.execute(table)
    rows, notes = load(connection, path, style, skip)
    quoted = 'SELECT quote("{}"), quote("{}"), quote("{}") FROM t'
    names = ("a", "b", "c") if table or not skip else ("1", "2.5", "x")
    if style == "ascii" and not table and skip:
        names = ("1", "z", " x\ny")
    query = quoted.format(*names)
    found: list[Any] = [list(row) for row in connection.raw.execute(query)]
    assert len(found) == rows
    if style == "csv":
        assert [note.removeprefix(str(path)) for note in notes] == NOTES
    shell = shutil.which("sqlite3")
    if shell is None:
        pytest.skip("this machine has no sqlite3 shell to compare with")
    command = [shell, ":memory:", "-separator", "\x1f", "-newline", "\x1e"]
    done = subprocess.run(
        [*command, table, f".import --{style} --skip {skip} {path} t", query],
        capture_output=True,
        check=True,
    )
    records = done.stdout.decode().split("\x1e")[:-1]
    assert [record.split("\x1f") for record in records] == found


def test_what_cannot_be_loaded_is_said(connection: FakeConnection, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a,b\n1,2\n1,3\n")
    connection.raw.execute("CREATE TABLE t (a PRIMARY KEY, b)")
    with pytest.raises(LoadError) as stopped:
        load(connection, path, "csv", 1)
    assert (stopped.value.detail["line"], stopped.value.detail["resume_skip"]) == (3, 2)
    connection.raw.execute("DROP TABLE t")
    for text, what in (("", "no rows"), ("a,a\n1,2\n", "twice"), ('a,"b\n', "not CSV")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=what):
            load(connection, path, "csv", 0)
