"""Types that are found: only those that lose nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import ConfigError
from raftdb.ops.columns import Column, create_table, is_integer, is_number, survey
from raftdb.ops.rows import SourceRow


def kind(*values: object, typed_text: bool = True) -> str:
    found = survey([SourceRow(1, {"a": value}) for value in values], typed_text=typed_text)
    return found.columns["a"].type


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("1", "-5", "0", ""), "INTEGER"),
        (("9223372036854775807",), "INTEGER"),
        (("9223372036854775808",), "TEXT"),
        (("007",), "TEXT"),
        (("1_000",), "TEXT"),
        ((" 1",), "TEXT"),
        (("+1",), "TEXT"),
        (("-0",), "TEXT"),
        (("1.5", "2", "-3e5"), "REAL"),
        (("1.10",), "REAL"),
        (("0.1234567890123456789",), "TEXT"),
        (("0.30000000000000004",), "REAL"),
        (("1.5", "9223372036854775807"), "TEXT"),
        (("nan",), "TEXT"),
        (("inf",), "TEXT"),
        (("1e999",), "TEXT"),
        (("1", "x"), "TEXT"),
        (("", ""), "TEXT"),
        ((), None),
    ],
)
def test_csv_types(values: tuple[str, ...], expected: str | None) -> None:
    if expected is not None:
        assert kind(*values) == expected


def test_json_types_are_its_own() -> None:
    assert kind(1, True, None, typed_text=False) == "INTEGER"
    assert kind(1, 2.5, typed_text=False) == "REAL"
    assert kind("1", "2", typed_text=False) == "TEXT"
    assert kind({"base64": "AA=="}, None, typed_text=False) == "BLOB"
    assert kind([1], typed_text=False) == "TEXT"
    assert kind(1, {"base64": "AA=="}, typed_text=False) == "TEXT"


@given(st.text(alphabet="0123456789-+._eE ", max_size=25))
def test_a_number_that_is_taken_says_what_the_text_said(text: str) -> None:
    if is_integer(text):
        assert str(int(text)) == text
    if is_number(text):
        from decimal import Decimal

        assert Decimal(repr(float(text))) == Decimal(text)


def test_create_table() -> None:
    columns = [Column("id"), Column('we"ird')]
    columns[0].see("5")
    assert create_table("t", columns, ["id"]) == (
        'CREATE TABLE "t" (\n  "id" INTEGER PRIMARY KEY,\n  "we""ird" TEXT\n)'
    )
    assert 'PRIMARY KEY ("id", "we""ird")' in create_table("t", columns, ["id", 'we"ird'])
    with pytest.raises(ConfigError, match="key column 'x'"):
        create_table("t", columns, ["x"])


def test_too_many_columns() -> None:
    with pytest.raises(ConfigError, match="more than 2000 columns"):
        survey([SourceRow(7, {str(n): "" for n in range(2001)})], typed_text=True)
