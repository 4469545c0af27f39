"""Replies that wait for more than the quorum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raftdb.consensus import Applied
from raftdb.consensus.waits import DurableWaits
from tests.consensus.trio import Trio


@dataclass(frozen=True)
class Copies:
    """So many members have it on disk."""

    count: int

    def upto(self, durable: Mapping[str, int]) -> int:
        return sorted(durable.values(), reverse=True)[self.count - 1]


def test_replies_go_out_in_the_order_of_their_indexes_as_far_as_the_level_holds() -> None:
    waits, out = DurableWaits(), []
    for index in (5, 3, 4):
        waits.add(index, Copies(2), lambda reason, index=index: out.append((index, reason)))
    waits.look({"a": 9, "b": 2, "c": 0})
    assert (out, waits.count) == ([], 3)
    waits.look({"a": 9, "b": 4, "c": 0})
    assert (out, waits.count) == ([(3, ""), (4, "")], 1)
    waits.add(4, Copies(3), lambda reason: out.append((0, reason)))
    waits.look({"a": 9, "b": 9, "c": 3})
    assert out[2:] == [(5, "")], "the other level does not hold there yet"
    waits.fail("not_leader")
    assert out[3:] == [(0, "not_leader")]
    assert waits.count == 0


def test_whoever_gave_up_is_not_called_and_takes_no_room() -> None:
    waits, out = DurableWaits(), []
    for index in range(1, 1_001):
        waits.add(index, Copies(1), out.append).cancel()
    assert waits.count == 0
    assert sum(len(heap) for heap in waits._heaps.values()) < 100
    kept = waits.add(7, Copies(1), out.append)
    kept.cancel()
    kept.cancel()
    waits.look({"a": 2_000})
    waits.fail("stopping")
    assert (out, waits.count) == ([], 0)


def test_a_reply_waits_for_the_third_disk_and_a_deposed_leader_gives_none() -> None:
    trio = Trio()
    leader, (slow, other) = trio.leader(), trio.followers()
    trio.cluster.kill(slow.name, power=True)
    outcomes = trio.propose(leader)
    trio.run_until(lambda: bool(outcomes))
    assert isinstance(outcomes[0], Applied)
    index = outcomes[0].index
    reached: list[str] = []
    trio.cluster.call(leader.name, leader.engine.when_durable, index, Copies(2), reached.append)
    trio.run_until(lambda: bool(reached))
    late: list[str] = []
    trio.cluster.call(leader.name, leader.engine.when_durable, index, Copies(3), late.append)
    trio.run(1.0)
    assert (reached, late) == ([""], [])
    trio.cluster.start(slow.name)
    trio.run_until(lambda: bool(late))
    assert late == [""]
    assert trio.node(slow.name).journal.durable_index >= index
    gone: list[str] = []
    trio.cluster.call(leader.name, leader.engine.when_durable, 1_000, Copies(2), gone.append)
    trio.cluster.call(leader.name, leader.engine.step_down)
    trio.run_until(lambda: bool(gone))
    assert gone == ["not_leader"]
    trio.cluster.call(other.name, other.engine.when_durable, 1, Copies(1), gone.append)
    trio.run(0.1)
    if other.status().role != "leader":
        assert gone == ["not_leader", "not_leader"]
