"""The cluster's settings at this node: read, declared, and watched whether they are kept (L1).

Everything here runs on the loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raftdb.base.cluster import (
    SETTINGS_BYTES_MAX,
    ClusterSettings,
    check_change,
    goal_problem,
    impossible,
    read_settings,
    remarks,
)
from raftdb.base.errors import ConfigError, DataError, Error, InterfaceError, OperationalError
from raftdb.base.locations import majority
from raftdb.base.ports import Ports
from raftdb.command import Configure, Results, decode_reply, encode_request
from raftdb.consensus.port import EnginePort, EngineStatus, Member
from raftdb.machine import Machine
from raftdb.node.calls import Answer, Done
from raftdb.node.replica import Replica

CHECK_EVERY_S = 1.0


class Goals:
    """What was declared, and whether it holds."""

    def __init__(
        self,
        replica: Replica,
        engine: EnginePort,
        machine: Machine,
        voters: Callable[[], Sequence[Member]],
        ports: Ports,
    ) -> None:
        self._replica = replica
        self._engine = engine
        self._machine = machine
        self._voters = voters
        self._ports = ports
        self._stored: Mapping[str, Any] | None = None
        self._settings = ClusterSettings()
        self._problem = ""
        """As it was logged last."""
        self._timer: Any = None
        replica.durable.cell = machine.settings_cell

    @property
    def settings(self) -> ClusterSettings:
        """As applied here."""
        stored = self._machine.settings
        if stored is not self._stored:
            self._stored, self._settings = stored, read_settings(stored)
        return self._settings

    def start(self) -> None:
        """Begin to watch."""
        self._timer = self._ports.executor.call_later(CHECK_EVERY_S, self._check)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    # ---- declaring

    def ask(self, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
        """`changes` (a map; none: only tell), `force`. The answer's body: `settings`, `remarks`,
        `problem`. Raises what is wrong with the changes."""
        changes, force = arguments.get("changes", {}), arguments.get("force", False)
        if not isinstance(changes, Mapping) or type(force) is not bool:
            raise InterfaceError("changes are a map, and force is true or false")
        if not changes:
            self._replica.confirm(lambda _index, error: self._tell(error, done))
            return
        refused = self._replica.refuse()
        if refused is not None:
            self._ports.executor.call_soon(done, None, refused)
            return
        checked = {str(name): check_change(name, value) for name, value in changes.items()}
        stored = {**self._machine.settings, **checked}
        wanted = {name: value for name, value in stored.items() if value is not None}
        self._check_declared(read_settings(wanted), force)
        if len(json.dumps(wanted)) > SETTINGS_BYTES_MAX:
            raise DataError(
                f"settings of more than {SETTINGS_BYTES_MAX} bytes", code="settings_too_large"
            )
        payload = encode_request(Configure(self._replica.stamp(), checked))
        self._replica.propose(payload, timeout_s, lambda a, e: self._declared(a, e, done))

    def _check_declared(self, wanted: ClusterSettings, force: bool) -> None:
        voters = self._voters()
        never = impossible(wanted, voters)
        if never:
            raise ConfigError(
                never, code="locations_impossible", hint="add voters elsewhere, or ask for less"
            )
        problem = goal_problem(wanted, voters)
        if problem and not force:
            raise ConfigError(
                problem,
                code="survival_goal",
                hint="add voters in other places, declare less, or say --force",
            )

    def _declared(self, answer: Answer | None, error: Error | None, done: Done) -> None:
        if answer is None:
            done(None, error)
            return
        reply = decode_reply(answer.body)
        if not isinstance(reply, Results):
            done(None, OperationalError("the settings were not taken", code="settings"))
            return
        stored = json.loads(str(reply.statements[0].rows[0][0]))
        self._ports.log.info("cluster_settings", **stored)
        done(Answer(self._told(stored), answer.index), None)

    def _tell(self, error: Error | None, done: Done) -> None:
        if error is not None:
            done(None, error)
        else:
            index = self._replica.applied_index()
            done(Answer(self._told(dict(self._machine.settings)), index), None)

    def _told(self, stored: dict[str, Any]) -> dict[str, Any]:
        settings, voters = read_settings(stored), self._voters()
        return {
            "settings": _frozen(stored),
            "remarks": remarks(settings, voters),
            "problem": goal_problem(settings, voters),
        }

    # ---- watching

    def gone(self, status: EngineStatus) -> set[str]:
        """Voters that this node does not reach: a leader goes by their answers."""
        leads = status.role == "leader"
        up = {str(p.node_id) for p in status.peers if (p.answers if leads else p.connected)}
        up.add(str(status.node_id))
        return {str(voter.node_id) for voter in self._voters()} - up

    def facts(self) -> dict[str, Any]:
        """For the status."""
        settings, voters = self.settings, self._voters()
        status = self._engine.status()
        gone = self.gone(status)
        facts: dict[str, Any] = {
            "settings": _frozen(dict(self._machine.settings)),
            "survival": {
                "goal": settings.survive,
                "problem": self._problem_now(gone),
                "unreachable": tuple(sorted(gone)),
                "voters": len(voters),
                "majority": majority(len(voters)),
            },
        }
        if status.role == "leader":
            durable = self._replica.durable
            facts["durable_by_region"] = durable.by_place("region")
            facts["durable_by_zone"] = durable.by_place("zone")
        return facts

    def _problem_now(self, gone: set[str]) -> str:
        settings, voters = self.settings, self._voters()
        return goal_problem(settings, voters) or goal_problem(settings, voters, gone)

    def _check(self) -> None:
        self.start()
        status = self._engine.status()
        problem = ""
        if self.settings.survive and (status.role == "leader" or status.leader is not None):
            # Who hears no leader knows nothing of the others.
            problem = self._problem_now(self.gone(status))
        if problem != self._problem:
            if problem:
                self._ports.log.warning("survival_goal_broken", reason=problem)
            else:
                self._ports.log.info("survival_goal_kept", goal=self.settings.survive)
            self._problem = problem


def _frozen(value: Any) -> Any:
    """Lists as tuples: what a message may carry."""
    if isinstance(value, Mapping):
        return {name: _frozen(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value
