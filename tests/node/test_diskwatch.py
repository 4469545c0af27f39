"""A leader whose disk has stopped answering steps down, and stands again when it has answered."""

from __future__ import annotations

from typing import Any

from raftdb.node import DiskWatch
from tests.consensus.trio import Trio
from tests.node.fakes import Bench


class Disk:
    """A journal: which batch is under way."""

    batch_under_way = 0


class Engine:
    """Remembers what it was asked."""

    def __init__(self, role: str = "leader") -> None:
        self.role = role
        self.asked: list[str] = []

    def status(self) -> Any:
        return self

    def stand_down(self, reason: str, *, cause: str) -> None:
        self.asked.append(f"{cause}: {'stand down' if reason else 'free'}")

    def step_down(self) -> None:
        self.asked.append("step down")


def watch(role: str = "leader", members: int = 3) -> tuple[Bench, Disk, Engine, DiskWatch]:
    bench, disk, engine = Bench(), Disk(), Engine(role)
    made = DiskWatch(engine, disk, bench.ports, 1.0, lambda: members == 1)  # type: ignore[arg-type]
    made.start()
    return bench, disk, engine, made


def test_batches_that_come_and_go_are_no_stall() -> None:
    bench, disk, engine, made = watch()
    for batch in range(1, 40):
        disk.batch_under_way = batch
        bench.loop.pass_time(0.5)
    disk.batch_under_way = 0
    bench.loop.pass_time(10.0)
    assert (engine.asked, made.stalled) == ([], False)


def test_a_leader_steps_down_within_two_seconds_and_stands_again_afterwards() -> None:
    bench, disk, engine, made = watch()
    disk.batch_under_way = 7
    bench.loop.pass_time(0.9)
    assert engine.asked == []
    bench.loop.pass_time(0.8)
    assert engine.asked == ["disk: stand down", "step down"]
    bench.loop.pass_time(5.0)
    assert made.stalled
    assert len(engine.asked) == 2
    disk.batch_under_way = 0
    bench.loop.pass_time(0.5)
    assert engine.asked[2:] == ["disk: free"]
    assert not made.stalled


def test_a_follower_only_does_not_stand_and_a_lonely_node_goes_on() -> None:
    bench, disk, engine, _made = watch("follower")
    disk.batch_under_way = 7
    bench.loop.pass_time(3.0)
    assert engine.asked == ["disk: stand down"]
    bench, disk, engine, made = watch("leader", members=1)
    disk.batch_under_way = 7
    bench.loop.pass_time(3.0)
    assert (engine.asked, made.stalled) == ([], True)


def test_others_lead_soon_after_a_leader_stepped_down() -> None:
    trio = Trio()
    leader = trio.leader()
    trio.cluster.hosts[leader.name].disk_slow_s = 60.0
    trio.propose(leader)
    trio.run(0.2)
    trio.cluster.call(
        leader.name,
        leader.engine.stand_down,
        "the disk",
    )
    trio.cluster.call(leader.name, leader.engine.step_down)
    took_s = trio.run_until(
        lambda: any(node.role == "leader" and node is not leader for node in trio.cluster.live())
    )
    assert took_s < 1.5
    assert leader.role == "follower"


def test_two_causes_to_stand_down_are_two() -> None:
    trio = Trio()
    node = trio.followers()[0]
    node.engine.stand_down("differs")
    node.engine.stand_down("stalls", cause="disk")
    node.engine.stand_down("", cause="disk")
    assert not node.engine._core.may_lead
    node.engine.stand_down("")
    assert node.engine._core.may_lead
