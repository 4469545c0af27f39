"""One round on real processes behind toxiproxy; CI runs more (`python -m chaos matrix`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.__main__ import history_of
from chaos.run import Plan, Round, run_rounds
from tests.workloads import Record, read_history, write_history


@pytest.mark.timeout(600)
def test_a_leader_that_is_isolated_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    told: list[str] = []
    plan = Plan("isolated", "register", ("leader-isolated",), 4.0)
    [found], missing = run_rounds([plan], 3, told.append, directory=tmp_path / "work")
    assert found.broken == [], "\n".join(told)
    assert missing == []
    assert found.faults["leader-isolated"] >= 1
    assert found.leader_changes >= 1, "the partition had no effect"
    assert found.silence_s > 0.1, "the partition had no effect"
    assert found.acknowledged > 50
    path = tmp_path / "history.jsonl"
    write_history(found.history, path)
    assert len(list(read_history(path))) == len(found.history) == found.operations


def test_a_file_of_several_rounds_says_of_each_operation_which_it_was_of(tmp_path: Path) -> None:
    # An outside checker would take two rounds for one history, in which tables turn empty.
    rounds = []
    for client in (7, 8):
        one = Round(Plan("two", "register", ("kill",), 1.0), 3)
        one.history = [Record(client, "register", "read", {"key": 1}, 5) for _ in range(2)]
        rounds.append(one)
    path = tmp_path / "history.jsonl"
    write_history(history_of(rounds), path)
    found = [(record.client, record.round) for record in read_history(path)]
    assert found == [(7, 1), (7, 1), (8, 2), (8, 2)]
