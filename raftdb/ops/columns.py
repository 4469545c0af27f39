"""Which columns a file has and of which types: nothing that would change a value counts.

`007` is text, not 7, and so are an integer of more than 64 bits and a decimal that no double
holds: a type is given only when the number says all that the text said. JSON has types of its own,
so that its strings stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from raftdb.base.errors import ConfigError, DataError
from raftdb.command import Value
from raftdb.ops.rows import INTEGER_MAX, INTEGER_MIN, SourceRow, to_value

COLUMNS_MAX = 2000
"""SQLite's own limit of columns in a table."""
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_REAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")


def quote(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text literal as SQL has it."""
    return "'" + value.replace("'", "''") + "'"


@dataclass(slots=True)
class Column:
    """One column, and what its values have been so far."""

    name: str
    typed_text: bool = True
    """Text may stand for a number (CSV)."""
    integer: bool = True
    real: bool = True
    blob: bool = True
    empty: bool = True
    """No value so far but NULL and ''."""

    def see(self, value: Any) -> None:
        """Take one more value into account."""
        if value is None or (value == "" and self.typed_text):
            return
        self.empty = False
        if isinstance(value, str):
            self.blob = False
            self.integer = self.integer and self.typed_text and is_integer(value)
            self.real = self.real and self.typed_text and is_number(value)
        elif isinstance(value, bool | int):
            self.blob = False
        elif isinstance(value, float):
            self.blob = self.integer = False
        elif isinstance(value, dict) and value.keys() == {"base64"}:
            self.integer = self.real = False
        else:
            self.integer = self.real = self.blob = False

    @property
    def type(self) -> str:
        """INTEGER, REAL, BLOB or TEXT."""
        if self.empty:
            return "TEXT"
        if self.integer:
            return "INTEGER"
        if self.real:
            return "REAL"
        return "BLOB" if self.blob else "TEXT"


def is_integer(text: str) -> bool:
    """A 64-bit integer, written as it would be written again."""
    if not _INTEGER.fullmatch(text) or text == "-0":
        return False
    return INTEGER_MIN <= int(text) <= INTEGER_MAX


def is_number(text: str) -> bool:
    """A decimal number that a double holds without loss."""
    if is_integer(text):
        return abs(int(text)) <= 1 << 53
    if not _REAL.fullmatch(text) or text.lstrip("-").isdigit():
        return False
    return Decimal(repr(float(text))) == Decimal(text)


@dataclass(slots=True)
class Survey:
    """What a first pass over a file found."""

    columns: dict[str, Column] = field(default_factory=dict)
    rows: int = 0


def survey(rows: Iterable[SourceRow], *, typed_text: bool, types: bool = True) -> Survey:
    """Read all rows once; with `types` off all columns are TEXT. Raises ConfigError when there are
    too many columns."""
    result = Survey()
    for row in rows:
        result.rows += 1
        for name, value in row.values.items():
            column = result.columns.get(name)
            if column is None:
                column = result.columns[name] = Column(name, typed_text)
                if not types:
                    column.integer = column.real = column.blob = False
            column.see(value)
        if len(result.columns) > COLUMNS_MAX:
            raise ConfigError(f"line {row.line}: more than {COLUMNS_MAX} columns")
    return result


def create_table(table: str, columns: Sequence[Column], key: Sequence[str]) -> str:
    """The CREATE TABLE statement. Raises ConfigError when `key` names no column."""
    names = [column.name for column in columns]
    for name in key:
        if name not in names:
            raise ConfigError(
                f"the key column {name!r} is not in the file", hint="it has " + ", ".join(names)
            )
    lines = [f"  {quote(one.name)} {one.type}" for one in columns]
    if len(key) == 1:
        position = names.index(key[0])
        lines[position] += " PRIMARY KEY"
    elif key:
        lines.append(f"  PRIMARY KEY ({', '.join(quote(name) for name in key)})")
    return f"CREATE TABLE {quote(table)} (\n" + ",\n".join(lines) + "\n)"


@dataclass(frozen=True, slots=True)
class Converter:
    """Makes a file's values fit a table's columns."""

    keys: tuple[str, ...]
    """The columns' names in the file."""
    types: tuple[str, ...]
    """Declared types, upper case."""
    typed_text: bool
    """The file has nothing but text (CSV): '' is NULL and digits are numbers where the column's
    type says so."""
    empty_null: bool
    """'' becomes NULL in text columns too."""

    def convert(self, row: SourceRow) -> tuple[Value, ...]:
        """Values in the order of `keys`. Raises DataError."""
        return tuple(
            self._one(name, kind, row.values.get(name))
            for name, kind in zip(self.keys, self.types, strict=True)
        )

    def _one(self, name: str, kind: str, value: Any) -> Value:
        try:
            if not isinstance(value, str):
                return to_value(value)
        except DataError as error:
            raise DataError(f"column {name}: {error.message}", hint=error.hint) from error
        if not self.typed_text:
            return value
        is_text = "CHAR" in kind or "TEXT" in kind or "CLOB" in kind or not kind
        if value == "":
            return None if self.empty_null or not is_text else ""
        if is_text:
            return value
        if is_integer(value):
            return int(value)
        return float(value) if "INT" not in kind and is_number(value) else value
