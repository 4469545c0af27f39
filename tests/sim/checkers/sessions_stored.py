"""What a machine knows of sessions and keys in memory is what its database has, and what the others
have at the same index: else an answer would depend on who is asked, or on a restart (rule S1)."""

from __future__ import annotations

from typing import Any

from raftdb.command import Commit, Execute
from raftdb.consensus.entry import decode_payloads
from raftdb.machine.format import PREFIX
from raftdb.machine.keys import Keys
from raftdb.machine.sessions import Sessions
from tests.sim.checkers.base import Broken, Checker, decoded

TABLES = ("session", "reply", "key", "horizon")


class SessionsStored(Checker):
    def __init__(self) -> None:
        self._known: set[tuple[int, int]] = set()
        """(index, term) of entries that were looked at."""
        self._floors: dict[int, int] = {}
        """The highest sequence up to which a session's client has said that it has all replies."""

    def on_append(self, node: Any, entries: list[Any]) -> None:
        for entry in entries:
            name = int(entry.index), int(entry.term)
            if name in self._known:
                continue
            self._known.add(name)
            for payload in decode_payloads(entry.data):
                request = decoded(payload)
                if isinstance(request, Execute | Commit):
                    known = self._floors.get(request.session, 0)
                    self._floors[request.session] = max(known, request.floor)

    def on_session_ended(self, node: Any, number: int) -> None:
        # Logged time goes in steps of minutes at most, whatever clocks do, and a run is short.
        raise Broken("sessions go on", f"{node.name} ends session {number}, as if idle for a day")

    def finish(self, simulation: Any) -> None:
        seen: dict[int, tuple[str, dict[str, list[Any]]]] = {}
        for node in simulation.cluster.live():
            machine = node.machine
            if machine.absent or simulation.cluster.hosts[node.name].damaged:
                continue
            applier = machine._applier
            self._compare_memory(node.name, applier)
            for number, one in applier.sessions._sessions.items():
                said = self._floors.get(number, 0)
                if one.floor > said:
                    raise Broken(
                        "replies are kept",
                        f"{node.name} has forgotten replies of session {number} up to "
                        f"{one.floor}, its client has said that it has them up to {said}",
                    )
            index = node.applied_index
            rows = {
                table: sorted(applier._run(f"SELECT * FROM {PREFIX}{table}"), key=repr)
                for table in TABLES
            }
            first, theirs = seen.setdefault(index, (node.name, rows))
            for table in rows:
                if rows[table] != theirs[table]:
                    raise Broken(
                        "sessions are stored",
                        f"{first} and {node.name} differ in {PREFIX}{table} at {index}",
                    )

    @staticmethod
    def _compare_memory(name: str, applier: Any) -> None:
        again = Sessions(applier._run, applier._control)
        again.load()
        mine, stored = _shown(applier.sessions), _shown(again)
        if mine != stored:
            number = next(one for one in {**mine, **stored} if mine.get(one) != stored.get(one))
            raise Broken(
                "sessions are stored",
                f"{name} has session {number} in memory as {mine.get(number)}, in its database as "
                f"{stored.get(number)}",
            )
        keys = Keys(applier._run)
        keys.load()
        # Which of two came first within a millisecond is not stored, and does not matter.
        mine_keys, stored_keys = sorted(applier.keys._order), sorted(keys._order)
        if (mine_keys, applier.keys._bytes) != (stored_keys, keys._bytes):
            raise Broken("sessions are stored", f"{name} has other keys in memory than stored")


def _shown(sessions: Sessions) -> dict[int, tuple[Any, ...]]:
    return {
        number: (one.sequence, one.stored, one.floor, one.sizes, one.used_ms, one.row_first)
        for number, one in sessions._sessions.items()
    }
