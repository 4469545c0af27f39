"""Changes of members, as an administrator asks for them: `raftdb member …`, and by the Python API.

Everything here runs on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftdb.base.cluster import ClusterSettings, goal_problem
from raftdb.base.errors import ConfigError, Error, InterfaceError, OperationalError
from raftdb.base.ids import Address, NodeId, parse_location, parse_node_id, parse_reachable
from raftdb.consensus.membership import (
    VOTER,
    Add,
    ChangeError,
    Configuration,
    Demote,
    Member,
    MemberChange,
    Move,
    Promote,
    Remove,
    changed,
)
from raftdb.consensus.port import Changed, ChangeOutcome, EnginePort, NotChanged
from raftdb.node.calls import Answer, Done, write_deadline
from raftdb.node.replica import Replica

CHANGES = ("add", "remove", "promote", "demote", "move")
AGAIN = frozenset(("not_ready", "change_under_way", "transfer_under_way", "stopping"))
"""The same request may be good in a moment."""
NOT_NOW = frozenset(("no_quorum", "not_caught_up"))
"""It may be good later, when something was done about it."""


class Membership:
    """What is asked of the leader about members."""

    def __init__(
        self,
        replica: Replica,
        engine: EnginePort,
        settings: Callable[[], ClusterSettings],
        release_of: Callable[[str], Mapping[str, Any]] = lambda _node_id: {},
    ) -> None:
        """`release_of`: what is known of the release that a member runs."""
        self._replica = replica
        self._engine = engine
        self._settings = settings
        self._release_of = release_of

    def ask(self, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
        """`change` (one of CHANGES; none: only tell), `node`, `location`, `peer`, `client`,
        `force`. The answer's body: `members`, `index`, `removed`. Raises what is wrong with the
        arguments."""
        kind, force = _text(arguments, "change"), arguments.get("force", False)
        if type(force) is not bool:
            raise InterfaceError("force is true or false")
        refused = self._replica.refuse()
        if refused is not None:
            raise refused
        if not kind:
            self._replica.confirm(lambda _index, error: self._tell(error, done))
            return
        change = change_of(kind, arguments, force)
        if not force:
            self._check_goal(change)
        call = self._replica.call(timeout_s, done, write_deadline)
        self._engine.change_members(change, lambda outcome: call.end(*self._answer(outcome)))

    def _check_goal(self, change: MemberChange) -> None:
        """A change that breaks the declared survival goal needs to be forced."""
        status = self._engine.status()
        before = Configuration(status.members, status.removed)
        try:
            after = changed(before, change)
        except ChangeError:
            return
        survive = self._settings()
        was = goal_problem(survive, voting(before))
        problem = goal_problem(survive, voting(after))
        if problem and not was:
            raise OperationalError(
                f"the survival goal would be broken: {problem}",
                code="survival_goal",
                hint="add voters in other places first, declare less, or say --force",
            )

    def _answer(self, outcome: ChangeOutcome) -> tuple[Answer | None, Error | None]:
        if isinstance(outcome, Changed):
            told = facts(outcome.configuration, int(outcome.index), self._release_of)
            return Answer(told, int(outcome.index)), None
        if not isinstance(outcome, NotChanged):
            return None, OperationalError(
                f"it is not known whether the change was made: {outcome.reason}",
                code="outcome_unknown",
                retryable=True,
                outcome="unknown",
                hint="ask again: what is done already is answered as done (raftdb member list)",
            )
        if outcome.code == "not_leader":
            return None, self._replica.refuse() or OperationalError(
                outcome.message, code=outcome.code, retryable=True
            )
        if outcome.code in AGAIN | NOT_NOW:
            return None, OperationalError(
                outcome.message,
                code=outcome.code,
                retryable=outcome.code in AGAIN,
                hint=outcome.hint or "try again in a moment",
            )
        return None, ConfigError(outcome.message, code=outcome.code, hint=outcome.hint)

    def _tell(self, error: Error | None, done: Done) -> None:
        if error is not None:
            done(None, error)
            return
        status = self._engine.status()
        configuration = Configuration(status.members, status.removed)
        told = facts(configuration, int(status.configuration_index), self._release_of)
        done(Answer(told, int(status.applied_index)), None)


def voting(configuration: Configuration) -> list[Member]:
    """Its voters."""
    return [one for one in configuration.members if one.role == VOTER]


def facts(
    configuration: Configuration, index: int, release_of: Callable[[str], Mapping[str, Any]]
) -> dict[str, Any]:
    """For people and programs."""
    return {
        "index": index,
        "members": tuple(
            {
                "node_id": str(one.node_id),
                "role": one.role,
                "location": one.location,
                "peer_address": str(one.peer_address),
                "client_address": str(one.client_address),
                **release_of(str(one.node_id)),
            }
            for one in configuration.members
        ),
        "removed": tuple(str(one) for one in configuration.removed),
    }


def change_of(kind: str, arguments: Mapping[str, Any], force: bool) -> MemberChange:
    """Raises InterfaceError and ConfigError."""
    node_id = parse_node_id(_text(arguments, "node"))
    if kind == "add":
        return Add(
            Member(
                node_id,
                parse_location(_text(arguments, "location")),
                parse_reachable(_text(arguments, "peer")),
                parse_reachable(_text(arguments, "client")),
            )
        )
    if kind == "remove":
        return Remove(node_id, force)
    if kind == "promote":
        return Promote(node_id)
    if kind == "demote":
        return Demote(node_id, force)
    if kind == "move":
        return _move(node_id, arguments)
    raise InterfaceError(f"{kind!r} is no change of members", hint=", ".join(CHANGES))


def _move(node_id: NodeId, arguments: Mapping[str, Any]) -> Move:
    location = _text(arguments, "location")

    def address(name: str) -> Address | None:
        text = _text(arguments, name)
        return parse_reachable(text) if text else None

    return Move(
        node_id, parse_location(location) if location else None, address("peer"), address("client")
    )


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name, "")
    if not isinstance(value, str):
        raise InterfaceError(f"{name} is {type(value).__name__}, not text")
    return value
