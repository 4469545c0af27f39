"""Reads sqllogictest scripts (https://www.sqlite.org/sqllogictest/doc/trunk/about.wiki)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite
from typing import Any

ENGINE = "sqlite"


_REMARK = re.compile(r"(?:^|\s)#")


@dataclass
class Record:
    """One record that is meant for SQLite."""

    line: int
    sql: str
    kind: str
    """`statement` or `query`."""
    fails: bool = False
    types: str = ""
    sort: str = "nosort"
    label: str = ""
    expected: list[str] = field(default_factory=list)


def parse(text: str) -> Iterator[Record]:
    """All records in order. Raises ValueError with the line of what does not read."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    position = 0
    skip = False
    while position < len(lines):
        words = _REMARK.split(lines[position])[0].split()
        start = position
        position += 1
        if not words:
            continue
        if words[0] in ("skipif", "onlyif"):
            named = len(words) > 1 and words[1] == ENGINE
            skip = skip or named == (words[0] == "skipif")
            continue
        if words[0] == "hash-threshold":
            continue
        if words[0] == "halt":
            if not skip:
                return
            skip = False
            continue
        if words[0] not in ("statement", "query"):
            raise ValueError(f"line {start + 1}: {lines[start]!r}")
        body: list[str] = []
        while position < len(lines) and lines[position].strip():
            body.append(lines[position])
            position += 1
        record = _record(start + 1, words, body)
        if not skip:
            yield record
        skip = False


_STATEMENTS = ("ok", "error", "count")
"""`count N` is of later runners: as `ok` here, since what is compared is SQLite's own result."""
_SORTS = ("nosort", "rowsort", "valuesort")


def _record(line: int, words: list[str], body: list[str]) -> Record:
    if len(words) < 2 or (words[0] == "statement" and words[1] not in _STATEMENTS):
        raise ValueError(f"line {line}: {' '.join(words)!r}")
    if words[0] == "query" and len(words) > 2 and words[2] not in _SORTS:
        raise ValueError(f"line {line}: {' '.join(words)!r}")
    if words[0] == "statement":
        return Record(line, "\n".join(body), "statement", fails=words[1] == "error")
    split = body.index("----") if "----" in body else len(body)
    return Record(
        line,
        "\n".join(body[:split]),
        "query",
        types=words[1],
        sort=words[2] if len(words) > 2 else "nosort",
        label=words[3] if len(words) > 3 else "",
        expected=body[split + 1 :],
    )


def as_text(kind: str, value: Any) -> str:
    """One value as the scripts write it."""
    if value is None:
        return "NULL"
    if kind == "I":
        return str(_integer(value))
    if kind == "R":
        # SQLite's own printf writes zeros behind the sixteenth digit.
        number = _real(value)
        return f"{Decimal(f'{number:.15e}') if isfinite(number) else number:.3f}"
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    text = value if isinstance(value, str) else _number_text(value)
    if text == "":
        return "(empty)"
    return "".join(sign if " " <= sign <= "~" else "@" for sign in text)


def _integer(value: Any) -> int:
    if isinstance(value, float):
        return int(value)
    if isinstance(value, str | bytes):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        digits = ""
        for sign in text.strip():
            if sign.isdigit() or (sign in "+-" and not digits):
                digits += sign
            else:
                break
        return int(digits) if digits.strip("+-") else 0
    return int(value)


def _real(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _number_text(value: float | int) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def result_lines(record: Record, rows: list[tuple[Any, ...]]) -> list[str]:
    """The rows as the script writes them, sorted as it says."""
    texts = [
        [as_text(kind, value) for kind, value in zip(record.types, row, strict=False)]
        for row in rows
    ]
    if record.sort == "rowsort":
        texts.sort()
    flat = [text for row in texts for text in row]
    if record.sort == "valuesort":
        flat.sort()
    return flat


def agrees(record: Record, found: list[str]) -> bool:
    """Whether that is what the script expects: the values (some scripts have those of a row on one
    line), or their number and MD5."""
    expected = record.expected
    if len(expected) == 1 and " values hashing to " in expected[0]:
        digest = hashlib.md5("".join(line + "\n" for line in found).encode()).hexdigest()
        return expected[0] == f"{len(found)} values hashing to {digest}"
    if found == expected:
        return True
    width = len(record.types)
    rows = ["\t".join(found[at : at + width]) for at in range(0, len(found), max(width, 1))]
    return rows == expected
