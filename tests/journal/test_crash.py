"""Every crash state of scripted runs over the simulated disk.

What must hold each time: the journal opens by itself; what it finds is a state that was asked
for; nothing that was reported durable is missing (so the hard state never goes back either).
"""

from __future__ import annotations

import random

import pytest

from raftdb.base.errors import ConfigError, FatalError
from raftdb.base.limits import Limits
from tests.journal.model import Model, State, random_step, run_script, state_of
from tests.journal.support import DIRECTORY, Bench, contents, entry, run_of, sim_bench, vote
from tests.sim.disk import Fault, SimFiles

STEPS = 40
LIMITS = Limits(journal_segment_bytes=1500, journal_cache_bytes_max=2000)


def new_bench(seed: int) -> Bench:
    return Bench(SimFiles(random.Random(seed)), LIMITS).create()


def operations_of(seed: int) -> int:
    """How many changing calls the whole script makes, opening included."""
    bench = new_bench(seed)
    before = bench.files.mutations
    run_script(bench, seed, STEPS)
    return bench.files.mutations - before


def scripted(seed: int, power_off_after: int) -> tuple[Bench, Model]:
    """The script's run, cut off by a power loss after that many changing calls."""
    bench = new_bench(seed)
    model = None
    try:
        model = Model(bench.open())
    finally:
        bench.files.kill()
    bench.files.power_off_after(power_off_after)
    try:
        return bench, run_script(bench, seed, STEPS)
    except FatalError:
        # Not even opened: all that was there must stay.
        return bench, model


@pytest.mark.parametrize("seed", range(6))
def test_power_loss_at_every_operation(seed: int) -> None:
    cut = rolled = 0
    for operations in range(operations_of(seed)):
        bench, model = scripted(seed, operations)
        for outcome in range(3):
            disk = bench.files.clone(random.Random(outcome * 1000 + operations))
            disk.crash()
            after = Bench(disk, LIMITS)
            model.check_recovered(state_of(after.open()))
            cut += "journal_tail_cut" in after.log.events()
            rolled += len(disk.list_directory(DIRECTORY)) > 3
    assert cut > 0, "no crash ever tore a batch: the test reaches nothing"
    assert rolled > 0


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_every_operation_then_power_loss(seed: int) -> None:
    """J1: what a start found in the page cache only is durable before it is told."""
    for operations in range(operations_of(seed)):
        bench, model = scripted(seed, operations)
        bench.files.kill()
        told = state_of(Bench(bench.files, LIMITS).open())
        model.check_recovered(told)
        for outcome in range(2):
            disk = bench.files.clone(random.Random(outcome * 1000 + operations))
            disk.crash()
            assert state_of(Bench(disk, LIMITS).open()) == told


@pytest.mark.parametrize("kill", [False, True], ids=["power", "kill"])
def test_power_loss_at_every_operation_of_a_recovery(kill: bool) -> None:
    for operations in range(0, operations_of(1), 3):
        bench, model = scripted(1, operations)
        if kill:
            bench.files.kill()
        else:
            bench.files.crash()
        for during in range(40):
            disk = bench.files.clone(random.Random(during))
            disk.power_off_after(during)
            opened: State | None = None
            try:
                opened = state_of(Bench(disk, LIMITS).open())
            except FatalError:
                pass
            disk.crash()
            again = state_of(Bench(disk, LIMITS).open())
            model.check_recovered(again)
            if opened is not None:
                assert again == opened
                break
        else:
            raise AssertionError("a recovery that never ends")


@pytest.mark.parametrize("seed", range(4))
def test_many_lives(seed: int) -> None:
    """Work, crash or kill, start, work: the journal stays usable."""
    draw = random.Random(seed)
    bench = new_bench(seed)
    for life in range(40):
        model = Model(bench.open())
        bench.files.power_off_after(draw.randint(0, 60))
        try:
            for _ in range(30):
                random_step(model, draw)
                bench.executor.turn()
                if bench.executor.lane and draw.random() < 0.7:
                    bench.executor.work()
                model.check_memory()
        except FatalError:
            pass
        bench.executor.settle()
        model.durable_sequence = max(model.durable_sequence, model.journal.durable_sequence)
        if draw.random() < 0.3:
            bench.files.kill()
        else:
            bench.files.crash()
        journal = Bench(bench.files, LIMITS).open()
        model.check_recovered(state_of(journal))
        bench.files.kill()
        assert life >= 0


def test_power_loss_at_every_operation_of_founding() -> None:
    """Either there is no journal yet and it can be founded, or it is whole."""
    bench = Bench(SimFiles(random.Random(3)), LIMITS)
    whole = bench.create().files.mutations
    missing = 0
    for operations in range(whole + 1):
        for outcome in range(6):
            disk = SimFiles(random.Random(outcome))
            disk.power_off_after(operations)
            created = True
            try:
                Bench(disk, LIMITS).create()
            except FatalError:
                created = False
            disk.crash()
            after = Bench(disk, LIMITS)
            try:
                journal = after.open()
            except ConfigError:
                missing += not created
                assert not created, "founded, then gone"
                journal = after.create().open()
            assert contents(journal) == [entry(1, 0, b"")]
    assert missing > whole


def test_the_failed_sync_trap() -> None:
    """A sync fails and the kernel drops the dirty pages, but shows them to whoever reads. A start
    that believed them would speak of entries that the next power cut takes away."""
    told = 0
    for seed in range(20):
        bench = sim_bench(seed)
        journal = bench.open()
        journal.set_hard_state(vote(2, "n1"))
        journal.append(run_of(2, 9, size=400))
        bench.files.inject(Fault("sync", 1, keep_cache=True))
        bench.executor.settle()
        assert len(bench.fatal) == 1
        assert journal.durable_sequence == 0
        bench.files.kill()
        found = state_of(Bench(bench.files).open())
        bench.files.crash()
        assert state_of(Bench(bench.files).open()) == found
        told += found.last > 1
    assert told > 0
