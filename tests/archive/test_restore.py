"""Archived by hand and restored: every point equals what was recorded live."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from raftdb.archive import (
    ArchiveDamagedError,
    ChainMovedError,
    Keyring,
    NotRestorableError,
    Point,
    SupersededError,
    open_store,
)
from raftdb.archive.layout import manifest_name
from raftdb.archive.records import Claim
from raftdb.archive.store import Listed, Store
from raftdb.base.errors import ConfigError
from raftdb.base.ids import Index, Term
from raftdb.command import Verdict, encode_request
from raftdb.consensus.entry import decode_payloads
from raftdb.machine import patience
from tests.archive.support import KEYS, Live, filled, restored, sources
from tests.machine.support import HISTORY, Entry, stamp
from tests.machine.test_patience import LONG


def test_every_request_is_a_restore_point_with_the_hash_recorded_live(tmp_path: Path) -> None:
    live = filled(tmp_path)
    found = sources(live.store)
    assert found.problems == []
    points = sorted(live.hashes)
    for number, (index, position) in enumerate(random.Random(7).sample(points, 12)):
        requests = len(decode_payloads(live.entries(index, index)[0].data))
        point = Point(index) if position == requests - 1 else Point(index - 1, position + 1)
        _plan, done = restored(found, tmp_path / f"work-{number}", point)
        assert done.content == live.hashes[index, position]
        assert done.proven
    _plan, done = restored(found, tmp_path / "end")
    assert done.content == live.machine.content_hash().total
    assert done.time_ms == live.machine.time_ms()
    live.close()


def test_a_second_base_is_incremental_and_used(tmp_path: Path) -> None:
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    for _ in range(3):
        live.run(
            (
                "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
                " INSERT INTO t(x) SELECT hex(randomblob(200)) FROM n",
            )
        )
    live.base()
    whole = live.sent_bytes
    live.run(("UPDATE t SET x = 'changed' WHERE id = 5",))
    live.base()
    assert live.sent_bytes < whole / 3
    assert live.previous is not None
    assert live.previous.generation == 1
    plan, done = restored(sources(live.store), tmp_path / "work")
    assert plan.base_index == live.index
    assert done.content == live.machine.content_hash().total
    live.close()


def test_an_interrupted_restore_goes_on_where_it_was(tmp_path: Path) -> None:
    live = filled(tmp_path)

    class Enough(Exception):
        pass

    def stop_in_the_log(what: str, done: int, of: int) -> None:
        if what == "log" and done > of / 2:
            raise Enough

    found = sources(live.store)
    plan = found.plan(Point(live.index))
    with pytest.raises(Enough):
        restored(found, tmp_path / "work", plan.target, progress=stop_in_the_log)
    _plan, done = restored(found, tmp_path / "work", plan.target)
    assert done.content == live.machine.content_hash().total
    assert done.requests < plan.requests
    # And to an earlier moment in the same directory: from the base again.
    _plan, done = restored(found, tmp_path / "work", Point(5))
    assert done.point == Point(5)
    live.close()


def test_a_directory_of_another_way_is_begun_anew(tmp_path: Path) -> None:
    """Its entries are not those of this plan: it ended inside of one, or on another fork."""
    live = filled(tmp_path)
    found = sources(live.store)
    before = found.plan(Point(15)).base.link.manifest
    point = next(
        Point(index - 1, 1) for index, place in sorted(live.hashes) if place == 1 and index > 13
    )
    restored(found, tmp_path / "work", point)
    _plan, done = restored(found, tmp_path / "work", Point(live.index))
    assert done.content == live.machine.content_hash().total
    # What follows entry 13 is another history's from now on, from the same base.
    restored(found, tmp_path / "fork", Point(16))
    live.archive.make_claim(Claim(2, "d" * 32, 1, 13, 0, "replace", 1, "test"))
    writer = live.new_writer("n9", "d" * 32)
    others = live.entries(15, 18)
    moved = [replace(one, index=one.index - 1, hashes=b"") for one in others]
    writer.segment(replace(writer.begin(), sequence=0), 1, moved, live.times[18])
    found = sources(live.store)
    plan, fresh = restored(found, tmp_path / "fresh", Point(17))
    assert plan.base.link.manifest.object == before.object
    assert {one.link.manifest.epoch for one in plan.segments} == {1, 2}
    _plan, done = restored(found, tmp_path / "fork", Point(17))
    assert done.content == fresh.content
    # Stopped before the fork, or behind it on this way, it goes on.
    for last, left in ((Point(13), 4), (Point(15), 2)):
        restored(found, tmp_path / f"short-{last}", last)
        _plan, done = restored(found, tmp_path / f"short-{last}", Point(17))
        assert done.content == fresh.content
        assert done.requests <= 3 * left
        assert done.requests < fresh.requests
    live.close()


def test_by_time_and_by_mark(tmp_path: Path) -> None:
    live = filled(tmp_path)
    live.tail = live.writer.mark(live.tail, 1, 9, 0, "before migration 42")
    found = sources(live.store)
    assert found.find_mark("before migration 42") == Point(9)
    with pytest.raises(NotRestorableError, match="no mark 'other'"):
        found.find_mark("other")

    def times(entry: object) -> list[int]:
        from raftdb.command import decode_request

        payloads = decode_payloads(entry.data)  # type: ignore[attr-defined]
        return [decode_request(one).stamp.time_ms for one in payloads]

    for index in (4, 9, 13):
        assert found.at_time(live.times[index], times) == Point(index)
        assert found.at_time(live.times[index] + 999, times) == Point(index)
    assert found.at_time(live.times[9] - 1, times) < Point(9)
    live.close()


def test_points_that_there_are_not(tmp_path: Path) -> None:
    live = filled(tmp_path)
    found = sources(live.store)
    with pytest.raises(NotRestorableError, match="ends at entry"):
        found.plan(Point(live.index + 1))
    with pytest.raises(NotRestorableError, match="before the oldest base"):
        found.plan(Point(1))
    live.tail = live.writer.gap(live.tail, 1, live.index + 5, "the disk was full")
    with pytest.raises(NotRestorableError, match="ends at entry"):
        sources(live.store).plan(Point(live.index + 2))
    live.close()


def test_two_uploaders_do_each_other_no_harm(tmp_path: Path) -> None:
    live = filled(tmp_path)
    other = live.new_writer("n2")
    seen = other.begin()
    assert seen == live.tail
    live.run(("INSERT INTO t(x) VALUES (1)",))
    live.segment()
    entries = live.entries(seen.archived + 1, live.index)
    with pytest.raises(ChainMovedError):
        other.segment(seen, 1, entries, 1)
    seen = other.follow(seen)
    assert seen == live.tail
    live.run(("INSERT INTO t(x) VALUES (2)",))
    entries = live.entries(seen.archived + 1, live.index)
    with pytest.raises(ChainMovedError, match="term 1"):
        other.segment(seen, 0, entries, 1)
    live.tail = other.segment(seen, 3, entries, 1)
    with pytest.raises(ChainMovedError, match="term 3"):
        live.writer.mark(live.tail, 2, 1, 0, "late")
    found = sources(live.store)
    assert [one for one in found.problems if not one.harmless] == []
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == live.machine.content_hash().total
    live.close()


def test_a_claimed_epoch_ends_the_former(tmp_path: Path) -> None:
    live = filled(tmp_path)
    claim = Claim(2, "d" * 32, 1, 12, 0, "replace", 1, "restore")
    assert live.archive.make_claim(claim)
    assert not live.archive.make_claim(Claim(2, "e" * 32, 1, 9, 0, "replace", 1, "another"))
    with pytest.raises(SupersededError, match="restored elsewhere as of entry 12"):
        live.writer.check_epoch()
    with pytest.raises(SupersededError):
        live.new_writer("n3", HISTORY).begin()
    with pytest.raises(SupersededError, match="this cluster's is"):
        live.new_writer("n3", "f" * 32).begin()
    # What the former one adds all the same is no part of the new one's past.
    live.run(("INSERT INTO t(x) VALUES (1)",))
    live.segment()
    found = sources(live.store)
    assert found.last() == Point(12)
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == live.hashes[max(key for key in live.hashes if key[0] == 12)]
    live.close()


def test_keys_rotate_without_writing_anything_again(tmp_path: Path) -> None:
    live = filled(tmp_path)
    newer = Keyring({"k2": b"2" * 32, **KEYS.keys})
    found = sources(live.store, keyring=newer)
    assert found.problems == []
    with pytest.raises(ConfigError, match="'k1', which is not at hand"):
        sources(live.store, keyring=Keyring({"k2": b"2" * 32}))
    with pytest.raises(ArchiveDamagedError, match="wrong one"):
        sources(live.store, keyring=Keyring({"k1": b"x" * 32}))
    live.close()


def test_nothing_readable_is_in_an_encrypted_archive(tmp_path: Path) -> None:
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE secret_table(secret_column)",))
    live.base()
    live.run(("INSERT INTO secret_table VALUES ('secret value')",))
    live.segment()
    stored = b"".join(
        path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()
    )
    assert b"secret" not in stored
    live.close()


def test_a_replay_that_differs_from_what_was_recorded_is_an_error(tmp_path: Path) -> None:
    """As with a release whose SQLite computes otherwise."""
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    live.base()
    live.run(("INSERT INTO t(x) VALUES (1)",))
    index = live.run(("INSERT INTO t(x) VALUES (2)",), ("INSERT INTO t(x) VALUES (3)",))
    live.hashes[index, 1] = bytes(16)
    live.segment()
    found = sources(live.store)
    with pytest.raises(ArchiveDamagedError, match=f"request 1 of entry {index} gave content hash"):
        restored(found, tmp_path / "work")
    _plan, done = restored(found, tmp_path / "before", Point(index - 1, 1))
    assert done.content == live.hashes[index, 0]
    live.close()


def test_a_moment_without_a_recorded_hash_is_restored_and_said_not_to_be_proven(
    tmp_path: Path,
) -> None:
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    live.base()
    index = live.run(("INSERT INTO t(x) VALUES (1)",))
    del live.hashes[index, 0]
    live.segment()
    _plan, done = restored(sources(live.store), tmp_path / "work")
    assert not done.proven
    assert done.compared == 0
    assert done.content == live.machine.content_hash().total
    live.close()


def test_a_gap_is_named_and_the_next_base_goes_on(tmp_path: Path) -> None:
    live = filled(tmp_path)
    before = live.index
    for number in range(4):
        live.run((f"INSERT INTO t(x) VALUES ({number})",))
    live.tail = live.writer.gap(live.tail, 1, live.index - 1, "the journal's bound was reached")
    assert not live.tail.has_base
    live.base()
    live.run(("INSERT INTO t(x) VALUES (9)",))
    live.segment()
    found = sources(live.store)
    assert found.problems == []
    with pytest.raises(NotRestorableError, match="never archived: the journal's bound"):
        found.plan(Point(before + 2))
    for number, index in enumerate((before, live.index)):
        _plan, done = restored(found, tmp_path / f"work-{number}", Point(index))
        assert done.proven
    live.close()


def test_a_request_that_ran_long_and_its_verdict_in_a_later_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HOLD_STEPS", 20_000)
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"))
    live.run(("CREATE TABLE t(a)",))
    live.base()
    first = live.database.next_index
    long = Entry(
        Index(first),
        Term(1),
        tuple(
            encode_request(live.database.request(sql))
            for sql in ("INSERT INTO t VALUES (1)", LONG, "INSERT INTO t VALUES (3)")
        ),
    )
    other = encode_request(live.database.request("INSERT INTO t VALUES (4)"))
    between = Entry(Index(first + 1), Term(1), (other,))
    verdict = Verdict(stamp(90), first, 1, True)
    said = Entry(Index(first + 2), Term(1), (encode_request(verdict),))
    assert live.machine.apply([long]) == []
    assert live.machine.look_ahead([between, said])
    live.database.apply_entries(long, between, said)
    for entry in (long, between, said):
        one = live.entries(int(entry.index), int(entry.index))
        live.tail = live.writer.segment(live.tail, 1, one, live.times[int(entry.index)])
    found = sources(live.store)
    for number, point in enumerate((Point(first + 2), Point(first), Point(first, 1))):
        _plan, done = restored(found, tmp_path / f"work-{number}", point)
        assert done.proven
    _plan, done = restored(found, tmp_path / "before", Point(first - 1, 1))
    assert done.content == live.hashes[first, 0]
    live.close()


class Counting:
    """A store that counts what is read from it."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.read: list[str] = []

    @property
    def url(self) -> str:
        return self.inner.url

    def put(self, name: str, data: bytes) -> bool:
        return self.inner.put(name, data)

    def get(self, name: str) -> bytes | None:
        self.read.append(name)
        return self.inner.get(name)

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        return self.inner.listing(prefix, after)


def test_the_newest_moment_needs_the_chain_behind_its_base_only(tmp_path: Path) -> None:
    live = filled(tmp_path)
    for number in range(30):
        live.run((f"INSERT INTO t(x) VALUES ({number})",))
        live.segment()
    live.base()
    live.run(("INSERT INTO t(x) VALUES (99)",))
    live.segment()
    total = live.tail.sequence
    store = Counting(live.store)
    found = sources(store, newest=True)
    manifests = [name for name in store.read if "/manifests/" in name]
    assert len(manifests) == 2 < total
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == live.machine.content_hash().total
    assert done.proven
    assert found.problems == []
    # A base that no manifest names yet is passed over; so is what is older than needed.
    upload = live.previous
    assert upload is not None
    live.writer.put_base(upload, live.tail.sequence)
    (tmp_path / "archive" / manifest_name(1, 3)).unlink()
    found = sources(live.store, newest=True)
    assert [one for one in found.problems if not one.harmless] == []
    assert len(found.timelines[0].chains[-1].links) == 2
    assert live.new_writer("n2").begin() == live.tail
    # Damage where it is needed: all is read, and named.
    (tmp_path / "archive" / manifest_name(1, total)).write_bytes(b"no")
    found = sources(live.store, newest=True)
    assert {one.object for one in found.problems if not one.harmless} == {
        manifest_name(1, 3),
        manifest_name(1, total),
    }
    assert len(found.timelines[0].chains[-1].links) > 20
    live.close()


def test_a_restore_interrupted_in_its_first_moment_is_begun_again(tmp_path: Path) -> None:
    live = filled(tmp_path)
    content = live.machine.content_hash().total
    live.close()
    work = tmp_path / "work"
    work.mkdir()
    (work / "restore.json.new").write_text("")
    _plan, done = restored(sources(live.store), work)
    assert done.content == content
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("no restore's")
    with pytest.raises(ConfigError, match="is not empty"):
        restored(sources(live.store), tmp_path / "other")
