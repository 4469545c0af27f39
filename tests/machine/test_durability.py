"""Checkpoints, and what may be dropped from the journal after them (rule M2)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from raftdb.base.errors import FatalError
from raftdb.base.limits import Limits
from raftdb.command import Statement
from raftdb.machine import Machine, checkpoints, pages
from raftdb.runtime.files import RealFiles
from tests.machine.support import (
    FILES,
    HISTORY,
    Database,
    ManualClock,
    MemoryLog,
    raw_connection,
)


class RecordingFile(apsw.VFSFile):
    """Notes what is written and what is synced."""

    def __init__(self, vfs: RecordingVfs, name: str, flags: list[int]) -> None:
        self.vfs = vfs
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.path = str(path)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.vfs.unsynced.add(self.path)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self.vfs.syncs.append(self.path)
        self.vfs.unsynced.discard(self.path)
        if self.vfs.on_sync is not None:
            self.vfs.on_sync(self.path)


class RecordingVfs(apsw.VFS):
    def __init__(self) -> None:
        self.syncs: list[str] = []
        self.unsynced: set[str] = set()
        self.on_sync = None
        super().__init__("recording", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> RecordingFile:
        return RecordingFile(self, name, flags)  # type: ignore[arg-type]


@pytest.fixture
def vfs() -> Iterator[RecordingVfs]:
    # The first base in a process keeps the checksums for good, and this one goes with its test.
    pages.open_vfs("")
    made = RecordingVfs()
    yield made
    made.unregister()


@pytest.fixture
def recorded(tmp_path: Path, vfs: RecordingVfs) -> Iterator[Database]:
    database = Database(tmp_path / "database", vfs_base="recording")
    database.run("CREATE TABLE t(a)")
    yield database
    database.close()


def hold(database: Database) -> apsw.Connection:
    """A reader that keeps its snapshot."""
    reader = apsw.Connection(
        os.path.join(database.directory, "generation-000001", "database.sqlite"),
        flags=apsw.SQLITE_OPEN_READONLY,
    )
    reader.execute("BEGIN; SELECT * FROM t").fetchall()
    return reader


def test_commits_are_not_synced_and_checkpoints_are(recorded: Database, vfs: RecordingVfs) -> None:
    machine = recorded.machine
    vfs.syncs.clear()
    recorded.run("INSERT INTO t VALUES (1)")
    assert vfs.syncs == []
    assert machine.durable_index == 0
    assert machine.checkpoint() == machine.applied()[0] == machine.durable_index
    assert [os.path.basename(path) for path in vfs.syncs] == [
        "database.sqlite-wal",
        "database.sqlite",
    ]
    assert vfs.unsynced == set()


def test_a_reader_of_the_past_holds_the_durable_index_back(
    recorded: Database, vfs: RecordingVfs
) -> None:
    machine = recorded.machine
    machine.checkpoint()
    recorded.run("INSERT INTO t VALUES (1)")
    reader = hold(recorded)
    pinned = machine.checkpoint()
    assert pinned == machine.applied()[0]
    recorded.run("INSERT INTO t VALUES (2)")
    # A checkpoint that moves nothing syncs nothing: it must not count.
    vfs.syncs.clear()
    assert machine.checkpoint() == pinned < machine.applied()[0]
    assert any("wal" in path for path in vfs.unsynced)
    reader.close()
    assert machine.checkpoint() == machine.applied()[0]
    assert vfs.unsynced == set()


def test_what_is_applied_while_it_runs_does_not_count(
    recorded: Database, vfs: RecordingVfs
) -> None:
    machine = recorded.machine
    noted = machine.applied()[0]
    ran: list[str] = []

    def apply_one(path: str) -> None:
        if not ran:
            ran.append(path)
            recorded.run("INSERT INTO t VALUES (7)")

    vfs.on_sync = apply_one  # type: ignore[assignment]
    assert machine.checkpoint() == noted
    assert machine.applied()[0] == noted + 1


def test_a_power_cut_after_a_checkpoint(recorded: Database, tmp_path: Path) -> None:
    """With the log gone, as far as it was not synced, the file alone holds the durable index."""
    machine = recorded.machine
    recorded.run("INSERT INTO t VALUES (1)")
    durable = machine.checkpoint()
    recorded.run("INSERT INTO t VALUES (2)")
    generation = tmp_path / "cut" / "generation-000001"
    generation.mkdir(parents=True)
    shutil.copy(Path(recorded.directory) / "CURRENT", tmp_path / "cut" / "CURRENT")
    source = Path(recorded.directory) / "generation-000001" / "database.sqlite"
    shutil.copy(source, generation / "database.sqlite")
    recorded.directory, before = str(tmp_path / "cut"), recorded.directory
    cut = recorded.open()
    recorded.directory = before
    assert cut.applied()[0] == durable
    assert cut.content_hash() == cut.recompute_content_hash()
    cut.apply([entry for entry in recorded.entries if entry.index > durable])
    assert cut.content_hash() == machine.content_hash()
    cut.close()


def test_a_failing_checkpoint_is_fatal(recorded: Database, vfs: RecordingVfs) -> None:
    def fail(_path: str) -> None:
        raise apsw.IOError("injected")

    before = recorded.machine.durable_index
    vfs.on_sync = fail  # type: ignore[assignment]
    with pytest.raises(FatalError, match="checkpointing"):
        recorded.machine.checkpoint()
    vfs.on_sync = None
    assert recorded.machine.durable_index == before


def test_the_log_stays_bounded_under_steady_writing(
    recorded: Database, vfs: RecordingVfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that always finds new pages must still let the log begin again."""
    monkeypatch.setattr(checkpoints, "HOLD_PAGES", 200)
    machine = recorded.machine

    def write_meanwhile(_path: str) -> None:
        if not machine._writer_lock.locked():
            recorded.run("INSERT INTO t VALUES (randomblob(3000))")

    vfs.on_sync = write_meanwhile  # type: ignore[assignment]
    highest = 0
    for _ in range(100):
        recorded.run("INSERT INTO t VALUES (1)")
        # Before it is all in the file, and counts for nothing.
        highest = max(highest, machine.wal_pages)
        machine.checkpoint()
    vfs.on_sync = None
    [(written,)] = recorded.rows("SELECT count(*) FROM t")
    assert written >= 200
    assert 200 < highest < 300


def test_checkpoint_stops_readers_that_are_too_old(tmp_path: Path) -> None:
    clock = ManualClock()
    limits = Limits(reader_age_ms_max=1000)
    database = Database(tmp_path / "database", clock=clock, limits=limits)
    database.run("CREATE TABLE t(a)")
    machine = database.machine
    codes: list[str] = []
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )

    def read() -> None:
        from raftdb.base.errors import OperationalError

        try:
            machine.query(Statement(endless))
        except OperationalError as error:
            codes.append(error.code)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        while not any(reader.started_s is not None for reader in list(machine._readers._all)):
            assert thread.is_alive()
        machine.checkpoint()
        assert thread.is_alive()
        clock.now_s += 2
        for _ in range(1000):
            machine.checkpoint()
            thread.join(0.01)
            if not thread.is_alive():
                break
        assert not thread.is_alive()
    finally:
        machine._readers.interrupt_older_than(-1e9)
        thread.join(20)
    assert codes == ["query_too_long"]
    database.run("INSERT INTO t VALUES (1)")
    assert database.rows("SELECT * FROM t") == [(1,)]
    database.close()


def test_no_connection_checkpoints_by_itself(recorded: Database, vfs: RecordingVfs) -> None:
    vfs.syncs.clear()
    wide = Statement("INSERT INTO t VALUES (zeroblob(?))", tuple((4000,) for _ in range(1500)))
    recorded.run(wide)
    assert recorded.machine.wal_pages > 1500
    recorded.machine.close()
    assert vfs.syncs == []
    recorded.machine = recorded.open()
    assert recorded.rows("SELECT count(*) FROM t") == [(1500,)]
    assert vfs.syncs == []


def test_opening(tmp_path: Path) -> None:
    from raftdb.base.errors import ConfigError
    from raftdb.base.ids import HistoryId
    from raftdb.machine import Machine

    options = {"limits": Limits(), "files": FILES, "log": MemoryLog()}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="has no database"):
        Machine.open(str(empty), history=HISTORY, **options)  # type: ignore[arg-type]
    database = Database(tmp_path / "database")
    database.close()
    with pytest.raises(ConfigError, match="belongs to history"):
        Machine.open(database.directory, history=HistoryId("f" * 32), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has a database already"):
        Machine.create(database.directory, HISTORY, files=FILES)
    current = Path(database.directory) / "CURRENT"
    for text in ("", "generation-000001", "../x\n", "generation-000009\n"):
        current.write_text(text)
        with pytest.raises(ConfigError, match="CURRENT"):
            Machine.open(database.directory, history=HISTORY, **options)  # type: ignore[arg-type]
    current.write_text("generation-000001\n")
    path = Path(database.directory) / "generation-000001" / "database.sqlite"
    whole = path.read_bytes()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(FatalError, match="does not begin as a database"):
        Machine.open(database.directory, history=HISTORY, **options)  # type: ignore[arg-type]
    path.write_bytes(whole)
    raw = raw_connection(path)
    raw.execute("UPDATE _raftdb_meta SET value = '99' WHERE key = 'format_version'")
    raw.close()
    with pytest.raises(ConfigError, match="format 99"):
        Machine.open(database.directory, history=HISTORY, **options)  # type: ignore[arg-type]


def test_a_creation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    from raftdb.machine import Machine

    directory = tmp_path / "database"
    generation = directory / "generation-000001"
    generation.mkdir(parents=True)
    (generation / "database.sqlite").write_bytes(b"half")
    (generation / "database.sqlite-wal").write_bytes(b"stale")
    Machine.create(str(directory), HISTORY, files=FILES)
    assert sorted(os.listdir(generation)) == ["database.sqlite"]


def test_a_checkpoint_that_was_waiting_when_the_machine_closed_does_nothing(
    tmp_path: Path,
) -> None:
    """A stop in order must not end in an error; the simulation's seed 14 did."""
    database = Database(tmp_path)
    database.apply(database.request(Statement("CREATE TABLE t(a)")))
    durable = database.machine.checkpoint()
    database.machine.close()
    assert database.machine.checkpoint() == durable


def test_a_log_that_is_in_the_file_asks_for_no_further_checkpoint(tmp_path: Path) -> None:
    """Or an idle node checkpoints for ever, once its log was long; seed 302 did."""
    database = Database(tmp_path)
    machine = database.machine
    database.apply(database.request(Statement("CREATE TABLE t(a)")))
    assert machine.wal_bytes() > 0
    reader = hold(database)
    database.apply(database.request(Statement("INSERT INTO t VALUES (1)")))
    machine.checkpoint()
    assert machine.wal_bytes() > 0, "a reader kept part of it"
    reader.close()
    assert machine.checkpoint() == machine.applied()[0]
    assert machine.wal_bytes() == 0
    database.apply(database.request(Statement("INSERT INTO t VALUES (2)")))
    assert machine.wal_bytes() > 0
    machine.close()


class _NotedFiles(RealFiles):
    """Notes writes and syncs by name."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, int]] = []

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> Any:
        file = super().open(path, create=create, exclusive=exclusive)
        name, done = os.path.basename(path), self.done

        class Noted:
            def __getattr__(self, attribute: str) -> Any:
                return getattr(file, attribute)

            def write_at(self, offset: int, data: bytes) -> None:
                file.write_at(offset, data)
                done.append(("write", name, len(data)))

            def sync(self) -> None:
                file.sync()
                done.append(("sync", name, 0))

        return Noted()


def test_a_start_makes_the_write_ahead_log_durable_before_it_trusts_it(tmp_path: Path) -> None:
    """After a failed sync its pages are marked clean: only writing them again helps."""
    database = Database(tmp_path / "first")
    database.apply(database.request(Statement("CREATE TABLE t(a)")))
    shutil.copytree(tmp_path / "first", tmp_path / "killed")
    [wal] = (tmp_path / "killed").rglob("*-wal")
    before = wal.read_bytes()
    assert before
    files = _NotedFiles()
    machine = Machine.open(
        str(tmp_path / "killed"), history=HISTORY, files=files, limits=Limits(), log=database.log
    )
    named = [entry for entry in files.done if entry[1].endswith("-wal")]
    assert sum(size for _kind, _name, size in named) == len(before)
    assert named[-1][0] == "sync"
    assert machine.applied() == database.machine.applied()
    machine.close()
    database.machine.close()
