"""The simulated disk does what a disk may do, and the same again for the same seed."""

from __future__ import annotations

import errno
import random

import pytest

from tests.sim.disk import SECTOR, Fault, SimFiles


def disk(seed: int = 0) -> SimFiles:
    files = SimFiles(random.Random(seed))
    files.make_directory("/d")
    files.sync_directory("/")
    return files


def write(files: SimFiles, path: str, data: bytes, *, sync: bool = False) -> None:
    file = files.open(path, create=True)
    file.write_at(0, data)
    if sync:
        file.sync()


def after_crashes(files: SimFiles, count: int = 60) -> list[SimFiles]:
    found = []
    for seed in range(count):
        twin = files.clone(random.Random(seed))
        twin.crash()
        found.append(twin)
    return found


def test_synced_data_under_a_synced_name_always_survives() -> None:
    files = disk()
    write(files, "/d/a", b"x" * 3000, sync=True)
    files.sync_directory("/d")
    for after in after_crashes(files):
        assert after.read_file("/d/a") == b"x" * 3000


def test_a_synced_file_is_lost_when_its_name_was_not_synced() -> None:
    files = disk()
    write(files, "/d/a", b"x", sync=True)
    seen = {after.exists("/d/a") for after in after_crashes(files)}
    assert seen == {True, False}


def test_unsynced_data_survives_by_sectors_in_any_order() -> None:
    files = disk()
    write(files, "/d/a", b"o" * SECTOR * 4, sync=True)
    files.sync_directory("/d")
    write(files, "/d/a", b"n" * SECTOR * 6)
    contents = {after.read_file("/d/a") for after in after_crashes(files, 300)}
    for content in contents:
        for start in range(0, len(content), SECTOR):
            assert len(set(content[start : start + SECTOR])) == 1, "a sector is torn"
    assert b"o" * SECTOR * 4 in contents
    assert b"n" * SECTOR * 6 in contents
    mixed = [one for one in contents if b"o" in one and b"n" in one]
    assert any(one.index(b"n") > one.index(b"o") for one in mixed)
    assert any(one.index(b"n") < one.index(b"o") for one in mixed)
    assert {len(one) for one in contents} >= {SECTOR * 4, SECTOR * 6}
    assert any(b"\0" in one for one in contents), "a hole where the size came and the data did not"


def test_a_sector_may_survive_in_an_earlier_version() -> None:
    files = disk()
    write(files, "/d/a", b"1" * SECTOR, sync=True)
    files.sync_directory("/d")
    for version in (b"2", b"3"):
        write(files, "/d/a", version * SECTOR)
    assert {after.read_file("/d/a")[:1] for after in after_crashes(files)} == {b"1", b"2", b"3"}


def test_names_survive_apart_from_each_other() -> None:
    files = disk()
    for name in ("a", "b", "c"):
        write(files, f"/d/{name}", name.encode(), sync=True)
    files.sync_directory("/d")
    files.rename("/d/a", "/d/b")
    files.remove("/d/c")
    write(files, "/d/e", b"e", sync=True)
    seen = {tuple(after.list_directory("/d")) for after in after_crashes(files, 200)}
    assert ("a", "b", "c") in seen
    assert ("b", "e") in seen
    assert ("a", "b") in seen, "a later removal may survive an earlier rename that did not"
    for after in after_crashes(files, 50):
        assert after.read_file("/d/b") == (b"b" if after.exists("/d/a") else b"a")
    files.sync_directory("/d")
    assert {tuple(after.list_directory("/d")) for after in after_crashes(files)} == {("b", "e")}


def test_a_directory_is_lost_with_all_in_it() -> None:
    files = disk()
    files.make_directory("/d/e/f")
    write(files, "/d/e/f/a", b"x", sync=True)
    files.sync_directory("/d/e/f")
    files.sync_directory("/d/e")
    seen = {after.exists("/d/e/f/a") for after in after_crashes(files)}
    assert seen == {True, False}
    files.sync_directory("/d")
    assert all(after.exists("/d/e/f/a") for after in after_crashes(files))


def test_truncation_is_lost_or_kept() -> None:
    files = disk()
    write(files, "/d/a", b"x" * 2000, sync=True)
    files.sync_directory("/d")
    file = files.open("/d/a")
    file.truncate(100)
    assert {len(after.read_file("/d/a")) for after in after_crashes(files)} >= {100, 2000}
    file.sync()
    assert {after.read_file("/d/a") for after in after_crashes(files)} == {b"x" * 100}


def test_a_kill_keeps_the_page_cache_and_frees_locks_and_files() -> None:
    files = disk()
    release = files.lock("/d/lock")
    with pytest.raises(BlockingIOError):
        files.lock("/d/lock")
    file = files.open("/d/a", create=True)
    file.write_at(0, b"cached")
    files.kill()
    assert files.read_file("/d/a") == b"cached"
    with pytest.raises(OSError, match="closed"):
        file.write_at(0, b"late")
    files.lock("/d/lock")
    release()
    with pytest.raises(BlockingIOError):
        files.lock("/d/lock")


def test_a_failed_sync_loses_data_for_good() -> None:
    files = disk()
    write(files, "/d/a", b"o" * 600, sync=True)
    files.sync_directory("/d")
    file = files.open("/d/a")
    lost = 0
    for seed in range(20):
        twin = files.clone(random.Random(seed))
        file = twin.open("/d/a")
        file.write_at(0, b"n" * 600)
        twin.inject(Fault("sync", 1, keep_cache=True))
        with pytest.raises(OSError, match=r"Errno 5"):
            file.sync()
        assert twin.read_file("/d/a") == b"n" * 600, "the cache goes on showing it"
        file.sync()
        assert twin.read_file("/d/a") == b"n" * 600
        twin.crash()
        lost += twin.read_file("/d/a") != b"n" * 600
    assert lost > 5


def test_faults_hit_the_nth_call_of_their_kind() -> None:
    files = disk()
    write(files, "/d/a", b"")
    file = files.open("/d/a")
    fault = files.inject(Fault("write", 2, errno.ENOSPC, partial=0.5))
    file.write_at(0, b"1234")
    with pytest.raises(OSError, match="No space") as caught:
        file.write_at(4, b"5678")
    assert caught.value.errno == errno.ENOSPC
    assert fault.fired
    assert files.read_file("/d/a") == b"123456"
    file.write_at(4, b"5678")
    assert files.read_file("/d/a") == b"12345678"


def test_after_the_power_went_nothing_works_until_it_is_back() -> None:
    files = disk()
    write(files, "/d/a", b"1", sync=True)
    files.sync_directory("/d")
    files.power_off_after(1)
    file = files.open("/d/a")
    file.write_at(0, b"2")
    for call in (file.sync, lambda: file.read_at(0, 1), lambda: files.read_file("/d/a")):
        with pytest.raises(OSError, match="power is off"):
            call()
    files.crash()
    assert files.read_file("/d/a") in (b"1", b"2")


def test_a_clone_shares_nothing() -> None:
    files = disk()
    write(files, "/d/a", b"1", sync=True)
    write(files, "/d/b", b"1")
    twin = files.clone(random.Random(9))
    write(twin, "/d/a", b"2")
    twin.remove("/d/b")
    twin.sync_directory("/d")
    assert (files.read_file("/d/a"), files.read_file("/d/b")) == (b"1", b"1")
    assert twin.mutations > files.mutations
    with pytest.raises(FileNotFoundError):
        files.durable_content("/d/a")


def test_rot() -> None:
    files = disk()
    write(files, "/d/a", b"\0" * 8, sync=True)
    files.sync_directory("/d")
    files.flip_bit("/d/a", 3, 7)
    files.overwrite("/d/a", 6, b"zz")
    assert files.durable_content("/d/a") == files.read_file("/d/a") == b"\0\0\0\x80\0\0zz"


def test_the_same_seed_does_the_same() -> None:
    results = []
    for _ in range(2):
        files = disk(42)
        for name in "abcdef":
            write(files, f"/d/{name}", name.encode() * 2000, sync=name in "ab")
        files.crash()
        results.append({name: files.read_file(f"/d/{name}") for name in files.list_directory("/d")})
    assert results[0] == results[1]


def test_missing_files_and_directories_are_errors() -> None:
    files = disk()
    for call in (
        lambda: files.open("/d/none"),
        lambda: files.read_file("/d/none"),
        lambda: files.open("/none/a", create=True),
        lambda: files.list_directory("/none"),
        lambda: files.sync_directory("/none"),
        lambda: files.remove("/d/none"),
    ):
        with pytest.raises(FileNotFoundError):
            call()
    write(files, "/d/a", b"")
    with pytest.raises(FileExistsError):
        files.open("/d/a", create=True, exclusive=True)


def test_content_that_no_name_can_reach_is_freed() -> None:
    files = disk()
    for _ in range(10):
        write(files, "/d/new", bytes(100), sync=True)
        files.rename("/d/new", "/d/a")
        files.sync_directory("/d")
    assert len(files._inodes) == 1
