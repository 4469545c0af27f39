"""Rot of every kind: found as corruption, or cut as a torn tail where it can be one; an entry is
never changed, and what was known to be durable is never lost."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import pytest

from raftdb.base.errors import ConfigError, JournalCorruptError
from raftdb.base.limits import Limits
from raftdb.journal import LogEntry, inspect_journal, read_entries, read_on
from raftdb.journal.format import (
    BATCH_MAGIC,
    BATCH_OVERHEAD_BYTES,
    FOOTER_TAIL_BYTES,
    FORMAT_VERSION,
    RECORD_HEADER_BYTES,
    encode_batch,
    seed_of,
)
from tests.journal.model import State, state_of
from tests.journal.support import DIRECTORY, Bench, contents, entry, run_of, sim_bench, vote
from tests.sim.disk import SimFiles

LIMITS = Limits(journal_segment_bytes=1150, journal_cache_bytes_max=10_000)


def path_of(number: int) -> str:
    return f"{DIRECTORY}/{number:020d}.segment"


def small_journal(*, idle: bool) -> tuple[SimFiles, list[State]]:
    """Three segments with every kind of record. Idle: the mark was written at its end.

    Returns the disk after a kill, and the states after each batch, the last one last.
    """
    bench = Bench(SimFiles(random.Random(7)), LIMITS).create()
    journal = bench.open()
    states = [state_of(journal)]
    steps: list[Callable[[], None]] = [
        lambda: journal.append(run_of(2, 4)),
        lambda: journal.set_hard_state(vote(2, "n1")),
        lambda: (journal.truncate_from(4), journal.append(run_of(4, 9, term=2)))[0],
        lambda: journal.append([entry(10, 2, bytes(150))]),
        lambda: (journal.truncate_from(9), journal.append(run_of(9, 11, term=3)))[0],
        lambda: journal.append([entry(12, 3, b"x" * 200)]),
        lambda: journal.set_hard_state(vote(4, None)),
        lambda: journal.append(run_of(13, 14, term=4)),
    ]
    for step in steps:
        step()
        bench.executor.settle()
        states.append(state_of(journal))
    for _ in range(2 if idle else 0):
        bench.executor.advance(1.0)
        bench.executor.settle()
    bench.files.kill()
    assert len(bench.files.list_directory(DIRECTORY)) == 5
    return bench.files, states


def names(files: SimFiles) -> list[str]:
    return [f"{DIRECTORY}/{name}" for name in files.list_directory(DIRECTORY) if name != "lock"]


def check_text(error: JournalCorruptError) -> None:
    """What, where, and what to do."""
    assert error.detail["file"] in str(error)
    assert f"offset {error.detail['offset']}" in str(error)
    assert "relieve it of its vote" in error.hint
    assert error.detail["file"].startswith(DIRECTORY)


def outcome_of(files: SimFiles, expected: list[State]) -> tuple[str, State | None]:
    """Open and read all. `corrupt`, or `ok` with the state; anything else fails the test."""
    bench = Bench(files, LIMITS)
    try:
        journal = bench.open()
    except JournalCorruptError as error:
        check_text(error)
        return "corrupt", None
    try:
        found = state_of(journal)
    except JournalCorruptError:
        found = None
    # Entry by entry: each is as written, or refused.
    for index in range(journal.first_index, journal.last_index + 1):
        try:
            one = journal.entry(index)
        except JournalCorruptError:
            assert found is None
            continue
        assert any(one in state.entries for state in expected)
    assert any(journal.hard_state == state.hard_state for state in expected)
    return ("ok", found) if found is not None else ("corrupt", None)


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "busy"])
def test_every_byte_flipped(idle: bool) -> None:
    files, states = small_journal(idle=idle)
    allowed = [states[-1]] if idle else [states[-1], states[-2]]
    draw = random.Random(1)
    corrupt = cut = silent = 0
    for name in names(files):
        for offset in range(len(files.read_file(name))):
            disk = files.clone(draw)
            disk.flip_bit(name, offset, draw.randrange(8))
            report = inspect_journal(disk, DIRECTORY)
            kind, state = outcome_of(disk, states)
            where = f"{name} at {offset}: {kind}"
            assert report.damage or report.torn, f"inspect does not see {where}"
            if kind == "corrupt":
                corrupt += 1
                assert report.damage, f"inspect calls it torn: {where}"
                continue
            assert state in allowed, where
            if state == states[-1]:
                # Something that a start does not read: a sealed segment's batch headers.
                silent += 1
                assert name != path_of(3), where
                assert report.damage
            else:
                cut += 1
                assert report.torn
                assert name == path_of(3)
    assert corrupt > 1000
    assert (cut > 100) is not idle
    assert silent > 0


def test_every_bit_of_the_last_batch_flipped() -> None:
    files, states = small_journal(idle=False)
    name = path_of(3)
    size = len(files.read_file(name))
    for offset in range(size - 100, size):
        for bit in range(8):
            disk = files.clone(random.Random(0))
            disk.flip_bit(name, offset, bit)
            kind, state = outcome_of(disk, states)
            assert kind == "ok"
            assert state == states[-2]


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "busy"])
def test_every_truncation_of_the_last_segment(idle: bool) -> None:
    files, states = small_journal(idle=idle)
    name = path_of(3)
    whole = files.read_file(name)
    opened = 0
    for size in range(len(whole)):
        disk = files.clone(random.Random(size))
        disk.set_content(name, whole[:size])
        kind, state = outcome_of(disk, states)
        if idle:
            assert kind == "corrupt", f"{size} of {len(whole)} bytes"
        elif kind == "ok":
            opened += 1
            assert state in states
    assert idle or opened > 100


def test_every_truncation_of_a_sealed_segment_is_corruption() -> None:
    files, states = small_journal(idle=False)
    for number in (1, 2):
        whole = files.read_file(path_of(number))
        for size in range(len(whole)):
            disk = files.clone(random.Random(size))
            disk.set_content(path_of(number), whole[:size])
            assert outcome_of(disk, states)[0] == "corrupt"
            assert inspect_journal(disk, DIRECTORY).damage


def test_a_file_that_grew_is_found() -> None:
    files, states = small_journal(idle=True)
    for name in names(files):
        for extra in (b"\0", bytes(600), random.Random(3).randbytes(600)):
            disk = files.clone(random.Random(0))
            disk.set_content(name, disk.read_file(name) + extra)
            kind, state = outcome_of(disk, states)
            if name == path_of(3):
                assert (kind, state) == ("ok", states[-1]), "garbage behind the end is cut"
            else:
                assert kind == "corrupt"


def test_every_missing_file_is_found() -> None:
    files, _ = small_journal(idle=False)
    for name in names(files):
        disk = files.clone(random.Random(0))
        disk.remove(name)
        with pytest.raises(JournalCorruptError, match="missing") as caught:
            Bench(disk, LIMITS).open()
        assert caught.value.detail["file"] == name
        assert inspect_journal(disk, DIRECTORY).damage


def test_swapped_and_foreign_segments_are_found() -> None:
    files, states = small_journal(idle=True)
    for one, other in ((1, 2), (2, 3), (1, 3)):
        disk = files.clone(random.Random(0))
        first, second = disk.read_file(path_of(one)), disk.read_file(path_of(other))
        disk.set_content(path_of(one), second)
        disk.set_content(path_of(other), first)
        with pytest.raises(JournalCorruptError, match="under another name"):
            Bench(disk, LIMITS).open()
    # An older copy of the last segment: a misdirected restore.
    disk = files.clone(random.Random(0))
    bench = Bench(disk, LIMITS)
    old = disk.read_file(path_of(3))
    journal = bench.open()
    journal.append([entry(15, 4, b"")])
    bench.close(journal)
    disk.set_content(path_of(3), old)
    assert outcome_of(disk, states)[0] == "corrupt"


def two_histories(**limits: int) -> tuple[Bench, Bench]:
    """Two copies of a node's directory that went different ways: same journal, same numbers, same
    sizes, other data."""
    bench = sim_bench(**limits)
    twin = Bench(bench.files.clone(random.Random(1)), bench.limits)
    for one, body in ((bench, b"a"), (twin, b"b")):
        journal = one.open()
        for index in range(2, 20):
            journal.append([entry(index, 1, body * 100)])
            one.executor.settle()
        one.files.kill()
    return bench, twin


def test_a_sealed_segment_of_another_history_is_found() -> None:
    bench, twin = two_histories(journal_segment_bytes=1000)
    for number in (1, 2):
        disk = bench.files.clone(random.Random(2))
        disk.set_content(path_of(number), twin.files.read_file(path_of(number)))
        with pytest.raises(JournalCorruptError, match=r"is not the one that segment \d follows"):
            Bench(disk).open()
        assert inspect_journal(disk, DIRECTORY).damage


def test_a_footer_of_another_history_is_found() -> None:
    bench, twin = two_histories(journal_segment_bytes=1000)
    ours, theirs = bench.files.read_file(path_of(2)), twin.files.read_file(path_of(2))
    bench.files.set_content(path_of(2), ours[:-FOOTER_TAIL_BYTES] + theirs[-FOOTER_TAIL_BYTES:])
    with pytest.raises(JournalCorruptError, match="is not the one that segment 3 follows"):
        bench.open()
    assert "footer does not describe" in inspect_journal(bench.files, DIRECTORY).damage[0].text


def test_a_batch_of_another_history_is_found() -> None:
    bench, twin = two_histories()
    ours, theirs = bench.files.read_file(path_of(1)), twin.files.read_file(path_of(1))
    size = BATCH_OVERHEAD_BYTES + RECORD_HEADER_BYTES + 100
    for number in range(3):
        start = len(ours) - size * (number + 1)
        disk = bench.files.clone(random.Random(0))
        disk.overwrite(path_of(1), start, theirs[start : start + size])
        with pytest.raises(JournalCorruptError, match="does not follow"):
            Bench(disk).open()
        assert inspect_journal(disk, DIRECTORY).damage


def test_zeroed_and_misdirected_blocks() -> None:
    """Blocks of 64 bytes zeroed, filled with noise, or copied from elsewhere in the journal."""
    files, states = small_journal(idle=True)
    draw = random.Random(5)
    everything = b"".join(files.read_file(name) for name in names(files))
    for name in names(files):
        whole = files.read_file(name)
        for offset in range(0, len(whole), 16):
            size = min(64, len(whole) - offset)
            source = draw.randrange(len(everything) - size)
            for data in (bytes(size), draw.randbytes(size), everything[source : source + size]):
                if data == whole[offset : offset + size]:
                    continue
                disk = files.clone(draw)
                disk.overwrite(name, offset, data)
                kind, state = outcome_of(disk, states)
                assert kind == "corrupt" or state == states[-1]
                assert inspect_journal(disk, DIRECTORY).damage


def test_damage_before_a_valid_record_is_corruption_even_without_a_mark() -> None:
    """J3: two batches after the last mark; the first of them rots."""
    bench = sim_bench()
    journal = bench.open()
    offsets = []
    for index in (2, 3, 4):
        offsets.append(journal._size)
        journal.append([entry(index, 1, bytes(700))])
        bench.executor.settle()
    bench.files.kill()
    for position, offset in enumerate(offsets):
        for at in (offset, offset + 20, offset + 50, offset + 400, offset + 780):
            disk = bench.files.clone(random.Random(0))
            disk.flip_bit(path_of(1), at, 3)
            if position == 2:
                assert Bench(disk).open().last_index == 3
                continue
            with pytest.raises(JournalCorruptError, match=r"does|goes on") as caught:
                Bench(disk).open()
            assert offset <= caught.value.detail["offset"] <= at


def test_a_torn_batch_full_of_journal_bytes_is_still_torn() -> None:
    """A client stores a copy of a journal in the database: bytes of another journal, or of an
    older batch, inside a torn batch must not look like a record behind damage."""
    bench = sim_bench()
    journal = bench.open()
    journal.append([entry(2)])
    bench.executor.settle()
    foreign_seed = seed_of(b"0123456789abcdef", 1)
    foreign = b"".join(encode_batch([], number, 2, 0, foreign_seed)[0] for number in range(1, 50))
    offset = journal._size
    journal.append([entry(3, 1, foreign + BATCH_MAGIC * 100)])
    bench.executor.settle()
    bench.files.kill()
    whole = bench.files.read_file(path_of(1))
    for size in range(offset + 1, len(whole), 97):
        for damaged in (0, 100):
            disk = bench.files.clone(random.Random(0))
            disk.set_content(path_of(1), whole[:size])
            disk.flip_bit(path_of(1), offset + damaged, 1)
            again = Bench(disk)
            assert again.open().last_index == 2
            assert again.log.events() == ["journal_tail_cut"]


def test_a_later_format_is_refused_with_the_remedy() -> None:
    bench = sim_bench()
    raw = bytearray(bench.files.read_file(path_of(1)))
    raw[8:10] = (FORMAT_VERSION + 1).to_bytes(2, "little")
    raw[252:256] = zlib.crc32(raw[:252]).to_bytes(4, "little")
    bench.files.set_content(path_of(1), bytes(raw))
    with pytest.raises(ConfigError, match="format version 2; this raftdb reads 1") as caught:
        bench.open()
    assert "release of raftdb" in caught.value.hint
    with pytest.raises(ConfigError, match="format version 2"):
        inspect_journal(bench.files, DIRECTORY)


def test_a_record_that_verifies_but_makes_no_sense() -> None:
    """Written by a bug rather than by rot: found all the same."""
    for operations in (
        [(1, 9, 1, b"")],
        [(2, 9, 1, b"")],
        [(4, 2, 1, (7).to_bytes(8, "little"))],
        [(77, 2, 1, b"")],
        [(3, 0, 1, b"\xff\xfe")],
    ):
        bench = sim_bench()
        journal = bench.open()
        batch, _ = encode_batch(
            operations, journal._next_batch, 1, journal._chain, journal._segments.active.seed
        )
        bench.files.kill()
        path = path_of(1)
        bench.files.set_content(path, bench.files.read_file(path) + batch)
        with pytest.raises(JournalCorruptError, match="makes no sense"):
            bench.open()


def test_reading_on_behind_damage() -> None:
    """The report names every damage, and what is left can be read."""
    files, states = small_journal(idle=True)
    files.flip_bit(path_of(1), 330, 0)
    files.flip_bit(path_of(3), 300, 0)
    before = {name: files.read_file(name) for name in names(files)}
    mutations = files.mutations
    report = inspect_journal(files, DIRECTORY)
    left = list(read_entries(files, DIRECTORY))
    assert {one.file for one in report.damage} == {path_of(1), path_of(3)}
    assert 5 < len(left) < len(states[-1].entries)
    assert all(one in states[-1].entries for one in left)
    assert files.mutations == mutations
    assert {name: files.read_file(name) for name in names(files)} == before


def test_what_follows_an_entry_up_to_damage_is_what_the_log_once_was() -> None:
    files, states = small_journal(idle=True)
    last = states[-1].entries
    for known in last:
        expected = [one for one in last if one.index > known.index]
        assert list(read_on(files, DIRECTORY, known.index, known.term)) == expected
        assert list(read_on(files, DIRECTORY, known.index, known.term + 1)) == []
    draw = random.Random(1)
    lengths: list[int] = []
    for number in (1, 2, 3):
        path = path_of(number)
        for offset in range(0, len(files.read_file(path)), 41):
            disk = files.clone(draw)
            disk.flip_bit(path, offset, draw.randrange(8))
            for known in {one for state in states for one in state.entries}:
                found = list(read_on(disk, DIRECTORY, known.index, known.term))
                lengths.append(len(found))
                assert any(
                    known in state.entries and found == _behind(state, known)[: len(found)]
                    for state in states
                )
    assert max(lengths) > 8
    disk = files.clone(draw)
    disk.remove(path_of(2))
    found = list(read_on(disk, DIRECTORY, last[0].index, last[0].term))
    assert any(found == _behind(state, last[0])[: len(found)] for state in states)


def _behind(state: State, known: LogEntry) -> list[LogEntry]:
    return [one for one in state.entries if one.index > known.index]


def test_a_damaged_old_entry_is_never_returned() -> None:
    bench = sim_bench(journal_segment_bytes=2000, journal_cache_bytes_max=1)
    journal = bench.open()
    for index in range(2, 40):
        journal.append([entry(index, 1, b"%03d" % index * 40)])
        bench.executor.settle()
    assert journal._segments.sealed[0].last > 5
    place = bench.files.read_file(path_of(1)).index(b"005005")
    bench.files.flip_bit(path_of(1), place + 7, 2)
    for index in range(2, 40):
        if index == 5:
            with pytest.raises(JournalCorruptError, match=r"entry|record") as caught:
                journal.entry(5)
            assert caught.value.detail["file"] == path_of(1)
        else:
            assert journal.entry(index).data == b"%03d" % index * 40
    with pytest.raises(JournalCorruptError):
        contents(journal)
