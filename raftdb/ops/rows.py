"""Rows from CSV, JSON and JSON-lines files, one at a time, each with its line number."""

from __future__ import annotations

import base64
import binascii
import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from raftdb.base.errors import ConfigError, DataError
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.command import Value

FORMATS = ("csv", "tsv", "json", "jsonl", "sqlite")
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".nl": "jsonl",
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
}
_SQLITE_MAGIC = b"SQLite format 3\x00"
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of a file."""

    line: int
    """Where it starts, from 1."""
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowError(Exception):
    """A row that cannot be read."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


def guess_format(path: Path) -> str:
    """By the first bytes, then by the suffix. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            if file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC:
                return "sqlite"
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    known = _SUFFIXES.get(path.suffix.lower())
    if known is None:
        raise ConfigError(
            f"the format of {path} does not show in its name",
            hint="give --format " + "|".join(FORMATS),
        )
    return known


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file, with or without a byte order mark."""
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


def read_rows(file: TextIO, format_name: str, delimiter: str | None = None) -> Iterator[SourceRow]:
    """Rows of a CSV, TSV, JSON or JSON-lines file. Raises RowError."""
    if format_name in ("csv", "tsv"):
        rows = _read_csv(file, delimiter or ("\t" if format_name == "tsv" else ","))
    else:
        rows = _read_json_lines(file) if format_name == "jsonl" else _read_json(file)
    line = 1
    try:
        for row in rows:
            line = row.line + 1
            yield row
    except UnicodeDecodeError as error:
        raise not_utf8(line, error) from error


def not_utf8(line: int, error: UnicodeDecodeError) -> RowError:
    """A file is read some kilobytes ahead: the byte is in that line, or a little behind it."""
    return RowError(
        line,
        f"the file is not UTF-8 ({error.reason}) here or a little further on: convert it first, "
        "iconv -f WINDOWS-1252 -t UTF-8",
    )


def _read_csv(file: TextIO, delimiter: str) -> Iterator[SourceRow]:
    """RFC 4180, names in the first line."""
    csv.field_size_limit(DEFAULT_LIMITS.value_bytes_max)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        names = next(reader, None)
        if names is None:
            return
        check_names(names, reader.line_num)
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(names):
                raise RowError(line, f"{len(fields)} fields, and the first line has {len(names)}")
            if fields:
                yield SourceRow(line, dict(zip(names, fields, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RowError(reader.line_num, f"not CSV: {error}") from error


def check_names(names: list[str], line: int) -> None:
    """Raises RowError when they cannot name columns."""
    seen: set[str] = set()
    for name in names:
        if not name.strip():
            raise RowError(line, "a column has no name: the first line must name all columns")
        if name.casefold() in seen:
            raise RowError(line, f"the column {name!r} is there twice")
        seen.add(name.casefold())


def _read_json_lines(file: TextIO) -> Iterator[SourceRow]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RowError(line, f"not JSON: {error}") from error
        yield SourceRow(line, _require_object(value, line))


def _read_json(file: TextIO) -> Iterator[SourceRow]:
    """An array of objects, read object by object: the file may be larger than memory."""
    decoder = json.JSONDecoder()
    buffer, line, ended = "", 1, False
    state = "start"
    while True:
        stripped = buffer.lstrip(" \t\r\n\ufeff")
        line += buffer.count("\n", 0, len(buffer) - len(stripped))
        buffer = stripped
        if not buffer and not ended:
            buffer, ended = _more(file, buffer)
            continue
        state, wanted = _expect(state, buffer, line)
        if state == "end":
            return
        if wanted:
            buffer = buffer[1:]
            continue
        try:
            value, end = decoder.raw_decode(buffer)
        except (ValueError, RecursionError) as error:
            if ended or len(buffer) > DEFAULT_LIMITS.request_bytes_max:
                raise RowError(line, f"not JSON: {error}") from error
            buffer, ended = _more(file, buffer)
            continue
        yield SourceRow(line, _require_object(value, line))
        line += buffer.count("\n", 0, end)
        buffer, state = buffer[end:], "after"


def _more(file: TextIO, buffer: str) -> tuple[str, bool]:
    chunk = file.read(max(_CHUNK, len(buffer)))
    return buffer + chunk, not chunk


def _expect(state: str, buffer: str, line: int) -> tuple[str, bool]:
    """The next state, and whether its one character is to be skipped."""
    first = buffer[:1]
    if state == "start" and first == "[":
        return "first", True
    if state == "first" and first != "]" and first:
        return "value", False
    if state == "after" and first == ",":
        return "next", True
    if state in ("value", "next") and first:
        return "value", False
    if state in ("first", "after") and first == "]":
        if buffer[1:].strip():
            raise RowError(line, "more text after the end of the array")
        return "end", True
    found = repr(first) if first else "the end of the file"
    wanted = {"start": "[", "after": ", or ]"}.get(state, "an object")
    hint = " (for one object per line, give --format jsonl)" if first == "{" else ""
    raise RowError(line, f"expected {wanted}, found {found}{hint}")


def _require_object(value: Any, line: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError(line, f"expected an object, found {type(value).__name__}")
    return value


def to_value(value: Any) -> Value:
    """A JSON value as SQLite stores it: true as 1, an array or object as JSON text,
    {"base64": ".."} as a blob (as the shell writes blobs). Raises DataError."""
    if value is None or isinstance(value, str | float | bytes):
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise DataError(f"the integer {value} has more than 64 bits", hint="load it as text")
        return value
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise DataError(f"not base64: {error}") from error
    return json.dumps(value, ensure_ascii=False)
