"""The room that a node keeps: what a file system says is free, and what a quota leaves of it."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.node import DiskSpace, Room
from raftdb.node.diskspace import CHECK_EVERY_S
from tests.node.fakes import HandLoop
from tests.node.test_comparison import Recorder

SIZE = 1 << 20


class Files:
    """Says that much is free; takes the reserve, or refuses."""

    def __init__(self) -> None:
        self.free = 1 << 40
        self.refusal = 0
        self.kept = 0

    def free_bytes(self, _directory: str) -> int:
        return self.free - self.kept

    def keep_room(self, _path: str, size: int) -> None:
        if size and self.refusal:
            raise OSError(self.refusal, "no")
        self.kept = size


@pytest.mark.parametrize("refusal", [errno.EDQUOT, errno.ENOSPC])
def test_a_quota_shows_when_the_reserve_cannot_be_taken(refusal: int) -> None:
    """A file system does not tell of a user's quota: with the reserve untaken, nobody would notice
    before a write of the log finds no room, and stops the node; at each start again."""
    files, loop, log = Files(), HandLoop(), Recorder()
    took: list[bool] = []
    engine: Any = SimpleNamespace(take_entries=took.append, stand_down=lambda *_a, **_k: None)
    ports: Any = SimpleNamespace(clock=loop, executor=loop, log=log)
    files.refusal = refusal
    space = DiskSpace(Room(files, "/d/reserve", "/d", SIZE), engine, ports, lambda: True)  # type: ignore[arg-type]
    space.start()
    loop.pass_time(3 * CHECK_EVERY_S)
    assert space.full
    assert took == [False]
    refused = space.refusal()
    assert refused is not None
    assert refused.code == "disk_full"
    # There is room again: the reserve is taken, and the node goes on.
    files.refusal = 0
    loop.pass_time(3 * CHECK_EVERY_S)
    assert not space.full
    assert took == [False, True]
    assert files.kept == SIZE
    space.stop()


def test_what_is_no_lack_of_room_is_not_taken_for_it() -> None:
    files = Files()
    files.refusal = errno.EIO
    room = Room(files, "/d/reserve", "/d", SIZE)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no"):
        room.look(full=False)
