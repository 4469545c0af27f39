"""What the clients were told, judged: pure, so that the judge is tried too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raftdb.drill.load import Write
from tests.workloads import Record

EXPECTED = frozenset({"transaction_conflict", "transaction_lost"})
"""No failures: interactive transactions that met each other, or that were open on a node which led
no longer. Nothing of them was applied; a program begins them anew (docs/client.md)."""

Spans = Sequence[tuple[float, float]]


@dataclass(slots=True)
class Requests:
    """How the requests of all clients went."""

    operations: dict[str, int] = field(default_factory=dict)
    """Of the clients of each version."""
    disturbed: int = 0
    """Failed or of unknown outcome, in the moments after a kill."""
    anew: int = 0
    """Interactive transactions that had to be begun anew."""
    broken: list[str] = field(default_factory=list)


def judge_requests(
    records: Iterable[Record],
    version_of: Callable[[int], str],
    known: Mapping[str, Collection[str]],
    kills: Spans,
) -> Requests:
    """No request failed but in the moments after a kill, and the clients of each version got
    through with every workload and every read level. `version_of`: of a client by its number;
    `known`: by version, the workloads that its clients know; `kills`: seconds on the clock of the
    records, from a kill until all nodes were there again."""
    found = Requests()
    through: set[tuple[str, str, str]] = set()
    for record in records:
        version = version_of(record.client)
        found.operations[version] = found.operations.get(version, 0) + 1
        first_s = record.invoke_ns / 1e9
        # An unknown outcome has no end: it is told after the client's patience at the latest.
        last_s = first_s if record.return_ns is None else record.return_ns / 1e9
        if record.is_ok:
            through.add((version, record.workload, str(record.arguments.get("level", ""))))
        elif record.error in EXPECTED:
            found.anew += 1
        elif _within(kills, first_s, last_s):
            found.disturbed += 1
        else:
            found.broken.append(f"a request failed in a planned step: {record.error}: {record}")
    for workload, level in sorted({one[1:] for one in through}):
        for version, names in known.items():
            if workload in names and (version, workload, level) not in through:
                what = f"{workload} {level}".strip()
                found.broken.append(f"no client of {version} got through with {what}")
    return found


def failed_writes(writes: Iterable[Write], kills: Spans) -> list[str]:
    """Tries of keyed writes that failed, but for the moments after a kill."""
    return [
        f"a request failed in a planned step: {failure}"
        for write in writes
        if not _within(kills, write.sent_s, write.acknowledged_s or write.sent_s)
        for failure in write.failures
    ]


def _within(spans: Spans, first_s: float, last_s: float) -> bool:
    return any(first_s <= end_s and last_s >= begin_s for begin_s, end_s in spans)
