"""Whose exception it was: a checker or a judge that cannot make sense of what it saw has found
something, and says so as it says everything else."""

from __future__ import annotations

import traceback
from pathlib import Path

from tests.sim.checkers.base import Broken

_TESTS = Path(__file__).parents[2]
CAUSES_MAX = 8
_JUDGES = (_TESTS / "sim" / "checkers", _TESTS / "workloads")


def blamed(error: BaseException | None) -> Broken | None:
    """As a broken invariant, named by the checker's or workload's file, what an exception says that
    came out of one of them; None of any other.

    Their code is short and reads what nodes, messages and answers hold: what it does not expect to
    find there (an index that no log has, rows of another shape) is what no sound node shows.
    """
    seen = 0
    while error is not None and seen < CAUSES_MAX:
        found = _of_a_judge(error)
        if found is not None:
            return found
        # Whoever caught it may have raised another one.
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _of_a_judge(error: BaseException) -> Broken | None:
    frames = traceback.extract_tb(error.__traceback__)
    judges = [frame for frame in frames if Path(frame.filename).parent in _JUDGES]
    if not judges:
        return None
    last = judges[-1]
    name = Path(last.filename).stem.replace("_", " ")
    return Broken(
        name,
        f"makes no sense of what it sees: {type(error).__name__}: {error} (in {last.name}, line "
        f"{last.lineno}: {last.line})",
    )
