"""What changes in the write-ahead log under a node that runs is noticed, and never moved."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import apsw
import pytest

from raftdb.base.damage import DATABASE_CODES
from raftdb.base.errors import FatalError
from raftdb.machine import checkpoints
from raftdb.machine.logcheck import LogCheck
from tests.machine.support import Database

FRAME = 4096 + 24


def log_of(database: Database) -> Path:
    return Path(f"{database.machine.path}-wal")


def flip(database: Database, frame: int) -> None:
    """Under the database, which is open. `frame` counts from 0."""
    with log_of(database).open("r+b") as file:
        file.seek(32 + frame * FRAME + 2000)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def written(database: Database) -> int:
    """Some commits that are in the log alone; how many frames it has."""
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    database.machine.checkpoint()
    for number in range(10):
        database.run(f"INSERT INTO t VALUES ({number}, '{'x' * 1500}')")
    frames, moved = database.machine._checkpointer._connection.wal_checkpoint(
        mode=apsw.SQLITE_CHECKPOINT_NOOP
    )
    assert moved == 0, "none of it is in the file"
    return frames


@pytest.mark.parametrize("frame", [0, 7, -1])
def test_a_frame_that_changed_is_named_and_never_moved(database: Database, frame: int) -> None:
    frames = written(database)
    database.machine.look_at_log()
    place = frame % frames
    flip(database, place)
    before = Path(database.machine.path).read_bytes()
    for look in (database.machine.look_at_log, database.machine.checkpoint):
        with pytest.raises(FatalError, match=f"of {frames} frames") as raised:
            look()
        assert raised.value.code in DATABASE_CODES
        assert raised.value.detail["file"] == str(log_of(database))
        assert raised.value.detail["offset"] <= 32 + place * FRAME
    assert Path(database.machine.path).read_bytes() == before


def test_what_the_file_has_already_is_read_from_there(database: Database) -> None:
    written(database)
    database.machine.checkpoint()
    flip(database, 3)
    database.machine.look_at_log()
    rows = database.machine.query_rows("SELECT a, length(b) FROM t")[1]
    assert rows == [(number, 1500) for number in range(10)]
    # The log begins again, and what is new there counts.
    database.run("INSERT INTO t VALUES (10, 'y')")
    database.machine.look_at_log()
    flip(database, 0)
    with pytest.raises(FatalError):
        database.machine.checkpoint()


def test_a_log_that_stays_long_is_looked_at_when_it_has_grown_by_half(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    sound_frames = LogCheck.sound_frames

    def counted(check: LogCheck, frames: int) -> int:
        looked.append(frames)
        return sound_frames(check, frames)

    monkeypatch.setattr(LogCheck, "sound_frames", counted)
    monkeypatch.setattr(checkpoints, "HOLD_PAGES", 20)
    written(database)
    with database.machine._readers.snapshot():
        for number in range(100, 150):
            database.run(f"INSERT INTO t VALUES ({number}, '{'x' * 3000}')")
            database.machine.look_at_log()
    long = [frames for frames in looked if frames > 30]
    assert len(long) > 1
    assert all(2 * after >= 3 * before for before, after in pairwise(long))
    assert len(long) < len(looked) < 50
