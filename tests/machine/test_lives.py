"""Replicas that lived through different things, and hold the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftdb.base.limits import Limits
from raftdb.base.release import LEVEL_MAX
from raftdb.command import (
    Configure,
    Execute,
    OpenSession,
    ResultDropped,
    Statement,
    Verdict,
    encode_reply,
    encode_request,
)
from raftdb.command.requests import session_number
from raftdb.machine import ContentHash, Machine, QueryStop, RowStream, patience
from tests.machine.statements import HEAVY, HEAVY_STEPS, SCHEMA, SCHEMA_CHANGES, requests
from tests.machine.support import FILES, HISTORY, Database, Entry, MemoryLog, stamp

EXAMPLES = int(os.environ.get("RAFTDB_LIVES", "0"))
"""Set it to search for longer, with other examples each time."""
DROPPED = encode_reply(ResultDropped(0))
SETTINGS = settings(
    max_examples=EXAMPLES or 20,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Life:
    """Applies a log in its own way, and keeps every reply."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="raftdb-life-"))
        Machine.create(str(self.directory / "d"), HISTORY, files=FILES)
        self.machine = self._open()
        self.replies: list[bytes] = []
        self._pending: list[Entry] = []
        self._streams: list[RowStream] = []

    def _open(self) -> Machine:
        return Machine.open(
            str(self.directory / "d"),
            history=HISTORY,
            limits=Limits(),
            files=FILES,
            log=MemoryLog(),
        )

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply what can be: behind a request that is held, all waits for its verdict."""
        self._pending += entries
        if self.machine.held() is not None:
            self.machine.look_ahead(entries)
        done = self.machine.apply(self._pending)
        for replies in done:
            self.replies.extend(replies)
        del self._pending[: len(done)]

    def check(self, hashes: dict[int, ContentHash]) -> None:
        """What this life holds now is what the other one held there; `hashes` by index."""
        content = self.machine.content_hash()
        if content.position == 0:
            assert hashes.setdefault(content.index, content) == content

    def read(self) -> None:
        """Begin a query and leave it there: its snapshot stays while others write."""
        stream, stop = self.machine.open_stream(), QueryStop()
        self._streams.append(stream)
        stream.begin(
            "SELECT random(), * FROM sqlite_schema AS a, sqlite_schema AS b", (), 60.0, stop
        )
        stream.fetch(1, 1 << 20, 60.0, stop)
        if len(self._streams) > 2:
            self._streams.pop(0).close()

    def _close(self) -> None:
        """Nothing is kept: what waited for a verdict is handed over again."""
        self._streams.clear()
        self.machine.close()

    def restart(self) -> None:
        self._close()
        self.machine = self._open()

    def kill(self) -> None:
        """Go on with the files as a SIGKILL leaves them."""
        target = self.directory / "after"
        shutil.copytree(self.directory / "d", target)
        self._close()
        shutil.rmtree(self.directory / "d")
        target.rename(self.directory / "d")
        self.machine = self._open()

    def reinstall(self) -> None:
        """Go on from a copy."""
        copy = self.directory / "copy"
        for stream in self._streams:
            stream.close()
        self.machine.capture(str(copy), lambda _bytes: None, files=FILES)
        self._close()
        Machine.install(str(self.directory / "d"), str(copy), history=HISTORY, files=FILES)
        shutil.rmtree(copy)
        self.machine = self._open()

    def vacuum(self) -> None:
        assert self.machine.vacuum(16).possible

    def shrink_cache(self) -> None:
        self.machine._writer.execute("PRAGMA cache_size = 10 /*raftdb*/")

    def end(self) -> ContentHash:
        assert self.machine.content_hash() == self.machine.recompute_content_hash()
        [(found,)] = self.machine.query(Statement("PRAGMA integrity_check")).statements[0].rows
        assert found == "ok"
        content = self.machine.content_hash()
        self._close()
        shutil.rmtree(self.directory)
        return content


def make_log(
    bodies: Sequence[tuple[Statement, ...]],
    per_entry: int,
    foreign_keys_off: int,
    verdicts: Sequence[bool],
) -> list[Entry]:
    """Entries: a session, the schema, then the requests, `per_entry` to an entry; behind one with
    a request that runs long the verdicts, one or two entries later."""
    session = session_number(1, 0)
    payloads = [
        encode_request(
            Execute(
                stamp(number),
                session,
                number + 1,
                max(0, number - 3),
                body,
                foreign_keys=number % 7 != foreign_keys_off,
            )
        )
        for number, body in enumerate([tuple(map(Statement, SCHEMA)), *bodies])
    ]
    groups = [
        (encode_request(OpenSession(stamp(0), b"t" * 16, "")),),
        (encode_request(Configure(stamp(0), {"feature_level": LEVEL_MAX})),),
    ]
    due: list[Verdict] = []
    for start in range(0, len(payloads), per_entry):
        said, due = due, []
        for number in range(start, min(start + per_entry, len(payloads))):
            if number and bodies[number - 1][0].sql == HEAVY:
                keep = verdicts[number % len(verdicts)]
                due.append(Verdict(stamp(number), len(groups) + 1, number - start, keep))
        groups.append(tuple(payloads[start : start + per_entry]))
        if said:
            groups.append(tuple(map(encode_request, said)))
    groups.append(tuple(map(encode_request, due)))
    return [Entry(index, 1, group) for index, group in enumerate(groups, 1)]  # type: ignore[arg-type]


LIVES = given(
    bodies=requests(),
    per_entry=st.integers(1, 5),
    foreign_keys_off=st.integers(0, 12),
    verdicts=st.lists(st.booleans(), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    turns=st.lists(
        st.sampled_from(
            ["", "read", "checkpoint", "restart", "kill", "reinstall", "shrink_cache", "vacuum"]
        ),
        min_size=1,
        max_size=6,
    ),
)


def live(
    bodies: list[tuple[Statement, ...]],
    per_entry: int,
    foreign_keys_off: int,
    verdicts: list[bool],
    cuts: list[int],
    turns: list[str],
) -> None:
    """Two lives of the same log; equal after every step, and equal at the end."""
    log = make_log(bodies, per_entry, foreign_keys_off, verdicts)
    hashes: dict[int, ContentHash] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "HOLD_STEPS", HEAVY_STEPS)
        quiet, busy = Life(), Life()
        for entry in log:
            quiet.apply([entry])
            quiet.check(hashes)
            assert quiet.machine.content_hash() == quiet.machine.recompute_content_hash()
        be_busy(busy, log, cuts, turns, hashes)
        # Of an entry that was begun before a restart the first replies are not at hand any more;
        # the chain over all replies, which is part of the hash, has them.
        assert [r for r in busy.replies if r != DROPPED] == [
            quiet.replies[n] for n, r in enumerate(busy.replies) if r != DROPPED
        ]
        assert len(busy.replies) == len(quiet.replies)
        assert len(quiet.replies) == sum(len(entry.payloads) for entry in log)
        assert busy.end() == quiet.end()


def be_busy(
    busy: Life,
    log: list[Entry],
    cuts: list[int],
    turns: list[str],
    hashes: dict[int, ContentHash],
) -> None:
    """Apply the log in groups, with something else in between."""
    position = turn = 0
    while position < len(log):
        size = cuts[turn % len(cuts)]
        busy.apply(log[position : position + size])
        busy.check(hashes)
        position += size
        what = turns[turn % len(turns)]
        if what == "checkpoint":
            busy.machine.checkpoint()
        elif what:
            getattr(busy, what)()
        turn += 1


@SETTINGS
@LIVES
def test_all_lives_end_equal(**drawn: Any) -> None:
    live(**drawn)


def test_readers_and_checkpoints_beside_the_writer(tmp_path: Path) -> None:
    """Threads that read, ask for random numbers and checkpoint change nothing."""
    database = Database(tmp_path / "database")
    database.run(*SCHEMA)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                database.rows("SELECT random(), hex(randomblob(9)), datetime('now')")
                database.rows("SELECT count(*), max(n) FROM log")
        except BaseException as error:
            failures.append(error)

    def checkpoint() -> None:
        try:
            while not stop.is_set():
                database.machine.checkpoint()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (read, read, checkpoint)]
    for thread in threads:
        thread.start()
    try:
        for number in range(150):
            database.run(
                "INSERT INTO log(what, n) VALUES ('x', random())",
                ("INSERT INTO words VALUES (?, hex(randomblob(20)))", (f"word{number % 9}",)),
                "UPDATE log SET r = random() WHERE n % 3 = 0",
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=20)
    assert not failures
    other = Life()
    other.apply(database.entries)
    assert other.machine.content_hash() == database.machine.content_hash()
    assert other.end() == database.machine.content_hash()
    database.close()


def test_a_kill_at_every_entry(tmp_path: Path) -> None:
    """Whatever the files hold, replaying from `applied` gives the same."""
    database = Database(tmp_path / "database")
    database.run(*SCHEMA)
    copies: list[Path] = []
    for number in range(12):
        database.run(
            ("INSERT INTO plain(a) VALUES (?)", (number,)),
            ("INSERT INTO words VALUES (?, random())", (f"w{number}",)),
        )
        if number == 5:
            database.machine.checkpoint()
        copies.append(tmp_path / f"copy{number}")
        shutil.copytree(database.directory, copies[-1])
    for copy in copies:
        options: dict[str, Any] = {"limits": Limits(), "files": FILES, "log": MemoryLog()}
        machine = Machine.open(str(copy), history=HISTORY, **options)
        index, _term = machine.applied()
        machine.apply([entry for entry in database.entries if entry.index > index])
        assert machine.content_hash() == database.machine.content_hash()
        machine.close()
    database.close()


def fixed_life(directory: str) -> str:
    """A life whose every statement is written here; its hashes."""
    database = Database(Path(directory))
    database.run(*SCHEMA)
    for sql in SCHEMA_CHANGES:
        database.apply(database.request(sql))
        database.apply(
            database.request(
                "INSERT INTO plain(a, c) VALUES (abs(random() % 50), 'x')",
                ("INSERT INTO nokey VALUES (:a, :b, :c)", {"c": 1, "a": "é", "b": 2.5}),
                "INSERT INTO words VALUES ('hello world', hex(randomblob(2)))",
            )
        )
        database.apply(database.request(("SELECT :a", {"b": 1, "c": 2})))
    content = database.machine.content_hash()
    database.close()
    return content.total.hex() + content.results.hex()


def test_processes_agree(tmp_path: Path) -> None:
    """Nothing depends on the order of sets, or on what a process did before."""
    expected = fixed_life(str(tmp_path / "here"))
    for seed in ("1", "2"):
        script = (
            "from tests.machine.test_lives import fixed_life\n"
            f"print(fixed_life({str(tmp_path / seed)!r}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("content", ["", "content='src', content_rowid='id'"])
def test_options_of_fts5_outlive_a_restart(tmp_path: Path, content: str) -> None:
    """FTS5 writes the cookie of a table's options back as the connection remembers it, which after
    a restart, or once the schema was read again, was not at all."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one = Database(tmp_path / "one")
    options = f"a, {content}" if content else "a"
    script = [
        "CREATE TABLE src (id INTEGER PRIMARY KEY, a)",
        f"CREATE VIRTUAL TABLE ft USING fts5({options})",
        "INSERT INTO ft(rowid, a) VALUES (1, 'x')",
        "INSERT INTO ft(ft, rank) VALUES ('automerge', 2)",
        "INSERT INTO ft(ft, rank) VALUES ('rank', 'bm25(2.0)')",
        "INSERT INTO ft(ft) VALUES ('rebuild')",
        "INSERT INTO ft(ft, rank) VALUES ('usermerge', 3)",
        "CREATE TRIGGER t AFTER INSERT ON src BEGIN INSERT INTO ft(ft) VALUES ('rebuild'); END",
        "INSERT INTO src VALUES (7, 'y')",
        *(["DROP TABLE src", "INSERT INTO ft(ft) VALUES ('delete-all')"] if content else []),
    ]
    for sql in script:
        one.run(sql)
        one.check_hash()
    Machine.create(str(tmp_path / "other"), HISTORY, files=FILES)
    for entry in one.entries:
        other = Machine.open(
            str(tmp_path / "other"), history=HISTORY, files=FILES, limits=Limits(), log=MemoryLog()
        )
        other.apply([entry])
        found = other.content_hash()
        other.close()
    assert found == one.machine.content_hash()
    one.close()
