"""What changes in the write-ahead log under a node that runs is noticed, and never moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from raftdb.base.damage import DATABASE_CODES
from raftdb.base.errors import FatalError
from raftdb.command import Statement
from raftdb.machine import checkpoints, logcheck
from raftdb.machine.captures import CaptureJob
from raftdb.machine.checkpoints import Checkpointer
from raftdb.machine.logcheck import LogCheck
from tests.machine.support import FILES, Database

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


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What was looked at, of logs that are long from 20 frames on."""
    looked: list[tuple[int, int]] = []
    sound_frames = LogCheck.sound_frames

    def noted(check: LogCheck, first: int, last: int) -> int:
        looked.append((first, last))
        return sound_frames(check, first, last)

    monkeypatch.setattr(LogCheck, "sound_frames", noted)
    monkeypatch.setattr(logcheck, "LOOK_FRAMES", 20)
    return looked


def frames_of(database: Database) -> int:
    connection = database.machine._checkpointer._connection
    return int(connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0])


def look_often(database: Database, times: int) -> None:
    for _ in range(times):
        database.machine.look_at_log()


def grow(database: Database, first: int, count: int) -> int:
    """A commit a row; how many frames the log has then."""
    for number in range(first, first + count):
        database.run(f"INSERT INTO t VALUES ({number}, '{'x' * 3000}')")
    return frames_of(database)


def test_of_a_long_log_what_is_new_is_looked_at_and_the_rest_in_turn(
    database: Database, parts: list[tuple[int, int]]
) -> None:
    written(database)
    with database.machine._readers.snapshot():
        last = grow(database, 100, 40)
        parts.clear()
        database.machine.look_at_log()
        assert parts == [(0, last)], "all of it, the first time"
        parts.clear()
        before, last = last, grow(database, 200, 5)
        database.machine.look_at_log()
        assert parts == [(0, 20), (before, last)]
        for _ in range(last // 20):
            database.machine.look_at_log()
        again = parts[2:]
        assert all(end - start <= 20 for start, end in again), "nothing was written"
        covered = {frame for start, end in parts for frame in range(start, end)}
        assert covered == set(range(last))


@pytest.mark.parametrize("inside", [2000, 18, 10], ids=["page", "checksum", "salt"])
@pytest.mark.parametrize("new", [True, False])
def test_a_frame_in_a_long_log_is_found_in_its_turn(
    database: Database, parts: list[tuple[int, int]], new: bool, inside: int
) -> None:
    written(database)
    with database.machine._readers.snapshot():
        known = grow(database, 100, 40)
        database.machine.look_at_log()
        last = grow(database, 200, 8)
        parts.clear()
        place = known + 5 if new else known - 4
        with log_of(database).open("r+b") as file:
            file.seek(32 + place * FRAME + inside)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(FatalError, match=f"of {last} frames") as raised:
            look_often(database, 1 if new else last // 20 + 2)
        offset = raised.value.detail["offset"]
        assert 32 + (known if new else 20) * FRAME <= offset <= 32 + place * FRAME
    # Before it is moved all is looked at, however long it is.
    path = Path(database.machine.path)
    before = path.read_bytes()
    with pytest.raises(FatalError, match="frames that were there"):
        database.machine.checkpoint()
    assert path.read_bytes() == before


def test_a_part_of_a_commit_is_looked_at_by_itself(
    database: Database, parts: list[tuple[int, int]]
) -> None:
    """One commit of many frames: no part but the last ends with it."""
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    database.machine.checkpoint()
    with database.machine._readers.snapshot():
        rows = tuple((number, "x" * 3000) for number in range(70))
        database.run(Statement("INSERT INTO t VALUES (?, ?)", rows))
        last = frames_of(database)
        for _ in range(1 + last // 20):
            database.machine.look_at_log()
        assert parts[-1][0] > 0
        flip(database, 50)
        with pytest.raises(FatalError):
            look_often(database, 2 + last // 20)


def test_a_log_that_was_cut_off_is_named(database: Database, parts: list[tuple[int, int]]) -> None:
    written(database)
    with database.machine._readers.snapshot():
        last = grow(database, 100, 40)
        database.machine.look_at_log()
        with log_of(database).open("r+b") as file:
            file.truncate(32 + (last - 3) * FRAME + 100)
        with pytest.raises(FatalError, match="frames that were there"):
            look_often(database, 1 + last // 20)


def test_a_log_that_began_again_is_another_one(
    database: Database, parts: list[tuple[int, int]]
) -> None:
    written(database)
    with database.machine._readers.snapshot():
        grow(database, 100, 40)
        database.machine.look_at_log()
    database.machine.checkpoint()
    parts.clear()
    for number in range(5):
        last = grow(database, 200 + 10 * number, 9)
        database.machine.look_at_log()
        assert parts[-1] == (0, last) if last <= 20 else parts[-1][1] == last


def copying(database: Database, target: Path) -> CaptureJob:
    """A copy that has begun."""
    job = database.machine.begin_capture(str(target), files=FILES)
    job.begin()
    return job


def test_a_copy_moves_nothing_that_nobody_looked_at(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with a checkpoint, and ends that with the writer held back. What came in between
    was moved, and given to another member, with a sound checksum."""
    written(database)
    run = Checkpointer.run
    moved: list[bytes] = []

    def stray(self: Checkpointer) -> Any:
        durable = run(self)
        moved.append(Path(database.machine.path).read_bytes())
        database.run("INSERT INTO t VALUES (100, 'y')")
        flip(database, 0)
        return durable

    monkeypatch.setattr(Checkpointer, "run", stray)
    with pytest.raises(FatalError, match="0 can be read"):
        copying(database, tmp_path / "copy")
    assert moved == [Path(database.machine.path).read_bytes()]


def test_the_log_is_looked_at_while_a_copy_holds_checkpoints(
    database: Database, tmp_path: Path
) -> None:
    written(database)
    job = copying(database, tmp_path / "copy")
    database.run("INSERT INTO t VALUES (100, 'y')")
    database.machine.look_at_log()
    asked_again_and_again(database)
    flip(database, 0)
    with pytest.raises(FatalError):
        database.machine.look_at_log()
    with pytest.raises(FatalError):
        asked_again_and_again(database)
    job.abort()


def asked_again_and_again(database: Database) -> None:
    for _ in range(checkpoints._LOOK_EACH):
        database.machine.checkpoint()
