"""Real members that archive: continuously, over failures, and one after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import raftdb
from raftdb.archive import (
    Archive,
    Keyring,
    NotRestorableError,
    Point,
    Sealer,
    Sources,
    load_timeline,
    open_store,
    uploader,
)
from raftdb.base.config import ArchiveConfig, CheckpointConfig, JournalConfig, load_config
from raftdb.cli.status import status_lines
from raftdb.consensus.entry import decode_payloads
from raftdb.ops.found import found_local
from raftdb.ops.status import cluster_status
from raftdb.ops.target import Target
from raftdb.runtime import RealClock
from tests.archive.support import restored

WAIT_S = 30.0


def wait_for(what: str, check: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    clock, pause = RealClock(), threading.Event()
    end_s = clock.monotonic_s() + timeout_s
    while clock.monotonic_s() < end_s:
        found = check()
        if found:
            return found
        pause.wait(0.05)
    raise AssertionError(f"{what}: not within {timeout_s:g} s")


@contextmanager
def cluster(directory: Path, archive: ArchiveConfig, nodes: int = 3) -> Iterator[list[raftdb.Node]]:
    locations = [f"local/rack{number}" for number in range(nodes)]
    founded = found_local(directory, locations=locations, insecure=True)
    members = []
    for one in founded.members:
        config = load_config(str(directory / one.node_id / "raftdb.toml"))
        members.append(raftdb.Node(replace(config, archive=archive)))
    with pytest.MonkeyPatch.context() as patch:
        # Who takes over waits long, so that nodes far apart do not race: here they are near.
        patch.setattr(uploader, "TAKE_OVER_S", 0.4)
        patch.setattr(uploader, "TAKE_OVER_SPREAD_S", 0.4)
        patch.setattr(uploader, "LEADER_WAITS_S", 1.0)
        for node in members:
            node.start()
        try:
            yield members
        finally:
            for node in members:
                node.stop()


def archives(node: raftdb.Node) -> list[dict[str, Any]]:
    return list(node.status()["archive"])


def all_archived(nodes: list[raftdb.Node]) -> bool:
    """Somebody has uploaded everything that anybody has applied, and knows it."""
    running = [node for node in nodes if node.running]
    applied = max(node.status()["applied_index"] for node in running)
    places = range(len(archives(running[0])))
    return all(
        any(archives(node)[place]["archived_index"] >= applied for node in running)
        for place in places
    )


def open_sources(*urls: str) -> Sources:
    sealer = Sealer(Keyring({}), os.urandom)
    return Sources([load_timeline(Archive.open(open_store(url), sealer)) for url in urls])


def total_of(node: raftdb.Node) -> tuple[int, bytes]:
    assert node._assembly is not None
    content = node._assembly.machine.content_hash()
    return int(content.index), content.total


def test_two_destinations_follow_the_log_and_a_follower_uploads(tmp_path: Path) -> None:
    urls = (f"file://{tmp_path}/a", f"file://{tmp_path}/b")
    config = ArchiveConfig(destinations=urls, interval_ms=100)
    with cluster(tmp_path / "cluster", config) as nodes:
        with nodes[0].connect(timeout=20.0) as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
            for number in range(50):
                connection.execute("INSERT INTO t(x) VALUES (?)", (f"row {number}",))
            connection.commit()
        wait_for("all of it to be archived", lambda: all_archived(nodes))
        active = [
            node.status()["role"]
            for node in nodes
            for one in archives(node)
            if one["state"] == "active"
        ]
        assert "follower" in active
        index, total = total_of(nodes[0])
    for place, url in enumerate(urls):
        found = open_sources(url)
        assert found.problems == []
        _plan, done = restored(found, tmp_path / f"work-{place}", Point(index))
        assert done.content == total
        assert done.proven


def test_a_stopped_uploader_is_followed_by_another_without_a_gap(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a"
    config = ArchiveConfig(destinations=(url,), interval_ms=100)
    with cluster(tmp_path / "cluster", config) as nodes:
        with nodes[0].connect(timeout=20.0) as connection:
            connection.execute("CREATE TABLE t(x)")
        wait_for("the first upload", lambda: all_archived(nodes))
        # Two may have begun at once: one of them has lost a put, or will.
        first = max(nodes, key=lambda node: archives(node)[0]["archived_index"])
        first.stop()
        rest = [node for node in nodes if node is not first]
        with rest[0].connect(timeout=20.0) as connection:
            for number in range(20):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
            connection.commit()
        wait_for("the others to go on", lambda: all_archived(rest))
        index, total = total_of(rest[0])
    found = open_sources(url)
    assert [one for one in found.problems if not one.harmless] == []
    _plan, done = restored(found, tmp_path / "work", Point(index))
    assert done.content == total
    assert done.proven


def test_an_outage_raises_an_alarm_and_the_backlog_drains_by_itself(tmp_path: Path) -> None:
    """The destination's directory becomes a file, and a directory again."""
    place = tmp_path / "a"
    config = ArchiveConfig(destinations=(f"file://{place}",), interval_ms=100, alarm_ms=1_500)
    with cluster(tmp_path / "cluster", config, nodes=1) as [node]:
        with node.connect(timeout=20.0) as connection:
            connection.execute("CREATE TABLE t(x)")
            wait_for("the first upload", lambda: all_archived([node]))
            place.rename(tmp_path / "away")
            place.write_text("in the way")
            connection.execute("INSERT INTO t VALUES (1)")
            connection.commit()
            wait_for("the alarm", lambda: archives(node)[0]["alarm"])
            state = cluster_status(Target(f"raftdb://{node.config.client_listen}/?insecure=1"))
            [line] = [line for line in status_lines(state) if line.startswith("archive file://")]
            assert line.endswith("never verified, ALARM")
            assert any("behind: cannot" in problem for problem in state.problems)
            assert "cannot" in archives(node)[0]["error"]
            for number in range(20):
                connection.execute("INSERT INTO t VALUES (?)", (number,))
            connection.commit()
            place.unlink()
            (tmp_path / "away").rename(place)
            wait_for("the backlog to drain", lambda: all_archived([node]))
            wait_for("the alarm to end", lambda: not archives(node)[0]["alarm"])
        wait_for("the session's end to be archived", lambda: all_archived([node]))
        index, total = total_of(node)
    _plan, done = restored(open_sources(f"file://{place}"), tmp_path / "work", Point(index))
    assert done.content == total
    assert done.proven


def test_hashes_survive_a_restart_of_everything(tmp_path: Path) -> None:
    """Entries that were applied before a restart, and archived only after it, keep theirs."""
    place = tmp_path / "a"
    config = ArchiveConfig(destinations=(f"file://{place}",), interval_ms=100)
    place.write_text("in the way")
    founded = found_local(tmp_path / "cluster", locations=["local/rack1"], insecure=True)
    path = tmp_path / "cluster" / founded.members[0].node_id / "raftdb.toml"
    configured = replace(load_config(str(path)), archive=config)
    with raftdb.Node(configured) as node, node.connect(timeout=20.0) as connection:
        connection.execute("CREATE TABLE t(x)")
        for number in range(20):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        connection.commit()
    place.unlink()
    with raftdb.Node(configured) as node:
        with node.connect(timeout=20.0) as connection:
            connection.execute("INSERT INTO t VALUES (99)")
            connection.commit()
        wait_for("all of it to be archived", lambda: all_archived([node]))
    found = open_sources(f"file://{place}")
    [base] = [link.manifest.last for link in found.timelines[0].links("base")]
    entries = list(found.entries(base + 1, found.last().index))
    assert entries
    for entry in entries:
        assert len(entry.hashes) == 16 * len(decode_payloads(entry.data)), entry.index
    assert found.problems == []


@pytest.mark.parametrize("mode", ["replace"])
def test_a_node_of_a_superseded_history_stops_and_says_why(tmp_path: Path, mode: str) -> None:
    from raftdb.archive.records import Claim

    url = f"file://{tmp_path}/a"
    config = ArchiveConfig(destinations=(url,), interval_ms=100)
    founded = found_local(tmp_path / "cluster", locations=["local/rack1"], insecure=True)
    path = tmp_path / "cluster" / founded.members[0].node_id / "raftdb.toml"
    configured = replace(load_config(str(path)), archive=config)
    with raftdb.Node(configured) as node, node.connect(timeout=20.0) as connection:
        connection.execute("CREATE TABLE t(x)")
        wait_for("the upload", lambda: all_archived([node]))
    archive = Archive.open(open_store(url), Sealer(Keyring({}), os.urandom))
    assert archive.make_claim(Claim(2, "d" * 32, 1, 3, 0, mode, 1, "a restore"))
    node = raftdb.Node(configured).start()
    try:
        wait_for("the node to stop", lambda: node.failure is not None)
        assert "restored elsewhere" in str(node.failure)
    finally:
        node.stop()


def test_a_journal_at_its_bound_lets_go_and_the_archive_names_the_gap(tmp_path: Path) -> None:
    """The destination is away for longer than the journal may wait: writes go on, the gap is named
    in the archive and in the log, and a new base follows (A7)."""
    place = tmp_path / "a"
    config = ArchiveConfig(destinations=(f"file://{place}",), interval_ms=50)
    founded = found_local(tmp_path / "cluster", locations=["local/rack1"], insecure=True)
    path = tmp_path / "cluster" / founded.members[0].node_id / "raftdb.toml"
    loaded = load_config(str(path))
    configured = replace(
        loaded,
        archive=config,
        limits=replace(loaded.limits, journal_segment_bytes=1 << 20),
        journal=JournalConfig(keep_bytes=1 << 20, pinned_bytes_max=2 << 20),
        checkpoint=CheckpointConfig(wal_bytes=1 << 20),
    )
    with raftdb.Node(configured) as node, node.connect(timeout=20.0) as connection:
        connection.execute("CREATE TABLE t(x)")
        wait_for("the first upload", lambda: all_archived([node]))
        before = int(node.status()["applied_index"])
        place.rename(tmp_path / "away")
        place.write_text("in the way")

        def write_until_dropped() -> bool:
            connection.execute("INSERT INTO t VALUES (?)", (os.urandom(400_000),))
            return int(node.status()["first_index"]) > before + 1

        wait_for("the journal to drop what is not archived", write_until_dropped)
        place.unlink()
        (tmp_path / "away").rename(place)
        wait_for("a base behind the gap", lambda: all_archived([node]))
        index, total = total_of(node)
    found = open_sources(f"file://{place}")
    assert [one for one in found.problems if not one.harmless] == []
    [gap] = [link.manifest for link in found.timelines[0].links("gap")]
    assert gap.first == before + 1
    with pytest.raises(NotRestorableError, match="never archived"):
        found.plan(Point(gap.first + 1))
    _plan, done = restored(found, tmp_path / "work", Point(index))
    assert done.content == total
