"""The core in virtual time: routing, retry, silence, deadlines, exactly once."""

from __future__ import annotations

import pytest

from raftdb.base.errors import (
    NOT_APPLIED,
    UNKNOWN,
    AuthError,
    DataError,
    DeadlineError,
    IntegrityError,
    InternalError,
    OverloadedError,
    UnavailableError,
)
from raftdb.base.ids import Address
from raftdb.command import Statement
from raftdb.wire import Execute, OpenSession
from tests.client.world import T, World, add, heard, operational, read, sequences, write


def test_writes_then_reads_them() -> None:
    world = World()
    core = world.core()
    for word in "abc":
        write(world, core, word)
    assert read(world, core) == ["a", "b", "c"]
    assert sequences(world) == [1, 2, 3]
    assert heard(world, OpenSession) == 1


def test_floor_is_always_the_sequence_before() -> None:
    world = World()
    core = world.core()
    for word in "abc":
        write(world, core, word)
    executes = [m for _, m in world.heard if isinstance(m, Execute)]
    assert [(m.sequence, m.floor) for m in executes] == [(1, 0), (2, 1), (3, 2)]


def test_goes_to_the_leader_by_the_welcome_of_another() -> None:
    world = World(leader=3)
    core = world.core("n1")
    write(world, core, "a")
    assert world.dialled == ["n1", "n3"]


def test_follows_a_chain_of_hints() -> None:
    world = World(leader=1)
    core = world.core()
    write(world, core, "a")
    world.elect("n2")
    write(world, core, "b")
    world.elect("n3")
    write(world, core, "c")
    world.elect("n1")
    write(world, core, "d")
    assert world.effects == list("abcd")
    assert len(world.dialled) <= 5, "open connections are used again"


def test_asks_around_when_nobody_gives_hints() -> None:
    world = World(leader=3)
    world.hints = False
    core = world.core("n1", "n2", "n3")
    write(world, core, "a")
    assert world.effects == ["a"]


def test_lost_reply_is_not_applied_twice() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].lose_replies = 2
    write(world, core, "b")
    write(world, core, "c")
    assert world.effects == ["a", "b", "c"]
    assert sequences(world) == [1, 2, 2, 2, 3]


def test_lost_reply_of_a_failure_gives_the_first_failure() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].lose_replies = 1
    with pytest.raises(IntegrityError) as caught:
        world.run(core.execute((*add("x"), Statement("fail")), timeout_s=T))
    assert caught.value.outcome == NOT_APPLIED
    assert caught.value.detail["statement"] == 0
    write(world, core, "b")
    assert world.effects == ["a", "b"]
    assert sequences(world) == [1, 2, 2, 3]


def test_leader_dies_with_the_write_in_its_log() -> None:
    """The entry survives on the followers and is applied by the next leader."""
    world = World()
    core = world.core()
    write(world, core, "a")
    world.stalled_log = []

    def die() -> None:
        world.kill("n1")

        def elected() -> None:
            world.elect("n2")
            stalled, world.stalled_log = world.stalled_log, None
            for commit in stalled or []:
                commit()

        world.after(0.5, elected)

    world.after(0.01, die)
    write(world, core, "b")
    assert world.effects == ["a", "b"]
    assert world.now_s < 101.0, "an election takes half a second, and little is added to it"


def test_leader_dies_and_the_write_dies_with_it() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.stalled_log = []

    def die() -> None:
        world.kill("n1")
        world.stalled_log = None
        world.after(0.5, lambda: world.elect("n3"))

    world.after(0.01, die)
    write(world, core, "b")
    assert world.effects == ["a", "b"]
    assert sequences(world)[-2:] == [2, 2]


def test_failover_is_found_soon_after_the_election() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.kill("n1")
    start_s = world.now_s
    world.after(0.4, lambda: world.elect("n2"))
    write(world, core, "b")
    assert 0.4 <= world.now_s - start_s < 0.5


def test_silent_leader_does_not_eat_the_deadline() -> None:
    """SIGSTOP: the connection stays open and nothing comes. Another node leads half a second
    later."""
    world = World()
    core = world.core()
    write(world, core, "a")
    world.pause("n1")
    world.after(0.5, lambda: world.elect("n2"))
    start_s = world.now_s
    write(world, core, "b")
    assert world.now_s - start_s < 1.3
    world.resume("n1")  # It now does what it was told long ago; it does not lead any more.
    world.run_until(world.now_s + 1)
    write(world, core, "c")
    assert world.effects == ["a", "b", "c"]


def test_slow_leader_is_waited_for() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.stalled_log = []

    def go_on() -> None:
        stalled, world.stalled_log = world.stalled_log, None
        for commit in stalled or []:
            commit()

    world.after(3.0, go_on)
    write(world, core, "b")
    assert sequences(world) == [1, 2], "it was sent once"
    assert world.effects == ["a", "b"]


def test_a_slow_leader_is_waited_for_by_whichever_name_it_is_found() -> None:
    """A node in this process has an address of its own. That it leads, as it says there, is no
    reason to send the request to it once more."""
    world = World()
    node = world.nodes["n1"].address
    core = world.core_at((node, Address("this", node.port + 10_000)))
    write(world, core, "a")
    world.stalled_log = []
    stalled = world.stalled_log
    world.after(3.0, lambda: [commit() for commit in stalled])
    write(world, core, "b")
    assert len(world.dialled) > 1
    assert sequences(world) == [1, 2], "it was sent once"


def test_silent_single_node_ends_at_the_deadline() -> None:
    world = World(nodes=1)
    core = world.core()
    write(world, core, "a")
    world.pause("n1")
    start_s = world.now_s
    with pytest.raises(DeadlineError) as caught:
        write(world, core, "b")
    assert caught.value.outcome == UNKNOWN
    assert "does not answer" in str(caught.value)
    assert world.now_s - start_s == pytest.approx(T, abs=0.01)


def test_a_leader_that_is_not_done_is_no_silent_node() -> None:
    """A long statement: the others still hear of the node that was asked."""
    world = World()
    core = world.core()
    write(world, core, "a")
    world.stalled_log = []
    with pytest.raises(DeadlineError) as caught:
        write(world, core, "b")
    assert caught.value.outcome == UNKNOWN
    assert "is alive, and not done with it" in str(caught.value)
    assert "read before you write it again" in caught.value.hint


def test_a_dial_that_the_deadline_cut_short_says_nothing_of_the_node() -> None:
    """Else the node rests for a second, and in calls of a second it is tried at their very end
    again and again, too late each time."""
    world = World(nodes=1)
    world.pause("n1")
    core = world.core()
    with pytest.raises(DeadlineError):
        write(world, core, "a", timeout_s=0.1)
    world.resume("n1")
    start_s = world.now_s
    write(world, core, "b", timeout_s=0.9)
    assert world.now_s - start_s < 0.3


def test_all_down_is_not_applied_and_names_each_address() -> None:
    world = World()
    for node_id in world.nodes:
        world.kill(node_id)
    core = world.core()
    with pytest.raises(DeadlineError) as caught:
        write(world, core, "a")
    assert caught.value.outcome == NOT_APPLIED
    assert caught.value.retryable
    for node in world.nodes.values():
        assert f"{node.address}: refused the connection" in str(caught.value)
    assert not core.unsettled
    assert len(world.dialled) < 100, "not a busy loop"


def test_who_does_not_wait_learns_at_once_that_nobody_listens() -> None:
    world = World()
    core = world.core(wait=False)
    world.kill("n1")
    world.elect("n2")
    write(world, core, "a")
    for node_id in world.nodes:
        world.kill(node_id)
    start_s = world.now_s
    fresh = world.core(wait=False)
    with pytest.raises(UnavailableError, match="refused the connection") as caught:
        write(world, fresh, "c")
    assert world.now_s - start_s < 0.5
    assert caught.value.outcome == NOT_APPLIED


def test_all_blackholed_ends_at_the_deadline() -> None:
    world = World()
    for node in world.nodes.values():
        node.blackholed = True
    core = world.core()
    with pytest.raises(DeadlineError):
        write(world, core, "a")
    assert world.now_s == pytest.approx(100.0 + T, abs=0.01)


def test_one_blackholed_address_costs_one_dial() -> None:
    world = World(leader=2)
    world.nodes["n3"].blackholed = True
    core = world.core("n3", "n2", "n1")
    write(world, core, "a")
    write(world, core, "b")
    assert world.dialled.count("n3") <= 1
    assert world.now_s < 101.1


def test_no_leader_for_the_whole_deadline() -> None:
    world = World(leader=None)
    core = world.core()
    with pytest.raises(DeadlineError) as caught:
        write(world, core, "a")
    assert caught.value.outcome == NOT_APPLIED
    assert "knows no leader" in str(caught.value)


def test_a_deposed_leader_that_others_believe_in_is_not_asked_without_a_pause() -> None:
    """It stepped down for want of a majority; the others have not noticed, in the same term."""
    world = World()
    core = world.core()
    write(world, core, "a")
    world.leader, world.believed = None, world.nodes["n1"]

    def elected() -> None:
        world.elect("n2")
        world.believed = None

    world.after(0.6, elected)
    before = len(world.heard)
    start_s = world.now_s
    write(world, core, "b")
    assert world.now_s - start_s < 0.7
    assert len(world.heard) - before < 80


def test_overloaded_waits_and_tries_again() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    busy = OverloadedError("busy", detail={"retry_after_ms": 200})
    world.nodes["n1"].refuse = [busy, busy]
    start_s = world.now_s
    write(world, core, "b")
    assert 0.2 <= world.now_s - start_s < 1.0
    assert world.effects == ["a", "b"]


def test_overloaded_for_longer_than_the_deadline_is_said_at_once() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].refuse = [OverloadedError("busy", detail={"retry_after_ms": 1_000})] * 3
    start_s = world.now_s
    with pytest.raises(OverloadedError) as caught:
        world.run(core.execute((Statement("add b"),), timeout_s=0.4))
    assert world.now_s - start_s < 0.3
    assert caught.value.outcome == NOT_APPLIED
    world.nodes["n1"].refuse = []
    write(world, core, "c")
    assert world.effects == ["a", "c"]


def test_outcome_unknown_from_the_node_is_tried_again() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].refuse = [operational("outcome_unknown", UNKNOWN, True)]
    write(world, core, "b")
    assert world.effects == ["a", "b"]


def test_internal_error_leaves_the_write_unsettled() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].refuse = [InternalError("a bug")]
    with pytest.raises(InternalError) as caught:
        write(world, core, "b")
    assert caught.value.outcome == UNKNOWN
    assert core.unsettled


def test_refused_write_takes_no_sequence() -> None:
    world = World()
    core = world.core()
    world.nodes["n1"].refuse = []
    write(world, core, "a")
    world.nodes["n1"].refuse = [DataError("too many parameters")]
    with pytest.raises(DataError):
        write(world, core, "b")
    write(world, core, "c")
    assert world.effects == ["a", "c"]
    assert sequences(world) == [1, 2, 2][: len(sequences(world))]


def test_refused_after_a_lost_try_is_unknown() -> None:
    """The first try may be in the log, so "refused" says nothing of it."""
    world = World()
    core = world.core()
    write(world, core, "a")
    world.nodes["n1"].lose_replies = 1
    world.after(0.002, lambda: world.nodes["n1"].refuse.append(AuthError("revoked")))
    with pytest.raises(AuthError) as caught:
        write(world, core, "b")
    assert caught.value.outcome == UNKNOWN
    assert core.unsettled


def test_message_too_large_is_refused_before_it_is_sent() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    with pytest.raises(DataError):
        write(world, core, "x" * (2 << 20))
    assert not core.unsettled
    write(world, core, "b")
    assert world.effects == ["a", "b"]


# ---- reads and questions


def test_reads_are_sent_again_freely() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.kill("n1")
    world.after(0.3, lambda: world.elect("n2"))
    assert read(world, core) == ["a"]


def test_read_that_writes_is_executed() -> None:
    world = World()
    core = world.core()
    world.run(core.query(add("a"), timeout_s=T))
    assert world.effects == ["a"]


def test_local_read_goes_to_the_preferred_node() -> None:
    world = World()
    core = world.core(prefer="n3")
    assert read(world, core, "local") == []
    assert world.heard[-1][0] == "n3"
    by_address = world.core(prefer=str(world.nodes["n2"].address))
    read(world, by_address, "local")
    assert world.heard[-1][0] == "n2"


def test_local_read_goes_elsewhere_when_the_first_is_down() -> None:
    world = World()
    world.kill("n1")
    core = world.core("n1", "n2")
    assert read(world, core, "local") == []
    assert world.heard[-1][0] == "n2"


def test_pinned_core_asks_its_node_and_no_other() -> None:
    world = World(leader=1)
    core = world.core("n2", pin=True)
    assert world.run(core.status(timeout_s=T))["node_id"] == "n2"
    assert world.run(core.ping(timeout_s=T)) == "n2"
    assert world.run(core.content_hash(None, timeout_s=T))["index"] == 0
    assert read(world, core, "local") == []
    with pytest.raises(DeadlineError):
        write(world, core, "a", timeout_s=1.0)
    assert set(world.dialled) == {"n2"}


def test_learned_addresses_are_used_when_the_given_one_dies() -> None:
    world = World(leader=1)
    core = world.core("n1")
    write(world, core, "a")
    world.kill("n1")
    world.elect("n3")
    write(world, core, "b")
    assert world.effects == ["a", "b"]


def test_transfer_goes_to_the_leader() -> None:
    world = World(leader=2)
    core = world.core()
    world.run(core.transfer_leadership("n3", timeout_s=T))
    assert world.heard[-1][0] == "n2"


# ---- draining, and closing


def test_goodbye_moves_new_requests_elsewhere() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.say_goodbye("n1")
    world.elect("n2")
    write(world, core, "b")
    assert world.effects == ["a", "b"]
    before = [node_id for node_id, _ in world.heard].count("n1")
    write(world, core, "c")
    assert [node_id for node_id, _ in world.heard].count("n1") == before


def test_goodbye_during_a_request_is_not_its_end() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    world.after(0.001, lambda: world.say_goodbye("n1"))
    write(world, core, "b")
    assert sequences(world) == [1, 2]


def test_close_gives_the_session_back() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    for link in list(world.nodes["n1"].links):
        assert not link.broken
    world.run(core.close())
    world.run_until(world.now_s + 1)
    assert all(link.broken for link in world.nodes["n1"].links)


def test_close_without_a_session_sends_nothing() -> None:
    world = World()
    core = world.core()
    assert read(world, core) == []
    count = len(world.heard)
    world.run(core.close())
    assert len(world.heard) == count


# ---- who is at the other end


def test_another_cluster_is_refused_at_once() -> None:
    world = World()
    core = world.core(cluster="a" * 32)
    with pytest.raises(AuthError) as caught:
        write(world, core, "a")
    assert caught.value.code == "wrong_cluster"
    assert world.now_s < 100.5, "no retry mends that"
    assert caught.value.outcome == NOT_APPLIED


def test_the_cluster_is_pinned_by_the_first_welcome() -> None:
    world = World()
    core = world.core()
    write(world, core, "a")
    assert core.courier.cluster_id == "c" * 32


def test_another_history_starts_with_fresh_terms() -> None:
    world = World()
    world.term = 50
    core = world.core()
    write(world, core, "a")
    for node_id in world.nodes:
        world.kill(node_id)
    world.history, world.term = "e" * 32, 1
    world.sessions.clear()
    for node_id in world.nodes:
        world.start(node_id)
    world.elect("n2")
    write(world, core, "b")
    assert world.effects == ["a", "b"]
