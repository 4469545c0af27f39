"""What two nodes must have in common for the same request to have the same effect (rule M6)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import apsw

from raftdb.base.errors import ProtocolError
from raftdb.machine.format import FORMAT_VERSION

_PLATFORM_OPTIONS = ("COMPILER=", "MUTEX_", "ATOMIC_INTRINSICS", "MALLOC_SOFT_LIMIT")
"""Compile options that differ between builds for different machines and change no result."""

_NUMBERS = "0.1, 0.5, 0.7, 1.0, 1.5, 2.0, 2.718281828459045, 3.3, 10.0, 123.456, 98765.4321, 1e10"
_ARITHMETIC = f"""
WITH n(x) AS (SELECT value FROM json_each('[{_NUMBERS}]'))
SELECT group_concat(line, char(10)) FROM (
    SELECT printf('%!.17g', x) || ' ' || printf('%!.17g', sin(x)) || ' ' || printf('%!.17g', cos(x))
    || ' ' || printf('%!.17g', tan(x)) || ' ' || printf('%!.17g', atan2(x, 3.1))
    || ' ' || printf('%!.17g', exp(x / 1000)) || ' ' || printf('%!.17g', ln(x))
    || ' ' || printf('%!.17g', log10(x)) || ' ' || printf('%!.17g', log2(x))
    || ' ' || printf('%!.17g', pow(x, 1.0 / 3)) || ' ' || printf('%!.17g', sqrt(x))
    || ' ' || printf('%!.17g', sinh(x / 1e4)) || ' ' || printf('%!.17g', tanh(x))
    || ' ' || printf('%!.17g', asinh(x)) || ' ' || printf('%!.17g', asin(1 / (x + 1)))
    || ' ' || (x / 3) || ' ' || (x * 1e300) || ' ' || round(x, 2) || ' ' || CAST(x / 7 AS TEXT)
    || ' ' || printf('%.3f', x / 7) || ' ' || CAST(x * 1e18 AS INTEGER)
    || ' ' || CAST((x || 'e-5') AS REAL) || ' ' || julianday(x * 1000)
    || ' ' || strftime('%Y-%m-%d %H:%M:%f', x * 1000) || ' ' || datetime(x * 1e5, 'unixepoch')
    AS line FROM n ORDER BY x)
UNION ALL SELECT printf('%!.17g', avg(x)) || ' ' || printf('%!.17g', sum(x / 3)) FROM n
UNION ALL SELECT ('1.7976931348623157e308' * 1.0) || ' ' || 4.9e-324 || ' ' || (-0.0)
    || ' ' || 1e999
"""
"""Fixed inputs for the C library's functions, and for number to text and back."""

_SAMPLE = """
WITH RECURSIVE n(i, s) AS (
    VALUES (1, 20260101)
    UNION ALL SELECT i + 1, (s * 1103515245 + 12345) % 2147483648 FROM n WHERE i < 2000
), v(x) AS (
    SELECT (s / 2147483648.0 + 1e-6) * CASE i % 4 WHEN 0 THEN 1 WHEN 1 THEN 10 WHEN 2 THEN 100
    ELSE 0.01 END FROM n)
SELECT sin(x), cos(x), tan(x), exp(x / 10), ln(x), log10(x), log2(x), pow(x, 1.7), pow(x, -0.3),
    sqrt(x), sinh(x / 10), cosh(x / 10), tanh(x), asinh(x), acosh(x + 1), atanh(x / 101),
    asin(x / 101), acos(x / 101), atan(x), atan2(x, 3.1), mod(x, 0.7), round(x, 3), x / 3 || '',
    degrees(x), julianday(x * 1000)
FROM v
"""
"""C libraries, and one library on processors with and without fused multiplication, differ in the
last bit of one result in a thousand: _ARITHMETIC, which every release compares, has too few."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Exchanged when nodes meet; a difference refuses the connection."""

    format_version: int
    sqlite_version: str
    sqlite_source_id: str
    compile_options: str
    """Hexadecimal digest of those that may change a result."""
    arithmetic: str
    """Hexadecimal digest of the results of fixed mathematical inputs."""

    def differences(self, other: Fingerprint) -> list[str]:
        """In what the other node differs, for people; empty when both fit together."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name}: {mine[name]} here, {theirs[name]} there"
            for name in mine
            if mine[name] != theirs[name]
        ]

    def to_bytes(self) -> bytes:
        """16 bytes that are equal when nothing differs."""
        return bytes.fromhex(_digest(repr(sorted(asdict(self).items()))))

    def to_wire(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Fingerprint:
        """Read what `to_wire` gave. Raises ProtocolError."""
        try:
            return cls(
                format_version=int(value["format_version"]),
                sqlite_version=str(value["sqlite_version"]),
                sqlite_source_id=str(value["sqlite_source_id"]),
                compile_options=str(value["compile_options"]),
                arithmetic=str(value["arithmetic"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"a fingerprint does not read: {error!r}") from error


@cache
def fingerprint() -> Fingerprint:
    """Of this process: SQLite's build, and what its arithmetic gives on this machine."""
    connection = apsw.Connection(":memory:")
    try:
        options = sorted(o for o in apsw.compile_options if not o.startswith(_PLATFORM_OPTIONS))
        lines = [text for (text,) in connection.execute(_ARITHMETIC)]
    finally:
        connection.close()
    return Fingerprint(
        format_version=FORMAT_VERSION,
        sqlite_version=apsw.sqlite_lib_version(),
        sqlite_source_id=apsw.sqlite3_sourceid(),
        compile_options=_digest("\n".join(options)),
        arithmetic=_digest("\n".join(lines)),
    )


@cache
def arithmetic_sample() -> str:
    """Hexadecimal digest of 50,000 results: some 50 ms the first time. Compared before a node joins
    and before an upgrade, with whoever tells one."""
    connection = apsw.Connection(":memory:")
    try:
        return _digest("\n".join(map(repr, connection.execute(_SAMPLE))))
    finally:
        connection.close()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
