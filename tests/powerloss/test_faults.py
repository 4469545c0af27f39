"""System calls that fail under a real node; `python -m tests.powerloss faults` has them all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raftdb.runtime.files import RealFiles
from tests.powerloss import strace
from tests.powerloss.faults import FAULTS, QUICK, Seen, meet


@pytest.mark.parametrize("name", QUICK)
def test_the_node_stops_and_comes_back_with_everything(name: str, tmp_path: Path) -> None:
    strace.require()
    seen = meet(FAULTS[name], tmp_path)
    assert seen.problems() == []
    assert len(seen.acked) > 0


def test_what_would_be_a_problem_is_seen() -> None:
    fault = FAULTS["segment-sync-EIO"]
    assert Seen(fault).problems() == ["the fault was never met"]
    seen = Seen(fault, 0, "node_stops nothing", {1: 5.0, 2: 30.0}, 20.0, ["fdatasync x"])
    seen.rows[1] = 2
    words = ("exit code", "does not name", "what to do", "again", "after the failure", "not there")
    for word in words:
        assert any(word in problem for problem in seen.problems()), word


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    file = RealFiles().open(path, create=True)
    descriptor = os.open("/dev/full", os.O_WRONLY)
    os.dup2(descriptor, file._descriptor)  # type: ignore[attr-defined]
    os.close(descriptor)
    with pytest.raises(OSError, match="No space") as caught:
        file.write_at(0, b"data")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, path)
    for call in (lambda: file.truncate(5), file.sync):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.filename == path
    file.close()
