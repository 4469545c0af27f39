"""raftdb.Node: members of a cluster inside the user's process."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

import raftdb
from raftdb.base.config import load_config
from raftdb.base.errors import ConfigError, InterfaceError, ProgrammingError
from raftdb.ops.check import check_nodes
from raftdb.ops.status import cluster_status, connect_to_node
from raftdb.ops.target import Target
from tests.embedded.conftest import Members


def test_a_write_through_any_member_is_there_on_all(members: Members) -> None:
    nodes = list(members.nodes.values())
    with nodes[0].connect(timeout=15.0) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
    for number, node in enumerate(nodes):
        with node.connect() as connection:
            connection.execute("INSERT INTO people (name) VALUES (?)", (f"from {number}",))
    with nodes[1].connect() as connection:
        rows = connection.execute("SELECT name FROM people ORDER BY id").fetchall()
        index = connection.content_hash()["index"]
    assert [tuple(row) for row in rows] == [("from 0",), ("from 1",), ("from 2",)]
    hashes = set()
    for node in nodes:
        with node.connect(read="local") as connection:
            hashes.add(connection.content_hash(index=index, timeout=10.0)["total"])
            assert connection.execute("SELECT count(*) FROM people").fetchone()[0] == 3
    assert len(hashes) == 1


def test_a_local_connection_reads_without_the_loop_and_refuses_nothing_else(
    members: Members,
) -> None:
    node = next(iter(members.nodes.values()))
    with node.connect(read="local") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS local_reads (a)")
        connection.execute("INSERT INTO local_reads VALUES (?)", (1,))
        with pytest.raises(ProgrammingError) as caught:
            connection.execute("SELECT a FROM nowhere").fetchall()
        assert "nowhere" in str(caught.value)


def test_a_leader_that_stops_hands_over_and_comes_back(members: Members) -> None:
    leader = members.leader()
    others = [node for node in members.running() if node is not leader]
    with others[0].connect() as connection:
        connection.execute("CREATE TABLE handover (a INTEGER)")
        leader.stop()
        assert not leader.running
        connection.execute("INSERT INTO handover VALUES (1)")
        assert connection.execute("SELECT count(*) FROM handover").fetchone()[0] == 1
        index = connection.content_hash()["index"]
    again = members.restart(str(leader.config.node_id))
    with again.connect(read="local") as connection:
        connection.content_hash(index=index, timeout=10.0)
        assert connection.execute("SELECT count(*) FROM handover").fetchone()[0] == 1


def test_a_second_node_on_the_same_directory_is_refused(members: Members) -> None:
    node = next(iter(members.nodes.values()))
    with pytest.raises(ConfigError) as caught:
        raftdb.Node(node.config).start()
    assert "journal" in str(caught.value)
    assert node.running


def test_who_is_asked_to_stop_while_it_begins_anew_stops(members: Members) -> None:
    node = next(iter(members.nodes.values()))
    assembly, executor = node._assembly, node._executor
    assert assembly is not None
    assert executor is not None

    def both() -> None:
        assembly.start_again("a test")
        assembly.stop()

    executor.call_threadsafe(both)
    assert node._ended.wait(30.0)
    assert node.failure is None
    members.restart(str(node.config.node_id))


def test_a_port_in_use_is_named(members: Members) -> None:
    node = next(iter(members.nodes.values()))
    node.stop()
    with socket.socket() as taken:
        taken.bind((node.config.client_listen.host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = replace(node.config, client_listen=replace(node.config.client_listen, port=port))
        with pytest.raises(ConfigError) as caught:
            raftdb.Node(config).start()
    assert str(port) in str(caught.value)
    members.restart(str(node.config.node_id))


def test_anothers_directory_is_refused(members: Members) -> None:
    first, second, *_ = members.founded.members
    config = load_config(str(members.config_path(str(first.node_id))))
    others = load_config(str(members.config_path(str(second.node_id))))
    with pytest.raises(ConfigError) as caught:
        raftdb.Node(replace(config, data_dir=others.data_dir)).start()
    assert str(second.node_id) in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        raftdb.Node(replace(config, data_dir=str(members.directory / "nowhere"))).start()
    assert "nowhere" in str(caught.value)


def test_a_node_starts_once(members: Members) -> None:
    node = next(iter(members.nodes.values()))
    with pytest.raises(InterfaceError):
        node.start()


def test_it_refuses_to_run_without_assertions() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", "import raftdb.embedded"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "-O" in done.stderr


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def test_a_local_read_ends_at_its_deadline(members: Members) -> None:
    node = members.leader()
    with node.connect(read="local") as connection:
        with pytest.raises(raftdb.DeadlineError):
            connection.execute(ENDLESS, timeout=0.1)
        with pytest.raises(raftdb.DeadlineError):
            connection.batch(["SELECT 1", ENDLESS], timeout=0.1)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.last_index > 0


def test_a_cancelled_read_ends_at_the_node_too(members: Members) -> None:
    leader = members.leader()
    other = next(node for node in members.running() if node is not leader)
    # By the network: the connection of another member's link.
    connection = other.connect(timeout=30.0)
    connection.execute("SELECT 1")
    running = leader._assembly.replica._reading._lanes  # type: ignore[union-attr]

    def until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline

    def cancel() -> None:
        until(lambda: sum(running) == 1)
        connection.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(raftdb.OperationalError, match="cancelled"):
        connection.execute(ENDLESS)
    thread.join()
    until(lambda: sum(running) == 0)
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


def test_a_stopped_node_answers_nothing(members: Members) -> None:
    node = next(iter(members.nodes.values()))
    connection = node.connect(read="local")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    node.stop()
    with pytest.raises(raftdb.UnavailableError):
        connection.execute("SELECT 1")
    with pytest.raises(raftdb.UnavailableError):
        connection.batch(["SELECT 1"])
    members.restart(str(node.config.node_id))


@pytest.mark.parametrize("level", ["linearizable", "session", "bounded(5)", "local"])
def test_every_level_at_every_member(members: Members, level: str) -> None:
    leader = members.leader()
    with leader.connect() as writer:
        writer.execute("CREATE TABLE IF NOT EXISTS levels (a)")
        for node in members.running():
            prefer = str(node.config.node_id)
            # By the network, to that one node.
            with leader.connect(prefer=prefer, read=level) as reader:
                for _ in range(10):
                    written = writer.execute("INSERT INTO levels VALUES (1)").index
                    reader.see(writer.token)
                    cursor = reader.execute("SELECT count(*) FROM levels")
                    if level in ("linearizable", "session"):
                        assert cursor.index >= written
                        assert (
                            cursor.fetchone()
                            == writer.execute("SELECT count(*) FROM levels").fetchone()
                        )
                    if level.startswith("bounded"):
                        assert cursor.age_s is not None
                        assert cursor.age_s <= 5
                assert reader.token >= writer.token or level == "local"


def open_cursors(members: Members) -> int:
    found = 0
    for node in members.running():
        assert node._assembly is not None
        found += len(node._assembly.replica._reading.cursors)
    return found


@pytest.mark.parametrize("read", ["linearizable", "local"])
def test_a_stream_is_one_snapshot_and_comes_in_pages(members: Members, read: str) -> None:
    leader = members.leader()
    with leader.connect(timeout=20.0) as db, leader.connect(prefer="n2") as reader:
        db.executescript("DROP TABLE IF EXISTS many; CREATE TABLE many (a)")
        db.executemany("INSERT INTO many VALUES (?)", [(n,) for n in range(15_000)])
        reader.see(db.token)
        if read == "local":
            reader.execute("SELECT 1", read="session")
        cursor = reader.execute("SELECT a FROM many ORDER BY rowid", stream=True, read=read)
        assert cursor.description is not None
        assert cursor.index > 0
        seen = [cursor.fetchone()[0] for _ in range(3_000)]
        db.execute("DELETE FROM many")
        seen += [row[0] for row in cursor.fetchmany(4_500)]
        assert len(cursor._rows) <= 2_000
        assert open_cursors(members) == 1
        # The connection is free for other things meanwhile.
        assert reader.execute("SELECT count(*) FROM many").fetchone() == (0,)
        seen += [row[0] for row in cursor]
        assert seen == list(range(15_000))
        assert open_cursors(members) == 0
        assert cursor.fetchall() == []
        empty = reader.execute("SELECT a FROM many", stream=True)
        assert empty.fetchall() == []
        assert empty.description is not None


def test_a_stream_that_is_left_or_cut_or_wrong(members: Members) -> None:
    leader = members.leader()
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"

    def until_closed() -> None:
        deadline = time.monotonic() + 10
        while open_cursors(members):
            assert time.monotonic() < deadline

    with leader.connect() as db:
        cursor = db.execute(many, stream=True)
        assert cursor.fetchmany(2) == [(1,), (2,)]
        cursor.execute("SELECT 7")
        assert cursor.fetchall() == [(7,)]
        until_closed()
        cursor = db.execute(many, stream=True)
        db.close()
    until_closed()
    with leader.connect() as db:
        for sql in ("DELETE FROM nowhere", "WITH x AS (SELECT 1) DELETE FROM warm"):
            with pytest.raises(ProgrammingError, match="only queries"):
                db.execute(sql, stream=True)
        with pytest.raises(ProgrammingError, match="nonsense"):
            db.execute("SELECT nonsense", stream=True)
        with pytest.raises(raftdb.DeadlineError):
            db.execute(ENDLESS, stream=True, timeout=0.3)
        until_closed()
        cursor = db.execute(many, stream=True)
        assert leader._assembly is not None
        cursors = leader._assembly.replica._reading.cursors
        assert leader._loop is not None
        for number in list(cursors._open):
            leader._loop.call_soon_threadsafe(cursors.close, number)
        until_closed()
        with pytest.raises(raftdb.OperationalError) as caught:
            cursor.fetchall()
        assert caught.value.code == "cursor_gone"
        assert db.execute("SELECT 1").fetchone() == (1,)


def test_nodes_are_compared_while_they_are_written_to(members: Members) -> None:
    """However much is written: all are asked about one index, and that comes to an end."""
    stop = threading.Event()
    url = str(members.founded.url)
    with raftdb.connect(url) as db:
        db.execute("CREATE TABLE IF NOT EXISTS busy (a)")

    def write() -> None:
        with raftdb.connect(url) as db, db.pipeline() as p:
            while not stop.is_set():
                p.execute("INSERT INTO busy VALUES (random())")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        target = Target(url)
        addresses = {n.node_id: n.address for n in cluster_status(target).nodes}
        report = check_nodes(addresses, connect_to_node(target, 10.0))
    finally:
        stop.set()
        writer.join()
    assert (report.equal, report.complete) == (True, True), report
    assert report.index > 0
