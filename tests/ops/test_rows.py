"""Reading CSV and JSON: exact values, and the line of whatever is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import ConfigError, DataError
from raftdb.ops.rows import RowError, SourceRow, guess_format, open_text, read_rows, to_value


def rows(text: str, format_name: str, **options: str) -> list[SourceRow]:
    return list(read_rows(io.StringIO(text, newline=""), format_name, **options))


def test_csv_with_quotes_newlines_and_line_numbers() -> None:
    assert rows('a,b\r\n1,"x\r\ny"\r\n\r\n2,""""\r\n', "csv") == [
        SourceRow(2, {"a": "1", "b": "x\r\ny"}),
        SourceRow(5, {"a": "2", "b": '"'}),
    ]
    assert rows("a\tb\n1\t2\n", "tsv") == [SourceRow(2, {"a": "1", "b": "2"})]
    assert rows("a;b\n1;2\n", "csv", delimiter=";") == [SourceRow(2, {"a": "1", "b": "2"})]
    assert rows("", "csv") == []
    assert rows("a,b\n", "csv") == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a,b\n1,2\n3\n", 3, "1 fields, and the first line has 2"),
        ('a,b\n"x\ny",2\n3,4,5\n', 4, "3 fields"),
        ("a,,b\n", 1, "no name"),
        ("a,A\n", 1, "twice"),
        ('a,b\n1,"x" y\n', 2, "not CSV"),
        ('a,b\n1,"never closed\n', 2, "not CSV"),
    ],
)
def test_bad_csv_is_named_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        rows(text, "csv")
    assert caught.value.line == line


def test_json_lines() -> None:
    assert rows('{"a": 1}\n\n{"a": null}\n', "jsonl") == [
        SourceRow(1, {"a": 1}),
        SourceRow(3, {"a": None}),
    ]
    for text, line in (('{"a": 1}\nnope\n', 2), ("[1]\n", 1), ('{"a": 1} {"a": 2}\n', 1)):
        with pytest.raises(RowError) as caught:
            rows(text, "jsonl")
        assert caught.value.line == line


def test_json_arrays_are_read_object_by_object() -> None:
    text = '\n[ {"a": 1},\n {"a": [1,\n2]} , {"a": "]"}\n]\n'
    assert rows(text, "json") == [
        SourceRow(2, {"a": 1}),
        SourceRow(3, {"a": [1, 2]}),
        SourceRow(4, {"a": "]"}),
    ]
    assert rows("[]", "json") == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('{"a": 1}', 1, "--format jsonl"),
        ('[{"a": 1}\n {"a": 2}]', 2, "expected ,"),
        ('[{"a": 1},\n 5]', 2, "expected an object"),
        ('[{"a": 1},]', 1, "not JSON"),
        ('[{"a": 1}', 1, "end of the file"),
        ('[{"a": \n', 1, "not JSON"),
        ('[{"a": 1}] x', 1, "more text"),
        ("", 1, "end of the file"),
    ],
)
def test_bad_json_is_named_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        rows(text, "json")
    assert caught.value.line == line


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), _JSON, max_size=3), max_size=5), st.booleans())
def test_any_json_array_reads_as_the_library_reads_it(
    values: list[dict[str, object]], indent: bool
) -> None:
    text = json.dumps(values, indent=1 if indent else None)
    found = rows(text, "json")
    assert [one.values for one in found] == values
    for one in found:
        assert text.splitlines()[one.line - 1].lstrip(" [,").startswith("{")


class _Trickle(io.StringIO):
    """Gives one character at a time, as a slow pipe would."""

    def read(self, size: int | None = -1, /) -> str:
        return super().read(1)


def test_a_json_text_in_small_pieces() -> None:
    values = [{"a": "x" * 50, "b": [1, {"c": None}]}] * 3
    found = list(read_rows(_Trickle(json.dumps(values)), "json"))
    assert [one.values for one in found] == values


def test_values() -> None:
    assert to_value(True) == 1
    assert to_value([1, "é"]) == '[1, "é"]'
    assert to_value({"base64": "AP8="}) == b"\x00\xff"
    assert to_value({"base64": 5}) == '{"base64": 5}'
    assert to_value(2**63 - 1) == 2**63 - 1
    with pytest.raises(DataError, match="64 bits"):
        to_value(2**63)
    with pytest.raises(DataError, match="not base64"):
        to_value({"base64": "###"})


def test_formats_are_guessed_by_content_and_name(tmp_path: Path) -> None:
    database = tmp_path / "data.csv"
    database.write_bytes(b"SQLite format 3\x00 and so on")
    assert guess_format(database) == "sqlite"
    lines = tmp_path / "x.NDJSON"
    lines.write_text("{}")
    assert guess_format(lines) == "jsonl"
    with pytest.raises(ConfigError, match="does not show"):
        guess_format(Path(__file__).with_suffix(".py"))
    with pytest.raises(ConfigError, match="cannot read"):
        guess_format(tmp_path / "none.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "bom.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    with open_text(path) as file:
        assert next(read_rows(file, "csv")).values == {"a": "1", "b": "2"}


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"a\n\xe9\n")
    with open_text(path) as file, pytest.raises(RowError) as caught:
        list(read_rows(file, "csv"))
    assert "not UTF-8" in caught.value.message
    assert caught.value.line == 1
