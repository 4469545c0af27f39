"""Many writes of one session on their way at once: in order, exactly once, whatever happens."""

from __future__ import annotations

import pytest

from raftdb.base.errors import (
    NOT_APPLIED,
    UNKNOWN,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    OverloadedError,
    SessionError,
)
from raftdb.client.core import Core
from raftdb.client.flight import GATHER, IN_FLIGHT_MAX, Flight, Item, ended_in_flight, resume_all
from raftdb.command import Statement
from tests.client.test_exactly_once import TIMEOUT_S, Chaos, Ledger, check, must
from tests.client.world import COMMIT_S, World, operational, read, write

FILLER = "SELECT 1"


class Burst:
    """One flight and its items."""

    def __init__(self, world: World, core: Core) -> None:
        self.world = world
        self.core = core
        self.flight = Flight(core)
        self.items: list[Item] = []

    def submit(self, sql: str, timeout_s: float = TIMEOUT_S) -> Item:
        deadline_s = self.world.now_s + timeout_s
        item = Item((Statement(sql),), True, deadline_s, timeout_s)
        self.items.append(item)
        self.world.run(self.flight.submit(item))
        return item

    def settle(self) -> None:
        self.world.run(self.flight.settle())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def burst(world: World) -> Burst:
    core = world.core()
    write(world, core, "first")
    return Burst(world, core)


def words(world: World) -> list[str]:
    return [word for word in world.effects if word not in (FILLER, "first")]


def test_a_hundred_writes_cost_little_more_than_one(burst: Burst) -> None:
    world = burst.world
    start_s = world.now_s
    for number in range(100):
        burst.submit(f"add {number}")
    burst.settle()
    assert words(world) == [str(number) for number in range(100)]
    assert [item.outcome.index for item in burst.items if item.outcome] == list(range(3, 103))
    assert world.now_s - start_s < 20 * COMMIT_S
    write(world, burst.core, "after")
    assert words(world)[-1] == "after"


def test_at_most_so_many_are_on_their_way(burst: Burst) -> None:
    most = 0
    for number in range(3 * IN_FLIGHT_MAX):
        burst.submit(f"add {number}")
        most = max(most, len(burst.flight._on_way))
        assert len(burst.flight._queue) <= IN_FLIGHT_MAX
    burst.settle()
    assert GATHER <= most <= IN_FLIGHT_MAX


def test_one_that_fails_does_not_stop_those_behind_it(burst: Burst) -> None:
    items = [burst.submit(sql) for sql in ("add a", "fail", "add b")]
    burst.settle()
    assert words(burst.world) == ["a", "b"]
    assert items[0].error is items[2].error is None
    assert isinstance(items[1].error, IntegrityError)


def test_the_place_of_one_that_is_refused_before_the_log_is_filled(burst: Burst) -> None:
    node = burst.world.nodes["n1"]
    node.refuse.append(DataError("too long", code="sql_too_long"))
    items = [burst.submit(f"add {word}") for word in "abc"]
    burst.settle()
    assert words(burst.world) == ["b", "c"]
    assert isinstance(items[0].error, DataError)
    assert items[0].error.outcome == NOT_APPLIED
    assert items[1].error is items[2].error is None
    write(burst.world, burst.core, "d")
    assert words(burst.world) == ["b", "c", "d"]


def test_one_that_is_too_large_to_send_fails_alone(burst: Burst) -> None:
    burst.submit("add a")
    large = burst.submit("add " + "x" * (1 << 20))
    burst.submit("add b")
    burst.settle()
    assert words(burst.world) == ["a", "b"]
    assert isinstance(large.error, DataError)


def test_what_is_refused_for_the_moment_is_sent_again_in_order(burst: Burst) -> None:
    node = burst.world.nodes["n1"]
    burst.submit("add a")
    node.refuse += [OverloadedError("busy", detail={"retry_after_ms": 50})] * 2
    for word in "bcd":
        burst.submit(f"add {word}")
    burst.settle()
    assert words(burst.world) == ["a", "b", "c", "d"]
    assert not any(item.error for item in burst.items)


def test_a_leader_that_dies_costs_no_write_and_no_order(burst: Burst) -> None:
    world = burst.world
    for number in range(20):
        burst.submit(f"add {number}")
    world.after(0.0007, lambda: world.kill("n1"))
    world.after(0.3, lambda: world.elect("n2"))
    for number in range(20, 40):
        burst.submit(f"add {number}")
    burst.settle()
    assert words(world) == [str(number) for number in range(40)]
    assert not any(item.error for item in burst.items)


def test_at_the_deadline_all_that_was_sent_is_unknown_and_can_be_resumed(burst: Burst) -> None:
    world, core = burst.world, burst.core
    world.stalled_log = []
    items = [burst.submit(f"add {word}", timeout_s=1.0) for word in "abc"]
    burst.settle()
    assert [item.error and item.error.outcome for item in items] == [UNKNOWN] * 3
    with pytest.raises(InterfaceError, match="outcome is unknown"):
        burst.submit("add d")
    assert core.unsettled
    assert len(core.unsettled_writes) == 3
    world.stalled_log = None
    outcome = world.run(resume_all(core, TIMEOUT_S))
    assert len(outcome.results.statements) == 3
    assert words(world) == ["a", "b", "c"]
    assert not core.unsettled
    write(world, core, "d")
    assert words(world) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("behind", ["b", "bc"])
def test_behind_one_that_was_refused_in_the_end_the_others_can_be_resumed(
    burst: Burst, behind: str
) -> None:
    world, core = burst.world, burst.core
    world.nodes["n1"].refuse.append(OverloadedError("busy", detail={"retry_after_ms": 2000}))
    world.stalled_log = []
    items = [burst.submit(f"add {word}", timeout_s=0.9) for word in "a" + behind]
    burst.settle()
    outcomes = [item.error and item.error.outcome for item in items]
    assert outcomes == [NOT_APPLIED] + [UNKNOWN] * len(behind)
    world.stalled_log = None
    assert ended_in_flight(core)
    outcome = world.run(resume_all(core, TIMEOUT_S))
    assert len(outcome.results.statements) == len(behind)
    assert words(world) == list(behind)
    write(world, core, "d")
    assert words(world) == [*behind, "d"]


def test_what_is_unknown_is_settled_by_the_next_read(burst: Burst) -> None:
    world, core = burst.world, burst.core
    world.stalled_log = []
    for word in "abc":
        burst.submit(f"add {word}", timeout_s=1.0)
    burst.settle()
    late, world.stalled_log = world.stalled_log, None
    assert read(world, core) == ["first"]
    for commit in late:
        commit()
    assert words(world) == [], "a late original is refused"


def test_a_session_that_ended_is_replaced_for_what_was_not_lost(burst: Burst) -> None:
    world = burst.world
    world.sessions.clear()
    for word in "abc":
        burst.submit(f"add {word}")
    burst.settle()
    assert words(world) == ["a", "b", "c"]


def test_a_session_that_ended_leaves_what_was_lost_unknown(burst: Burst) -> None:
    world = burst.world
    world.nodes["n1"].lose_replies = 1
    lost = burst.submit("add a")
    world.after(0.01, world.sessions.clear)
    world.after(0.001, lambda: setattr(world, "leader", None))
    world.after(0.02, lambda: world.elect("n2"))
    behind = burst.submit("add b")
    burst.settle()
    for item in (lost, behind):
        assert isinstance(item.error, SessionError)
        assert item.error.outcome == UNKNOWN
    assert burst.submit("add c").error is None
    burst.settle()
    assert words(world)[-1] == "c"


def test_a_key_that_is_too_old_fails_alone_and_stays_unknown(burst: Burst) -> None:
    items = [burst.submit(sql) for sql in ("add a", "old key", "add b")]
    burst.settle()
    assert [item.error is None for item in items] == [True, False, True]
    error = items[1].error
    assert error is not None
    assert (error.code, error.outcome) == ("key_too_old", UNKNOWN)
    assert words(burst.world) == ["a", "b"]


def test_an_answer_that_cannot_be_read_leaves_it_unknown(
    burst: Burst, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tests.client.world.encode_reply", lambda _reply: b"\xc1")
        item = burst.submit("add a")
        burst.settle()
    assert item.error is not None
    assert item.error.outcome == UNKNOWN
    assert burst.core.unsettled
    assert words(burst.world) == ["a"]


def test_interrupted_it_leaves_what_was_sent_unsettled(burst: Burst) -> None:
    world = burst.world
    world.stalled_log = []
    burst.submit("add a")
    steps = burst.flight.settle()
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert burst.core.unsettled
    assert burst.items[0].error is not None
    assert burst.items[0].error.outcome == UNKNOWN


class PipelineChaos(Chaos):
    """The same faults, and writes in bursts."""

    def write(self, core: Core, ledger: Ledger) -> None:
        chance, world = self.chance, self.world
        if chance.random() < 0.3:
            super().write(core, ledger)
            return
        if chance.random() < 0.2:
            node = chance.choice(list(world.nodes.values()))
            retry = chance.random() < 0.7
            error = operational("busy", NOT_APPLIED, True) if retry else DataError("no")
            node.refuse.append(error)
        burst = Burst(world, core)
        sent: list[tuple[str, Item]] = []
        for _ in range(chance.choice((1, 3, 10, 40, 90))):
            self.words += 1
            word = f"w{self.words}"
            start_s = world.now_s
            try:
                sent.append((word, burst.submit(f"add {word}", TIMEOUT_S)))
            except InterfaceError:
                ledger.not_applied.append(word)
                must(burst.flight.broken, "only a flight that ended refuses")
            assert world.now_s - start_s <= TIMEOUT_S + 0.01
        burst.settle()
        self.judge(ledger, burst, sent)

    def heal(self) -> None:
        super().heal()
        for node in self.world.nodes.values():
            node.refuse.clear()

    def judge(self, ledger: Ledger, burst: Burst, sent: list[tuple[str, Item]]) -> None:
        unknown = []
        for word, item in sent:
            must(item.done, "every write is answered")
            if item.error is None:
                ledger.returned.append(word)
                assert self.world.effects.count(word) == 1
            elif item.error.outcome == NOT_APPLIED:
                ledger.not_applied.append(word)
            else:
                must(item.error.outcome == UNKNOWN, "a write that failed says how it ended")
                unknown.append(word)
        ledger.unknown += unknown
        ledger.open = unknown if burst.core.unsettled else []

    def resume(self, core: Core, ledger: Ledger) -> None:
        words = list(ledger.open)
        if len(core.unsettled_writes) != len(words):
            return  # Fillers among them: nothing to compare the results with.
        try:
            self.world.run(resume_all(core, TIMEOUT_S))
        except Error as error:
            must(error.outcome == UNKNOWN, "what is not resumed stays unknown")
            if not core.unsettled:
                ledger.open = []
        else:
            for word in words:
                ledger.unknown.remove(word)
                ledger.returned.append(word)
            ledger.open = []


@pytest.mark.parametrize("part", range(5))
def test_what_a_pipeline_says_is_true(part: int) -> None:
    unknown = returned = refused = 0
    for seed in range(part, 75, 5):
        chaos = PipelineChaos(seed)
        try:
            chaos.run()
            check(chaos)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        unknown += sum(len(ledger.unknown) for _, ledger in chaos.clients)
        returned += sum(len(ledger.returned) for _, ledger in chaos.clients)
        refused += sum(len(ledger.not_applied) for _, ledger in chaos.clients)
    assert returned > 1_500, "the faults leave most writes alone"
    assert unknown > 5, "and do hit some"
    assert refused > 5
