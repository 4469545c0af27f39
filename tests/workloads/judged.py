"""What several workloads share in their judgement."""

from __future__ import annotations

from collections.abc import Sequence

from tests.workloads.base import Violation
from tests.workloads.history import Record
from tests.workloads.linearizability import STEPS_MAX, Model, Verdict, check_linearizable


def require_linearizable(
    records: Sequence[Record], model: Model, name: str, *, steps_max: int = STEPS_MAX
) -> Verdict:
    """Raises Violation when no order explains the history."""
    verdict = check_linearizable(records, model, steps_max=steps_max)
    if verdict.linearizable is False:
        raise Violation("linearizable", f"{name}: {verdict.explain()}")
    return verdict


def final_reads(records: Sequence[Record]) -> list[Record]:
    """The reads at the end, after all healed."""
    return [record for record in records if record.arguments.get("final")]


def require_kept(
    records: Sequence[Record],
    present: Sequence[object],
    of: str,
    *,
    what: str,
) -> None:
    """Everything acknowledged is there, exactly once; nothing that was refused is.

    `present`: what the final read shows; `of`: the argument that identifies an operation."""
    seen: set[object] = set()
    for item in present:
        if item in seen:
            raise Violation("exactly once", f"{what} {item} is there twice")
        seen.add(item)
    for record in records:
        if record.is_unknown or record.arguments.get("final"):
            continue
        item, there = record.arguments[of], record.arguments[of] in seen
        if record.succeeded and not there:
            raise Violation("acknowledged kept", f"{what} {item} is gone, though {record}")
        if not record.succeeded and there:
            raise Violation("failed means nothing", f"{what} {item} is there, though {record}")
    known = {record.arguments.get(of) for record in records}
    for item in present:
        if item not in known:
            raise Violation("nothing invented", f"{what} {item} was never written")
