"""Clock, randomness, malloc, loop."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest

from raftdb.base.ports import Clock, Random
from raftdb.runtime import RealClock, RealRandom, new_event_loop, tune_malloc, tune_switching
from raftdb.runtime.loop import SWITCH_INTERVAL_S
from raftdb.runtime.random import POOL_BYTES
from tests.runtime.harness import Recorder


def test_the_clock_counts_suspension_where_it_can() -> None:
    clock: Clock = RealClock()
    first = clock.monotonic_s()
    assert clock.monotonic_s() >= first
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(clock.monotonic_s() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
    assert abs(clock.wall_ms() - time.time() * 1000) < 1000


def test_the_clock_works_without_boottime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert abs(RealClock().monotonic_s() - time.monotonic()) < 1


def test_randomness() -> None:
    one: Random = RealRandom()
    two: Random = RealRandom()
    assert [one.random() for _ in range(4)] != [two.random() for _ in range(4)]
    assert all(0 <= one.random() < 1 for _ in range(1000))
    assert len(one.randbytes(16)) == 16
    assert len({one.randbytes(8) for _ in range(1000)}) == 1000
    assert len(one.randbytes(POOL_BYTES * 3)) == POOL_BYTES * 3


def test_a_forked_child_draws_bytes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    random = RealRandom()
    random.randbytes(8)
    next_of_the_parent = random._pool[:8]
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert random.randbytes(8) != next_of_the_parent


def test_malloc_is_tuned_on_glibc_and_harmless_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    if platform.libc_ver()[0] == "glibc":
        assert tune_malloc()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not tune_malloc()


def test_switching_is_tuned() -> None:
    before = sys.getswitchinterval()
    try:
        tune_switching()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    finally:
        sys.setswitchinterval(before)


def test_what_goes_wrong_inside_the_loop_is_logged() -> None:
    log = Recorder(lambda: None)
    loop = new_event_loop(log)
    try:
        loop.call_exception_handler({"message": "odd", "exception": ValueError("x")})
        assert log.of("loop_error") == [{"message": "odd", "error": "ValueError: x"}]
    finally:
        loop.close()
    assert isinstance(loop, asyncio.AbstractEventLoop)


def test_every_exported_name_is_there_and_a_blocking_client_loads_no_asyncio() -> None:
    import subprocess

    import raftdb.runtime

    assert sorted(raftdb.runtime._PLACES) == sorted(raftdb.runtime.__all__)
    for name in raftdb.runtime.__all__:
        assert getattr(raftdb.runtime, name) is not None
    with pytest.raises(AttributeError):
        _ = raftdb.runtime.nothing  # type: ignore[attr-defined]
    script = (
        "import sys, raftdb.runtime.clock, raftdb.runtime.tls; "
        "sys.exit('asyncio' in sys.modules or 'cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
