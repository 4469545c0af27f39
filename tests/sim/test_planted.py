"""Planted bugs: quick ones are found here; `python -m tests.sim planted` finds them all."""

from __future__ import annotations

import pytest

from raftdb.consensus.wall import Wall
from tests.sim.planted import BUGS, NOT_YET
from tests.sim.planted.catalogue import ELSEWHERE, SCRIPTED
from tests.sim.planted.hunt import SWARM_MIN, hunt
from tests.sim.planted.scenarios import PLAYS

QUICK = ("journal-ack-before-fsync", "no-savepoint", "duplicates-execute", "no-directory-sync")


def named(name: str):  # type: ignore[no-untyped-def]
    return next(bug for bug in BUGS if bug.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_ordinary_seeds_find_it(name: str) -> None:
    assert hunt(named(name)).invariant


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_script_finds_it_and_passes_without_it(name: str) -> None:
    found = hunt(named(name))
    assert found.invariant, found.what


def test_every_bug_has_a_name_a_rule_and_a_way_in() -> None:
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names) >= 30
    assert len(names) - len(SCRIPTED) >= SWARM_MIN
    assert set(SCRIPTED) <= set(names)
    assert set(SCRIPTED.values()) == set(PLAYS)
    for bug in BUGS:
        assert bug.rule
        assert bug.story
        assert bug.wall is not Wall or bug.make(), bug.name
    assert NOT_YET
    assert ELSEWHERE


def test_a_bug_is_out_when_its_run_is_over() -> None:
    bug = named("random-not-from-the-request")
    [(target, name, _instead)] = bug.make()
    before = getattr(target, name)
    with bug.planted():
        assert getattr(target, name) is not before
    assert getattr(target, name) is before
