"""Planted bugs: quick ones are found here; `python -m tests.sim planted` finds them all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from raftdb.consensus.wall import Wall
from tests.sim.planted import BUGS
from tests.sim.planted.catalogue import ELSEWHERE, SCRIPTED, SHOWN
from tests.sim.planted.hunt import SWARM_MIN, hunt
from tests.sim.planted.scenarios import PLAYS
from tests.sim.run import run_seed

QUICK = ("journal-ack-before-fsync", "no-savepoint", "duplicates-execute", "no-directory-sync")

TABLE = Path(__file__).parents[2] / "docs" / "testing.md"
SLOW = (
    "copy-under-load",
    "killed-beside-checkpoints",
    "killed-in-entries",
    "torn-writes",
    "pruned",
    "archive-away",
)
"""Scripts of some seconds each."""


def named(name: str):  # type: ignore[no-untyped-def]
    return next(bug for bug in BUGS if bug.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_ordinary_seeds_find_it(name: str) -> None:
    assert hunt(named(name)).invariant


SEEDS = {"commit-interrupted": 21, "log-not-looked-at": 51}
"""One that shows the bug, where most have no such fault."""


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_finds_it_and_passes_without_it(name: str) -> None:
    assert hunt(named(name), [SEEDS[name]]).invariant
    assert not run_seed(SEEDS[name]).broken


SCENES = {scene: name for name, scene in (SCRIPTED | SHOWN).items() if scene not in SLOW}
"""One bug for each script; `python -m tests.sim planted` has them all."""


@pytest.mark.parametrize("name", SCENES.values())
def test_a_script_finds_it_and_passes_without_it(name: str) -> None:
    bug = named(name)
    found = hunt(dataclasses.replace(bug, scenario=bug.scenario or SHOWN[name]))
    assert found.invariant, found.what


def test_every_bug_has_a_name_a_rule_and_a_way_in() -> None:
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names) >= 30
    assert len(names) - len(SCRIPTED) >= SWARM_MIN
    assert {*SCRIPTED, *SHOWN} <= set(names)
    assert not SCRIPTED.keys() & SHOWN.keys()
    assert {*SCRIPTED.values(), *SHOWN.values()} == set(PLAYS)
    for bug in BUGS:
        assert bug.rule
        assert bug.story
        assert bug.wall is not Wall or bug.make(), bug.name
    assert ELSEWHERE


def test_a_bug_is_out_when_its_run_is_over() -> None:
    bug = named("random-not-from-the-request")
    [(target, name, _instead)] = bug.make()
    before = getattr(target, name)
    with bug.planted():
        assert getattr(target, name) is not before
    assert getattr(target, name) is before


def test_the_table_of_rules_names_every_bug_as_it_is_found() -> None:
    text = TABLE.read_text(encoding="utf-8").partition("### Every rule")[2]
    scripted = set(re.findall(r"\*`([a-z0-9-]+)`\*", text))
    assert {bug.name for bug in BUGS if bug.scenario} == scripted
    for bug in BUGS:
        assert f"`{bug.name}`" in text, bug.name
