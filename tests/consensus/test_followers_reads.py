"""Linearizable reads at a follower, by the leader's index."""

from __future__ import annotations

from raftdb.consensus import Applied, NotApplied, ReadReady
from raftdb.consensus.followers_reads import FollowersReads
from raftdb.consensus.messages import ReadIndex, ReadIndexIs
from raftdb.consensus.waits import AppliedWaits
from tests.consensus.trio import Trio


class Asker:
    """The waiting room on its own."""

    def __init__(self) -> None:
        self.now_s = 5.0
        self.applied = 10
        self.sent: list[tuple[str, int]] = []
        self.peers = {"n1", "n2"}
        self.epochs = {"n1": 1, "n2": 1}
        self.waits = AppliedWaits(lambda: self.applied)
        self.outcomes: list[object] = []
        self.reads = FollowersReads(self.send, lambda: self.now_s, self.waits, self.resolve)

    def connected(self, peer: str) -> bool:
        return peer in self.peers

    def epoch(self, peer: str) -> int:
        return self.epochs[peer]

    def hang_up(self, peer: str) -> None:
        raise AssertionError("not asked for")

    def send(self, peer: str, message: ReadIndex) -> None:
        self.sent.append((peer, message.number))

    def resolve(self, done: object, outcome: object) -> None:
        self.outcomes.append((done, outcome))

    def ask(self, name: str, leader: str | None = "n1") -> None:
        self.reads.add(name)  # type: ignore[arg-type]
        self.reads.step(leader, self)


def test_one_question_for_all_that_wait_and_never_one_that_left_before_them() -> None:
    asker = Asker()
    asker.ask("a")
    asker.now_s = 6.0
    asker.ask("b")
    asker.ask("c")
    assert asker.sent == [("n1", 1)]
    asker.reads.on_answer("n1", ReadIndexIs(1, 10, True))
    assert asker.outcomes == [("a", ReadReady(10, 5.0))]
    asker.now_s = 7.0
    asker.reads.step("n1", asker)
    assert asker.sent == [("n1", 1), ("n1", 2)]
    asker.reads.on_answer("n1", ReadIndexIs(1, 99, True))
    asker.reads.on_answer("n2", ReadIndexIs(2, 99, True))
    assert len(asker.outcomes) == 1, "not the answer to this question, or not from whom it went to"
    asker.reads.on_answer("n1", ReadIndexIs(2, 12, True))
    assert len(asker.outcomes) == 1, "the machine is not there yet"
    asker.applied = 12
    asker.waits.on_applied(12)
    assert asker.outcomes[1:] == [("b", ReadReady(12, 7.0)), ("c", ReadReady(12, 7.0))]
    assert asker.reads.count == 0


def test_a_question_ends_with_its_leader() -> None:
    for leader, connected in (("n2", {"n1", "n2"}), (None, {"n1"}), ("n1", {"n2"})):
        asker = Asker()
        asker.ask("a")
        asker.peers = connected
        asker.reads.step(leader, asker)
        assert asker.outcomes == [("a", NotApplied("not_leader"))]
        asker.reads.on_answer("n1", ReadIndexIs(1, 10, True))
        assert len(asker.outcomes) == 1
    asker = Asker()
    asker.ask("a", leader=None)
    asker.ask("b")
    asker.reads.on_answer("n1", ReadIndexIs(1, 0, False))
    assert [outcome for _, outcome in asker.outcomes] == [NotApplied("not_leader")] * 2  # type: ignore[misc]
    asker.ask("c")
    asker.reads.fail("stopping")
    assert asker.outcomes[2] == ("c", NotApplied("stopping"))
    assert asker.reads.count == 0


def test_a_question_that_a_replaced_connection_may_have_lost_is_asked_again() -> None:
    """The other end noticed the loss and dialled anew: this one never was without a connection."""
    asker = Asker()
    asker.ask("a")
    asker.ask("b")
    asker.epochs["n1"], asker.now_s = 2, 6.0
    asker.reads.step("n1", asker)
    assert (asker.sent, asker.outcomes) == ([("n1", 1), ("n1", 2)], [])
    asker.reads.on_answer("n1", ReadIndexIs(1, 9, True))
    assert asker.outcomes == [], "the answer to the one before, which says less"
    asker.reads.on_answer("n1", ReadIndexIs(2, 10, True))
    assert asker.outcomes == [("a", ReadReady(10, 6.0)), ("b", ReadReady(10, 6.0))]
    assert asker.reads.count == 0


def test_a_follower_reads_what_was_acknowledged_before() -> None:
    trio = Trio()
    follower = trio.followers()[0]
    for _ in range(5):
        written = trio.propose(trio.leader())
        trio.run_until(lambda: bool(written))  # noqa: B023
        assert isinstance(written[0], Applied)
        asked_s = trio.world.now_s
        reads = trio.read(follower)
        trio.run_until(lambda: bool(reads))  # noqa: B023
        [ready] = reads
        assert isinstance(ready, ReadReady)
        assert ready.index >= written[0].index
        assert asked_s <= ready.begun_s <= trio.world.now_s
        assert follower.status().applied_index >= ready.index


def test_a_follower_without_a_leader_refuses() -> None:
    trio = Trio()
    leader = trio.leader()
    follower, other = trio.followers()
    for one in (leader, other):
        trio.cluster.kill(one.name, power=False)
    reads = trio.read(follower)
    trio.run(3)
    assert reads == [NotApplied("not_leader")]


def test_waiting_for_an_index() -> None:
    trio = Trio()
    follower = trio.followers()[0]
    trio.propose(trio.leader())
    trio.run(0.5)
    reached: list[str] = []
    now = int(follower.status().applied_index)
    trio.cluster.call(follower.name, follower.engine.when_applied, now, reached.append)
    trio.cluster.call(follower.name, follower.engine.when_applied, now + 1, reached.append)
    trio.run(0.1)
    assert reached == [""]
    written = trio.propose(trio.leader())
    trio.run_until(lambda: bool(written) and len(reached) == 2)
    trio.cluster.call(follower.name, follower.engine.when_applied, now + 50, reached.append)
    trio.run(0.1)
    stopped: list[bool] = []
    trio.cluster.call(follower.name, follower.engine.stop, lambda: stopped.append(True))
    trio.run(0.1)
    assert reached == ["", "", "stopping"]


def test_who_waits_no_more_for_an_index_takes_no_place() -> None:
    """An index that is never reached: a client's word, or a member that is far behind."""
    applied, reached = 10, []
    waits = AppliedWaits(lambda: applied)
    for number in range(1_000):
        wait = waits.add(1 << 62, reached.append)
        assert wait is not None
        wait.cancel()
        wait.cancel()
        assert (len(waits), len(waits._heap) <= 66) == (0, True), number
    kept = waits.add(12, reached.append)
    assert (kept is None, len(waits)) == (False, 1)
    applied = 12
    waits.on_applied(12)
    assert (reached, len(waits)) == ([""], 0)
    waits.add(1 << 62, reached.append)
    waits.fail("stopping")
    assert (reached, len(waits)) == (["", "stopping"], 0)
