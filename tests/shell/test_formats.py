"""Rows to text and, for the exact formats, back."""

from __future__ import annotations

import base64
import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.shell.formats import FORMATS, STREAMED, Style, table_width, write_rows

ROWS = [(1, "a\nb\x1b[31m|", None), (2**63 - 1, "日本", b"\x00\xff"), (-(2**63), "", 0.1)]
COLUMNS = ["id", "na|me", "id"]


def write(
    format_name: str,
    rows: list[tuple[object, ...]] = ROWS,
    columns: list[str] = COLUMNS,
    **style: object,
) -> str:
    out = io.StringIO(newline="")
    write_rows(columns, rows, Style(format_name, **style), out)  # type: ignore[arg-type]
    return out.getvalue()


def test_table() -> None:
    assert write("table") == (
        "+----------------------+------------+---------+\n"
        "|                   id | na|me      | id      |\n"
        "|----------------------+------------+---------|\n"
        "|                    1 | a          | NULL    |\n"
        "|                      | b\\x1b[31m| |         |\n"
        "|  9223372036854775807 | 日本       | X'00FF' |\n"
        "| -9223372036854775808 |            | 0.1     |\n"
        "+----------------------+------------+---------+\n"
    )


def test_a_number_as_text_stays_as_it_is() -> None:
    assert "| 007    |" in write("table", [("007",)], ["code"])
    assert "|   1e5  |" in write("table", [("  1e5",)], ["code"])


def test_an_empty_result_still_shows_its_columns() -> None:
    assert "a" in write("table", [], ["a"])
    assert write("csv", [], ["a"]) == "a\r\n"
    assert json.loads(write("json", [], ["a"])) == []
    assert write("jsonl", [], ["a"]) == ""


def test_csv_is_rfc_4180() -> None:
    rows: list[tuple[object, ...]] = [('say "hi"', "a,b", "x\r\ny"), (None, "", 5)]
    assert write("csv", rows, ["a", "b", "c"]) == (
        'a,b,c\r\n"say ""hi""","a,b","x\r\ny"\r\n,,5\r\n'
    )
    assert write("csv", rows[1:], ["a", "b", "c"], headers=False, null="NULL") == "NULL,,5\r\n"


def test_json_has_exact_integers_and_marked_blobs() -> None:
    assert json.loads(write("json")) == [
        {"id": 1, "na|me": "a\nb\x1b[31m|", "id_2": None},
        {"id": 2**63 - 1, "na|me": "日本", "id_2": {"base64": "AP8="}},
        {"id": -(2**63), "na|me": "", "id_2": 0.1},
    ]


def test_an_infinity_in_json_is_a_number_that_readers_take_as_infinite() -> None:
    text = write("json", [(math.inf, -math.inf)], ["a", "b"])
    assert "Infinity" not in text
    assert json.loads(text) == [{"a": math.inf, "b": -math.inf}]


def test_markdown_keeps_one_line_per_row() -> None:
    assert write("markdown", [("a|b\nc", None)], ["x", "y"]).splitlines()[2] == (
        "| a\\|b<br>c | NULL |"
    )


def test_line() -> None:
    assert write("line", [(1, None), (2, b"\x01")], ["a", "long"]) == (
        "   a = 1\nlong = NULL\n\n   a = 2\nlong = X'01'\n"
    )


@pytest.mark.parametrize("format_name", ["table", "markdown", "line"])
def test_no_stored_text_drives_the_terminal(format_name: str) -> None:
    hostile = "".join(chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)])
    shown = write(format_name, [(hostile,)], [hostile])
    assert not [
        one for one in shown if (ord(one) < 0x20 or 0x7F <= ord(one) < 0xA0) and one not in "\n\t"
    ]


def test_null_has_a_name_of_its_own() -> None:
    assert "(none)" in write("table", [(None,)], ["a"], null="(none)")


def test_width_counts_wide_characters() -> None:
    assert table_width(["a"], [("日本",)], Style()) == table_width(["a"], [("abcd",)], Style())


_VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)


@given(st.lists(st.tuples(_VALUES, _VALUES), max_size=5))
def test_json_reads_back_exactly(rows: list[tuple[object, object]]) -> None:
    for format_name in ("json", "jsonl"):
        text = write(format_name, list(rows), ["a", "b"])
        read = (
            json.loads(text)
            if format_name == "json"
            else [json.loads(line) for line in text.split("\n") if line]
        )
        back = [tuple(_value(one[name]) for name in ("a", "b")) for one in read]
        assert back == [tuple(row) for row in rows]


def _value(value: object) -> object:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_csv_reads_back_exactly(rows: list[tuple[str, str]]) -> None:
    text = write("csv", list(rows), ["a", "b"], headers=False)
    assert [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] == rows


def test_every_format_is_known_by_name() -> None:
    data = {"csv", "json", "jsonl", "insert", "list", "quote", "tabs"}
    assert set(FORMATS) == data | {"box", "column", "line", "markdown", "table"}
    assert set(FORMATS) >= STREAMED >= data


def test_the_formats_of_the_sqlite3_shell() -> None:
    rows = [(1, "it's", None), (2.5, b"\x00\xff", "a\tb")]
    assert write("list", rows, ["a", "b", "c"]) == "a|b|c\n1|it's|\n2.5|X'00FF'|a\tb\n"
    assert write("tabs", rows[:1], ["a", "b", "c"], headers=False) == "1\tit's\t\n"
    assert write("quote", rows, ["a", "b", "c"], headers=False) == (
        "1,'it''s',NULL\n2.5,X'00ff','a\tb'\n"
    )
    assert write("insert", rows[:1], ["a", 'b"', "c"]) == (
        'INSERT INTO "table"("a","b""","c") VALUES(1,\'it\'\'s\',NULL);\n'
    )
    assert write("column", rows[:1], ["a", "b", "c"]).splitlines()[1] == "---  ----  ----"
    assert write("box", rows[:1], ["a", "b", "c"]).startswith("┌─")
