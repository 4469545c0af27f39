"""Sealing, keys, and the log of hashes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raftdb.archive import ArchiveDamagedError, Keyring, Sealer, hashlog, new_key_line, parse_keys
from raftdb.archive.hashlog import HashLog, HashReader
from raftdb.base.errors import ConfigError
from raftdb.runtime.files import RealFile, RealFiles

FILES = RealFiles()
KEY = Keyring({"k": b"k" * 32})


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "chacha20-poly1305"])
@pytest.mark.parametrize("keyring", [KEY, Keyring({})], ids=["sealed", "plain"])
def test_every_changed_bit_is_noticed(cipher: str, keyring: Keyring) -> None:
    sealer = Sealer(keyring, os.urandom, cipher)
    plain = b"what was there " * 20
    data = sealer.seal("segment", "a" * 32, "x/1", plain)
    assert sealer.open("segment", "a" * 32, "x/1", data) == plain
    assert len(data) < len(plain)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises((ArchiveDamagedError, ConfigError)):
            sealer.open("segment", "a" * 32, "x/1", bytes(changed))
        with pytest.raises(ArchiveDamagedError):
            sealer.open("segment", "a" * 32, "x/1", data[:place])
    for kind, archive, name in (
        ("base", "a" * 32, "x/1"),
        ("segment", "b" * 32, "x/1"),
        ("segment", "a" * 32, "x/2"),
    ):
        with pytest.raises(ArchiveDamagedError):
            sealer.open(kind, archive, name, data)


def test_an_object_without_encryption_is_no_substitute_for_one_with(tmp_path: Path) -> None:
    forged = Sealer(Keyring({}), os.urandom).seal("segment", "a", "x", b"forged")
    with pytest.raises(ArchiveDamagedError, match="not encrypted"):
        Sealer(KEY, os.urandom).open("segment", "a", "x", forged)


def test_key_files() -> None:
    first, second = new_key_line("k1", b"1" * 32), new_key_line("k2", b"2" * 32)
    keyring = parse_keys(f"# newest first\n{second}{first}\n", "file")
    assert keyring.current == ("k2", b"2" * 32)
    assert list(keyring.keys) == ["k2", "k1"]
    assert "2222" not in repr(keyring)
    variable = parse_keys(f"k1:{'31' * 32},k2:{'32' * 32}", "variable")
    assert variable.current == ("k1", b"1" * 32)
    secret = "31" * 31
    for text in ("", f"k1 {secret}", f"K1 {'31' * 32}", first + first):
        with pytest.raises(ConfigError) as caught:
            parse_keys(text, "file")
        assert secret not in str(caught.value)


def _hash(index: int, place: int = 0) -> bytes:
    return index.to_bytes(8, "little") + place.to_bytes(8, "little")


def test_hashes_are_read_back_also_after_a_kill(tmp_path: Path) -> None:
    log = HashLog(FILES, str(tmp_path), 1 << 20)
    for index in range(1, 101):
        log.record(index * 10, [(index, place, _hash(index, place)) for place in range(3)])
    reader = HashReader(FILES, log)
    first = reader.take(5, 20)
    assert sorted(first.hashes) == list(range(5, 21))
    assert first.hashes[7] == b"".join(_hash(7, place) for place in range(3))
    assert first.time_ms == 200
    # Not closed; the last record was cut in the midst.
    [path] = (tmp_path / "archive" / "hashes").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    again = HashLog(FILES, str(tmp_path), 1 << 20)
    again.record(1_000, [(100, place, _hash(100, place)) for place in range(3)])
    reader = HashReader(FILES, again)
    assert sorted(reader.take(99, 101).hashes) == [99, 100]
    again.drop_below(99)
    assert len(list((tmp_path / "archive" / "hashes").iterdir())) == 2
    again.drop_below(200)
    assert len(list((tmp_path / "archive" / "hashes").iterdir())) == 1
    log.close()
    again.close()


def test_an_entry_of_which_some_hashes_are_unknown_has_none(tmp_path: Path) -> None:
    log = HashLog(FILES, str(tmp_path), 1 << 20)
    log.record(1, [(5, 1, _hash(5, 1)), (6, 0, _hash(6))])
    assert HashReader(FILES, log).take(5, 6).hashes == {6: _hash(6)}
    log.close()


def test_before_a_checkpoint_every_file_of_hashes_is_durable_or_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below the checkpoint is not applied, and not told, again. But a disk that does not
    sync hashes must not keep checkpoints from being made, or the write-ahead log grows for ever."""
    monkeypatch.setattr(hashlog, "FILE_BYTES", 200)
    synced: list[str] = []
    refuses = False

    def sync(file: RealFile) -> None:
        if refuses:
            raise OSError(errno.EIO, "no")
        synced.append(os.path.basename(file._path))

    def sync_directory(_files: RealFiles, path: str) -> None:
        synced.append(os.path.basename(path))

    monkeypatch.setattr(RealFile, "sync", sync)
    monkeypatch.setattr(RealFiles, "sync_directory", sync_directory)
    log = HashLog(FILES, str(tmp_path), 1 << 20)
    for index in range(1, 13):
        log.record(index, [(index, 0, _hash(index))])
    names = sorted(path.name for path in (tmp_path / "archive" / "hashes").iterdir())
    assert len(names) == 3
    log.sync()
    assert synced == [*names, "hashes"]
    synced.clear()
    log.sync()
    assert synced == names[-1:]
    refuses = True
    assert not log.failed
    log.sync()
    assert log.failed
    log.close()
