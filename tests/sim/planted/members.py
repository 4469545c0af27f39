"""Bugs in changes of members (row 19), and the scripts that show some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.ids import Address, NodeId
from raftdb.base.settings import MemberConfig
from raftdb.consensus import membership
from raftdb.consensus.electorate import Electorate
from raftdb.consensus.members import Members
from raftdb.consensus.wall import Wall
from raftdb.machine import applier, stored
from tests.sim.checkers import Broken
from tests.sim.hosts import CLIENT_PORT, PEER_PORT
from tests.sim.members import Order, adding, order, removed_member
from tests.sim.planted import rules
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script

LONG_S = 5.0


def _nothing(*_arguments: Any) -> None:
    pass


def _removed_leads_on() -> list[Patch]:
    """It counts itself whatever its log says, and nobody tells it to go."""
    update = Electorate.update

    def counting_itself(self: Electorate) -> None:
        update(self)
        self.is_voter = True

    return [
        (Electorate, "update", counting_itself),
        (Members, "may_leave_office", lambda _self, _applied: False),
        (Members, "_gone", _nothing),
    ]


def _ids_used_again() -> list[Patch]:
    """Whoever was removed may come again under its name."""

    def added(now: membership.Configuration, member: membership.Member) -> Any:
        return now.with_member(member)

    return [(membership, "_added", added)]


class LeadsWithHalf(Wall):
    """Row 9: half of the members count as a majority that answers."""

    def keeps_leading(self, silences_s: Iterable[float], leader_timeout_s: float) -> bool:
        silences = list(silences_s)
        heard = 1 + sum(one < leader_timeout_s for one in silences)
        return 2 * heard >= 1 + len(silences)


def _begins_as_voter() -> list[Patch]:
    """Whoever is added votes at once."""
    added = membership._added

    def voting(now: membership.Configuration, member: membership.Member) -> Any:
        found = added(now, member)
        if now.member(member.node_id) is not None:
            return found
        return found.with_member(replace(member, role=membership.VOTER))

    return [(membership, "_added", voting)]


def _not_stored() -> list[Patch]:
    """The log has who the members are, so the database need not."""
    without = {**vars(stored), "write_configuration": _nothing}
    return [(applier, "stored", SimpleNamespace(**without))]


def _settled_early() -> list[Patch]:
    """A change counts as committed when all before it is."""
    settle = Electorate.settle
    return [(Electorate, "settle", lambda self, commit: settle(self, commit + 1))]


def _forgotten_at_restart() -> list[Patch]:
    """What lies in the log behind the database is not looked at."""
    return [(Electorate, "scan", _nothing)]


BUGS = [
    Bug(
        "change-before-the-no-op",
        "row 19, classic",
        "a new leader changes members before an entry of its term is committed",
        rules.ChangesBeforeNoop,
        changes=True,
    ),
    Bug("two-changes-at-once", "row 19", "changes don't wait", rules.TwoChangesAtOnce),
    Bug(
        "old-quorum-counts",
        "row 19",
        "the committed configuration counts, not the latest one",
        rules.OldQuorumCounts,
        changes=True,
    ),
    Bug(
        "cut-configuration-stays",
        "row 19",
        "a configuration is not taken back when its entry is cut",
        rules.KeepsCutConfigurations,
    ),
    Bug(
        "learners-count",
        "row 19",
        "a learner's copy counts",
        rules.LearnersCopiesCount,
        changes=True,
    ),
    Bug("learners-stand", "row 19", "a learner stands for election", rules.AnybodyStands),
    Bug(
        "removed-disturbs",
        "rows 9 and 19 together",
        "nobody turns away who was removed, or its campaigns",
        rules.RemovedDisturbs,
    ),
    Bug(
        "removed-leads-on",
        "row 19",
        "a leader that was removed goes on leading",
        make=_removed_leads_on,
    ),
    Bug("removed-id-used-again", "row 19, J5", "an id is a member twice", make=_ids_used_again),
    Bug(
        "configuration-forgotten-at-restart",
        "row 19",
        "at a start the log behind the database is not asked who the members are",
        make=_forgotten_at_restart,
    ),
    Bug("leads-with-half", "row 9", "two of four are taken for a majority", LeadsWithHalf),
    Bug("begins-as-a-voter", "row 19", "an empty log votes", make=_begins_as_voter, changes=True),
    Bug(
        "configuration-not-stored",
        "row 19",
        "when the log has gone the members are those of before",
        make=_not_stored,
    ),
    Bug(
        "change-settled-early",
        "row 19",
        "a change is taken for committed one entry too soon",
        make=_settled_early,
        changes=True,
    ),
]


# -- scripts ---------------------------------------------------------------------------------------


def ask(s: Script, name: str, wanted: Order) -> list[Error | None]:
    """A node is asked for a change of members; the list that the outcome is put into."""
    found: list[Error | None] = []
    node = s.node(name)
    s.cluster.asked_for_changes = True

    def tell() -> None:
        try:
            node.assembly.replica.members_asked(
                wanted, LONG_S, lambda _answer, error: answered(error)
            )
        except Error as error:
            answered(error)

    def answered(error: Error | None) -> None:
        found.append(error)
        if error is None:
            s.nemesis.member_changed(wanted)

    s.cluster.call(name, tell)
    return found


def done(s: Script, wanted: Order) -> None:
    """The leader is asked until it says that it is done."""
    while True:
        s.until(lambda: bool(s.cluster.leaders()))
        found = ask(s, max(s.cluster.leaders(), key=lambda node: node.term).name, wanted)
        s.until(lambda found=found: bool(found))
        if found[0] is None:
            return
        s.run_for(0.2)


def new_node(s: Script, name: str) -> Order:
    """A node with an empty disk starts; the order to add it."""
    member = MemberConfig(
        NodeId(name), "eu/a/r1", Address(name, PEER_PORT), Address(name, CLIENT_PORT)
    )
    known = s.node(s.leader()).configurations.latest
    s.cluster.add_host(member, known.members)
    s.cluster.start(name)
    return adding(member)


def one_after_the_other(s: Script) -> None:
    """A second change while the first is on its way: it has to wait. Members come, go and come
    back as others; the leader goes too."""
    leader = s.leader()
    add = new_node(s, "x1")
    first = ask(s, leader, add)
    second = ask(s, leader, order("demote", s.others(leader, "x1")[0]))
    s.until(lambda: bool(first and second))
    if first[0] is not None or second[0] is None or second[0].code != "change_under_way":
        raise Broken("one change at a time", f"answered {first} and {second}")
    done(s, order("promote", "x1"))
    done(s, order("remove", s.leader()))
    s.written(3)


def cut_off_and_overruled(s: Script) -> None:
    """A leader that is alone puts a change into its log, which the next leader's entries replace:
    it counts by its old members again."""
    leader = s.leader()
    last = s.others(leader)[-1]
    s.only([leader], s.others(leader))
    ask(s, leader, order("demote", last, force=True))
    s.run_for(0.3)
    s.until(lambda: any(node.name != leader for node in s.cluster.leaders()))
    s.heal()
    s.written(3)
    s.run_for(0.5)


def learner_between(s: Script) -> None:
    """The leader is gone, and the others hear a learner, not each other: it does not take its
    place, though its name comes first."""
    leader = s.leader()
    done(s, new_node(s, "a1"))
    s.run_for(0.5)
    s.down(leader)
    s.only(*[(name, "a1") for name in s.others(leader, "a1")])
    s.run_for(3.0)
    s.heal()
    s.up(leader)


def removed_behind_its_back(s: Script) -> None:
    """A member is removed while nobody reaches it. When it is back it disturbs nobody, and ends."""
    leader = s.leader()
    away = s.others(leader)[0]
    s.only(s.others(away))
    done(s, order("remove", away, force=True))
    term = s.node(leader).term
    s.run_for(2.0)
    s.heal()
    s.run_for(3.0)
    if s.node(leader).role != "leader" or s.node(leader).term != term:
        raise Broken("healthy leader stays", f"{leader} led term {term} and was deposed")


def leader_goes(s: Script) -> None:
    """A leader is removed, and clients go on."""
    leader = s.leader()
    found = ask(s, leader, order("remove", leader))
    client = s.new_client()
    s.until(lambda: bool(found))
    for _ in range(4):
        wrote = s.write(0, client)
        s.until(lambda wrote=wrote: bool(wrote))


def comes_again(s: Script) -> None:
    """Who was removed asks to be a member again, under the same name: refused."""
    away = s.others(s.leader())[0]
    again = removed_member(s.host(away))
    done(s, order("remove", away))
    found = ask(s, s.leader(), again)
    s.until(lambda: bool(found))
    if found[0] is None or found[0].code != "removed":
        raise Broken("removed for good", f"asked to add {away} again: {found[0]}")


def killed_after_a_change(s: Script) -> None:
    """A member is killed when a change is in its log, and not yet in its database."""
    leader = s.leader()
    other = s.others(leader)[0]
    done(s, order("demote", s.others(leader)[1]))
    s.until(lambda: int(s.node(other).journal.durable_index) == s.node(other).journal.last_index)
    add = new_node(s, "x1")
    before = s.node(other).journal.last_index
    ask(s, leader, add)
    s.until(lambda: int(s.node(other).journal.durable_index) > before)
    s.down(other, power=False)
    s.up(other)
    s.run_for(0.5)


def half_of_them(s: Script) -> None:
    """The leader reaches one of three, and that one reaches the others: those three are a majority,
    and must not wait for a leader that can do nothing."""
    leader = s.leader()
    near, *rest = s.others(leader)
    s.only([leader, near], [near, *rest])
    s.within(
        6.0,
        lambda: any(node.role == "leader" and node.name != leader for node in s.cluster.live()),
        "check-quorum",
        f"{leader} reaches one of three, and the other three have no leader",
    )
    s.heal()


def log_of_a_change_is_gone(s: Script) -> None:
    """Members come and go, and the log goes on until their entries are let go of. Then all start
    anew."""
    add = new_node(s, "x1")
    done(s, add)
    done(s, order("promote", "x1"))
    gone = s.others(s.leader(), "x1")[0]
    done(s, order("remove", gone))
    last = s.node(s.leader()).configurations.latest_index
    s.written(60)
    s.until(lambda: all(node.journal.first_index > last for node in s.cluster.live()))
    for name in s.others(gone):
        s.down(name, power=False)
    s.up(*s.others(gone))
    s.leader()
    s.written(2)


SCRIPTED = {
    "leads-with-half": "half-of-them",
    "configuration-not-stored": "log-of-a-change-is-gone",
    "two-changes-at-once": "one-after-the-other",
    "cut-configuration-stays": "cut-off-and-overruled",
    "learners-stand": "learner-between",
    "removed-disturbs": "removed-behind-its-back",
    "removed-leads-on": "leader-goes",
    "removed-id-used-again": "comes-again",
    "configuration-forgotten-at-restart": "killed-after-a-change",
}
PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "one-after-the-other": (one_after_the_other, {"nodes": 4}),
    "cut-off-and-overruled": (cut_off_and_overruled, {"nodes": 5}),
    "learner-between": (learner_between, {}),
    "removed-behind-its-back": (removed_behind_its_back, {}),
    "leader-goes": (leader_goes, {}),
    "comes-again": (comes_again, {"nodes": 4}),
    "killed-after-a-change": (killed_after_a_change, {"nodes": 5}),
    "half-of-them": (half_of_them, {"nodes": 4}),
    "log-of-a-change-is-gone": (
        log_of_a_change_is_gone,
        {"limits": {"journal_segment_bytes": 2048}, "wal_bytes": 1, "keep_bytes": 1},
    ),
}
