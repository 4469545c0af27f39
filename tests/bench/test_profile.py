"""Reading py-spy's stacks."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.profile import break_down, parse_stacks

RAW = """\
thread (7): MainThread;main (/x/raftdb/cli/app.py);run (/v/raftdb/embedded/foreground.py);\
_tick (/v/site-packages/pysyncobj/syncobj.py) 30
thread (7): MainThread;run (/v/raftdb/embedded/foreground.py);read (/usr/lib/python3/ssl.py) 10
thread (7): MainThread;run (/v/raftdb/embedded/foreground.py);SSL_read (/lib/libssl.so.3) 20
thread (9): apply;_run (/v/lib/threading.py);apply (/v/raftdb/machine/machine.py) 40
"""


def test_time_goes_to_the_innermost_room_or_library() -> None:
    found = break_down(parse_stacks(RAW))
    assert found.total == 100
    assert found.places == [
        ("apply", "machine", 40),
        ("MainThread", "pysyncobj", 30),
        ("MainThread", "TLS", 20),
        ("MainThread", "embedded", 10),
    ]
    assert found.functions[0] == ("apply", "machine/machine.py:apply", 40)
    assert ("MainThread", "python3/ssl.py:read", 10) in found.functions


def test_line_numbers_are_dropped() -> None:
    found = parse_stacks("thread (1): T;f (/v/raftdb/node/replica.py:12) 5\n")
    assert found[0].frames == (("f", "/v/raftdb/node/replica.py"),)


def test_what_is_no_stack_is_refused() -> None:
    with pytest.raises(BenchError, match="no stack"):
        parse_stacks("Error: permission denied\n")
