"""An archive that a node knew and that is not there is not founded anew behind its mount point."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import raftdb
from raftdb.archive import ArchiveUnavailableError, Keyring, Sealer, open_store
from raftdb.archive.known import open_known
from raftdb.base.config import ArchiveConfig
from raftdb.runtime.files import RealFiles
from tests.archive.test_uploader import all_archived, archives, cluster, open_sources, wait_for

SEALER = Sealer(Keyring({}), os.urandom)


def opened(place: Path, note: Path) -> Any:
    return open_known(open_store(f"file://{place}"), SEALER, "c" * 32, 0, RealFiles(), str(note))


def test_what_was_known_has_to_be_there(tmp_path: Path) -> None:
    note, place = tmp_path / "known.json", tmp_path / "a"
    first = opened(place, note).root.archive
    assert opened(place, note).root.archive == first
    assert json.loads(note.read_text()) == {"archive": first, "url": f"file://{place}"}
    place.rename(tmp_path / "b")
    for made in (False, True):
        if made:
            place.mkdir()
        with pytest.raises(ArchiveUnavailableError, match="is not there") as caught:
            opened(place, note)
        assert caught.value.code == "archive_gone"
        assert str(note) in caught.value.hint
        assert list(place.rglob("*")) == []
    # Who never knew of one founds it; to the others it is another.
    assert opened(place, tmp_path / "other.json").root.archive != first
    with pytest.raises(ArchiveUnavailableError, match=f"this node knew {first}"):
        opened(place, note)
    note.write_bytes(b"{")
    assert opened(place, note).root.archive != first
    assert opened(place, note).root.archive == json.loads(note.read_text())["archive"]


def test_a_node_that_starts_while_its_directory_is_unmounted_waits(tmp_path: Path) -> None:
    place, away = tmp_path / "mount", tmp_path / "away"
    config = ArchiveConfig(destinations=(f"file://{place}",), interval_ms=100)
    with cluster(tmp_path / "c", config, nodes=1) as [node]:
        with node.connect(timeout=20.0) as connection:
            connection.execute("CREATE TABLE t(x)")
        wait_for("a base and the log", lambda: all_archived([node]))
        node.stop()
        shutil.move(place, away)
        place.mkdir()
        again = raftdb.Node(node.config)
        again.start()
        try:
            wait_for("it to be said", lambda: "is not there" in archives(again)[0]["error"])
            with again.connect(timeout=20.0) as connection:
                connection.execute("INSERT INTO t VALUES (1)")
            assert list(place.iterdir()) == []
            place.rmdir()
            shutil.move(away, place)
            wait_for("it to go on by itself", lambda: all_archived([again]))
        finally:
            again.stop()
    assert open_sources(f"file://{place}").problems == []
