"""Rows to text: one function per format, in a table by name.

Data formats (csv, json, jsonl) are exact: what is written can be read back. Formats for people
(table, line, markdown) show control characters escaped, so that stored text cannot drive a
terminal.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from raftdb.shell.literals import literal, name_of

Row = Sequence[object]


@dataclass(slots=True)
class Style:
    """How rows are written."""

    format: str = "table"
    headers: bool = True
    null: str | None = None
    """What stands for NULL in table, line, markdown and csv; None is the format's own."""
    separator: str = "|"
    """Between the values of a list."""
    table: str = "table"
    """Into which the INSERT statements of the format `insert` go."""
    widths: tuple[int, ...] = ()
    """Of the columns of column, table and box: longer text goes on below. 0 is as wide as needed;
    a negative width is that of a column aligned on the right."""


Writer = Callable[[Sequence[str], Iterable[Row], Style, TextIO], None]
FORMATS: dict[str, Writer] = {}
STREAMED = frozenset(("csv", "insert", "json", "jsonl", "line", "list", "quote", "tabs"))
"""Formats that write a row without knowing those behind it."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ANY_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def _format(name: str) -> Callable[[Writer], Writer]:
    def register(writer: Writer) -> Writer:
        FORMATS[name] = writer
        return writer

    return register


def write_rows(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    """Write one result set."""
    FORMATS[style.format](columns, rows, style, out)


def text_of(value: object, null: str = "NULL") -> str:
    """A value as people and CSV readers see it: integers and floats exactly, blobs as X'..'."""
    if value is None:
        return null
    if isinstance(value, bytes | bytearray | memoryview):
        return f"X'{bytes(value).hex().upper()}'"
    if isinstance(value, float):
        if math.isinf(value):
            return "Inf" if value > 0 else "-Inf"
        return repr(value)
    return str(value)


def visible(text: str, keep_newlines: bool = True) -> str:
    """Text with control characters as \\xNN, so that no terminal obeys them."""
    pattern = _CONTROL if keep_newlines else _ANY_CONTROL
    return pattern.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return known.get(match.group(), f"\\x{ord(match.group()):02x}")


def unique_names(columns: Sequence[str]) -> list[str]:
    """Column names that an object can have: a repeated `id` becomes `id_2`."""
    names: dict[str, None] = {}
    counts: dict[str, int] = {}
    for column in columns:
        name, count = column, counts.get(column, 1)
        while name in names:
            count += 1
            name = f"{column}_{count}"
        counts[column] = count
        names[name] = None
    return list(names)


class _ExactEncoder(json.JSONEncoder):
    """Blobs as {"base64": ".."}: text is never an object, so it cannot be mistaken."""

    def default(self, value: object) -> object:
        if isinstance(value, bytes | bytearray | memoryview):
            return {"base64": base64.b64encode(bytes(value)).decode()}
        return super().default(value)


def to_json(value: object) -> str:
    """One JSON text. Integers are exact; an infinity is 1e999, which JSON readers take as such."""
    return _ExactEncoder(ensure_ascii=False, allow_nan=True).encode(value)


def _object_line(names: Sequence[str], row: Row) -> str:
    if any(isinstance(value, float) and math.isinf(value) for value in row):
        parts = []
        for name, value in zip(names, row, strict=True):
            if isinstance(value, float) and math.isinf(value):
                shown = "1e999" if value > 0 else "-1e999"
            else:
                shown = to_json(value)
            parts.append(f"{to_json(name)}: {shown}")
        return "{" + ", ".join(parts) + "}"
    return to_json(dict(zip(names, row, strict=True)))


@_format("json")
def _write_json(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    names = unique_names(columns)
    first = True
    out.write("[")
    for row in rows:
        out.write("" if first else ",\n ")
        out.write(_object_line(names, row))
        first = False
    out.write("]\n")


@_format("jsonl")
def _write_jsonl(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    names = unique_names(columns)
    for row in rows:
        out.write(_object_line(names, row) + "\n")


@_format("csv")
def _write_csv(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    """RFC 4180: comma, quotes doubled, CRLF."""
    writer = csv.writer(out)
    if style.headers:
        writer.writerow(columns)
    null = style.null or ""
    writer.writerows([text_of(value, null) for value in row] for row in rows)


@_format("list")
def _write_list(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    """As the sqlite3 shell has it: values as they are, and what separates them between."""
    separator = style.separator
    if style.headers:
        out.write(separator.join(columns) + "\n")
    null = style.null or ""
    for row in rows:
        out.write(separator.join([text_of(value, null) for value in row]) + "\n")


@_format("tabs")
def _write_tabs(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    _write_list(columns, rows, replace(style, separator="\t"), out)


@_format("quote")
def _write_quote(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    """Values as SQL literals."""
    if style.headers:
        out.write(",".join([literal(column) for column in columns]) + "\n")
    for row in rows:
        out.write(",".join([literal(value) for value in row]) + "\n")


@_format("insert")
def _write_insert(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    """A statement per row; with headers it names the columns."""
    names = f"({','.join(name_of(column) for column in columns)})" if style.headers else ""
    for row in rows:
        values = ",".join([literal(value) for value in row])
        out.write(f"INSERT INTO {name_of(style.table)}{names} VALUES({values});\n")


def _cells(rows: Iterable[Row], style: Style) -> tuple[list[list[str]], list[bool]]:
    """Texts, and for each column whether all of it is numbers."""
    null = "NULL" if style.null is None else style.null
    texts: list[list[str]] = []
    numeric: list[bool] = []
    for row in rows:
        numeric = numeric or [True] * len(row)
        for position, value in enumerate(row):
            if value is not None and not isinstance(value, int | float):
                numeric[position] = False
        texts.append([visible(text_of(value, null)) for value in row])
    return texts, numeric


@_format("table")
def _write_table(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    _write_grid(columns, rows, style, out, "psql")


@_format("box")
def _write_box(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    _write_grid(columns, rows, style, out, "simple_outline")


@_format("column")
def _write_column(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    _write_grid(columns, rows, style, out, "simple" if style.headers else "plain")


def _write_grid(
    columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO, kind: str
) -> None:
    from tabulate import tabulate

    texts, numeric = _cells(rows, style)
    names = [visible(column) for column in columns]
    numeric = numeric or [False] * len(names)
    for position, width in enumerate(style.widths[: len(names)]):
        numeric[position] = width < 0 or (not width and numeric[position])
        if width:
            names[position] = _folded(names[position], width).strip()
            for row in texts:
                row[position] = _folded(row[position], width)
    rendered = tabulate(
        texts,
        headers=names if style.headers else (),
        tablefmt=kind,
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["right" if one else "left" for one in numeric] or None,
    )
    out.write(rendered + "\n")


def _folded(text: str, width: int) -> str:
    """In lines of that width, padded to it."""
    size = abs(width)
    lines = [line[at : at + size] for line in text.split("\n") for at in range(0, len(line), size)]
    return "\n".join(line.rjust(size) if width < 0 else line.ljust(size) for line in lines or [""])


@_format("markdown")
def _write_markdown(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    from tabulate import tabulate

    texts, numeric = _cells(rows, style)

    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>")

    rendered = tabulate(
        [[cell(text) for text in row] for row in texts],
        headers=[cell(visible(column)) for column in columns],
        tablefmt="github",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=["right" if one else "left" for one in numeric] or None,
    )
    out.write(rendered + "\n")


@_format("line")
def _write_line(columns: Sequence[str], rows: Iterable[Row], style: Style, out: TextIO) -> None:
    """One `name = value` per line, a blank line between rows: for rows wider than a screen."""
    null = "NULL" if style.null is None else style.null
    width = max((len(column) for column in columns), default=0)
    for number, row in enumerate(rows):
        if number:
            out.write("\n")
        for column, value in zip(columns, row, strict=True):
            text = visible(text_of(value, null))
            out.write(f"{visible(column):>{width}} = {text}\n")


def table_width(columns: Sequence[str], rows: Iterable[Row], style: Style) -> int:
    """Columns of the terminal that the table would take."""
    buffer = io.StringIO()
    _write_table(columns, rows, style, buffer)
    return len(buffer.getvalue().split("\n", 1)[0])
