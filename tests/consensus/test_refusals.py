"""What a correct peer never says, and what the library must never be asked: refused, or the end of
this node."""

from __future__ import annotations

import pytest

from raftdb.base.errors import FatalError, InternalError, ProtocolError
from raftdb.consensus.messages import (
    Ack,
    Heartbeat,
    HeartbeatAck,
    TimeoutNow,
)
from tests.consensus.bench import Bench
from tests.consensus.test_rows import append


def test_only_the_leader_may_ask_for_a_hand_over() -> None:
    bench = Bench([1], term=1)
    bench.receive("n2", Heartbeat(1, 1, 1))
    bench.receive("n3", TimeoutNow(1))
    assert bench.library.role == "follower"
    assert bench.library.term == 1


# -- what a correct peer never says --------------------------------------------------------------


def test_terms_that_fall_are_refused() -> None:
    bench = Bench()
    with pytest.raises(ProtocolError, match="terms fall"):
        bench.receive("n2", append(3, 1, 1, 0, 0, 2, 1))
    with pytest.raises(ProtocolError, match="above its own"):
        bench.receive("n2", append(3, 1, 1, 0, 0, 4))
    assert bench.journal.terms() == []


def test_acks_of_what_was_never_sent_are_refused() -> None:
    bench = Bench()
    bench.elect()
    with pytest.raises(ProtocolError, match="never sent"):
        bench.receive("n2", Ack(1, 1, True, 99))
    with pytest.raises(ProtocolError, match="never sent"):
        bench.receive("n2", Ack(1, 99, True, 2))
    with pytest.raises(ProtocolError, match="never sent"):
        bench.receive("n2", HeartbeatAck(1, 99))


def test_two_leaders_of_one_term_stop_the_node() -> None:
    bench = Bench()
    bench.elect()
    with pytest.raises(FatalError, match="leads term 1"):
        bench.receive("n2", Heartbeat(1, 1, 1))


def test_the_library_is_never_asked_for_slices_or_commands() -> None:
    bench = Bench()
    raft = bench.library.raft
    for call in (
        lambda: raft._SyncObj__raftLog[0:2],
        lambda: raft._SyncObj__doApplyCommand(b""),
        lambda: raft._applyCommand(b"", None),
        lambda: raft._SyncObj__loadDumpFile(True),
        lambda: raft._SyncObj__getEntries(1, 5),
    ):
        with pytest.raises(InternalError):
            call()
