"""Copies at a known index, and installing one (rule M3)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from raftdb.base.errors import ConfigError, OperationalError
from raftdb.base.ids import HistoryId
from raftdb.base.ports import File
from raftdb.machine import Machine
from raftdb.runtime.files import RealFile, RealFiles
from tests.machine.support import FILES, HISTORY, Database, raw_connection, stamp


def install(database: Database, copy: Path, **options: object) -> None:
    database.machine.close()
    try:
        Machine.install(
            database.directory,
            str(copy),
            **{"history": HISTORY, "files": FILES, **options},  # type: ignore[arg-type]
        )
    finally:
        database.machine = database.open()


@pytest.fixture
def filled(database: Database) -> Database:
    database.run("CREATE TABLE t(a, b)", "CREATE TABLE v(a, b AS (a + 1))")
    for number in range(20):
        database.run(
            ("INSERT INTO t VALUES (?, randomblob(3000))", (number,)),
            ("INSERT INTO v(a) VALUES (?)", (number,)),
        )
    return database


def test_a_copy_is_of_one_index_while_writing_goes_on(filled: Database, tmp_path: Path) -> None:
    index = filled.machine.applied()[0]
    expected = filled.machine.content_hash()
    seen: list[int] = []

    def pace(copied: int) -> None:
        seen.append(copied)
        filled.run("UPDATE t SET b = 'changed'", "INSERT INTO v(a) VALUES (99)")

    made = filled.machine.capture(str(tmp_path / "copy"), pace, files=FILES)
    assert (made.index, made.position, made.history) == (index, 0, HISTORY)
    assert made.content_total == expected.total
    assert seen[-1] == made.size_bytes == (tmp_path / "copy" / "database.sqlite").stat().st_size
    assert filled.rows("SELECT count(*) FROM t WHERE b = 'changed'") == [(20,)]
    # It is durable no further than before, and checkpoints go on afterwards.
    assert filled.machine.durable_index == index
    assert filled.machine.checkpoint() == filled.machine.applied()[0]


def test_no_checkpoint_changes_the_file_while_it_is_copied(
    filled: Database, tmp_path: Path
) -> None:
    expected = filled.machine.content_hash()
    job = filled.machine.begin_capture(str(tmp_path / "copy"), files=FILES)
    index = job.begin()
    filled.run("UPDATE t SET b = zeroblob(3000)")
    assert filled.machine.checkpoint() == index
    assert job.step() is None
    made = job.step()
    assert made is not None
    assert (made.index, made.content_total) == (index, expected.total)
    assert filled.machine.checkpoint() == index + 1
    install(filled, tmp_path / "copy")
    filled.check_hash()
    assert filled.machine.content_hash() == expected


def test_a_machine_that_closes_ends_the_copy_that_is_being_made(
    filled: Database, tmp_path: Path
) -> None:
    job = filled.machine.begin_capture(str(tmp_path / "copy"), files=FILES)
    assert job.begin() == filled.machine.applied()[0]
    with pytest.raises(OperationalError, match="another copy"):
        filled.machine.begin_capture(str(tmp_path / "second"), files=FILES).begin()
    filled.machine.close()
    with pytest.raises(OperationalError, match="closed"):
        job.step()
    filled.machine = filled.open()
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)


def test_installing_takes_the_copys_place_in_the_log(filled: Database, tmp_path: Path) -> None:
    copied = filled.machine.content_hash()
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    assert filled.machine.copied() is None
    later = filled.request("DELETE FROM t", floor=0)
    filled.apply(later)
    after = filled.machine.content_hash()
    entries = filled.entries[-1:]
    install(filled, tmp_path / "copy")
    assert filled.machine.content_hash() == copied
    assert filled.machine.applied()[0] == copied.index
    filled.check_hash()
    # Sessions came with it, and the log goes on.
    assert filled.machine.session_token(filled.session) == b"t" * 16
    filled.machine.apply(entries)
    assert filled.machine.content_hash() == after
    assert sorted(os.listdir(filled.directory)) == [
        "CURRENT",
        "generation-000001",
        "generation-000002",
    ]
    assert os.listdir(Path(filled.directory) / "generation-000001") == []
    filled.run("INSERT INTO v(a) VALUES (7)", "UPDATE v SET a = a + 1")
    filled.check_hash()


def test_the_old_log_is_never_replayed_into_the_new_file(filled: Database, tmp_path: Path) -> None:
    """The old file's write-ahead log is full of frames that would fit the new file."""
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    filled.run("UPDATE t SET b = 'old log'")
    copied = tmp_path / "kept"
    shutil.copytree(filled.directory, copied)
    install(filled, tmp_path / "copy")
    assert filled.rows("SELECT count(*) FROM t WHERE b = 'old log'") == [(0,)]
    filled.check_hash()


class WatchedFiles(RealFiles):
    """Notes what is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        self.opened.append(path)
        return super().open(path, create=create, exclusive=exclusive)


def test_the_live_file_is_never_opened_beside_sqlite(filled: Database, tmp_path: Path) -> None:
    """Closing a second descriptor would drop the locks which keep other processes out."""
    files = WatchedFiles()
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=files)
    assert {os.path.dirname(path) for path in files.opened} == {str(tmp_path / "copy")}
    path = os.path.join(filled.directory, "generation-000001", "database.sqlite")
    script = (
        "import apsw, sys\n"
        "connection = apsw.Connection(sys.argv[1])\n"
        "connection.execute('SELECT count(*) FROM t').fetchall()\n"
        "connection.close()\n"
    )
    before = filled.machine.content_hash()
    other = [sys.executable, "-c", script, path]
    done = subprocess.run(other, capture_output=True, text=True, check=False, timeout=60)
    assert "database is locked" in done.stderr
    filled.run("INSERT INTO t VALUES (1, 2)")
    assert os.path.exists(path + "-wal")
    filled.restart()
    assert filled.machine.content_hash().index == before.index + 1
    filled.check_hash()


class StoppingFiles(RealFiles):
    """Stops at the n-th change of a file."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def rename(self, source: str, target: str) -> None:
        self._step()
        super().rename(source, target)
        self._step()

    def remove(self, path: str) -> None:
        self._step()
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        self._step()
        super().sync_directory(path)

    def make_directory(self, path: str) -> None:
        self._step()
        super().make_directory(path)


def test_a_kill_at_every_step_of_installing(filled: Database, tmp_path: Path) -> None:
    """The old state or the new one, whole; never a mixture."""
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    new = filled.machine.content_hash()
    filled.run("UPDATE t SET b = 'old'", "DELETE FROM v WHERE a < 5")
    old = filled.machine.content_hash()
    filled.machine.close()
    whole = filled.directory
    outcomes = []
    for step in range(40):
        place, copy = tmp_path / f"try{step}", tmp_path / f"copy{step}"
        shutil.copytree(whole, place)
        shutil.copytree(tmp_path / "copy", copy)
        try:
            Machine.install(str(place), str(copy), history=HISTORY, files=StoppingFiles(step))
            finished = True
        except KeyboardInterrupt:
            finished = False
        filled.directory = str(place)
        filled.machine = filled.open()
        filled.check_hash()
        content = filled.machine.content_hash()
        assert content in (old, new)
        outcomes.append(content == new)
        filled.machine.close()
        shutil.rmtree(place)
        if finished:
            break
    filled.directory = whole
    filled.machine = filled.open()
    assert finished
    assert outcomes == sorted(outcomes)
    assert not outcomes[0]
    assert outcomes[-1]
    assert len(outcomes) > 6


@pytest.mark.parametrize("damage", ["flip", "shorter", "longer", "other file", "row", "index"])
def test_a_damaged_copy_is_refused(filled: Database, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    filled.machine.capture(str(copy), lambda _bytes: None, files=FILES)
    filled.run("DELETE FROM v")
    before = filled.machine.content_hash()
    file = copy / "database.sqlite"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "shorter":
        file.write_bytes(data[:-1])
    elif damage == "longer":
        file.write_bytes(data + b"\0")
    elif damage == "other file":
        file.write_bytes(b"\0" * len(data))
    else:
        # Whoever made the copy was wrong about it, and its digest fits.
        raw = raw_connection(file)
        change = "UPDATE t SET a = 5" if damage == "row" else "UPDATE _raftdb_applied SET idx = 3"
        raw.execute(f"PRAGMA journal_mode = DELETE; {change}; PRAGMA journal_mode = WAL").fetchall()
        raw.close()
        redescribe(copy)
    with pytest.raises(ConfigError) as raised:
        install(filled, copy)
    assert raised.value.code == "capture_damaged"
    assert filled.machine.content_hash() == before
    filled.check_hash()


def redescribe(copy: Path) -> None:
    """Make size and digest of the description fit the file."""
    import hashlib
    import json

    data = (copy / "database.sqlite").read_bytes()
    description = json.loads((copy / "capture.json").read_text())
    description["size_bytes"] = len(data)
    description["digest"] = hashlib.blake2b(data, digest_size=32).hexdigest()
    (copy / "capture.json").write_text(json.dumps(description))


def test_a_copy_of_another_history_or_without_description(filled: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    filled.machine.capture(str(copy), lambda _bytes: None, files=FILES)
    with pytest.raises(ConfigError, match="belongs to history"):
        install(filled, copy, history=HistoryId("f" * 32))
    with pytest.raises(ConfigError, match="holds a copy already"):
        filled.machine.capture(str(copy), lambda _bytes: None, files=FILES)
    for text in (b"", b"{}", b"[1]", b"\xff"):
        (copy / "capture.json").write_bytes(text)
        with pytest.raises(ConfigError, match="does not describe a copy"):
            install(filled, copy)


def test_giving_up_and_being_in_the_way(filled: Database, tmp_path: Path) -> None:
    def give_up(_bytes: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        filled.machine.capture(str(tmp_path / "copy"), give_up, files=FILES)
    assert not (tmp_path / "copy" / "capture.json").exists()
    filled.run("INSERT INTO v(a) VALUES (1)")
    path = os.path.join(filled.directory, "generation-000001", "database.sqlite")
    reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN; SELECT * FROM t").fetchall()
    filled.run("INSERT INTO v(a) VALUES (2)")
    with pytest.raises(OperationalError) as raised:
        filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    assert (raised.value.code, raised.value.retryable) == ("capture_busy", True)
    reader.close()
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    filled.tick(stamp(0).time_ms)


def test_a_fresh_member_begins_with_a_copy(filled: Database, tmp_path: Path) -> None:
    filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    expected = filled.machine.content_hash()
    filled.machine.close()
    filled.directory = str(tmp_path / "fresh")
    Machine.install(filled.directory, str(tmp_path / "copy"), history=HISTORY, files=FILES)
    filled.machine = filled.open()
    assert filled.machine.content_hash() == expected
    assert filled.machine.copied() == filled.machine.applied()


def test_a_copy_that_ends_does_not_let_go_of_what_another_one_holds(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lanes make copies: one for members, one for the archive. While the first one is synced
    at its end, the second begins."""
    second = filled.machine.begin_capture(str(tmp_path / "second"), files=FILES)

    begun: list[int] = []

    def sync(file: RealFile) -> None:
        if file._path == str(tmp_path / "first" / "database.sqlite") and not begun:
            begun.append(second.begin())

    first = filled.machine.begin_capture(str(tmp_path / "first"), files=FILES)
    first.begin()
    monkeypatch.setattr(RealFile, "sync", sync)
    while first.step() is None:
        pass
    [index] = begun
    # Of the second, nothing is copied yet.
    filled.run("UPDATE t SET b = 'changed'")
    filled.machine.checkpoint()
    made = None
    while made is None:
        made = second.step()
    assert made.index == index
    install(filled, tmp_path / "second")
    assert filled.machine.applied()[0] == index
    filled.check_hash()


def test_no_copy_takes_the_room_that_the_node_itself_needs(
    filled: Database, tmp_path: Path
) -> None:
    class Files(RealFiles):
        def free_bytes(self, path: str) -> int:
            return 1 << 20

    options = {"files": Files(), "spare_bytes": 1 << 20}
    job = filled.machine.begin_capture(str(tmp_path / "copy"), **options)  # type: ignore[arg-type]
    with pytest.raises(OperationalError, match="more room") as raised:
        job.begin()
    job.abort()
    assert (raised.value.code, raised.value.retryable) == ("capture_no_room", True)
    assert not list((tmp_path / "copy").iterdir())
    # And nothing is held for it.
    filled.run("UPDATE t SET b = 'changed'")
    assert filled.machine.checkpoint() == filled.machine.applied()[0]
