"""The record against the system calls: nothing is missing in it, nothing is in another order."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.powerloss import strace
from tests.powerloss.record import read_events

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shape", ["mixed", "copies"])
def test_the_record_is_what_strace_sees(shape: str, tmp_path: Path) -> None:
    strace.require()
    root, record, output = tmp_path / "data", tmp_path / "record", tmp_path / "strace"
    options = ["-e", f"trace={strace.FILE_CALLS}"]
    program = [sys.executable, "-m", "tests.powerloss.traced", shape, "4", str(root), str(record)]
    done = subprocess.run(
        strace.command(output, options, program),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    recorded = strace.recorded_operations(read_events(str(record)), str(root))
    seen = strace.file_operations(strace.read_calls(output), str(root))
    assert recorded == seen
    kinds = Counter(one[0] for one in seen)
    for kind in ("create", "write", "truncate", "sync", "rename", "remove", "directory"):
        assert kinds[kind] > 0, f"the workload has no {kind}"
