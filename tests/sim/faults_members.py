"""Members that come and go while other faults last (row 19): added with an empty disk, promoted,
demoted, removed, replaced; the leader too, and at the address of one that is gone."""

from __future__ import annotations

import random

from raftdb.consensus.membership import LEARNER, Configuration
from tests.sim.faults import Kind, Nemesis
from tests.sim.members import (
    MEMBERS_MAX,
    Operator,
    address_of,
    can_lose,
    can_spare,
    new_machine,
    order,
    removed_member,
    roles,
)


def add_member(n: Nemesis, draw: random.Random, number: int) -> None:
    """A new node with an empty disk; mostly it is to become a voter."""
    known = _known(n, draw)
    if known is None or len(known.members) >= MEMBERS_MAX:
        return
    add = new_machine(n, draw, known)
    name = str(add["node"])
    n.note(f"{name} is to be added", number)
    more = [order("promote", name)] if draw.random() < 0.7 else []
    Operator(n, draw, number).wants(add, *more)


def promote_member(n: Nemesis, draw: random.Random, number: int) -> None:
    """A learner is to become a voter."""
    known = _known(n, draw)
    learners = [] if known is None else roles(known, LEARNER)
    if learners:
        Operator(n, draw, number).wants(order("promote", str(draw.choice(learners).node_id)))


def demote_member(n: Nemesis, draw: random.Random, number: int) -> None:
    """A voter, perhaps the leader, is to become a learner; some time later a voter again."""
    known = _known(n, draw)
    name = None if known is None else _voter(n, draw, known)
    if name is not None:
        more = [order("promote", name)] if draw.random() < 0.5 else []
        force = draw.random() < 0.3
        Operator(n, draw, number).wants(order("demote", name, force=force), *more)


def remove_member(n: Nemesis, draw: random.Random, number: int) -> None:
    """A member, perhaps the leader, is to go; then somebody may try to add that very node again."""
    known = _known(n, draw)
    if known is None:
        return
    learners = [str(one.node_id) for one in roles(known, LEARNER)]
    name = draw.choice(learners) if learners and draw.random() < 0.3 else _voter(n, draw, known)
    if name is not None:
        again = [removed_member(n.cluster.hosts[name])] if draw.random() < 0.3 else []
        force = draw.random() < 0.3
        Operator(n, draw, number).wants(order("remove", name, force=force), *again)


def replace_member(n: Nemesis, draw: random.Random, number: int) -> None:
    """A voter's machine is gone for good, perhaps the leader's. Another one, with an empty disk,
    takes its place, mostly at the same address."""
    known = _known(n, draw)
    name = None if known is None else _voter(n, draw, known)
    if known is None or name is None or not can_lose(n, n.cluster.hosts[name]):
        return
    n.note(f"{name} is lost for good, with its disk", number)
    n.cluster.retire(name, lost=True)
    at = address_of(n.cluster.hosts[name]) if draw.random() < 0.7 else ""
    add = new_machine(n, draw, known, at)
    promote = order("promote", str(add["node"]))
    operator = Operator(n, draw, number)
    if at or draw.random() < 0.5:
        operator.wants(order("remove", name), add, promote)
    else:
        operator.wants(add, promote, order("remove", name))


def _known(n: Nemesis, draw: random.Random) -> Configuration | None:
    """Who the members are, as somebody says who believes to lead."""
    leaders = n.cluster.leaders()
    return draw.choice(leaders).configurations.latest if leaders else None


def _voter(n: Nemesis, draw: random.Random, known: Configuration) -> str | None:
    """One that can be spared, often a leader."""
    voters = [name for name in known.voters if can_spare(n, known, name)]
    leading = [node.name for node in n.cluster.leaders() if node.name in voters]
    if leading and draw.random() < 0.4:
        return draw.choice(leading)
    return draw.choice(voters) if voters else None


KINDS = {
    "add-member": Kind(add_member, 2.0),
    "promote-member": Kind(promote_member, 2.0),
    "demote-member": Kind(demote_member, 1.5),
    "remove-member": Kind(remove_member, 1.5),
    "replace-member": Kind(replace_member, 1.5),
}
