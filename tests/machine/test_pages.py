"""Damage of the file is an error wherever it is read, and never an answer."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from raftdb.base.errors import FatalError
from raftdb.command import Statement
from tests.machine.support import FILES, START_MS, Database, raw_connection, stamp

PAGE = 4096


def file_of(database: Database) -> Path:
    return Path(database.directory) / "generation-000001" / "database.sqlite"


@pytest.fixture
def filled(database: Database) -> Database:
    """Some forty pages, all of them in the file; the caches know nothing of them."""
    rows = Statement("INSERT INTO t VALUES (?, ?)", tuple((n, f"text {n}" * 9) for n in range(900)))
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "CREATE INDEX t_b ON t(b)", rows)
    return fresh(database)


def fresh(database: Database) -> Database:
    """Restarted: nothing is cached, and pages are read from the file, not from the log."""
    database.restart()
    database.machine.checkpoint()
    return database


def root_of(database: Database, name: str) -> int:
    [(page,)] = database.rows(f"SELECT rootpage FROM sqlite_schema WHERE name = '{name}'")
    assert isinstance(page, int)
    fresh(database)
    return page


def flip(path: Path, offset: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


def test_one_process_has_it_and_the_logs_index_is_in_its_memory(filled: Database) -> None:
    """A page's place in the log has no checksum: in a file, one changed byte would be an answer."""
    filled.run("UPDATE t SET b = 'x' WHERE a = 1")
    assert filled.rows("SELECT b FROM t WHERE a = 1") == [("x",)]
    names = {path.name for path in file_of(filled).parent.iterdir()}
    assert "database.sqlite-wal" in names
    assert "database.sqlite-shm" not in names
    read = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT 1 FROM t'))"
    other = [sys.executable, "-c", read, str(file_of(filled))]
    done = subprocess.run(other, capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr
    filled.close()
    assert subprocess.run(other, capture_output=True, check=False).returncode == 0


def test_a_database_is_founded_with_room_for_checksums(filled: Database) -> None:
    assert file_of(filled).read_bytes()[20] == 8


@pytest.mark.parametrize(
    "use",
    [
        lambda database: database.rows("SELECT sum(length(b)) FROM t NOT INDEXED"),
        lambda database: database.run("SELECT sum(length(b)) FROM t NOT INDEXED"),
        lambda database: database.run("UPDATE t SET b = b || 'x'"),
        lambda database: database.machine.recompute_content_hash(),
    ],
    ids=["query", "read in a request", "write", "scrub"],
)
def test_a_flipped_bit_is_found_by_whoever_reads_the_page(
    filled: Database, use: Callable[[Database], object]
) -> None:
    page = root_of(filled, "t")
    flip(file_of(filled), (page - 1) * PAGE + 100)
    with pytest.raises(FatalError) as raised:
        use(filled)
    assert raised.value.code == "page_damaged"
    assert "checksum" in str(raised.value)
    assert "copy" in raised.value.hint


def test_damage_of_an_index_is_found_too(filled: Database) -> None:
    flip(file_of(filled), (root_of(filled, "t_b") - 1) * PAGE + 2000)
    with pytest.raises(FatalError):
        filled.rows("SELECT b FROM t INDEXED BY t_b WHERE b > 'text 5' ORDER BY b")


def test_every_flip_is_found_by_a_full_scan(filled: Database) -> None:
    path, random_ = file_of(filled), random.Random(5)
    pages = path.stat().st_size // PAGE
    filled.close()
    path.with_name(path.name + "-wal").unlink()
    for _ in range(60):
        offset = random_.randrange(1, pages) * PAGE + random_.randrange(PAGE)
        flip(path, offset, bit := 1 << random_.randrange(8))
        raw = raw_connection(path)
        with pytest.raises(apsw.IOError):
            raw.execute("PRAGMA integrity_check").fetchall()
        raw.close()
        flip(path, offset, bit)


def test_a_damaged_page_is_not_copied(filled: Database, tmp_path: Path) -> None:
    flip(file_of(filled), (root_of(filled, "t") - 1) * PAGE + 100)
    with pytest.raises(FatalError, match="checksum"):
        filled.machine.capture(str(tmp_path / "copy"), lambda _bytes: None, files=FILES)
    assert not (tmp_path / "copy" / "capture.json").exists()


@pytest.mark.parametrize(
    "use",
    [
        lambda database, _path: database.rows("SELECT 1"),
        lambda database, _path: database.machine.open_stream(),
        lambda database, _path: database.machine.content_hash(),
        lambda database, _path: database.machine.open_scan().parts(),
        lambda database, _path: database.machine.begin_transaction(bytes(32), True),
        lambda database, path: database.machine.capture(path, lambda _bytes: None, files=FILES),
    ],
    ids=["query", "stream", "content hash", "scrub", "transaction", "copy"],
)
def test_a_new_connection_that_finds_the_first_page_damaged_says_so(
    filled: Database, tmp_path: Path, use: Callable[[Database, str], object]
) -> None:
    fresh(filled)
    flip(file_of(filled), 504)
    with pytest.raises(FatalError) as raised:
        use(filled, str(tmp_path / "copy"))
    assert raised.value.code == "page_damaged"


def test_a_page_that_was_damaged_in_the_log_is_found_by_the_hash(filled: Database) -> None:
    """Checksums are written when the log is moved into the file. Between commit and then only the
    content hash tells (and the log's own checksums, when a start recovers it)."""
    filled.run("UPDATE t SET b = 'marked text' WHERE a = 1")
    wal = Path(f"{file_of(filled)}-wal")
    wal.write_bytes(wal.read_bytes().replace(b"marked", b"Marked"))
    assert filled.machine.recompute_content_hash() != filled.machine.content_hash()


def test_machines_of_one_process_have_times_of_their_own(tmp_path: Path) -> None:
    first, second = Database(tmp_path / "first"), Database(tmp_path / "second")
    now = "SELECT unixepoch('subsec') * 1000"
    found: list[float] = []

    def apply(database: Database, at_ms: int) -> float:
        [result] = database.run(now, stamp=stamp(0, at_ms))
        [(value,)] = result.rows
        assert isinstance(value, float)
        return value

    def beside() -> None:
        for step in range(200):
            found.append(apply(second, START_MS + 7_000_000 + step) - step)

    thread = threading.Thread(target=beside)
    thread.start()
    for step in range(200):
        assert apply(first, START_MS + 5_000_000 + step) == START_MS + 5_000_000 + step
    thread.join(30)
    assert found == [START_MS + 7_000_000] * 200
    [(reading,)] = first.rows(now)
    assert reading > START_MS + 50_000_000_000, "a query goes by the node's clock"
    first.close()
    second.close()


@pytest.mark.parametrize("brief", [False, True])
def test_a_transaction_that_meets_a_damaged_page_stops_the_node(
    filled: Database, brief: bool
) -> None:
    """It would be told to retry, and meet the page again: what nobody else reads stays unseen."""
    filled.run("CREATE TABLE other(a)")
    page = root_of(filled, "t")
    # The write-ahead log begins again: the page is in the file alone.
    filled.run("INSERT INTO other VALUES (1)")
    flip(file_of(filled), (page - 1) * PAGE + 100)
    machine = filled.machine
    workspace = machine.begin_transaction(b"s" * 8, True)
    statement = Statement("SELECT sum(length(b)) FROM t NOT INDEXED")

    def use() -> object:
        if brief:
            return workspace.execute_briefly(statement, START_MS, lambda: 0.0)
        return workspace.execute(statement, START_MS)

    with pytest.raises(FatalError) as raised:
        use()
    assert raised.value.code == "page_damaged"
    machine.end_transaction(workspace)
