"""Random faults in virtual time: whatever happens, the client's word about each write is true.

For every write, against what the cluster applied in the end:
    it returned          exactly once
    `not_applied`        never
    `unknown`            at most once; and what the next linearizable read showed stays true
and each call ended by its deadline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from raftdb.base.errors import NOT_APPLIED, UNKNOWN, Error
from raftdb.client.core import Core
from tests.client.world import READ, World, add

TIMEOUT_S = 2.0
SEEDS = 150
STEPS = 40


def must(condition: bool, promise: str) -> None:
    """Fail with the promise that is broken."""
    assert condition, promise


@dataclass
class Ledger:
    """What one client was told."""

    returned: list[str] = field(default_factory=list)
    not_applied: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    settled: dict[str, bool] = field(default_factory=dict)
    """Unknown writes, and whether a later read of the same connection showed them."""
    open: list[str] = field(default_factory=list)
    """Unknown writes that no read has settled yet."""


class Chaos:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(nodes=self.chance.choice((1, 3, 3, 5)))
        self.world.hints = self.chance.random() < 0.8
        self.clients = [
            (self.world.core(*self._given()), Ledger()) for _ in range(self.chance.choice((1, 2)))
        ]
        self.words = 0

    def _given(self) -> tuple[str, ...]:
        names = list(self.world.nodes)
        self.chance.shuffle(names)
        return tuple(names[: self.chance.randint(1, len(names))])

    def run(self) -> None:
        for _ in range(STEPS):
            if self.chance.random() < 0.4:
                self.world.after(self.chance.choice((0.0, 0.001, 0.002, 0.3)), self.fault)
            core, ledger = self.chance.choice(self.clients)
            draw = self.chance.random()
            if draw < 0.7:
                self.write(core, ledger)
            elif draw < 0.9 or not core.unsettled:
                self.read(core, ledger)
            else:
                self.resume(core, ledger)
        self.heal()
        for core, ledger in self.clients:
            self.read(core, ledger)
            assert not ledger.open, "after healing a read settles everything"

    # ---- what clients do

    def write(self, core: Core, ledger: Ledger) -> None:
        self.words += 1
        word = f"w{self.words}"
        start_s = self.world.now_s
        unsettled_before = core.unsettled
        try:
            self.world.run(core.execute(add(word), timeout_s=TIMEOUT_S))
        except Error as error:
            if error.outcome == NOT_APPLIED:
                ledger.not_applied.append(word)
                assert core.unsettled <= unsettled_before
            else:
                must(error.outcome == UNKNOWN, "a write that failed says how it ended")
                ledger.unknown.append(word)
                ledger.open = [word]  # An earlier one was fenced before this one went out.
        else:
            ledger.returned.append(word)
            ledger.open = []
            assert self.world.effects.count(word) == 1
        assert self.world.now_s - start_s <= TIMEOUT_S + 0.01

    def read(self, core: Core, ledger: Ledger) -> None:
        start_s = self.world.now_s
        try:
            outcome = self.world.run(core.query(READ, timeout_s=TIMEOUT_S))
        except Error as error:
            must(error.outcome == NOT_APPLIED, "a read has no effect")
        else:
            seen = {row[0] for row in outcome.results.statements[0].rows}
            assert seen.issuperset(ledger.returned)
            for word in ledger.open:
                ledger.settled[word] = word in seen
            ledger.open = []
        assert self.world.now_s - start_s <= TIMEOUT_S + 0.01

    def resume(self, core: Core, ledger: Ledger) -> None:
        (word,) = ledger.open
        try:
            self.world.run(core.resume(timeout_s=TIMEOUT_S))
        except Error as error:
            must(error.outcome == UNKNOWN, "what is not resumed stays unknown")
        else:
            ledger.unknown.remove(word)
            ledger.returned.append(word)
            ledger.open = []

    # ---- what happens to the cluster

    def fault(self) -> None:
        world, chance = self.world, self.chance
        node = chance.choice(list(world.nodes.values()))
        kind = chance.randrange(9)
        if kind == 0:
            world.kill(node.node_id)
            world.after(chance.uniform(0.1, 3.0), lambda: world.start(node.node_id))
            self.elect_later()
        elif kind == 1:
            world.pause(node.node_id)
            world.after(chance.uniform(0.1, 4.0), lambda: world.resume(node.node_id))
            self.elect_later()
        elif kind == 2:
            node.lose_replies = chance.randint(1, 3)
        elif kind == 3:
            self.stall()
        elif kind == 4:
            node.mute = True
            world.after(chance.uniform(0.1, 3.0), lambda: setattr(node, "mute", False))
        elif kind == 5:
            for link in list(node.links):
                world.break_link(link, "reset")
        elif kind == 6:
            node.blackholed = True
            world.after(chance.uniform(0.5, 3.0), lambda: setattr(node, "blackholed", False))
        elif kind == 7 and chance.random() < 0.3:
            world.sessions.clear()
        else:
            self.elect_later()

    def elect_later(self) -> None:
        """Somebody leads after a while; what the log held is applied then, or is gone, or comes
        late."""

        def elected() -> None:
            up = [n for n in self.world.nodes.values() if n.up and not n.paused]
            if up:
                self.world.elect(self.chance.choice(up).node_id)

        self.world.after(self.chance.uniform(0.05, 0.8), elected)

    def stall(self) -> None:
        """No quorum for a while. Afterwards the entries are applied in order, from some place on
        not at all."""
        if self.world.stalled_log is None:
            self.world.stalled_log = []
            self.world.after(self.chance.uniform(0.1, 4.0), self.unstall)

    def unstall(self) -> None:
        stalled, self.world.stalled_log = self.world.stalled_log or [], None
        keep = self.chance.choice((len(stalled), self.chance.randint(0, len(stalled))))
        for commit in stalled[:keep]:
            self.world.after(self.chance.choice((0.0, 0.5)), commit)
        if keep < len(stalled):
            # What a log forgets, its leader never acknowledges: leadership changed.
            self.elect_later()

    def heal(self) -> None:
        world = self.world
        world.run_until(world.now_s + 10)
        self.unstall()
        for node in world.nodes.values():
            world.start(node.node_id)
            world.resume(node.node_id)
            node.mute = node.blackholed = False
            node.lose_replies = 0
        world.elect("n1")
        world.run_until(world.now_s + 10)


def check(chaos: Chaos) -> None:
    effects = chaos.world.effects
    for _, ledger in chaos.clients:
        for word in ledger.returned:
            assert effects.count(word) == 1, f"{word} returned"
        for word in ledger.not_applied:
            assert effects.count(word) == 0, f"{word} is said to be not applied"
        for word in ledger.unknown:
            assert effects.count(word) <= 1, f"{word} is unknown"
        for word, shown in ledger.settled.items():
            if word in ledger.unknown:
                assert effects.count(word) == shown, f"{word} was settled by a read"
        places = [effects.index(word) for word in ledger.returned]
        assert places == sorted(places), "a client's writes are applied in its order"


@pytest.mark.parametrize("part", range(5))
def test_what_the_client_says_is_true(part: int) -> None:
    unknown = returned = 0
    for seed in range(part, SEEDS, 5):
        chaos = Chaos(seed)
        try:
            chaos.run()
            check(chaos)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        unknown += sum(len(ledger.unknown) for _, ledger in chaos.clients)
        returned += sum(len(ledger.returned) for _, ledger in chaos.clients)
    assert returned > 300, "the faults leave most writes alone"
    assert unknown > 3, "and do hit some"
