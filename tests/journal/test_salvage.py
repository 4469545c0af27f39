"""A log that is damaged before its last segment begins behind the damage; nothing else changes."""

from __future__ import annotations

import random

import pytest

from raftdb.base.errors import JournalCorruptError
from raftdb.journal import Journal, Salvage
from raftdb.journal.recovery import create_journal
from tests.journal.support import DIRECTORY, Bench, SeededRandom, entry, run_of
from tests.journal.test_damage import LIMITS, names, path_of, small_journal
from tests.sim.disk import SimFiles


def end_of(journal: Journal) -> tuple[object, ...]:
    """What a vote rests on."""
    return journal.last_index, journal.last_term, journal.hard_state


def salvaged(disk: SimFiles, given_up: int = 0, stored: int = 1 << 40) -> tuple[Bench, Journal]:
    bench = Bench(disk, LIMITS, salvage=Salvage(given_up, stored))
    return bench, bench.open()


def corrupt(disk: SimFiles) -> bool:
    """By a start, or by reading each entry."""
    try:
        journal = Bench(disk, LIMITS).open()
        for index in range(journal.first_index, journal.last_index + 1):
            journal.entry(index)
    except JournalCorruptError:
        return True
    return False


def check_sound(journal: Journal, sound: Journal) -> None:
    """It ends as it did, and each entry that is left is as it was."""
    assert end_of(journal) == end_of(sound)
    for index in range(journal.first_index, journal.last_index + 1):
        assert journal.entry(index) == sound.entry(index)
        assert journal.term_at(index - 1) == sound.term_at(index - 1)


def test_damage_before_the_last_segment_costs_what_lies_before_it() -> None:
    files, _states = small_journal(idle=True)
    sound = Bench(files.clone(random.Random(0)), LIMITS).open()
    draw = random.Random(1)
    given_up = 0
    for number in (1, 2):
        path = path_of(number)
        for offset in range(0, len(files.read_file(path)), 11):
            disk = files.clone(draw)
            disk.flip_bit(path, offset, draw.randrange(8))
            found = corrupt(disk)
            disk.kill()
            if not found:
                continue
            # Found by a start, or when it is read: then its segment is named.
            bench, journal = salvaged(disk, number)
            assert journal.first_index > 1
            check_sound(journal, sound)
            given_up += 1
            # And it goes on, and the next start finds nothing wrong.
            journal.append([entry(journal.last_index + 1, 4)])
            assert bench.close(journal) is None
            again = Bench(disk, LIMITS).open()
            assert again.last_index == sound.last_index + 1
            assert not disk.exists(path)
            disk.kill()
    assert given_up > 100


def test_a_missing_segment_is_given_up_too() -> None:
    files, _states = small_journal(idle=True)
    sound = Bench(files.clone(random.Random(0)), LIMITS).open()
    files.remove(path_of(1))
    with pytest.raises(JournalCorruptError):
        Bench(files, LIMITS).open()
    _bench, journal = salvaged(files)
    check_sound(journal, sound)


def test_what_no_database_has_is_not_given_up() -> None:
    """Nobody knows whether it was committed."""
    files, _states = small_journal(idle=True)
    files.flip_bit(path_of(2), len(files.read_file(path_of(2))) - 10, 1)
    first = salvaged(files.clone(random.Random(0)))[1].first_index
    assert first > 2
    before = [(path, files.read_file(path)) for path in files.paths()]
    for stored in (0, first - 2):
        for segment in (0, 2):
            with pytest.raises(JournalCorruptError) as raised:
                salvaged(files, segment, stored)
            assert raised.value.detail["file"] == path_of(2)
            assert [(path, files.read_file(path)) for path in files.paths()] == before
    assert salvaged(files, 2, first - 1)[1].first_index == first


def test_damage_at_the_end_is_not_given_up() -> None:
    files, _states = small_journal(idle=True)
    last = names(files)[-2]
    assert last == path_of(3)
    for path in (last, f"{DIRECTORY}/mark"):
        disk = files.clone(random.Random(0))
        disk.flip_bit(path, len(disk.read_file(path)) - 10, 1)
        with pytest.raises(JournalCorruptError):
            salvaged(disk)


def test_a_sound_log_loses_nothing_but_what_is_named() -> None:
    files, _states = small_journal(idle=True)
    sound = Bench(files.clone(random.Random(0)), LIMITS).open()
    for given_up, first in ((0, 1), (9, 1)):
        _bench, journal = salvaged(files.clone(random.Random(0)), given_up)
        assert journal.first_index == first
        check_sound(journal, sound)


def test_founded_behind_an_entry_of_which_only_the_number_is_known() -> None:
    files = SimFiles(random.Random(3))
    create_journal(files, DIRECTORY, SeededRandom(), (41, 7), behind=True)
    bench = Bench(files, LIMITS)
    for _life in range(2):
        journal = bench.open()
        assert (journal.first_index, journal.last_index, journal.last_term) == (42, 41, 7)
        assert journal.term_at(41) == 7
        assert bench.close(journal) is None
    journal = bench.open()
    journal.append(run_of(42, 44, term=8))
    bench.executor.settle()
    files.kill()
    assert bench.open().last_index == 44


def test_what_was_cut_again_and_again_is_given_up() -> None:
    """A segment that is sound, and of which later ones left nothing, does not say where the log
    begins."""
    bench = Bench(SimFiles(random.Random(7)), LIMITS).create()
    journal = bench.open()
    for first, last, term in ((2, 20, 1), (12, 30, 2), (6, 24, 3), (25, 44, 4)):
        journal.truncate_from(first)
        for index in range(first, last + 1):
            journal.append([entry(index, term)])
            bench.executor.settle()
    for _ in range(2):
        bench.executor.advance(1.0)
        bench.executor.settle()
    bench.files.kill()
    sound = Bench(bench.files.clone(random.Random(0)), LIMITS).open()
    for number in range(1, len(sound._segments.sealed) + 1):
        _bench, again = salvaged(bench.files.clone(random.Random(0)), number)
        check_sound(again, sound)
