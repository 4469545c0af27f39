"""What logged requests are answered when they fail is the same in every release (DESIGN.md,
"Releases"): replicas compare it, and what they keep depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.base.release import LEVEL_MAX, LEVEL_MIN
from tests.machine import texts
from tests.meta.source import ROOT

WHAT_TO_DO = (
    "replicas of the release before say something else, and would part from this one. Keep the old "
    "text (or refusal) below the next feature level: a name in raftdb.base.release.FEATURES, and "
    "`allows(name, level)` where it is chosen; then python -m tests.machine.texts LEVEL"
)


@pytest.mark.parametrize("level", range(LEVEL_MIN, LEVEL_MAX + 1))
def test_replies_are_what_they_were(tmp_path: Path, level: int) -> None:
    now, before = texts.replies(tmp_path, level), texts.golden_replies(level)
    assert now.keys() == before.keys()
    changed = {name: (before[name], now[name]) for name in now if now[name] != before[name]}
    assert changed == {}, WHAT_TO_DO
    assert sum(1 for one in now.values() if one != "done") > 60


def test_no_text_is_new_gone_or_changed() -> None:
    now, before = texts.all_texts(), texts.golden_texts()
    assert len(now) > 80
    assert now - before == set(), WHAT_TO_DO
    assert before - now == set(), WHAT_TO_DO


def test_every_module_is_known_to_make_them_or_not() -> None:
    modules = {path.stem for path in (ROOT / "raftdb" / "machine").glob("*.py")}
    assert modules <= texts.LOGGED | texts.FREE, "say whether it makes replies to logged requests"
    assert set() == texts.LOGGED & texts.FREE
