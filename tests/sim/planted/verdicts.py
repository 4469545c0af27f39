"""Bugs in what becomes of requests that are held for a verdict (M4), and of a copy that the log has
outrun (row 12): what comes twice, or too late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.machine.applier import Applier
from raftdb.machine.keys import Keys
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script

# -- bugs ------------------------------------------------------------------------------------------


def _early_reversed() -> list[Patch]:
    """What was applied before a request that is held is told the wrong way round."""
    apply_units = Applier._apply_units

    def reversing(self: Applier, entries: Any, units: Any, skipped: Sequence[bytes]) -> Any:
        done = apply_units(self, entries, units, skipped)
        self._early = dict(enumerate(reversed(list(self._early.values()))))
        return done

    return [(Applier, "_apply_units", reversing)]


def _keys_not_read_again() -> list[Patch]:
    """What a transaction that was lost had taken down of keys stays in memory."""
    record = Keys.record

    def clean(self: Keys, *rest: Any) -> None:
        record(self, *rest)
        self.dirty = False

    return [(Keys, "record", clean)]


BUGS: tuple[Bug, ...] = (
    Bug("early-replies-reversed", "M1", "replies change places", make=_early_reversed),
    Bug("keys-not-read-again", "S3", "a lost transaction's keys stay", make=_keys_not_read_again),
)

SCRIPTED = {
    "early-replies-reversed": "long-requests",
    "keys-not-read-again": "long-requests",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {}
