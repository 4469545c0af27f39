"""Loading: what is in at the end, and what is said when it is not all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import UNKNOWN, ConfigError, DeadlineError, UnavailableError
from raftdb.ops.load import LoadError, LoadOptions, TableReport, load_text
from raftdb.runtime import RealClock
from tests.shell.fake import FakeConnection


@pytest.fixture
def connection() -> Iterator[FakeConnection]:
    made = FakeConnection()
    yield made
    made.close()


def load(
    connection: FakeConnection, path: Path, format_name: str = "csv", **options: Any
) -> TableReport:
    return load_text(connection, path, "t", format_name, LoadOptions(**options), RealClock())


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def all_rows(connection: FakeConnection, order: str = "1") -> list[Any]:
    return connection.raw.execute(f"SELECT * FROM t ORDER BY {order}").fetchall()


def test_a_table_is_made_from_a_csv_file(connection: FakeConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,zip,price,name\n1,007,1.5,"a,b"\n2,,,\n')
    report = load(connection, path, create=True, key=("id",))
    assert (report.rows, report.created) == (2, True)
    assert all_rows(connection) == [(1, "007", 1.5, "a,b"), (2, "", None, "")]
    declared = connection.raw.execute("SELECT name, type, pk FROM pragma_table_info('t')")
    assert declared.fetchall() == [
        ("id", "INTEGER", 1),
        ("zip", "TEXT", 0),
        ("price", "REAL", 0),
        ("name", "TEXT", 0),
    ]


def test_empty_text_can_be_null(connection: FakeConnection, tmp_path: Path) -> None:
    load(connection, write(tmp_path / "a.csv", "a,b\nx,\n"), create=True, empty_null=True)
    assert all_rows(connection) == [("x", None)]


def test_without_detection_all_is_text(connection: FakeConnection, tmp_path: Path) -> None:
    load(connection, write(tmp_path / "a.csv", "a\n5\n"), create=True, detect_types=False)
    assert all_rows(connection) == [("5",)]


def test_a_missing_table_is_not_made_unasked(connection: FakeConnection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no table 't' .*--create"):
        load(connection, write(tmp_path / "a.csv", "a\n5\n"))


def test_an_existing_table_takes_columns_in_any_order_and_case(
    connection: FakeConnection, tmp_path: Path
) -> None:
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT DEFAULT 'd', c AS (a + 1))")
    load(connection, write(tmp_path / "a.csv", "B,A\nx,1\n"))
    load(connection, write(tmp_path / "b.csv", "a\n2\n"))
    assert all_rows(connection) == [(1, "x", 2), (2, "d", 3)]
    with pytest.raises(ConfigError, match="no column 'zz'"):
        load(connection, write(tmp_path / "c.csv", "a,zz\n1,2\n"))


def test_json(connection: FakeConnection, tmp_path: Path) -> None:
    values = [{"id": 1, "x": [1]}, {"id": 2, "y": {"base64": "AP8="}, "x": True}]
    path = write(tmp_path / "a.json", json.dumps(values))
    load(connection, path, "json", create=True)
    assert all_rows(connection) == [(1, "[1]", None), (2, "1", b"\x00\xff")]


def test_a_later_row_with_an_unknown_key_is_named(
    connection: FakeConnection, tmp_path: Path
) -> None:
    connection.execute("CREATE TABLE t (a)")
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}\n{"b": 3}\n')
    with pytest.raises(LoadError, match=r"line 3: the table has no column 'b'"):
        load(connection, path, "jsonl")
    assert all_rows(connection) == [(1,), (2,)]


def test_batches_are_bounded_by_rows_and_bytes(connection: FakeConnection, tmp_path: Path) -> None:
    text = "a\n" + "".join(f"{n}\n" for n in range(25))
    load(connection, write(tmp_path / "a.csv", text), create=True, batch_rows=10)
    assert [rows for _sql, rows in connection.requests] == [10, 10, 5]
    connection.requests.clear()
    text = "a\n" + ("x" * 100 + "\n") * 10
    load(connection, write(tmp_path / "b.csv", text), batch_bytes=350)
    assert [rows for _sql, rows in connection.requests] == [3, 3, 3, 1]


@pytest.mark.parametrize("bad", [0, 1, 13, 36])
def test_the_bad_row_is_found_and_all_before_it_is_in(
    connection: FakeConnection, tmp_path: Path, bad: int
) -> None:
    connection.execute("CREATE TABLE t (a INTEGER CHECK (a <> 999))")
    numbers = [999 if n == bad else n for n in range(37)]
    path = write(tmp_path / "a.csv", "a\n" + "".join(f"{n}\n" for n in numbers))
    with pytest.raises(LoadError) as caught:
        load(connection, path, batch_rows=20)
    assert caught.value.detail["line"] == bad + 2
    assert caught.value.detail["resume_skip"] == bad
    assert all_rows(connection, "rowid") == [(n,) for n in range(bad)]
    hint = f"--skip {bad}" if bad else "nothing was loaded"
    assert hint in caught.value.hint
    path.write_text("a\n" + "".join(f"{n}\n" for n in range(37)))
    load(connection, path, skip=bad, batch_rows=20)
    assert all_rows(connection, "rowid") == [(n,) for n in range(37)]


def test_rows_before_an_unreadable_line_are_in(connection: FakeConnection, tmp_path: Path) -> None:
    connection.execute("CREATE TABLE t (a, b)")
    path = write(tmp_path / "a.csv", "a,b\n1,2\n3,4\n5\n")
    with pytest.raises(LoadError, match="line 4: 1 fields") as caught:
        load(connection, path)
    assert caught.value.detail["resume_skip"] == 2
    assert len(all_rows(connection)) == 2


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "json"])
def test_rows_before_a_byte_that_is_not_utf8_are_in_and_counted(
    connection: FakeConnection, tmp_path: Path, format_name: str
) -> None:
    connection.execute("CREATE TABLE t (a, b)")
    rows = [{"a": str(n), "b": "é" * 20} for n in range(6_000)]
    if format_name == "csv":
        text = "a,b\n" + "".join(f"{one['a']},{one['b']}\n" for one in rows)
    elif format_name == "jsonl":
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=0)
    path = tmp_path / "latin"
    path.write_bytes(text.replace("5500", "\0").encode().replace(b"\0", b"\xe9"))
    with pytest.raises(LoadError, match="not UTF-8") as caught:
        load(connection, path, format_name)
    done = caught.value.detail["resume_skip"]
    assert 2_000 <= done <= 5_500
    assert f"--skip {done}" in caught.value.hint
    path.write_text(text, "utf-8")
    load(connection, path, format_name, skip=done)
    assert [row[0] for row in all_rows(connection, "rowid")] == [one["a"] for one in rows]


def test_a_bad_first_pass_loads_nothing(connection: FakeConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\n1,2\n3,4\n5\n")
    with pytest.raises(ConfigError, match="line 4"):
        load(connection, path, create=True)
    assert connection.raw.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


def test_a_cluster_that_is_gone_is_not_taken_for_a_bad_row(
    connection: FakeConnection, tmp_path: Path
) -> None:
    connection.execute("CREATE TABLE t (a)")
    path = write(tmp_path / "a.csv", "a\n1\n2\n")
    connection.fail_next = None
    for error, words in (
        (UnavailableError("no leader"), "nothing was loaded"),
        (DeadlineError("late", outcome=UNKNOWN), "may be in or not"),
    ):
        original = connection.executemany

        def fail(*_: Any, error: Any = error) -> Any:
            raise error

        connection.executemany = fail  # type: ignore[method-assign]
        with pytest.raises(LoadError) as caught:
            load(connection, path)
        connection.executemany = original  # type: ignore[method-assign]
        assert words in caught.value.hint
        assert caught.value.outcome == error.outcome
        assert caught.value.retryable == error.retryable


@pytest.mark.parametrize(("how", "left"), [("ignore", "old"), ("replace", "new")])
def test_conflicts(connection: FakeConnection, tmp_path: Path, how: str, left: str) -> None:
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    connection.execute("INSERT INTO t VALUES (1, 'old')")
    load(connection, write(tmp_path / "a.csv", "a,b\n1,new\n2,x\n"), on_conflict=how)
    assert all_rows(connection) == [(1, left), (2, "x")]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="batch of 0"):
        LoadOptions(batch_rows=0)
    with pytest.raises(ConfigError, match="no way to meet a conflict"):
        LoadOptions(on_conflict="maybe")


def test_a_round_trip_through_csv_changes_nothing(
    connection: FakeConnection, tmp_path: Path
) -> None:
    hostile = ["", "007", '"', "a\r\nb", ",", "é", "NULL", " x ", "1e5", "-0"]
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b"], *[[text, "x"] for text in hostile]])
    load(connection, path, create=True)
    assert [row[0] for row in all_rows(connection, "rowid")] == hostile
