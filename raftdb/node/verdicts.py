"""What becomes of a request that runs long: the leader tries it out, and logs a verdict (rule M4).

All replicas hold such a request, uncommitted, when it has taken many steps; none decides by itself.
The leader executes it once more, undoes it, and proposes `keep`, or `abort` when it ran longer than
`limits.write_ms_max`. Whatever the log says first is what all of them do. Meanwhile later writes
wait, heartbeats and local reads do not.
"""

from __future__ import annotations

from typing import Protocol

from raftdb.base.errors import FatalError
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.command import Verdict, encode_request
from raftdb.command.requests import Stamp
from raftdb.consensus.port import EnginePort, EngineStatus, ProposalOutcome

AGAIN_S = 0.2
"""Until a leader whose proposal came to nothing looks again."""


class Holding(Protocol):
    """What is needed of the machine."""

    def held(self) -> tuple[int, int] | None: ...

    def try_held(self, limit_s: float) -> bool | None: ...

    def cancel_trial(self, cancelled: bool = True) -> None: ...


class Verdicts:
    """One node's part in it. Everything here runs on the loop."""

    def __init__(self, engine: EnginePort, machine: Holding, ports: Ports, limits: Limits) -> None:
        self._engine = engine
        self._machine = machine
        self._ports = ports
        self._limit_s = limits.write_ms_max / 1000
        self._trying = False
        self._stopped = False

    def stop(self) -> None:
        """The node stops: a trial that runs must not hold it up."""
        self._stopped = True
        self._machine.cancel_trial()

    def on_role(self, status: EngineStatus) -> None:
        """Only a leader judges."""
        if status.role == "leader":
            self.on_waiting()
        else:
            self._machine.cancel_trial()

    def on_waiting(self) -> None:
        """A request is held here, or may be."""
        held = self._machine.held()
        if held is None or self._trying or self._stopped:
            return
        if self._engine.status().role != "leader":
            return
        self._trying = True
        self._machine.cancel_trial(False)
        self._ports.log.warning("request_runs_long", index=held[0], position=held[1])

        def tried(keep: bool | None, error: BaseException | None) -> None:
            self._tried(held, keep, error)

        self._ports.executor.submit("apply", lambda: self._machine.try_held(self._limit_s), tried)

    def _tried(self, held: tuple[int, int], keep: bool | None, error: BaseException | None) -> None:
        self._trying = False
        if isinstance(error, FatalError):
            raise error
        if keep is None or self._stopped or self._machine.held() != held:
            self._later()
            return
        self._ports.log.warning("verdict", index=held[0], position=held[1], keep=keep)
        stamp = Stamp(self._ports.clock.wall_ms(), self._ports.random.randbytes(8))
        payload = encode_request(Verdict(stamp, held[0], held[1], keep))
        self._engine.propose(payload, self._proposed)

    def _proposed(self, _outcome: ProposalOutcome) -> None:
        self._later()

    def _later(self) -> None:
        if not self._stopped:
            self._ports.executor.call_later(AGAIN_S, self.on_waiting)
