"""A node that finds its own files damaged says so, votes where that is safe, and heals itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import raftdb
from raftdb.base.config import load_config
from raftdb.base.errors import Error, FatalError
from raftdb.embedded import Assembly
from raftdb.node import healing
from raftdb.ops.found import found_local
from tests.embedded.test_divergence import wait_for

ROWS = 1500
BATCH = b"\xf7RJb"
"""How a batch of the log begins (raftdb/journal/DESIGN.md)."""


class Three:
    """Three members with a table of some hundred pages, checkpointed everywhere."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names = [str(one.node_id) for one in found_local(directory).members]
        self.nodes = {name: self.start(name) for name in self.names}
        with self.any().connect(timeout=15.0) as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text)")
            for start in range(0, ROWS, 500):
                connection.executemany(
                    "INSERT INTO t VALUES (?, ?)",
                    [(number, f"{number} " * 100) for number in range(start, start + 500)],
                )
            last = self.leader().status()["commit_index"]
        for node in self.nodes.values():
            wait_for(lambda node=node: node.status()["applied_index"] >= last)  # type: ignore[misc]
            assert node._assembly is not None
            node._assembly.machine.checkpoint()

    def start(self, name: str) -> raftdb.Node:
        """With segments so small that there are several, and no cache of their entries."""
        config = load_config(str(self.directory / name / "raftdb.toml"))
        limits = replace(
            config.limits, journal_segment_bytes=64 << 10, journal_cache_bytes_max=4096
        )
        return raftdb.Node(replace(config, limits=limits)).start()

    def segments(self, name: str) -> list[Path]:
        """Of the log, the oldest first."""
        return sorted((self.directory / name / "data" / "journal").glob("*.segment"))

    def any(self) -> raftdb.Node:
        return next(node for node in self.nodes.values() if node.running)

    def leader(self) -> raftdb.Node:
        found: list[raftdb.Node] = []

        def leads() -> bool:
            found[:] = [
                node
                for node in self.nodes.values()
                if node.running and node.status()["role"] == "leader"
            ]
            return bool(found)

        wait_for(leads)
        return found[0]

    def follower(self) -> str:
        leader = self.leader()
        return next(name for name, node in self.nodes.items() if node is not leader)

    def database(self, name: str) -> Path:
        """The file of the current generation."""
        directory = self.directory / name / "data" / "database"
        return directory / (directory / "CURRENT").read_text().strip() / "database.sqlite"

    def sound(self, name: str) -> bool:
        """The node is whole again, and has all rows."""
        node = self.nodes[name]
        status = node.status()
        if status["damage"] is not None or status["applied_index"] < status["commit_index"]:
            return False
        try:
            with node.connect(read="local", pin=True, timeout=2.0) as connection:
                found = connection.execute("SELECT count(*), sum(id) FROM t").fetchone()
        except Error:
            return False
        return bool(found is not None and found[0] >= ROWS)

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def flip_many_pages(path: Path) -> None:
    for page in range(8, path.stat().st_size // 4096, 2):
        flip(path, page * 4096 + 1000)


def test_a_damaged_database_is_healed_by_a_copy(tmp_path: Path) -> None:
    three = Three(tmp_path / "cluster")
    try:
        _while_it_runs(three, leads=False)
        _while_it_runs(three, leads=True)
        name = three.follower()
        for change in (
            lambda: (three.database(name).parent.parent / "CURRENT").unlink(),
            lambda: flip(three.database(name), 3),
        ):
            three.nodes[name].stop()
            change()
            three.nodes[name] = three.start(name)
            with three.leader().connect(timeout=10.0) as connection:
                connection.execute("INSERT INTO t(text) VALUES ('on it goes')")
            wait_for(lambda: three.sound(name), 20.0)
    finally:
        three.stop()


def _while_it_runs(three: Three, *, leads: bool) -> None:
    """A page that is read is damaged: never an answer, and whole again some seconds later."""
    node = three.leader() if leads else three.nodes[three.follower()]
    name = next(name for name, one in three.nodes.items() if one is node)
    path = three.database(name)
    flip_many_pages(path)
    with (
        node.connect(read="local", pin=True, timeout=5.0) as connection,
        pytest.raises(Error) as raised,
    ):
        connection.execute("SELECT count(*), sum(length(text)) FROM t").fetchall()
    assert raised.value.code in ("page_damaged", "quarantined", "unavailable"), raised.value
    with three.leader().connect(timeout=10.0) as connection:
        connection.execute("INSERT INTO t(text) VALUES ('meanwhile')")
    wait_for(lambda: three.sound(name), 20.0)
    assert three.database(name) != path
    assert node.failure is None


def test_a_damaged_log_begins_behind_the_damage(tmp_path: Path) -> None:
    three = Three(tmp_path / "cluster")
    try:
        # Where it is read while the node runs; and in what a start looks at.
        name = three.follower()
        for running in (True, False):
            node, segment = three.nodes[name], three.segments(name)[1]
            assert len(three.segments(name)) >= 3
            if running:
                flip(segment, segment.stat().st_size // 2)
                assembly, executor = node._assembly, node._executor
                assert assembly is not None
                assert executor is not None
                executor.call_threadsafe(_read_all, assembly)
                wait_for(lambda node=node, assembly=assembly: node._assembly is not assembly)
            else:
                node.stop()
                flip(segment, segment.stat().st_size - 20)
                three.nodes[name] = three.start(name)
            with three.leader().connect(timeout=10.0) as connection:
                connection.execute("INSERT INTO t(text) VALUES ('on it goes')")
            wait_for(lambda: three.sound(name), 20.0)
            assert not segment.exists()
            assert three.nodes[name].failure is None
        _scrubbed(three, name)
    finally:
        three.stop()


def _scrubbed(three: Three, name: str) -> None:
    """What nobody reads is found all the same, and named."""
    node, page = three.nodes[name], 40
    with three.leader().connect(timeout=10.0) as connection:
        for number in range(4):
            connection.execute("INSERT INTO t(text) VALUES (?)", (f"{number} " * 20_000,))
    wait_for(lambda: len(three.segments(name)) > 2)
    for number, change in enumerate(
        (
            lambda: None,
            lambda: flip(three.database(name), page * 4096 + 100),
            lambda: flip(three.segments(name)[0], 400),
        )
    ):
        assembly, executor = node._assembly, node._executor
        assert assembly is not None
        assert executor is not None
        assembly.machine.checkpoint()
        change()
        executor.call_threadsafe(assembly.scrub.begin)
        if number == 0:
            wait_for(lambda assembly=assembly: assembly.scrub.passes == 1, 20.0)
            facts = node.status()["scrub_files"]
            assert facts["read_bytes"] > three.database(name).stat().st_size
            assert facts["last_sound_pass"]
            continue
        wait_for(lambda assembly=assembly: node._assembly is not assembly, 20.0)
        if number == 1:
            assert assembly.damage is not None
            assert assembly.damage.offset == page * 4096
        wait_for(lambda: three.sound(name), 20.0)


def _read_all(assembly: Assembly) -> None:
    """As if a follower lacked all of it."""
    journal = assembly.journal
    for index in range(journal.first_index, journal.last_index + 1):
        journal.entry(index)


def test_a_lost_end_of_the_log_is_forgotten_in_order(tmp_path: Path) -> None:
    """The node does not know any more what it promised: it votes no more, and then again."""
    three = Three(tmp_path / "cluster")
    try:
        for number, damage in enumerate((flip_the_last_batch_but_one, flip_the_mark, cut_the_log)):
            name = three.follower() if number else three.leader().config.node_id
            three.nodes[name].stop()
            damage(three.segments(name)[-1])
            three.nodes[name] = three.start(name)
            # A note while it lasts, and an empty log that it leaves behind.
            assert (tmp_path / "cluster" / name / "data" / "amnesia" / "mark").exists()
            with three.leader().connect(timeout=10.0) as connection:
                connection.execute("INSERT INTO t(text) VALUES ('on it goes')")
            wait_for(lambda name=name: three.sound(name), 40.0)  # type: ignore[misc]
            wait_for(lambda name=name: _votes(three, name), 40.0)  # type: ignore[misc]
            note = tmp_path / "cluster" / name / "data" / "amnesia.json"
            wait_for(lambda note=note: not note.exists(), 40.0)  # type: ignore[misc]
            assert three.nodes[name].failure is None
    finally:
        three.stop()


def _votes(three: Three, name: str) -> bool:
    roles = {one["node_id"]: one["role"] for one in three.leader().status()["members"]}
    return roles[name] == "voter"


def flip_the_last_batch_but_one(segment: Path) -> None:
    content = segment.read_bytes()
    last = content.rfind(BATCH)
    flip(segment, content.rfind(BATCH, 0, last) + 50)


def flip_the_mark(segment: Path) -> None:
    flip(segment.parent / "mark", 30)


def cut_the_log(segment: Path) -> None:
    """Back to what it was long ago, and the mark is gone."""
    with segment.open("r+b") as file:
        file.truncate(segment.read_bytes().find(BATCH, 300))
    (segment.parent / "mark").unlink()


def test_damaged_everywhere_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "EVERYWHERE_S", 1.0)
    three = Three(tmp_path / "cluster")
    try:
        for node in three.nodes.values():
            node.stop()
        for name in three.names:
            flip(three.database(name), 3)
        for name in three.names:
            three.nodes[name] = three.start(name)
        wait_for(lambda: any(node.failure is not None for node in three.nodes.values()), 30.0)
        failure = next(node.failure for node in three.nodes.values() if node.failure is not None)
        assert isinstance(failure, FatalError)
        assert failure.code == "damaged_everywhere"
        assert "archive" in (failure.hint or "")
    finally:
        three.stop()
