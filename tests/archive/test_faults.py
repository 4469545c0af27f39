"""Objects of an archive damaged one by one: each is found, named, and never stood in for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raftdb.archive import ArchiveDamagedError, ArchiveUnavailableError, Keyring, open_store
from raftdb.archive.store import Listed, Store
from raftdb.archive.verify import verify_objects
from raftdb.base.errors import Error
from tests.archive.support import KEYS, filled, restored, sources

Damage = Callable[[Path, Path], None]
"""Takes an object's file and another one of the same folder."""


def _truncate(path: Path, _other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path, _other: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path, _other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 0x10
    path.write_bytes(bytes(data))


def _flip_header(path: Path, _other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[14] ^= 0x01
    path.write_bytes(bytes(data))


class NotTriedError(Exception):
    """Restoring from each damaged archive takes long: two kinds of damage must do."""


DAMAGES: dict[str, Damage] = {
    "missing": lambda path, _other: path.unlink(),
    "truncated": _truncate,
    "empty": _empty,
    "tampered": _flip,
    "tampered header": _flip_header,
    "swapped": lambda path, other: path.write_bytes(other.read_bytes()),
}


@pytest.fixture(scope="module", params=[KEYS, Keyring({})], ids=["sealed", "plain"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Keyring, bytes]:
    """A whole archive, its keys, and the content hash at its end."""
    directory = tmp_path_factory.mktemp("archive")
    live = filled(directory, keyring=request.param)
    content = live.machine.content_hash().total
    live.close()
    return directory / "archive", request.param, content


def _objects(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def _other(root: Path, name: Path) -> Path:
    """Another object of its kind, where there is one."""
    near = [path for path in _objects(root) if path.parent == name.parent and path != name]
    far = [path for path in _objects(root) if path != name]
    return root / (near or far)[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_object_is_found_and_named(
    archive: tuple[Path, Keyring, bytes], damage: str, tmp_path: Path
) -> None:
    root, keyring, content = archive
    names = _objects(root)
    assert len(names) >= 12
    for number, name in enumerate(names):
        copy = tmp_path / f"archive-{number}"
        shutil.copytree(root, copy)
        DAMAGES[damage](copy / name, _other(copy, name))
        said: list[str] = []
        try:
            found = sources(open_store(str(copy)), keyring=keyring)
            found.plan(found.last())
            if damage not in ("missing", "tampered") or keyring is not KEYS:
                raise NotTriedError
            _plan, done = restored(found, tmp_path / f"work-{number}")
            said = [str(one) for one in found.problems]
            # What could be restored all the same is all of it, and the damage is not hidden.
            assert done.content == content, name
        except NotTriedError:
            pass
        except Error as error:
            said.append(str(error))
        # A restore looks at what it needs; `verify` looks at everything.
        try:
            found = sources(open_store(str(copy)), keyring=keyring)
            said += [str(one) for one in found.problems + verify_objects(found.timelines[0])]
        except Error as error:
            said.append(str(error))
        assert any(str(name) in one for one in said), f"{damage} {name} was not named: {said}"
        shutil.rmtree(copy)


def test_an_older_object_in_the_place_of_a_newer_one(
    archive: tuple[Path, Keyring, bytes], tmp_path: Path
) -> None:
    """Replayed: another archive of the same cluster, with the same keys and names."""
    root, keyring, _content = archive
    live = filled(tmp_path / "other", keyring=keyring, seed=2)
    live.close()
    other = tmp_path / "other" / "archive"
    for number, name in enumerate(one for one in _objects(root) if "manifests" in one.parts):
        copy = tmp_path / f"archive-{number}"
        shutil.copytree(root, copy)
        shutil.copy(other / name, copy / name)
        found = sources(open_store(str(copy)), keyring=keyring)
        said = [str(one) for one in found.problems]
        assert any(str(name) in one and "another archive" in one for one in said), said


def test_another_destination_stands_in_object_by_object(
    archive: tuple[Path, Keyring, bytes], tmp_path: Path
) -> None:
    """Half of the segments are gone in one, the other half and the newest base in the other."""
    root, keyring, content = archive
    for place in ("a", "b"):
        shutil.copytree(root, tmp_path / place)
    segments = [name for name in _objects(root) if "segments" in name.parts]
    bases = [name for name in _objects(root) if "bases" in name.parts]
    for number, name in enumerate(segments):
        _truncate(tmp_path / "ab"[number % 2] / name, tmp_path)
    _flip(tmp_path / "a" / bases[-1], tmp_path)
    found = sources(
        open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b")), keyring=keyring
    )
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == content
    named = {one.object for one in found.problems}
    assert str(bases[-1]) in named
    with pytest.raises(ArchiveDamagedError, match=r"is missing|truncated"):
        restored(sources(open_store(str(tmp_path / "a")), keyring=keyring), tmp_path / "alone")


class Failing:
    """A store that answers some calls by an error."""

    def __init__(self, inner: Store, fail: Callable[[str, str], bool]) -> None:
        self.inner = inner
        self.fail = fail

    @property
    def url(self) -> str:
        return self.inner.url

    def _check(self, call: str, name: str) -> None:
        if self.fail(call, name):
            raise ArchiveUnavailableError(f"{call} {name}: refused")

    def put(self, name: str, data: bytes) -> bool:
        self._check("put", name)
        return self.inner.put(name, data)

    def get(self, name: str) -> bytes | None:
        self._check("get", name)
        return self.inner.get(name)

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        self._check("listing", prefix)
        return self.inner.listing(prefix, after)


def test_a_store_that_refuses_in_the_midst_is_an_error_or_another_ones_turn(
    archive: tuple[Path, Keyring, bytes], tmp_path: Path
) -> None:
    root, keyring, content = archive
    whole = open_store(str(root))
    refusing = Failing(whole, lambda call, name: call == "get" and "segments" in name)
    with pytest.raises(ArchiveDamagedError, match="refused"):
        restored(sources(refusing, keyring=keyring), tmp_path / "alone")
    shutil.copytree(root, tmp_path / "b")
    found = sources(refusing, open_store(str(tmp_path / "b")), keyring=keyring)
    _plan, done = restored(found, tmp_path / "both")
    assert done.content == content


def test_an_upload_that_stops_anywhere_leaves_a_whole_archive(tmp_path: Path) -> None:
    """The n-th put fails, for every n; then it goes on."""
    for stop in range(1, 12):
        puts = 0

        def fail(call: str, _name: str, stop: int = stop) -> bool:
            nonlocal puts
            puts += call == "put"
            return call == "put" and puts == stop

        directory = tmp_path / str(stop)
        store = open_store(str(directory / "archive"))
        failing = Failing(store, fail)
        try:
            live = filled(directory, failing)
        except ArchiveUnavailableError:
            continue_after = directory / "again"
            live = filled(continue_after, store, seed=stop) if puts <= 2 else None
        if live is not None:
            found = sources(store)
            _plan, done = restored(found, directory / "work")
            assert done.content == live.machine.content_hash().total
            live.close()
        else:
            found = sources(store)
            assert [one for one in found.problems if not one.harmless] == []
