"""Rot in a write-ahead log that a checkpoint has moved: a mixture, unless it is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raftdb.base.damage import DATABASE_CODES
from raftdb.base.errors import FatalError
from raftdb.base.limits import Limits
from raftdb.command import Statement
from raftdb.machine import Machine, logguard
from raftdb.machine.logguard import LogGuard
from tests.machine.support import FILES, HISTORY, Database, MemoryLog

FRAME = 4096 + 24
ROWS = 300


def opened(directory: Path) -> Machine:
    return Machine.open(
        str(directory), history=HISTORY, limits=Limits(), files=FILES, log=MemoryLog()
    )


def killed(database: Database, target: Path) -> tuple[Path, Path]:
    """What a kill leaves, in a directory of its own: the file, and its log."""
    shutil.copytree(database.directory, target)
    path = target / "generation-000001" / "database.sqlite"
    return path, Path(f"{path}-wal")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))


def grown(database: Database) -> None:
    """All of the log is in the file: first one part of the rows changed, and then another."""
    numbers = tuple((n, "1" * 200) for n in range(ROWS))
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    database.run(Statement("INSERT INTO t VALUES (?, ?)", numbers))
    database.machine.checkpoint()
    database.run("UPDATE t SET b = replace(b, '1', '2') WHERE a < 40")
    database.run("UPDATE t SET b = replace(b, '1', '2') WHERE a > 260")
    database.machine.checkpoint()


def mixed(machine: Machine) -> bool:
    """The rows are not those whose hash is kept beside them."""
    return machine.content_hash().total != machine.recompute_content_hash().total


def test_what_is_rotten_below_a_checkpoint_is_noticed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(database)
    found: list[str] = []
    named = 0
    note = LogGuard(str(database.machine.path), FILES)._read()
    assert note is not None
    assert note.complete
    for number in range(note.frames):
        target = tmp_path / f"copy{number}"
        _path, log = killed(database, target)
        flip(log, 32 + number * FRAME + 2000)
        with monkeypatch.context() as patch:
            # As SQLite alone has it: every page has its checksum, and the rows never were.
            patch.setattr(LogGuard, "check", lambda _self, _frames: None)
            bare = tmp_path / f"bare{number}"
            shutil.copytree(target, bare)
            try:
                machine = opened(bare)
                found.append("mixed" if mixed(machine) else "equal")
                machine.close()
            except FatalError:
                found.append("corrupt")
        with pytest.raises(FatalError) as raised:
            opened(target)
        assert raised.value.code in DATABASE_CODES
        named += raised.value.detail["file"] == str(log)
    assert named >= len(found) - found.count("corrupt") > 1
    assert "mixed" in found, f"the mixture that this is about: {found}"


def cut(log: Path, keep: Callable[[int], int]) -> None:
    with log.open("r+b") as file:
        file.truncate(keep(log.stat().st_size))


def test_a_log_that_lost_its_end_or_was_all_moved_is_no_damage(
    database: Database, tmp_path: Path
) -> None:
    grown(database)
    database.run("CREATE TABLE later(a)")
    for number, keep in enumerate((lambda size: size - 100, lambda _size: 0)):
        path, log = killed(database, tmp_path / f"copy{number}")
        if number == 0:
            # Behind the checkpoint: never synced, so a power cut may take it.
            cut(log, keep)
        else:
            # All of it was in the file when it went.
            database.machine.checkpoint()
            path, log = killed(database, tmp_path / "whole")
            cut(log, keep)
        machine = opened(path.parent.parent)
        assert not mixed(machine)
        machine.close()


def test_a_log_that_vanished_in_the_midst_of_a_checkpoint_is_damage(
    database: Database, tmp_path: Path
) -> None:
    database.run("CREATE TABLE t(a)")
    guard = database.machine._checkpointer._guard
    guard.before(2)
    _path, log = killed(database, tmp_path / "copy")
    cut(log, lambda _size: 0)
    with pytest.raises(FatalError, match="gone"):
        opened(tmp_path / "copy")
    # The note itself may rot: then nothing else is likely to be.
    note = tmp_path / "copy" / "generation-000001" / logguard.NOTE_FILE
    flip(note, 20)
    opened(tmp_path / "copy").close()


def test_a_log_that_begins_again_behind_a_checkpoint_is_no_damage(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit may come between the end of a checkpoint and its note. After a kill then, the log
    has fewer frames than the checkpoint had moved; they were others."""
    grown(database)
    database.run("UPDATE t SET b = replace(b, '2', '3')")
    guard = database.machine._checkpointer._guard
    note, after = guard._read(), guard.after

    def late(frames: int, *, complete: bool) -> None:
        database.run("CREATE TABLE meanwhile(a)")
        after(frames, complete=complete)

    with monkeypatch.context() as patch:
        patch.setattr(guard, "after", late)
        database.machine.checkpoint()
    noted = guard._read()
    assert noted is not None
    assert noted != note
    assert noted.complete
    assert noted.salt != guard._salt(), "the log has begun again"
    path, _log = killed(database, tmp_path / "copy")
    machine = opened(path.parent.parent)
    assert not mixed(machine)
    machine.close()


def test_frames_that_a_reader_kept_from_being_moved_may_go(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that a reader is in the way of syncs nothing, so a commit that came since it was
    announced is gone after a power cut; the file relies on nothing of it."""
    grown(database)
    guard = database.machine._checkpointer._guard
    before, synced = guard.before, []

    def late(frames: int) -> None:
        before(frames)
        synced.append(frames)
        database.run("CREATE TABLE meanwhile(a)")

    with database.machine._readers.snapshot(), monkeypatch.context() as patch:
        patch.setattr(guard, "before", late)
        database.run("CREATE TABLE again(a)")
        database.machine.checkpoint()
    assert synced
    path, log = killed(database, tmp_path / "copy")
    size = 32 + synced[0] * FRAME
    assert log.stat().st_size > size
    cut(log, lambda _size: size)
    machine = opened(path.parent.parent)
    assert not mixed(machine)
    machine.close()
