"""Following single commits through traced system calls."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.timeline import STEPS, break_down, parse

LOAD, LEADER, FAST, SLOW = 9, 1, 2, 3


def line(time_us: float, pid: int, tid: int, what: str) -> str:
    return f"   python  {pid}/{tid}   {time_us / 1e6:.6f}:   syscalls:sys_{what}"


def enter(call: str, fd: int, size: int = 0) -> str:
    return f"enter_{call}: fd: {fd:#010x}, buf: 0x7ffe, count: {size:#010x}"


def leave(call: str, result: int) -> str:
    return f"exit_{call}: {result:#x}"


def follower(start: float, pid: int, sync_us: float) -> list[str]:
    """Reads an append of 200 bytes at `start`, syncs 50 us later, answers 20 us after that."""
    lane = pid * 10
    synced = start + 50 + sync_us
    return [
        line(start - 1, pid, pid, enter("read", 5, 9000)),
        line(start, pid, pid, leave("read", 200)),
        line(start + 50, pid, lane, enter("fdatasync", 11)),
        line(synced, pid, lane, leave("fdatasync", 0)),
        line(synced + 5, pid, lane, enter("write", 9, 8)),
        line(synced + 20, pid, pid, enter("write", 5, 36)),
        line(synced + 22, pid, pid, leave("write", 36)),
    ]


def commit(start: float) -> list[str]:
    return [
        line(start, LOAD, LOAD, enter("write", 4, 205)),
        line(start + 28, LEADER, LEADER, enter("read", 6, 9000)),
        line(start + 30, LEADER, LEADER, leave("read", 205)),
        line(start + 130, LEADER, LEADER, enter("write", 7, 200)),
        line(start + 150, LEADER, LEADER, enter("write", 8, 200)),
        line(start + 160, LEADER, 10, enter("fdatasync", 11)),
        line(start + 360, LEADER, 10, leave("fdatasync", 0)),
        line(start + 365, LEADER, 10, enter("write", 9, 8)),
        *follower(start + 170, FAST, 300),
        *follower(start + 190, SLOW, 400),
        line(start + 580, LEADER, LEADER, enter("read", 7, 9000)),
        line(start + 590, LEADER, LEADER, leave("read", 36)),
        line(start + 800, LEADER, 11, enter("write", 9, 8)),
        line(start + 830, LEADER, LEADER, enter("write", 6, 47)),
        line(start + 848, LOAD, LOAD, enter("read", 4, 9000)),
        line(start + 850, LOAD, LOAD, leave("read", 47)),
    ]


def test_a_commit_is_followed_by_way_of_the_faster_follower() -> None:
    lines = [one for number in range(12) for one in commit(1000 + 2000 * number)]
    found = break_down(parse(lines), LOAD, [LEADER, FAST, SLOW])
    assert (found.commits, found.seen) == (11, 12)  # the last one has no successor to end it
    assert len(found.steps) == len(STEPS)
    assert found.steps == pytest.approx([30, 100, 40, 50, 300, 20, 50, 210, 30, 20], abs=0.5)
    assert found.total == pytest.approx(850, abs=0.5)
    assert found.sync == pytest.approx(300, abs=0.5)


def test_too_few_commits_are_no_timeline() -> None:
    with pytest.raises(BenchError, match="only 1 of 2"):
        break_down(parse([*commit(1000), *commit(3000)]), LOAD, [LEADER, FAST, SLOW])


def test_a_commit_without_a_sync_is_left_out() -> None:
    lines = [one for number in range(12) for one in commit(1000 + 2000 * number)]
    without = [one for one in lines if "fdatasync" not in one]
    with pytest.raises(BenchError, match="only 0 of 12"):
        break_down(parse(without), LOAD, [LEADER, FAST, SLOW])
