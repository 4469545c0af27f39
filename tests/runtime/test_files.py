"""The real files: modes, short writes, syncs, locks between processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raftdb.runtime.files import RealFiles


def test_write_read_truncate(tmp_path: Path) -> None:
    files = RealFiles()
    path = str(tmp_path / "a")
    file = files.open(path, create=True)
    file.write_at(0, b"hello world")
    file.write_at(20, b"!")
    assert file.size() == 21
    assert file.read_at(6, 5) == b"world"
    assert file.read_at(11, 100) == bytes(9) + b"!"
    assert file.read_at(100, 5) == b""
    file.truncate(5)
    file.sync()
    file.close()
    file.close()
    assert files.read_file(path) == b"hello"
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_at(0, 1)


def test_new_files_and_directories_are_private(tmp_path: Path) -> None:
    files = RealFiles()
    before = os.umask(0)
    try:
        files.make_directory(str(tmp_path / "x" / "y"))
        files.open(str(tmp_path / "x" / "a"), create=True).close()
        files.lock(str(tmp_path / "x" / "lock"))()
    finally:
        os.umask(before)
    for name, mode in (("a", 0o600), ("lock", 0o600), ("y", 0o700)):
        assert stat.S_IMODE(os.stat(tmp_path / "x" / name).st_mode) == mode


def test_open_modes(tmp_path: Path) -> None:
    files = RealFiles()
    path = str(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        files.open(path)
    with pytest.raises(FileNotFoundError):
        files.read_file(path)
    files.open(path, create=True, exclusive=True).close()
    with pytest.raises(FileExistsError):
        files.open(path, create=True, exclusive=True)
    assert files.exists(path)
    assert files.list_directory(str(tmp_path)) == ["a"]


def test_rename_and_remove(tmp_path: Path) -> None:
    files = RealFiles()
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    for path, data in ((one, b"1"), (other, b"2")):
        file = files.open(path, create=True)
        file.write_at(0, data)
        file.close()
    files.rename(one, other)
    files.sync_directory(str(tmp_path))
    assert files.read_file(other) == b"1"
    files.remove(other)
    assert files.list_directory(str(tmp_path)) == []


def test_short_writes_and_reads_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, real_read = os.pwrite, os.pread
    calls = []

    def short_write(descriptor: int, data: Any, offset: int) -> int:
        calls.append("write")
        return real_write(descriptor, bytes(data)[:7], offset)

    def short_read(descriptor: int, count: int, offset: int) -> bytes:
        calls.append("read")
        return real_read(descriptor, min(count, 5), offset)

    monkeypatch.setattr(os, "pwrite", short_write)
    monkeypatch.setattr(os, "pread", short_read)
    file = RealFiles().open(str(tmp_path / "a"), create=True)
    data = bytes(range(100))
    file.write_at(3, data)
    assert file.read_at(3, 100) == data
    assert file.read_at(3, 1000) == data
    assert calls.count("write") == 15
    assert calls.count("read") > 20
    file.close()


def test_a_write_that_takes_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RealFiles().open(str(tmp_path / "a"), create=True)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: 0)
    with pytest.raises(OSError, match="took no byte"):
        file.write_at(0, b"x")
    file.close()


@pytest.mark.skipif(sys.platform == "darwin", reason="uses F_FULLFSYNC there")
def test_sync_is_fdatasync_and_directories_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: calls.append(("fdatasync", descriptor)))
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: calls.append(("fsync", stat.S_IFMT(os.fstat(descriptor).st_mode))),
    )
    files = RealFiles()
    file = files.open(str(tmp_path / "a"), create=True)
    file.sync()
    files.sync_directory(str(tmp_path))
    file.close()
    assert [name for name, _ in calls] == ["fdatasync", "fsync"]
    assert calls[1][1] == stat.S_IFDIR


def test_a_lock_excludes_until_it_is_released(tmp_path: Path) -> None:
    files = RealFiles()
    path = str(tmp_path / "lock")
    release = files.lock(path)
    with pytest.raises(BlockingIOError):
        files.lock(path)
    release()
    release()
    files.lock(path)()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = (
        "import sys; from raftdb.runtime.files import RealFiles\n"
        "RealFiles().lock(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            RealFiles().lock(path)
    finally:
        child.kill()
        child.wait(30)
        child.stdout.close()
        child.stdin.close()
    RealFiles().lock(path)()
