"""Operators who change the members: what they ask for, of whom, and how they go on.

An operator asks the nodes themselves, as `raftdb member` does, and asks again until it is told
that the change is done or makes no sense. Half of them ask everybody who believes to lead, on
whatever side of a split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.ids import Address, NodeId
from raftdb.base.settings import MemberConfig
from raftdb.consensus.membership import Configuration, Member
from tests.sim.faults import Nemesis
from tests.sim.hosts import CLIENT_PORT, PEER_PORT, Host
from tests.sim.node import WholeNode

MEMBERS_MAX = 9
VOTERS_MIN = 2
ASKED_MAX = 25
"""So often one thing is asked for."""
FINAL = frozenset(
    ("removed", "no_member", "member_exists", "address_taken", "last_voter", "too_many_members")
)
"""Answers after which asking again brings nothing."""

Order = Mapping[str, Any]
"""Arguments of `raftdb member`."""


def order(change: str, name: str, *, force: bool = False) -> Order:
    """One change of one member."""
    return {"change": change, "node": name, "force": force}


def adding(member: MemberConfig) -> Order:
    """A new one."""
    return {
        "change": "add",
        "node": str(member.node_id),
        "location": member.location,
        "peer": str(member.peer_address),
        "client": str(member.client_address),
    }


class Operator:
    """Somebody who wants some changes, one after the other. It gives up when the faults end."""

    def __init__(self, nemesis: Nemesis, draw: random.Random, number: int) -> None:
        self._n = nemesis
        self._draw = draw
        self._number = number
        self._orders: list[Order] = []
        self._asked = self._turn = 0
        self._everybody = draw.random() < 0.5

    def wants(self, *orders: Order) -> None:
        """Begin."""
        self._n.cluster.asked_for_changes = True
        self._orders = list(orders)
        self._next()

    def _next(self) -> None:
        self._asked = 0
        if self._orders:
            self._ask()

    def _ask(self) -> None:
        """Of those who believe to lead; if nobody answers for long, again."""
        n, wanted = self._n, self._orders[0]
        self._asked += 1
        self._turn += 1
        leaders = n.cluster.leaders()
        if leaders and not self._everybody:
            leaders = [self._draw.choice(leaders)]
        for node in leaders:
            n.note(f"{node.name} is asked to {wanted['change']} {wanted['node']}", self._number)
            n.cluster.call(node.name, self._tell, node, wanted, self._turn)
        n.after(n.seconds(self._draw, (1.0, 3.0)), self._again, self._turn)

    def _tell(self, node: WholeNode, wanted: Order, turn: int) -> None:
        def done(_answer: Any, error: Error | None) -> None:
            self._answered(node.name, wanted, turn, error)

        ask = node.assembly.replica.members_asked
        assert ask is not None
        try:
            ask(wanted, 2.0 * self._n.scale, done)
        except Error as error:
            done(None, error)

    def _answered(self, name: str, wanted: Order, turn: int, error: Error | None) -> None:
        n, what = self._n, f"{wanted['change']} {wanted['node']}"
        if error is None:
            n.note(f"{what}: {name} says that it is done", self._number)
            n.member_changed(wanted)
        elif error.code in FINAL:
            n.note(f"{what}: {name} says {error.code}", self._number)
        if turn != self._turn or not n.running:
            return
        if error is None:
            self._orders.pop(0)
            self._turn += 1
            self._next()
        elif error.code in FINAL:
            self._orders.clear()
            self._turn += 1
        else:
            n.after(n.seconds(self._draw, (0.05, 0.5)), self._again, turn)

    def _again(self, turn: int) -> None:
        if turn == self._turn and self._asked < ASKED_MAX:
            self._ask()


# -- what is there to choose from -----------------------------------------------------------------


def sound_majority(n: Nemesis, voters: tuple[str, ...]) -> bool:
    """Whether most of these voters have all that they ever had."""
    hosts = n.cluster.hosts
    return sum(not hosts[name].damaged for name in voters) > len(voters) // 2


def can_spare(n: Nemesis, known: Configuration, name: str) -> bool:
    """Whether the others could go on by themselves."""
    voters = tuple(one for one in known.voters if one != name)
    return len(voters) >= VOTERS_MIN and sound_majority(n, voters)


def can_lose(n: Nemesis, host: Host) -> bool:
    """Whether a member's data may be damaged or lost, whichever change is under way or comes back
    from the log of a leader that failed: all machines are up, all logs have the same members, and
    a majority of those has its data."""
    known = []
    for one in n.cluster.hosts.values():
        if one.retired:
            continue
        if one.node is None:
            return False
        known.append(one.node.configurations)
        if one.node.engine._members._changes.active:
            return False
    if len({one.latest for one in known}) > 1 or any(one.next_index for one in known):
        return False
    voters = known[0].latest.voters
    if host.name not in voters:
        return False
    damaged = sum(n.cluster.hosts[name].damaged for name in voters)
    return not host.damaged and damaged < (len(voters) - 1) // 2


def new_machine(n: Nemesis, draw: random.Random, known: Configuration, at: str = "") -> Order:
    """A node with an empty disk, on a machine of its own or at the address of one that is gone; it
    is started. The order to add it."""
    cluster = n.cluster
    name = f"x{len(cluster.hosts) + 1}"
    machine = at or name
    member = MemberConfig(
        NodeId(name),
        draw.choice(cluster.sizes.places),
        Address(machine, PEER_PORT),
        Address(machine, CLIENT_PORT),
    )
    cluster.add_host(member, known.members)
    cluster.start(name)
    return adding(member)


def address_of(host: Host) -> str:
    """Where the machine is found."""
    return host.config.peer_listen.host


def removed_member(host: Host) -> Order:
    """To add a member of that very id again, which nobody may do."""
    config = host.config
    own = next(one for one in config.members if one.node_id == config.node_id)
    return adding(own)


def roles(known: Configuration, role: str) -> list[Member]:
    """Members of a role, in the order of their ids."""
    return [one for one in known.members if one.role == role]
