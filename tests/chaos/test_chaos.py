"""One round on real processes behind toxiproxy; CI runs more (`python -m chaos matrix`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.run import Plan, run_rounds
from tests.workloads import read_history, write_history


@pytest.mark.timeout(600)
def test_a_leader_that_is_isolated_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    told: list[str] = []
    plan = Plan("isolated", "register", ("leader-isolated",), 4.0)
    [found], history, missing = run_rounds([plan], 3, told.append, directory=tmp_path / "work")
    assert found.broken == [], "\n".join(told)
    assert missing == []
    assert found.faults["leader-isolated"] >= 1
    assert found.leader_changes >= 1, "the partition had no effect"
    assert found.silence_s > 0.1, "the partition had no effect"
    assert found.acknowledged > 50
    path = tmp_path / "history.jsonl"
    write_history(history, path)
    assert len(list(read_history(path))) == len(history) == found.operations
