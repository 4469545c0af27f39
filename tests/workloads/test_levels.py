"""The judge of read levels, on histories that are known."""

from __future__ import annotations

import pytest

from tests.workloads.base import OK, Violation
from tests.workloads.history import Record
from tests.workloads.levels import Levels


def read(begin_s: int, index: int, process: int = 1) -> Record:
    return Record(
        4,
        "level",
        "read",
        {"level": "session"},
        begin_s * 10**9,
        (begin_s + 1) * 10**9,
        OK,
        [],
        index=index,
        process=process,
    )


def test_session_reads_go_forward_as_long_as_the_process_lives() -> None:
    Levels().check([read(1, 5), read(3, 5), read(5, 9)])
    with pytest.raises(Violation, match="told of 9"):
        Levels().check([read(1, 9), read(3, 5)])
    Levels().check([read(1, 9), read(3, 5, process=2)])
    with pytest.raises(Violation, match="told of 7"):
        Levels().check([read(1, 9), read(3, 7, process=2), read(5, 5, process=2)])
