"""The demo itself, shortened: it is what the README promises."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_keeps_its_promises_and_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raftdb.cli", "demo", "--seconds", "6", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "kept"
    assert found["failed_requests"] == 0
    assert len(found["kills"]) == 2
    assert found["rows_loaded"] > 25_000
    assert found["rows_acknowledged"] > 100
    assert len({copy["content_hash"] for copy in found["copies"]}) == 1
    assert {copy["rows"] for copy in found["copies"]} == {found["rows_acknowledged"]}
