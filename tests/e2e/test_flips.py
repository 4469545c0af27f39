"""A few flipped bits; `python -m tests.e2e.flips` has all kinds of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.catching_up import small_journals
from tests.e2e.flips import QUICK, run


def test_flipped_bits_are_healed_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_journals(monkeypatch)
    trials = list(run(tmp_path, QUICK, 11))
    assert [trial.outcome for trial in trials if trial.wrong] == []
    outcomes = {trial.plan.kind: trial.outcome for trial in trials}
    assert outcomes["CURRENT"] == "healed"
    assert outcomes["page"] != "unharmed"
