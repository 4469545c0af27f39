"""Reading what py-spy and perf found."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.profile import function, parse_perf, parse_stacks, room

RAW = """\
thread (7): MainThread;main (/x/raftdb/cli/app.py);run (/v/raftdb/embedded/foreground.py);\
_tick (/v/site-packages/pysyncobj/syncobj.py) 30
thread (7): MainThread;run (/v/raftdb/embedded/foreground.py);read (/usr/lib/python3/ssl.py) 10
thread (9): apply;_run (/v/lib/threading.py);apply (/v/raftdb/machine/machine.py:12) 40
thread (9): apply;_run (/v/lib/threading.py) 1
"""


def test_time_goes_to_the_innermost_room() -> None:
    stacks = parse_stacks(RAW)
    assert [(stack.tid, stack.thread, stack.count) for stack in stacks] == [
        (7, "MainThread", 30),
        (7, "MainThread", 10),
        (9, "apply", 40),
        (9, "apply", 1),
    ]
    assert [room(stack) for stack in stacks] == ["pysyncobj", "embedded", "machine", "other"]
    assert function(stacks[1]) == "python3/ssl.py:read"
    assert function(stacks[2]) == "machine/machine.py:apply"


def test_what_is_no_stack_is_refused() -> None:
    for line in ("Error: permission denied", "thread (1): T;f (/a.py) many"):
        with pytest.raises(BenchError, match="no stack"):
            parse_stacks(line)


def test_perf_is_read_by_thread_and_library() -> None:
    text = (
        "# Overhead,Tid,Shared Object\n\n"
        "40.00%,30936:python,libpython3.11.so.1.0\n"
        " 9.50%,30936:python,libcrypto.so.3\n"
        " 0.50%,30936:python,libssl.so.3\n"
        "50.00%,30940:python,[kernel.kallsyms]\n"
    )
    found = parse_perf(text)
    assert found.keys() == {(30936, "interpreter"), (30936, "TLS"), (30940, "kernel")}
    assert found[30936, "TLS"] == pytest.approx(0.1)
