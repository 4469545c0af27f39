"""A follower that takes no entries for a while: silent about new ones, and led back afterwards."""

from __future__ import annotations

from raftdb.consensus.messages import Ack, Heartbeat, HeartbeatAck
from tests.consensus.bench import Bench
from tests.consensus.test_rows import append


def test_a_closed_intake_leaves_new_entries_unanswered_and_hears_its_leader() -> None:
    bench = Bench()
    bench.receive("n2", append(1, 1, 1, 0, 0, 1))
    bench.journal.sync()
    bench.take()
    last = bench.journal.last_index
    bench.core.intake.turn(False, bench.core)
    bench.receive("n2", append(1, 2, last, 1, 0, 1))
    bench.journal.sync()
    assert bench.journal.last_index == last
    assert bench.take() == []
    # What it has already it still acknowledges, and heartbeats it answers.
    bench.receive("n2", append(1, 3, last, 1, 0))
    bench.receive("n2", Heartbeat(1, 1, 0))
    assert bench.take() == [Ack(1, 3, True, last), HeartbeatAck(1, 1)]
    bench.core.intake.turn(True, bench.core)
    assert bench.take() == [Ack(1, 2, False, last + 1)]
    bench.core.intake.turn(True, bench.core)
    assert bench.take() == []


def test_what_an_older_leader_sent_is_not_asked_for_again() -> None:
    bench = Bench()
    bench.core.intake.turn(False, bench.core)
    bench.receive("n2", append(1, 1, 1, 0, 0, 1))
    bench.receive("n3", Heartbeat(2, 1, 0))
    bench.take()
    bench.core.intake.turn(True, bench.core)
    assert bench.take() == []


def test_what_is_left_out_is_not_shown_to_match() -> None:
    """Its numbers are taken by this member's own tail, which nobody has committed."""
    bench = Bench([1, 1, 1, 1], term=1)
    bench.core.intake.turn(False, bench.core)
    bench.receive("n2", append(2, 1, 3, 1, 1, 2, 2))
    bench.receive("n2", Heartbeat(2, 1, 5))
    assert bench.journal.terms() == [1, 1, 1, 1]
    assert bench.library.commit_index == 3
