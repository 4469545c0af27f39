"""A few of the kills that `python -m tests.e2e.leader_kills` does by the hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import running_cluster
from tests.e2e.leader_kills import kill_leaders


@pytest.mark.slow
def test_three_leaders_die_under_load_and_nothing_acknowledged_with_them(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster") as cluster:
        broken, silences_s = kill_leaders(cluster, 3)
    assert broken == []
    assert len(silences_s) == 3


@pytest.mark.slow
def test_leaders_that_are_stopped_hand_over_and_no_request_fails(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster") as cluster:
        broken, _silences_s = kill_leaders(cluster, 2, orderly=True)
    assert broken == []
