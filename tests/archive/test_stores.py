"""Stores: a directory, and a real S3 protocol over HTTP."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from raftdb.archive import ArchiveUnavailableError, open_store
from raftdb.archive.store import PruneStore
from raftdb.base.errors import ConfigError
from raftdb.ops.ports import free_ports
from tests.archive.s3 import BUCKET, refusing_endpoint, s3_url
from tests.archive.support import filled, restored, sources


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PruneStore:
    if request.param == "directory":
        (tmp_path / "store").mkdir()
        return open_store(f"file://{tmp_path}/store")
    return open_store(s3_url(request.getfixturevalue("endpoint"), tmp_path.name))


def test_objects_are_made_once(store: PruneStore) -> None:
    data = os.urandom(300_000)
    assert store.get("a/b/one") is None
    assert store.put("a/b/one", data)
    assert not store.put("a/b/one", b"other")
    assert store.get("a/b/one") == data
    assert store.put("a/b/two", b"")
    assert store.put("a/c", b"x")
    assert [(one.name, one.size) for one in store.listing("a/b/")] == [
        ("a/b/one", 300_000),
        ("a/b/two", 0),
    ]
    assert [one.name for one in store.listing("")] == ["a/b/one", "a/b/two", "a/c"]
    assert store.listing("none/") == []
    store.delete("a/b/one")
    store.delete("a/b/one")
    assert store.get("a/b/one") is None


def test_a_folder_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/archive")
    assert store.put("e1/manifests/1", b"one")
    assert store.put("e1/manifests/2", b"two")
    shutil.rmtree(tmp_path / "archive")
    assert store.put("e1/manifests/3", b"three")
    assert [one.name for one in store.listing("e1/")] == ["e1/manifests/3"]


def test_the_names_of_new_folders_are_durable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    place = tmp_path / "archive"
    store = open_store(f"file://{place}")
    folders = [str(place / "e1/manifests"), str(place / "e1"), str(place)]
    assert store.put("e1/manifests/1", b"one")
    assert [one for one in synced if not one.endswith(".partial")] == folders
    synced.clear()
    assert store.put("e1/manifests/2", b"two")
    assert [one for one in synced if not one.endswith(".partial")] == folders[:1]
    synced.clear()
    shutil.rmtree(place)
    assert store.put("e1/manifests/3", b"three")
    assert [one for one in synced if not one.endswith(".partial")] == folders


def test_a_name_whose_sync_failed_is_synced_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put that failed has made the name; it is durable when the next one says it is there."""
    place = tmp_path / "archive"
    store = open_store(f"file://{place}")
    assert store.put("e1/manifests/1", b"one")
    broken, synced = [True], []

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not path.endswith(".partial"):
            if broken:
                raise OSError(5, "Input/output error")
            synced.append(path)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ArchiveUnavailableError):
        store.put("e1/manifests/2", b"two")
    with pytest.raises(ArchiveUnavailableError):
        store.put("e1/manifests/2", b"two")
    broken.clear()
    assert not store.put("e1/manifests/2", b"two")
    assert synced == [str(place / "e1/manifests")]


def test_an_archive_in_it_is_restored(store: PruneStore, tmp_path: Path) -> None:
    live = filled(tmp_path, store)
    found = sources(store)
    assert found.problems == []
    _plan, done = restored(found, tmp_path / "work")
    assert done.content == live.machine.content_hash().total
    live.close()


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    nobody = free_ports(1)
    away = open_store(f"s3://{BUCKET}/x?endpoint=http://127.0.0.1:{nobody}&region=r&timeout=2")
    with pytest.raises(ArchiveUnavailableError, match=f"s3://{BUCKET}/x"):
        away.get("archive")
    with pytest.raises(ArchiveUnavailableError, match="no such directory"):
        open_store(str(tmp_path / "nothing")).listing("")


def test_credentials_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 server that answers 403 to everything: what expired credentials look like."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with refusing_endpoint(403, "ExpiredToken") as address:
        store = open_store(s3_url(address, "x"))
        with pytest.raises(ArchiveUnavailableError, match="cannot read from"):
            store.get("archive")


@pytest.mark.parametrize(
    "url",
    ["http://host/x", "file://host/x", "s3://user:password@bucket/x", "s3://b/x?color=red", "x"],
)
def test_urls_that_name_no_destination(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_what_an_operator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for status, code, word in (
        (403, "ExpiredToken", "have expired"),
        (403, "AccessDenied", "refuses these credentials"),
        (404, "NoSuchBucket", "no such bucket"),
    ):
        with refusing_endpoint(status, code) as address:
            with pytest.raises(ArchiveUnavailableError, match=f"{code}: ") as caught:
                open_store(s3_url(address, "x")).listing("epochs/")
            assert word in (caught.value.hint or "")
