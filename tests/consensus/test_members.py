"""Whole engines whose members come and go (row 19)."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.ids import NodeId
from raftdb.base.limits import Limits
from raftdb.consensus import Applied, NotApplied
from raftdb.consensus.membership import Add, Demote, MemberChange, Promote, Remove
from raftdb.consensus.port import Changed, ChangeOutcome, NotChanged
from raftdb.journal import RetentionBounds
from tests.consensus.toy_nodes import member_of
from tests.consensus.trio import Trio


def add(name: str, machine: str = "") -> Add:
    return Add(member_of(name, machine))


def remove(name: str, *, force: bool = False) -> Remove:
    return Remove(NodeId(name), force)


def promote(name: str) -> Promote:
    return Promote(NodeId(name))


def ask(trio: Trio, change: MemberChange, node: Any = None) -> list[ChangeOutcome]:
    """A list that the outcome is put into."""
    outcomes: list[ChangeOutcome] = []
    trio.run_until(lambda: bool(trio.cluster.leaders()))
    # Not by whom all follow: one that just joined follows nobody yet.
    at = node or max(trio.cluster.leaders(), key=lambda one: one.term)
    trio.cluster.call(at.name, at.change, change, outcomes.append)
    return outcomes


def do(trio: Trio, change: MemberChange, node: Any = None) -> ChangeOutcome:
    """The change, done or refused."""
    outcomes = ask(trio, change, node)
    trio.run_until(lambda: bool(outcomes))
    assert len(outcomes) == 1
    return outcomes[0]


def ready() -> Trio:
    trio = Trio()
    leader = trio.leader()
    trio.run(0.1)
    assert isinstance(write(trio, leader), Applied)
    return trio


def write(trio: Trio, leader: Any) -> Any:
    outcomes = trio.propose(leader)
    trio.run_until(lambda: bool(outcomes))
    return outcomes[0]


def voters(node: Any) -> str:
    return " ".join(node.engine._core.electorate.configurations.latest.voters)


def grow(trio: Trio, name: str = "n4") -> None:
    """A fourth voter."""
    trio.cluster.join(name)
    assert isinstance(do(trio, add(name)), Changed)
    outcome = do(trio, promote(name))
    assert isinstance(outcome, Changed), outcome
    assert name in outcome.configuration.voters


def test_a_learner_gets_the_log_and_counts_nowhere() -> None:
    trio = ready()
    leader = trio.leader()
    trio.cluster.join("n4")
    outcome = do(trio, add("n4"))
    assert isinstance(outcome, Changed)
    assert outcome.configuration.learners == ("n4",)
    trio.run(0.2)
    learner = trio.node("n4")
    assert learner.status().applied_index == leader.status().applied_index
    assert [voters(node) for node in trio.cluster.live()] == ["n1 n2 n3"] * 4
    read = trio.read(learner)
    trio.run_until(lambda: bool(read))
    assert not isinstance(read[0], NotApplied)
    # Without the two other voters the leader has no majority, learner or not.
    for follower in [node.name for node in trio.followers() if node.name != "n4"]:
        trio.cluster.kill(follower, power=False)
    lost = trio.propose(leader)
    trio.run(3.0)
    assert not any(isinstance(one, Applied) for one in lost)
    assert [node.role for node in trio.cluster.live() if node.name == "n4"] == ["follower"]
    assert trio.node("n4").term == trio.node(leader.name).term


def test_a_learner_never_leads() -> None:
    trio = ready()
    trio.cluster.join("n4")
    assert isinstance(do(trio, add("n4")), Changed)
    trio.run(0.2)
    reasons: list[str] = []
    leader = trio.leader()
    transfer = leader.engine.transfer_leadership
    trio.cluster.call(leader.name, transfer, NodeId("n4"), reasons.append)
    trio.run_until(lambda: bool(reasons))
    assert reasons == ["n4 is a learner, and learners never lead"]
    term = leader.term
    trio.cluster.kill(leader.name, power=False)
    trio.run(1.0)
    assert trio.leader().name != "n4"
    trio.run(1.0)
    assert trio.leader().term <= term + 3


def test_a_learner_that_has_caught_up_is_promoted_and_counts() -> None:
    trio = ready()
    grow(trio)
    leader = trio.leader()
    trio.run(0.2)
    assert [voters(node) for node in trio.cluster.live()] == ["n1 n2 n3 n4"] * 4
    # Two of four are no majority.
    others = [node.name for node in trio.followers()]
    for name in others[:2]:
        trio.cluster.kill(name, power=False)
    lost = trio.propose(leader)
    trio.run(3.0)
    assert not any(isinstance(one, Applied) for one in lost)
    trio.cluster.start(others[0])
    assert isinstance(write(trio, trio.leader()), Applied)


def test_one_that_is_away_is_not_promoted() -> None:
    trio = ready()
    assert isinstance(do(trio, add("n4")), Changed)
    outcome = do(trio, promote("n4"))
    assert isinstance(outcome, NotChanged)
    assert outcome.code == "not_caught_up"


def test_a_learner_gets_a_copy_when_the_log_does_not_reach_back() -> None:
    trio = Trio(
        limits=Limits(journal_segment_bytes=2048),
        retention=RetentionBounds(keep_bytes=0, pinned_bytes_max=1 << 20),
    )
    leader = trio.leader()
    for _ in range(60):
        assert isinstance(write(trio, leader), Applied)
    assert isinstance(do(trio, add("n4")), Changed)
    for _ in range(60):
        assert isinstance(write(trio, leader), Applied)
    trio.run(0.5)
    assert leader.journal.first_index > 20
    trio.cluster.join("n4")
    trio.run_until(lambda: trio.cluster.copies_installed == 1)
    trio.run(1.5)
    learner = trio.node("n4")
    assert learner.status().applied_index == leader.status().applied_index
    # The configuration came with the copy: its entry is in no log any more.
    assert learner.engine._core.electorate.configurations.latest.learners == ("n4",)
    assert isinstance(do(trio, promote("n4")), Changed)


def test_changes_go_one_at_a_time() -> None:
    trio = ready()
    first, second = ask(trio, add("n4")), ask(trio, add("n5"))
    trio.run_until(lambda: bool(first) and bool(second))
    assert isinstance(first[0], Changed)
    assert isinstance(second[0], NotChanged)
    assert second[0].code == "change_under_way"


def test_only_the_leader_changes_anything() -> None:
    trio = ready()
    outcome = do(trio, add("n4"), trio.followers()[0])
    assert isinstance(outcome, NotChanged)
    assert outcome.code == "not_leader"


def test_what_makes_no_sense_is_refused_and_what_is_so_is_fine() -> None:
    trio = ready()
    outcome = do(trio, remove("n9"))
    assert isinstance(outcome, NotChanged)
    assert outcome.code == "no_member"
    again = do(trio, promote("n2"))
    assert isinstance(again, Changed)
    assert again.index == 0


def test_a_removed_node_ends_and_stays_away() -> None:
    trio = ready()
    leader = trio.leader()
    gone = trio.followers()[0].name
    assert isinstance(do(trio, remove(gone)), Changed)
    trio.run(0.3)
    assert trio.cluster.hosts[gone].removed
    assert [voters(node) for node in trio.cluster.live()] == [
        " ".join(sorted({"n1", "n2", "n3"} - {gone}))
    ] * 2
    assert trio.leader() is leader
    assert isinstance(write(trio, leader), Applied)


def test_one_that_was_away_when_it_was_removed_is_told_when_it_returns() -> None:
    trio = ready()
    leader = trio.leader()
    gone = trio.followers()[0].name
    trio.cluster.kill(gone, power=False)
    trio.run(0.2)
    assert isinstance(do(trio, remove(gone)), Changed)
    term = leader.term
    trio.cluster.start(gone)
    trio.run(1.0)
    assert trio.cluster.hosts[gone].removed
    assert (trio.leader(), leader.term) == (leader, term)


def test_a_leader_removes_itself_and_hands_over() -> None:
    trio = ready()
    leader = trio.leader()
    pending = [trio.propose(leader, client) for client in range(2, 8)]
    outcome = do(trio, remove(leader.name))
    assert isinstance(outcome, Changed)
    start_s = trio.world.now_s
    trio.run_until(lambda: trio.cluster.hosts[leader.name].removed)
    following = trio.leader()
    assert following.name != leader.name
    assert trio.world.now_s - start_s < 0.2
    # Applied, or never in the log: a client may repeat it at the next leader, and does.
    assert all(isinstance(one[0], Applied | NotApplied) for one in pending), pending
    assert isinstance(write(trio, following), Applied)


def test_a_demoted_leader_leads_no_more_and_stays_as_a_learner() -> None:
    trio = ready()
    leader = trio.leader()
    assert isinstance(do(trio, Demote(NodeId(leader.name))), Changed)
    trio.run(0.3)
    following = trio.leader()
    assert following is not leader
    assert isinstance(write(trio, following), Applied)
    trio.run(0.2)
    assert leader.status().applied_index == following.status().applied_index


def test_a_removal_that_would_stop_everything_is_refused_unless_forced() -> None:
    trio = ready()
    leader = trio.leader()
    away, here = (node.name for node in trio.followers())
    trio.cluster.kill(away, power=False)
    trio.run(0.2)
    outcome = do(trio, remove(here))
    assert isinstance(outcome, NotChanged)
    assert outcome.code == "no_quorum"
    assert f"{away} is not connected" in outcome.message
    forced = ask(trio, remove(here, force=True))
    trio.run(0.3)
    assert not any(isinstance(one, Changed) for one in forced)
    trio.cluster.start(away)
    trio.run(3.0)
    assert isinstance(write(trio, trio.leader()), Applied)
    assert voters(trio.leader()) in (f"{leader.name} {away}", f"{away} {leader.name}", "n1 n2 n3")


def test_a_machine_with_an_empty_disk_comes_back_under_another_id() -> None:
    trio = ready()
    gone = trio.followers()[0].name
    trio.cluster.kill(gone, power=True)
    trio.run(0.2)
    outcome = do(trio, add("n4", gone))
    assert isinstance(outcome, NotChanged)
    assert outcome.code == "address_taken"
    assert isinstance(do(trio, remove(gone)), Changed)
    outcome = do(trio, add(gone))
    assert isinstance(outcome, NotChanged)
    assert outcome.code == "removed"
    grow(trio)


def test_a_change_that_was_not_committed_is_taken_back() -> None:
    trio = ready()
    leader = trio.leader()
    others = [node.name for node in trio.followers()]
    pairs = {(leader.name, one) for one in others}
    trio.cluster.fabric.block(pairs | {(b, a) for a, b in pairs})
    outcomes = ask(trio, remove(others[0], force=True), leader)
    trio.run(0.05)
    assert voters(leader) == " ".join(sorted({"n1", "n2", "n3"} - {others[0]}))
    trio.run(2.0)
    assert not any(isinstance(one, Changed) for one in outcomes)
    trio.cluster.fabric.block(set())
    trio.run(2.0)
    assert [voters(node) for node in trio.cluster.live()] == ["n1 n2 n3"] * 3
    assert isinstance(write(trio, trio.leader()), Applied)


def test_a_restart_begins_with_what_the_log_says() -> None:
    trio = ready()
    grow(trio)
    for name in ("n1", "n2", "n3", "n4"):
        trio.cluster.kill(name, power=True)
    for name in ("n1", "n2", "n3", "n4"):
        trio.cluster.start(name)
    trio.leader()
    assert [voters(node) for node in trio.cluster.live()] == ["n1 n2 n3 n4"] * 4


def test_a_follower_that_never_heard_of_its_leader_follows_it() -> None:
    """n4 joins while a founder is away, and leads when that one is back."""
    trio = ready()
    away = trio.followers()[0].name
    trio.cluster.kill(away, power=False)
    trio.run(0.2)
    trio.cluster.join("n4")
    assert isinstance(do(trio, add("n4")), Changed)
    assert isinstance(do(trio, promote("n4")), Changed)
    reasons: list[str] = []
    leader = trio.leader()
    transfer = leader.engine.transfer_leadership
    trio.cluster.call(leader.name, transfer, NodeId("n4"), reasons.append)
    trio.run_until(lambda: bool(reasons))
    assert trio.leader().name == "n4"
    pairs = {(leader.name, away), (away, leader.name)}
    third = next(one for one in ("n1", "n2", "n3") if one not in (leader.name, away))
    pairs |= {(third, away), (away, third)}
    trio.cluster.fabric.block(pairs)
    trio.cluster.start(away)
    trio.run_until(
        lambda: trio.node(away).status().applied_index == trio.node("n4").status().applied_index
    )
    assert voters(trio.node(away)) == "n1 n2 n3 n4"


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_node_grows_to_three_under_load(count: int) -> None:
    trio = Trio(count)
    leader = trio.leader()
    assert isinstance(write(trio, leader), Applied)
    for number in range(count + 1, 4):
        grow(trio, f"n{number}")
        assert isinstance(write(trio, trio.leader()), Applied)
    trio.cluster.kill(trio.leader().name, power=True)
    trio.run(1.0)
    assert isinstance(write(trio, trio.leader()), Applied)
