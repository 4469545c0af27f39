"""The engine's port: outcomes, reads, hand-over, stopping, and what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raftdb.base.errors import ConfigError, FatalError, InternalError
from raftdb.base.ids import Address, ClusterId, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.consensus import (
    Applied,
    Engine,
    EngineEvents,
    Member,
    NotApplied,
    OutcomeUnknown,
    ReadReady,
    Timing,
)
from raftdb.consensus.wall import Wall
from tests.consensus.bench import HalfRandom, HandClock, HandJournal, ListLog
from tests.consensus.toy import ToyStore
from tests.consensus.toy_nodes import EngineNode
from tests.consensus.trio import Trio
from tests.consensus.wires import HandExecutor, HandNetwork


def members(count: int = 1) -> list[Member]:
    return [
        Member(NodeId(f"n{i}"), "z", Address("127.0.0.1", i), Address("127.0.0.1", 100 + i))
        for i in range(1, count + 1)
    ]


class HandMachine:
    """Applies nothing; fails when told to."""

    def __init__(self, applied: tuple[int, int] = (0, 0)) -> None:
        self._applied = applied
        self.copied_at: tuple[int, int] | None = None
        self.failure: BaseException | None = None
        self.entries: list[Any] = []

    def applied(self) -> Any:
        return self._applied

    absent = False

    def copied(self) -> Any:
        return self.copied_at

    def configuration(self) -> Any:
        return None

    def apply(self, entries: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        self.entries += entries
        return [[payload + b"!" for payload in entry.payloads] for entry in entries]

    def apply_briefly(self, entries: Any) -> Any:
        return None


class Solo:
    """One member alone, by hand."""

    def __init__(
        self,
        *,
        journal: HandJournal | None = None,
        machine: HandMachine | None = None,
        limits: Limits | None = None,
        wall: Wall | None = None,
    ) -> None:
        self.clock = HandClock()
        self.executor = HandExecutor(self.clock)
        self.network = HandNetwork()
        self.log = ListLog()
        self.journal = journal or HandJournal()
        self.machine = machine or HandMachine()
        self.fatal: list[BaseException] = []
        self.roles: list[str] = []
        self.engine = Engine(
            node_id=NodeId("n1"),
            members=members(),
            cluster_id=ClusterId("c" * 32),
            journal=self.journal,
            machine=self.machine,
            ports=Ports(
                self.clock,
                HalfRandom(),
                self.executor,
                None,  # type: ignore[arg-type]
                self.network,
                self.log,
            ),
            limits=limits or Limits(),
            events=EngineEvents(lambda s: self.roles.append(s.role), self.fatal.append),
            wall=wall,
        )

    def lead(self) -> Solo:
        self.engine.start()
        assert self.network.ready is not None
        self.network.ready(self.network, None)  # type: ignore[arg-type]
        self.executor.pass_time(1)
        self.sync()
        assert self.engine.status().role == "leader"
        return self

    def sync(self) -> None:
        self.journal.sync()
        self.executor.pass_time()

    def propose(self, payload: bytes) -> list[Any]:
        outcomes: list[Any] = []
        self.engine.propose(payload, outcomes.append)
        return outcomes


# -- committing ----------------------------------------------------------------------------------


def test_three_nodes_elect_commit_and_apply() -> None:
    trio = Trio()
    leader = trio.leader()
    outcomes = [trio.propose(leader, client) for client in range(5)]
    trio.run(0.2)
    found = [outcome for (outcome,) in outcomes]
    assert all(isinstance(outcome, Applied) for outcome in found)
    assert {node.machine.history[-1] for node in trio.cluster.live()} == {(4, 1)}
    assert len({status.applied_index for status in trio.statuses()}) == 1


def test_what_comes_in_together_shares_one_entry() -> None:
    solo = Solo().lead()
    outcomes = [solo.propose(b"%d" % n) for n in range(3)]
    solo.executor.pass_time()
    assert solo.journal.last_index == 3
    assert outcomes == [[], [], []]
    solo.sync()
    assert outcomes == [[Applied(3, n, b"%d!" % n)] for n in range(3)]  # type: ignore[arg-type]


def test_the_next_entry_is_made_when_the_disk_has_the_previous_one() -> None:
    solo = Solo().lead()
    first = solo.propose(b"1")
    solo.executor.pass_time()
    later = [solo.propose(b"2"), solo.propose(b"3")]
    solo.executor.pass_time(0.01)
    assert solo.journal.last_index == 3
    solo.sync()
    assert len(first) == 1
    assert solo.journal.last_index == 4
    solo.sync()
    assert [outcome.position for (outcome,) in later] == [0, 1]


def test_entries_are_bounded_in_requests_and_bytes() -> None:
    solo = Solo(limits=Limits(entry_requests_max=2, entry_bytes_max=10)).lead()
    for payload in (b"a", b"b", b"c" * 9, b"d", b"e", b"f" * 50):
        solo.propose(payload)
    for _ in range(6):
        solo.executor.pass_time()
        solo.sync()
    sizes = [[len(p) for p in entry.payloads] for entry in solo.machine.entries if entry.payloads]
    assert sizes == [[1, 1], [9, 1], [1], [50]]


def test_followers_and_strangers_refuse() -> None:
    trio = Trio()
    follower = trio.followers()[0]
    outcomes = trio.propose(follower)
    trio.run(0.01)
    assert outcomes == [NotApplied("not_leader")]


def test_before_start_and_after_stop() -> None:
    solo = Solo()
    early = solo.propose(b"x")
    solo.executor.pass_time()
    assert early == [NotApplied("not_leader")]
    solo.lead()
    logged = solo.propose(b"logged")
    solo.executor.pass_time()
    waiting = solo.propose(b"waiting")
    stopped: list[bool] = []
    solo.engine.stop(lambda: stopped.append(True))
    late = solo.propose(b"late")
    solo.executor.pass_time(1)
    assert logged == [OutcomeUnknown("stopping")]
    assert waiting == [NotApplied("stopping")]
    assert late == [NotApplied("stopping")]
    assert stopped == [True]
    assert solo.engine.status().role == "stopped"
    assert not solo.network.listening
    assert solo.fatal == []


def test_overload_is_refused_early() -> None:
    solo = Solo(limits=Limits(proposals_waiting_max=3, proposals_waiting_bytes_max=100)).lead()
    outcomes = [solo.propose(b"x") for _ in range(4)]
    solo.executor.pass_time()
    assert outcomes[3] == [NotApplied("overloaded")]
    solo.sync()
    assert all(isinstance(outcome, Applied) for (outcome,) in outcomes[:3])
    outcomes = [solo.propose(b"x" * 90), solo.propose(b"x" * 20)]
    solo.executor.pass_time()
    assert outcomes == [[], [NotApplied("overloaded")]]


def test_losing_leadership_ends_every_proposal_once() -> None:
    trio = Trio()
    leader = trio.leader()
    names = set(trio.cluster.hosts)
    trio.cluster.fabric.block({(leader.name, other) for other in names - {leader.name}})
    logged = trio.propose(leader, 1)
    trio.run(0.05)
    waiting = trio.read(leader)
    trio.run(3)
    trio.cluster.fabric.block(set())
    trio.run(3)
    assert logged == [OutcomeUnknown("leadership_lost")]
    assert waiting == [NotApplied("not_leader")]


def test_a_proposal_larger_than_a_frame_goes_in_pieces() -> None:
    trio = Trio(limits=Limits(peer_part_bytes=10_000))
    leader = trio.leader()
    outcomes = trio.propose(leader, 1, padding=3_000_000)
    small = trio.propose(leader, 2)
    trio.run(2)
    assert isinstance(outcomes[0], Applied)
    assert isinstance(small[0], Applied)
    assert {len(node.machine.history) for node in trio.cluster.live()} == {2}
    assert trio.leader() is leader


@pytest.mark.parametrize("round_trip_s", [0.001, 0.1])
def test_entries_are_pipelined(round_trip_s: float) -> None:
    trio = Trio(latency_s=round_trip_s / 2, timing=Timing(1.0, 2.0, 0.2, 2.0))
    leader = trio.leader()
    trio.run(1)
    done: list[Any] = []
    started_s = trio.world.now_s
    for position in range(200):
        trio.propose(leader, position)
        trio.run(0.006)
    outcomes = [trio.propose(leader, 1000 + position) for position in range(3)]
    trio.run(round_trip_s + 0.1)
    done += [outcome for one in outcomes for outcome in one]
    assert len(done) == 3
    status = leader.status()
    # One entry per proposal, although a round trip takes longer than the time between them.
    assert status.last_index >= 200
    assert trio.world.now_s - started_s < 200 * 0.006 + round_trip_s + 0.2


def test_a_single_member_commits() -> None:
    trio = Trio(1)
    leader = trio.leader()
    outcomes, reads = trio.propose(leader), trio.read(leader)
    trio.run(0.1)
    assert isinstance(outcomes[0], Applied)
    assert isinstance(reads[0], ReadReady)


def test_an_idle_cluster_does_little() -> None:
    trio = Trio()
    trio.leader()
    trio.run(2)
    before = trio.world.events
    trio.run(10)
    per_second = (trio.world.events - before) / 10
    # 20 heartbeats a second to two followers and their answers are 80 arrivals; the rest is
    # timers: the leader's heartbeat, election deadlines that moved, keep-alive of idle links.
    assert per_second < 80 + 20 + 3 * 10 + 20


# -- reads ---------------------------------------------------------------------------------------


def test_reads_wait_for_the_no_op_then_share_one_round() -> None:
    trio = Trio()
    leader = trio.leader()
    trio.run(0.1)
    trio.propose(leader)
    trio.run(0.1)
    before = leader.engine._core.round
    reads = [trio.read(leader) for _ in range(50)]
    trio.run(0.02)
    assert all(isinstance(read[0], ReadReady) for read in reads)
    assert reads[0][0].index == leader.status().commit_index  # type: ignore[union-attr]
    assert leader.engine._core.round - before <= 3


def test_reads_that_came_during_a_round_begin_theirs_when_it_ends() -> None:
    """Not at the next heartbeat or request: nothing else may happen for long."""
    trio = Trio()
    leader = trio.leader()
    trio.run(0.2)
    trio.cluster.kill(trio.followers()[0].name, power=False)
    first = trio.read(leader)
    trio.run(0.0005)
    second = trio.read(leader)
    assert not first
    assert trio.run_until(lambda: bool(first)) < 0.01
    assert trio.run_until(lambda: bool(second)) < 0.01


def test_a_read_at_a_leader_that_was_cut_off_ends_as_not_applied() -> None:
    trio = Trio()
    leader = trio.leader()
    others = set(trio.cluster.hosts) - {leader.name}
    trio.cluster.fabric.block({(other, leader.name) for other in others})
    reads = trio.read(leader)
    trio.run(0.3)
    assert reads == []
    trio.run(1)
    assert reads == [NotApplied("not_leader")]


# -- hand-over -----------------------------------------------------------------------------------


def test_a_hand_over_takes_a_few_round_trips_and_loses_nothing() -> None:
    trio = Trio()
    leader = trio.leader()
    target = trio.followers()[0]
    trio.propose(leader)
    reasons: list[str] = []
    trio.cluster.call(
        leader.name, leader.engine.transfer_leadership, NodeId(target.name), reasons.append
    )
    held = trio.propose(leader, 2)
    took_s = trio.run_until(lambda: bool(reasons))
    assert reasons == [""]
    assert took_s < 0.1
    assert trio.leader() is target
    trio.run(0.1)
    assert held == [NotApplied("not_leader")]


def test_a_hand_over_to_a_node_with_a_slow_disk() -> None:
    """Its request for votes waits for the disk, while heartbeats tell the old leader of the new
    term: it must not claim that for itself."""
    trio = Trio()
    leader = trio.leader()
    target = trio.followers()[0]
    trio.run(0.5)
    trio.cluster.hosts[target.name].disk_slow_s = 0.3
    reasons: list[str] = []
    trio.cluster.call(
        leader.name, leader.engine.transfer_leadership, NodeId(target.name), reasons.append
    )
    trio.run_until(lambda: bool(reasons))
    assert reasons == [""]
    assert target.status().role == "leader"
    assert target.status().term == 2


def test_a_hand_over_to_nobody_says_why() -> None:
    trio = Trio()
    leader = trio.leader()
    reasons: list[str] = []
    ask = leader.engine.transfer_leadership
    trio.cluster.call(leader.name, ask, NodeId("n9"), reasons.append)
    trio.cluster.call(leader.name, ask, NodeId(leader.name), reasons.append)
    follower = trio.followers()[0]
    trio.cluster.call(follower.name, follower.engine.transfer_leadership, None, reasons.append)
    trio.run(0.05)
    assert reasons == [
        "n9 is not another member",
        f"{leader.name} is not another member",
        "not_leader",
    ]


def test_a_hand_over_that_fails_goes_on_leading() -> None:
    trio = Trio()
    leader = trio.leader()
    target = trio.followers()[0]
    trio.cluster.fabric.block({(leader.name, target.name), (target.name, leader.name)})
    reasons: list[str] = []
    trio.propose(leader)
    trio.cluster.call(
        leader.name, leader.engine.transfer_leadership, NodeId(target.name), reasons.append
    )
    trio.run(0.01)
    held = trio.propose(leader, 2)
    trio.run(2)
    assert len(reasons) == 1
    assert "did not take over" in reasons[0]
    assert isinstance(held[0], Applied)


# -- row 17 --------------------------------------------------------------------------------------


def test_row_17_a_callback_that_raises_breaks_nothing() -> None:
    solo = Solo().lead()
    calls: list[Any] = []

    def bad(outcome: Any) -> None:
        calls.append(outcome)
        raise RuntimeError("a client's mistake")

    solo.engine.propose(b"1", bad)
    good = solo.propose(b"2")
    solo.executor.pass_time()
    solo.sync()
    assert len(calls) == len(good) == 1
    assert len(solo.machine.entries) == 3
    assert "consensus_callback_failed" in solo.log.events()
    assert solo.fatal == []


def test_row_17_a_machine_that_fails_stops_the_node_once() -> None:
    solo = Solo().lead()
    solo.machine.failure = OSError(5, "Input/output error")
    outcomes = [solo.propose(b"1")]
    solo.executor.pass_time()
    outcomes.append(solo.propose(b"2"))
    solo.sync()
    outcomes.append(solo.propose(b"3"))
    solo.executor.pass_time(5)
    assert solo.fatal == [solo.machine.failure]
    unknown = [OutcomeUnknown("stopped_by_error")]
    assert outcomes == [unknown, unknown, [NotApplied("stopping")]]
    assert solo.engine.status().role == "stopped"


def test_row_17_a_machine_that_answers_wrongly_stops_the_node() -> None:
    solo = Solo().lead()
    solo.machine.apply = lambda entries: [[] for _ in entries]  # type: ignore[method-assign]
    outcome = solo.propose(b"1")
    solo.executor.pass_time()
    solo.sync()
    assert "did not answer every request" in str(solo.fatal[0])
    assert outcome == [OutcomeUnknown("stopped_by_error")]


def test_a_journal_that_fails_stops_the_node() -> None:
    solo = Solo().lead()
    outcome = solo.propose(b"1")
    solo.executor.pass_time()
    solo.journal.on_fatal(FatalError("fdatasync failed"))
    assert [str(error) for error in solo.fatal] == ["fdatasync failed"]
    assert outcome == [OutcomeUnknown("stopped_by_error")]
    solo.journal.sync()
    assert len(outcome) == 1


def test_a_port_in_use_stops_the_node() -> None:
    solo = Solo()
    solo.engine.start()
    assert solo.network.ready is not None
    solo.network.ready(None, ConfigError("port 7000 is in use"))
    assert [str(error) for error in solo.fatal] == ["port 7000 is in use"]


# -- rule C2 -------------------------------------------------------------------------------------


def test_rule_c2_a_start_goes_on_after_what_the_machine_has() -> None:
    solo = Solo(journal=HandJournal([1, 1, 1]), machine=HandMachine((3, 1))).lead()
    assert [entry.index for entry in solo.machine.entries] == [4, 5]


@pytest.mark.parametrize(
    ("applied", "why"),
    [((9, 1), "the journal ends at 4"), ((3, 2), "in the journal it is of term 1")],
)
def test_rule_c2_a_machine_that_the_journal_does_not_lead_to_is_refused(
    applied: tuple[int, int], why: str
) -> None:
    solo = Solo(journal=HandJournal([1, 1, 1]), machine=HandMachine(applied))
    solo.engine.start()
    assert why in str(solo.fatal[0])
    assert not solo.network.listening


def test_rule_c2_nothing_is_applied_that_is_not_on_this_disk() -> None:
    trio = Trio()
    leader = trio.leader()
    trio.cluster.hosts[leader.name].disk_slow_s = 0.2
    outcome = trio.propose(leader)
    trio.run(0.1)
    status = leader.status()
    assert status.commit_index == status.last_index > status.durable_index
    assert status.applied_index <= status.durable_index
    assert outcome == []
    trio.run(0.3)
    assert isinstance(outcome[0], Applied)


# -- construction --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timing",
    [
        Timing(heartbeat_s=0.2),
        Timing(heartbeat_s=0),
        Timing(election_min_s=0.6, election_max_s=0.6),
        Timing(leader_timeout_s=0.1),
        Timing(reconnect_s=0),
    ],
)
def test_timing_that_cannot_work_is_refused(timing: Timing) -> None:
    clock = HandClock()
    with pytest.raises(ConfigError):
        Engine(
            node_id=NodeId("n1"),
            members=members(),
            cluster_id=ClusterId("c" * 32),
            journal=HandJournal(),
            machine=HandMachine(),
            ports=Ports(clock, HalfRandom(), HandExecutor(clock), None, HandNetwork(), ListLog()),  # type: ignore[arg-type]
            timing=timing,
            events=EngineEvents(lambda _s: None, lambda _e: None),
        )


@pytest.mark.parametrize("node_id", ["n9", "n1"])
def test_members_that_cannot_be_are_refused(node_id: str) -> None:
    clock = HandClock()
    with pytest.raises(ConfigError):
        Engine(
            node_id=NodeId(node_id),
            members=[*members(2), members(1)[0]],
            cluster_id=ClusterId("c" * 32),
            journal=HandJournal(),
            machine=HandMachine(),
            ports=Ports(clock, HalfRandom(), HandExecutor(clock), None, HandNetwork(), ListLog()),  # type: ignore[arg-type]
            events=EngineEvents(lambda _s: None, lambda _e: None),
        )


def test_restarted_nodes_catch_up() -> None:
    trio = Trio()
    leader = trio.leader()
    victim = trio.followers()[0].name
    trio.cluster.kill(victim, power=True)
    outcomes = [trio.propose(leader, client) for client in range(50)]
    trio.run(0.5)
    assert all(isinstance(outcome[0], Applied) for outcome in outcomes)
    trio.cluster.hosts[victim].machine.store = ToyStore()
    trio.cluster.start(victim)
    took_s = trio.run_until(
        lambda: trio.node(victim).status().applied_index == leader.status().applied_index
    )
    assert took_s < 2
    assert isinstance(trio.node(victim), EngineNode)


def test_notes_reach_the_nodes_above_and_no_others() -> None:
    trio = Trio()
    leader = trio.leader()
    heard: list[tuple[str, str, bytes]] = []
    for node in trio.cluster.live():
        events = node.engine._events
        node.engine._events = replace(
            events, on_note=lambda peer, data, me=node.name: heard.append((me, str(peer), data))
        )
    trio.cluster.call(leader.name, leader.engine.tell, b"hello")
    trio.run(0.1)
    others = sorted(node.name for node in trio.cluster.live() if node is not leader)
    assert sorted(heard) == [(name, leader.name, b"hello") for name in others]
    with pytest.raises(InternalError):
        leader.engine.tell(b"x" * 65_537)


def test_a_leader_that_stood_down_can_hand_over_and_is_not_chosen_again() -> None:
    trio = Trio()
    leader = trio.leader()
    leader.engine.stand_down("its content differs")
    for _ in range(3):
        current = trio.leader()
        reasons: list[str] = []
        trio.cluster.call(current.name, current.engine.transfer_leadership, None, reasons.append)
        trio.run(3.0)
        assert reasons
        assert trio.leader() is not leader
