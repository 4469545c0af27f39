"""Copies between engines: a follower that the log has outrun, on the simulated fabric."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.limits import Limits
from raftdb.consensus.messages import (
    Ack,
    Append,
    CopyAsk,
    CopyFetch,
    CopyHello,
    CopyNeeded,
    CopyPart,
    Directory,
    Part,
)
from raftdb.consensus.wall import Wall
from raftdb.journal import RetentionBounds
from tests.consensus.bench import Bench, HandJournal
from tests.consensus.test_engine import HandMachine, Solo
from tests.consensus.test_rows import append
from tests.consensus.toy_copies import ToyCopies
from tests.consensus.trio import Trio
from tests.consensus.wires import Station, hello, node
from tests.sim.planted import rules

SMALL = Limits(journal_segment_bytes=2048, peer_part_bytes=1000)


def outrun(trio: Trio, entries: int = 60) -> Any:
    """A follower is cut off until the others' logs begin behind its end; the leader."""
    leader = trio.leader()
    away = trio.followers()[0].name
    trio.cluster.kill(away, power=False)
    trio.run(0.1)
    for _ in range(entries):
        done = trio.propose(leader, padding=200)
        trio.run_until(lambda done=done: bool(done))
    return leader, away


def trio_of(**options: Any) -> Trio:
    return Trio(limits=SMALL, retention=RetentionBounds(keep_bytes=4000), **options)


def test_a_follower_that_the_log_has_outrun_gets_a_copy_and_goes_on_from_the_log() -> None:
    trio = trio_of()
    leader, away = outrun(trio)
    assert leader.journal.first_index > 20
    trio.cluster.start(away)
    trio.run_until(lambda: trio.cluster.copies_installed == 1)
    trio.run_until(lambda: trio.node(away).status().applied_index == leader.journal.last_index)
    follower = trio.node(away)
    assert follower.journal.first_index > 20
    assert follower.machine.history == leader.machine.history
    done = trio.propose(leader)
    trio.run_until(lambda: bool(done))
    trio.run_until(lambda: follower.status().applied_index == leader.status().applied_index == 63)
    assert trio.cluster.copies_installed == 1
    # Nothing is kept for ever: neither the copy, nor the log that was pinned for it.
    trio.run(120)
    copies = leader.engine.copies
    assert not copies.source.busy
    assert leader.journal._retention.pins == 0
    assert (
        trio.cluster.hosts[leader.name].machine.files.list_directory("/node/copies/outgoing") == []
    )


def test_heartbeats_do_not_wait_for_a_copy() -> None:
    trio = trio_of(latency_s=0.02)
    leader, away = outrun(trio, 120)
    term = leader.status().term
    trio.cluster.start(away)
    trio.run_until(lambda: trio.cluster.copies_installed == 1, within_s=30)
    trio.run(1.0)
    assert leader.status().term == term
    assert leader.status().role == "leader"


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("victim", ["follower", "source"])
def test_killed_at_any_moment_of_a_copy_it_is_resumed_or_begun_again(
    power: bool, victim: str
) -> None:
    for moment in range(1, 16):
        trio = trio_of(latency_s=0.004, seed=moment)
        leader, away = outrun(trio)
        trio.cluster.start(away)
        trio.run(0.01 * moment)
        name = away if victim == "follower" else leader.name
        trio.cluster.kill(name, power=power)
        trio.run(0.05)
        trio.cluster.start(name)
        new = trio.leader()
        done = trio.propose(new)
        trio.run_until(lambda done=done: bool(done))
        trio.run_until(
            lambda new=new, away=away, trio=trio: (
                trio.node(away).status().applied_index >= new.status().commit_index > 1
            ),
            within_s=20,
        )
        assert trio.node(away).machine.history == new.machine.history


def test_a_leader_whose_follower_lacks_dropped_entries_says_so_at_heartbeats_only() -> None:
    bench = Bench([1, 1, 1, 1])
    bench.elect()
    bench.journal.sync()
    bench.journal.drop_below(4)
    bench.take()
    bench.receive("n2", Ack(2, 1, False, 2))
    sent = bench.take()
    assert [type(one) for one in sent] == [Directory, CopyNeeded], "no entries of no use to it"
    assert sent[1] == CopyNeeded(2, 4)
    assert bench.core.replicator._progress["n2"].stalled
    bench.core.replicator.retry("n2")
    [probe] = bench.take(Append, "n2")
    assert (probe.prev_index, probe.entries) == (3, ())
    bench.receive("n2", Ack(2, probe.sequence, True, 3))
    [following] = bench.take(Append, "n2")
    assert following.prev_index == 3
    assert len(following.entries) == bench.journal.last_index - 3


def test_only_the_leader_of_the_term_is_believed_that_a_copy_is_needed() -> None:
    bench = Bench([1])
    needed: list[tuple[str, int]] = []
    bench.core._on_copy_needed = lambda peer, first: needed.append((peer, first))
    bench.receive("n2", append(3, 1, 2, 1, 0))
    bench.receive("n3", CopyNeeded(2, 50))
    assert needed == []
    bench.receive("n2", CopyNeeded(3, 50))
    assert needed == [("n2", 50)]


# -- row 12 and rule C2: what a start makes of an installed copy -----------------------------------


def started(journal: HandJournal, applied: tuple[int, int], copied: tuple[int, int] | None) -> Solo:
    machine = HandMachine(applied)
    machine.copied_at = copied
    solo = Solo(journal=journal, machine=machine)
    solo.engine.start()
    return solo


def test_a_journal_that_ends_below_the_copy_goes_on_behind_it() -> None:
    solo = started(HandJournal([1, 1]), (9, 4), (9, 4))
    assert solo.fatal == []
    assert (solo.journal.first_index, solo.journal.last_index) == (10, 9)
    assert solo.engine.status().commit_index == 9


def test_row_12_a_log_that_holds_the_copys_last_entry_stays() -> None:
    solo = started(HandJournal([1, 1, 1, 1]), (3, 1), (3, 1))
    assert solo.fatal == []
    assert (solo.journal.first_index, solo.journal.last_index) == (1, 5)


def test_row_12_stock_drops_what_was_acknowledged() -> None:
    machine = HandMachine((3, 1))
    machine.copied_at = (3, 1)
    solo = Solo(journal=HandJournal([1, 1, 1, 1]), machine=machine, wall=rules.DropsLogBehindCopy())
    solo.engine.start()
    assert solo.journal.last_index == 3, "entries 4 and 5 are gone"


def test_a_log_that_conflicts_with_the_copy_was_never_committed() -> None:
    solo = started(HandJournal([1, 1, 1, 1]), (4, 2), (4, 2))
    assert solo.fatal == []
    assert (solo.journal.first_index, solo.journal.last_index) == (5, 4)


def test_without_a_copy_a_journal_that_ends_below_the_database_is_refused() -> None:
    solo = started(HandJournal([1, 1]), (9, 4), None)
    assert "the journal ends at 3" in str(solo.fatal[0])
    solo = started(HandJournal([1, 1]), (9, 4), (7, 4))
    assert "the journal ends at 3" in str(solo.fatal[0])


# -- the connection -----------------------------------------------------------------------------


def test_a_connection_for_a_copy_takes_no_other_ones_place() -> None:
    wires = Station()
    wires.join("n1")
    wires.take()
    connection = wires.accepted(node("n1"))
    connection.receive(CopyHello(*hello("n1")))
    assert wires.take() == [("copy", "n1", False)]
    assert wires.transport.connected("n1")
    assert wires.transport.epoch("n1") == 1
    connection.receive(CopyAsk(b"", 0))
    assert wires.take() == [("copy", "n1", CopyAsk(b"", 0))]
    connection.receive(Part(True, b"x"))
    assert not connection.open


def test_a_copy_goes_only_to_a_member_of_this_history() -> None:
    wires = Station()
    connection = wires.accepted(node("n1"))
    connection.receive(CopyHello(*hello("n1", history_id="other")))
    assert not connection.open
    assert all(event[0] != "copy" for event in wires.take())


@pytest.mark.parametrize(
    "message",
    [CopyFetch(b"x", 0, 1 << 30), CopyPart(b"x", 0, 0, b""), CopyNeeded(1, 1)],
    ids=lambda message: type(message).__name__,
)
def test_what_no_correct_peer_asks_for_is_refused_or_answered_with_nothing(message: Any) -> None:
    trio = trio_of()
    leader = trio.leader()
    copies = leader.engine.copies

    class FakeLink:
        dialled = None
        sent: list[Any] = []

        def send(self, answer: Any) -> None:
            self.sent.append(answer)

    link: Any = FakeLink()
    if isinstance(message, CopyFetch):
        copies.on_message(link, message)
        assert [type(answer).__name__ for answer in link.sent] == ["CopyGone"]
    else:
        with pytest.raises(Exception, match="no place beside a copy"):
            copies.on_message(link, message)


def test_pieces_are_checked_and_a_damaged_copy_is_fetched_again() -> None:
    class Rotting(ToyCopies):
        """The first copy that is installed turns out to be damaged."""

        spoilt = False

        def install(self, path: str, description: bytes) -> None:
            if not Rotting.spoilt:
                Rotting.spoilt = True
                file = self._files.open(path)
                file.write_at(5, b"\xff\xff")
                file.close()
            super().install(path, description)

    Rotting.spoilt = False
    trio = trio_of(copies=Rotting)
    leader, away = outrun(trio)
    trio.cluster.start(away)
    trio.run_until(lambda: trio.cluster.copies_installed == 1, within_s=20)
    assert any("copy_refused" in note for note in trio.world.notes)
    trio.run_until(lambda: trio.node(away).status().applied_index == leader.journal.last_index)
    assert trio.node(away).machine.history == leader.machine.history


# -- rows 12 and 13, planted ----------------------------------------------------------------------


def copy_while_up_to_date(wall: Wall | None) -> Trio:
    """A follower that lacks nothing is told to fetch a copy, as by a message that came late."""
    trio = trio_of(wall=wall)
    leader = trio.leader()
    for _ in range(5):
        done = trio.propose(leader)
        trio.run_until(lambda done=done: bool(done))
    follower = trio.followers()[0]
    trio.run(0.2)
    trio.cluster.call(follower.name, follower.engine.copies.need, (leader.name,), 0)
    trio.run(5.0)
    return trio


def test_row_13_a_copy_of_what_is_applied_already_is_not_installed() -> None:
    trio = copy_while_up_to_date(None)
    assert any("copy_not_needed" in note for note in trio.world.notes)
    assert trio.cluster.copies_installed == 0


def test_row_13_stock_goes_back_to_an_old_copy() -> None:
    assert copy_while_up_to_date(rules.InstallsOldCopies()).cluster.copies_installed > 0


def interrupted_by_another_copy(wall: Wall | None) -> Trio:
    """The follower has a part of one copy; when it goes on, the source has another."""
    trio = trio_of(wall=wall, latency_s=0.004)
    leader, away = outrun(trio)
    trio.cluster.start(away)
    follower = trio.node(away)
    trio.run_until(lambda: follower.engine.copies.fetcher.received_bytes > 2000)
    for peer in (away, leader.name):
        trio.cluster.kill(peer, power=False)
    files = trio.cluster.hosts[away].machine.files
    file = files.open("/node/copies/incoming/progress")
    file.write_at(0, (2000).to_bytes(8, "little"))
    file.close()
    third = next(name for name in trio.cluster.hosts if name not in (away, leader.name))
    trio.cluster.start(leader.name)
    new = trio.leader()
    for _ in range(10):
        done = trio.propose(new, padding=200)
        trio.run_until(lambda done=done: bool(done))
    assert third in trio.cluster.hosts
    trio.cluster.start(away)
    trio.run_until(lambda: trio.cluster.copies_installed > 0, within_s=30)
    trio.run_until(
        lambda: trio.node(away).status().applied_index == new.status().commit_index,
        within_s=20,
    )
    assert trio.node(away).machine.history == new.machine.history
    return trio


def test_row_12_pieces_of_two_copies_never_meet() -> None:
    trio = interrupted_by_another_copy(None)
    assert not any("copy_refused" in note for note in trio.world.notes)


def test_row_12_stock_mixes_them_and_only_the_whole_files_digest_notices() -> None:
    trio = interrupted_by_another_copy(rules.MixesCopies())
    assert any("copy_refused" in note for note in trio.world.notes)
