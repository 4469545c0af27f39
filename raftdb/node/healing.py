"""A node whose own files are damaged mends itself from the others.

What is damaged is known before the node takes part (`raftdb.base.damage`). Here: who is asked for a
copy, how soon after the last time, and when to give up, because nobody has anything better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from raftdb.base.damage import Damage, DamageNote, write_note
from raftdb.base.errors import Error, FatalError, OperationalError
from raftdb.base.ports import Ports
from raftdb.base.startup import time_text
from raftdb.consensus.port import DAMAGE, EnginePort

CHECK_EVERY_S = 1.0
EVERYWHERE_S = 5.0
"""All others have been heard to be damaged too for this long: then this node gives up."""
REPEATED_IN_S = 3600.0
AT_ONCE = 4
"""So many times in an hour it heals at once; after that it waits longer each time."""
PAUSE_S = 10.0
PAUSE_MAX_S = 600.0


class Copying(Protocol):
    """What is needed of the engine's copies."""

    def need(self, sources: Sequence[str], at_least: int, *, damaged: bool = False) -> None: ...

    def status(self) -> dict[str, Any]: ...


class Healing:
    """Of one node whose database is damaged. Belongs to the loop."""

    def __init__(
        self,
        *,
        damage: Damage,
        note: DamageNote,
        data_dir: str,
        others: Sequence[str],
        engine: EnginePort,
        copies: Copying,
        ports: Ports,
        give_up: Callable[[BaseException], None],
    ) -> None:
        self.damage = damage
        self._note = note
        self._data_dir = data_dir
        self._others = tuple(others)
        self._engine = engine
        self._copies = copies
        self._ports = ports
        self._give_up = give_up
        self._timer: Any = None
        self._since_s: float | None = None
        self._at_least = 0
        self.state = "waiting"
        """`waiting` (for its time, or to be relieved of its vote), `fetching`."""

    def stand_down(self) -> None:
        """Neither lead nor give copies."""
        self._engine.stand_down(self.damage.reason, cause=DAMAGE)

    def start(self, at_least: int = 0) -> None:
        """Stand down, and fetch a copy of that entry or a later one: now, or a while after the last
        ones."""
        self.stand_down()
        self._at_least = at_least
        if not self._others:
            self._ports.executor.call_soon(self._give_up, damaged_everywhere(self.damage))
            return
        pause_s = self._pause_s()
        log = self._ports.log
        if pause_s:
            log.error(
                "damage_repeats",
                times=len(self._recent()),
                within_s=int(REPEATED_IN_S),
                next_in_s=pause_s,
                hint="this machine damages its files: check its disk and memory, and replace it",
            )
        self._timer = self._ports.executor.call_later(pause_s, self._begin)

    def stop(self) -> None:
        """The node ends, healed perhaps."""
        if self._timer is not None:
            self._timer.cancel()

    def _recent(self) -> list[int]:
        now_ms = self._ports.clock.wall_ms()
        # A clock that was set back must not make it wait for ever.
        return [one for one in self._note.healed_ms if 0 <= now_ms - one < REPEATED_IN_S * 1000]

    def _pause_s(self) -> float:
        times = len(self._recent())
        return 0.0 if times < AT_ONCE else min(PAUSE_MAX_S, PAUSE_S * 2.0 ** (times - AT_ONCE))

    def _begin(self) -> None:
        self.state = "fetching"
        note = self._note.healing(self._ports.clock.wall_ms())
        files, data_dir = self._ports.files, self._data_dir

        def written(_none: Any, error: BaseException | None) -> None:
            if error is not None:
                self._ports.log.warning("damage_not_noted", reason=str(error))

        self._ports.executor.submit(
            "checkpoint", lambda: write_note(files, data_dir, note), written
        )
        self._ports.log.warning("healing", sources=", ".join(self._sources()))
        self._copies.need(self._sources(), self._at_least, damaged=True)
        self._watch()

    def _sources(self) -> tuple[str, ...]:
        """The leader last: it has most to do."""
        leader = self._engine.status().leader
        return tuple(sorted(self._others, key=lambda name: (name == leader, name)))

    def _watch(self) -> None:
        self._timer = self._ports.executor.call_later(CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        refused = self._copies.status()["refused"]
        if any(refused.get(name) != DAMAGE for name in self._others):
            self._since_s = None
        else:
            now_s = self._ports.clock.monotonic_s()
            self._since_s = self._since_s if self._since_s is not None else now_s
            if now_s - self._since_s >= EVERYWHERE_S:
                self._give_up(damaged_everywhere(self.damage))
                return
        self._watch()


def damaged_everywhere(damage: Damage) -> FatalError:
    """No member has a database that another could begin with."""
    return FatalError(
        f"the database is damaged on every member; here: {damage}",
        code="damaged_everywhere",
        hint="keep all data directories, and restore the cluster from its archive "
        "(raftdb restore, docs/archive.md)",
        detail={"file": damage.file, "offset": damage.offset},
    )


def quarantined(node_id: str, damage: Damage) -> Error:
    """What a node says to all who ask while it is damaged."""
    return OperationalError(
        f"{node_id} is quarantined: {damage}",
        code="quarantined",
        retryable=True,
        hint="use another node; this one fetches a copy of the database by itself "
        "(raftdb status tells)",
    )


def damage_facts(damage: Damage | None, healing: Healing | None) -> dict[str, Any] | None:
    """For the status."""
    if damage is None:
        return None
    return {
        "kind": damage.kind,
        "file": damage.file,
        "offset": damage.offset,
        "reason": damage.reason,
        "found": time_text(damage.found_ms),
        "state": "stopping" if healing is None else healing.state,
    }
