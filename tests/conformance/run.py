"""Runs a script against SQLite and a target, and lists where they differ."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from raftdb.client.sqltext import split
from tests.conformance.script import Record, agrees, parse, result_lines
from tests.conformance.targets import Failure, Outcome, Target

DIFFERENCES_MAX = 20


@dataclass
class Tally:
    """Of one file."""

    statements: int = 0
    queries: int = 0
    stale: int = 0
    """Records at which the bundled SQLite itself is not as the file expects (an older SQLite wrote
    it, or its text for reals differs)."""
    refused: int = 0
    """Statements that raftdb refuses by design (docs/sql.md); SQLite is not given them either."""
    differences: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    """Of queries with a label, a digest of what the target found: all of one label say the same."""


def run(text: str, plain: Target, target: Target) -> Tally:
    """Each record on both."""
    tally = Tally()
    for record in parse(text):
        if record.kind == "query":
            tally.queries += 1
        else:
            tally.statements += 1
        _record(record, plain, target, tally)
        if len(tally.differences) >= DIFFERENCES_MAX:
            break
    return tally


def _record(record: Record, plain: Target, target: Target, tally: Tally) -> None:
    wanted: Outcome | None = None
    found: Outcome | None = None
    for sql in split(record.sql) or [record.sql]:  # A few records hold several statements.
        found = target.run(sql)
        if isinstance(found, Failure) and found.refused:
            tally.refused += 1
            continue
        wanted = plain.run(sql)
        why = difference(record, wanted, found)
        if why:
            tally.differences.append(f"line {record.line}: {why}\n  {sql}")
        if isinstance(wanted, Failure):
            break
    if record.label and isinstance(found, list):
        lines = "\n".join(result_lines(record, found))
        digest = hashlib.md5(lines.encode(), usedforsecurity=False).hexdigest()
        if tally.labels.setdefault(record.label, digest) != digest:
            tally.differences.append(f"line {record.line}: others of {record.label} differ")
    if wanted is not None and not _as_expected(record, wanted):
        tally.stale += 1


def difference(record: Record, wanted: Outcome, found: Outcome) -> str:
    """In what the target is not as SQLite; `` when it is."""
    if isinstance(wanted, Failure) != isinstance(found, Failure):
        return f"{target_text(found)} instead of {target_text(wanted)}"
    if isinstance(wanted, Failure) or isinstance(found, Failure):
        assert isinstance(wanted, Failure)
        assert isinstance(found, Failure)
        if (wanted.code, wanted.message) != (found.code, found.message):
            return f"{target_text(found)} instead of {target_text(wanted)}"
        return ""
    ordered = record.sort == "nosort"
    left, right = [repr(row) for row in wanted], [repr(row) for row in found]
    if left != right and (ordered or sorted(left) != sorted(right)):
        return f"{target_text(found)} instead of {target_text(wanted)}"
    return ""


def target_text(outcome: Outcome) -> str:
    """For people."""
    if isinstance(outcome, Failure):
        return f"error {outcome.code} {outcome.message!r}"
    return f"{len(outcome)} rows {outcome[:3]!r}"


def _as_expected(record: Record, outcome: Outcome) -> bool:
    if record.kind == "statement":
        return isinstance(outcome, Failure) == record.fails
    if isinstance(outcome, list) and any(len(row) != len(record.types) for row in outcome[:1]):
        return False
    return not isinstance(outcome, Failure) and agrees(record, result_lines(record, outcome))
