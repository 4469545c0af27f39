"""Stores: a directory, and a real S3 protocol over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from raftdb.archive import ArchiveUnavailableError, open_store
from raftdb.archive.store import PruneStore
from raftdb.base.errors import ConfigError
from raftdb.ops.ports import free_ports
from tests.archive.support import filled, restored, sources

BUCKET = "archive-bucket"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_ports(1), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        import urllib.request

        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        request.add_header("Host", f"{host}:{port}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        yield address
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PruneStore:
    if request.param == "directory":
        (tmp_path / "store").mkdir()
        return open_store(f"file://{tmp_path}/store")
    address = request.getfixturevalue("endpoint")
    prefix = tmp_path.name
    return open_store(f"s3://{BUCKET}/{prefix}?endpoint={address}&region=us-east-1")


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


def test_credentials_that_are_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 server that answers 403 to everything: what expired credentials look like."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", free_ports(1)), Refuse)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    store = open_store(f"s3://{BUCKET}/x?endpoint={address}&region=r")
    with pytest.raises(ArchiveUnavailableError, match="cannot read from"):
        store.get("archive")
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.mark.parametrize(
    "url",
    ["http://host/x", "file://host/x", "s3://user:password@bucket/x", "s3://b/x?color=red", "x"],
)
def test_urls_that_name_no_destination(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)
