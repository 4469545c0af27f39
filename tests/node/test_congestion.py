"""The rule of admission by age, beside a server that is modelled on a simulated clock."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

import pytest

from raftdb.node.congestion import BURST, FLOOR, RETRY_MAX_MS, RETRY_MIN_MS, Congestion

AGE_MS = 500
PATIENCE_S = 2.0
"""So long a client of the model waits; what comes later is of no use to it."""
STEP_S = 0.005


class Ticket:
    """One request, and when it came."""

    def __init__(self, came_s: float) -> None:
        self.came_s = came_s


@dataclass
class Model:
    """A server that serves in order of coming, `rate` a second, in batches as group commit does.
    Refusing takes `refuse_s` from the time that it could serve in."""

    rate: float
    age_ms_max: int = AGE_MS
    hard_max: int = 1_000_000
    refuse_s: float = 15e-6
    now_s: float = 0.0
    queue: deque[Ticket] = field(default_factory=deque)
    waits_s: list[float] = field(default_factory=list)
    retry_ms: list[int] = field(default_factory=list)
    refused: int = 0
    longest: int = 0
    credit: float = 0.0

    def __post_init__(self) -> None:
        self.rule = Congestion(lambda: self.now_s, self.age_ms_max)

    def arrive(self) -> bool:
        retry_ms = self.rule.refusal_ms()
        if retry_ms or len(self.queue) >= self.hard_max:
            self.refused += 1
            self.retry_ms.append(retry_ms)
            self.credit -= self.refuse_s * self.rate
            return False
        ticket = Ticket(self.now_s)
        self.queue.append(ticket)
        self.rule.entered(ticket)
        self.longest = max(self.longest, len(self.queue))
        return True

    def step(self) -> None:
        """STEP_S pass, and what could be served in them is."""
        self.now_s += STEP_S
        self.credit += self.rate * STEP_S
        while self.queue and self.credit >= 1:
            self.credit -= 1
            ticket = self.queue.popleft()
            self.waits_s.append(self.now_s - ticket.came_s)
            self.rule.left(ticket)
        if not self.queue:
            self.credit = min(self.credit, 0.0)

    def load(self, rate: float, seconds: float) -> None:
        """Arrivals at that rate, whatever becomes of them (an open loop)."""
        owed = 0.0
        for _ in range(round(seconds / STEP_S)):
            owed += rate * STEP_S
            while owed >= 1:
                owed -= 1
                self.arrive()
            self.step()

    def goodput(self, seconds: float) -> float:
        """Answers in time per second, and forgets them."""
        found = sum(wait_s <= PATIENCE_S for wait_s in self.waits_s) / seconds
        self.waits_s.clear()
        return found


@pytest.mark.parametrize("times", [1, 2, 5, 10])
@pytest.mark.parametrize("rate", [400.0, 1_500.0])
def test_goodput_stays_whatever_the_load(rate: float, times: int) -> None:
    model = Model(rate)
    model.load(times * rate, 4)
    assert model.longest <= max(BURST, 3 * rate * AGE_MS / 1000), "also before the rule knows"
    model.waits_s.clear()
    model.load(times * rate, 6)
    waits = sorted(model.waits_s)
    assert waits[-1] <= 3 * AGE_MS / 1000
    assert waits[len(waits) // 2] <= 1.2 * AGE_MS / 1000
    assert model.goodput(6) >= (0.97 - times * rate * 15e-6) * rate


def test_without_the_rule_nearly_all_answers_come_too_late() -> None:
    """The queue is bounded by its number only: what is served has waited for longer than anybody
    cares, though the server is as busy as before."""
    model = Model(400.0, age_ms_max=3_600_000, hard_max=8_192)
    model.load(4_000, 20)
    assert model.goodput(20) < 0.25 * 400


def test_a_burst_on_an_idle_cluster_is_no_overload() -> None:
    model = Model(4_000.0)
    model.load(100, 2)
    for _ in range(500):
        assert model.arrive(), "an eighth of a second's work"
    model.load(100, 2)
    assert model.refused == 0


def test_as_many_clients_as_there_are_may_wait_for_slow_round_trips() -> None:
    """A thousand closed loops over a quorum that takes 200 ms: waiting, but no queue."""
    now_s = 0.0
    rule = Congestion(lambda: now_s, AGE_MS)
    for turn in range(20):
        tickets = [Ticket(now_s) for _ in range(1_000)]
        for ticket in tickets:
            assert rule.refusal_ms() == 0, turn
            rule.entered(ticket)
        now_s += 0.2
        for ticket in tickets:
            rule.left(ticket)


def test_a_server_that_stands_still_takes_few_more() -> None:
    model = Model(4_000.0)
    model.load(2_000, 1)
    model.rate = 0.0
    model.load(2_000, 5)
    assert len(model.queue) <= 2_000 * 0.5 * AGE_MS / 1000 + FLOOR + 10
    model.rate = 4_000.0
    model.load(2_000, 2)
    refused = model.refused
    model.load(2_000, 2)
    assert model.refused == refused, "it goes on as if nothing had been"


def test_few_may_always_wait() -> None:
    now_s = [0.0]
    rule = Congestion(lambda: now_s[0], AGE_MS)
    for _ in range(FLOOR):
        assert rule.refusal_ms() == 0
        rule.entered(object())
        now_s[0] += 10.0
    assert rule.refusal_ms() > 0
    assert rule.refused == 1


def test_the_pause_grows_until_those_refused_come_no_faster_than_they_are_served() -> None:
    """Two thousand clients that each come again when they were told."""
    model = Model(200.0)
    again: list[tuple[float, int]] = [(0.0, client) for client in range(2_000)]
    attempts = 0
    while model.now_s < 15:
        while again[0][0] <= model.now_s:
            _when_s, client = heapq.heappop(again)
            attempts += 1
            wait_s = 10.0
            if not model.arrive():
                wait_s = model.retry_ms[-1] / 1000 * (0.5 + attempts % 16 / 16)
            heapq.heappush(again, (model.now_s + wait_s, client))
        model.step()
    assert (min(model.retry_ms), max(model.retry_ms)) == (RETRY_MIN_MS, RETRY_MAX_MS)
    assert len(model.waits_s) >= 0.9 * 200 * 15
    assert attempts / 15 < 2_500, "about one try a second of each, not twenty"
