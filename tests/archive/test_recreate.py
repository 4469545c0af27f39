"""A whole cluster from its archive: in the old one's place, or beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import raftdb
from raftdb.base.config import ArchiveConfig, load_config
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.command import ReadToken
from raftdb.command.requests import session_number
from raftdb.journal import Journal
from raftdb.journal.inspect import inspect_journal
from raftdb.machine import Machine, begin_history
from raftdb.ops.found import found_local
from raftdb.runtime.random import RealRandom
from tests.archive.support import filled, restored, sources
from tests.archive.test_uploader import all_archived, cluster, wait_for
from tests.cli.conftest import Command
from tests.cli.conftest import raftdb as command  # noqa: F401
from tests.machine.support import FILES, HISTORY, Entry, Limits, MemoryLog


def _start(directory: Path) -> list[raftdb.Node]:
    paths = sorted(directory.glob("n*/raftdb.toml"))
    return [raftdb.Node(load_config(str(path))).start() for path in paths]


def test_a_cluster_in_the_old_ones_place(tmp_path: Path, command: Command) -> None:  # noqa: F811
    url = f"file://{tmp_path}/a"
    config = ArchiveConfig(destinations=(url,), interval_ms=100)
    with cluster(tmp_path / "old", config) as nodes:
        port = min(one.peer_address.port for one in nodes[0].config.members)
        addresses = ",".join(str(one.client_address) for one in nodes[0].config.members)
        connection = raftdb.connect(f"raftdb://{addresses}/", insecure=True, timeout=20.0)
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        for number in range(30):
            connection.execute("INSERT INTO t(x) VALUES (?)", (number,))
        connection.commit()
        wait_for("all of it to be archived", lambda: all_archived(nodes))
    old = nodes[0].config
    options = ("--from", url, "--to", tmp_path / "new", "--local", 3, "--insecure")
    done = command("restore", *options, "--base-port", port, "--replace", "--json")
    assert done.code == 0, done
    assert done.json()["proven"]
    new = _start(tmp_path / "new")
    try:
        assert new[0].config.cluster_id == old.cluster_id
        assert new[0].config.history != old.history
        # The client that was connected to the old one goes on, in its session.
        connection.execute("INSERT INTO t(x) VALUES (30)")
        connection.commit()
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (31,)
        connection.close()
        wait_for("the new one to archive", lambda: all_archived(new))
    finally:
        for node in new:
            node.stop()
    found = command("archive", "status", "--from", url, "--json").json()
    assert found["destinations"][0]["epoch"] == 2
    assert found["problems"] == []
    verified = command("archive", "verify", "--from", url, "--restore")
    assert verified.code == 0, verified
    # An old node that comes back is told.
    late = raftdb.Node(replace(old, archive=config)).start()
    try:
        wait_for("it to stop", lambda: late.failure is not None)
        assert "restored elsewhere" in str(late.failure)
    finally:
        late.stop()


def test_the_old_authority_goes_on(tmp_path: Path, command: Command) -> None:  # noqa: F811
    """Clients keep their certificates, and trust the new nodes."""
    url = f"file://{tmp_path}/a"
    founded = found_local(tmp_path / "old", locations=["local/rack1"])
    config = ArchiveConfig(destinations=(url,), interval_ms=100)
    path = tmp_path / "old" / "n1" / "raftdb.toml"
    with raftdb.Node(replace(load_config(str(path)), archive=config)) as node:
        with raftdb.connect(founded.url, timeout=20.0) as connection:
            connection.execute("CREATE TABLE t(x)")
            token = connection.token
        wait_for("all of it to be archived", lambda: all_archived([node]))
    old = founded.members[0]
    options = (
        "--from",
        url,
        "--to",
        tmp_path / "new",
        "--replace",
        "--ca",
        tmp_path / "old" / "ca",
    )
    spec = f"n1,location=local/rack1,peer={old.peer_address},client={old.client_address}"
    assert command("restore", *options, "--insecure", "--node", spec).code == 2
    done = command("restore", *options, "--node", spec)
    assert done.code == 0, done
    [new] = _start(tmp_path / "new")
    try:
        # The old cluster's client file and certificates, at the same address; its token, too.
        with raftdb.connect(founded.url, timeout=20.0, read="session") as connection:
            connection.see(token)
            assert connection.execute("SELECT x FROM t").fetchall() == []
            later = replace(ReadToken.from_text(token), index=1 << 40)
            with raftdb.connect(founded.url, timeout=20.0, read="session") as other:
                other.see(later.to_text())
                with pytest.raises(raftdb.InterfaceError, match="another history"):
                    other.execute("SELECT x FROM t")
            connection.execute("INSERT INTO t VALUES (1)")
            assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    finally:
        new.stop()
    assert command("cert", "show", "--dir", tmp_path / "new").code == 0
    other = found_local(tmp_path / "other", locations=["local/rack1"])
    wrong = command("restore", *options[:5], "--ca", other.directory / "ca", "--node", spec)
    assert wrong.code == 2


def test_a_clone_is_a_cluster_of_its_own(tmp_path: Path, command: Command) -> None:  # noqa: F811
    live = filled(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} {key.hex()}\n" for name, key in live.keyring.keys.items()))
    options = ("--from", tmp_path / "archive", "--key-file", keys, "--to", tmp_path / "clone")
    assert command("restore", *options, "--local", 1, "--insecure").code == 2
    assert command("restore", *options, "--clone").code == 2
    done = command(
        "restore", *options, "--index", "12.1", "--local", 1, "--insecure", "--clone", "--json"
    )
    assert done.code == 0, done
    assert bytes.fromhex(done.json()["content_hash"]) == live.hashes[13, 0]
    [node] = _start(tmp_path / "clone")
    try:
        assert node.config.archive.destinations == ()
        with node.connect(timeout=20.0) as connection:
            connection.execute("INSERT INTO t(x) VALUES ('new')")
            connection.commit()
        assert node.status()["history"] != HISTORY
    finally:
        node.stop()
    assert len(live.archive.claims()) == 1
    live.close()


def test_sessions_of_the_past_are_good_up_to_the_fork(tmp_path: Path) -> None:
    """What was applied before the disaster is not applied again; a later session is unknown."""
    live = filled(tmp_path)
    last = live.database.entries[-1]
    _plan, done = restored(sources(live.store), tmp_path / "work")
    directory = str(tmp_path / "new")
    Machine.install(directory, done.copy, history=done.history, files=FILES)
    history = HistoryId("e" * 32)
    begin_history(directory, history, [(HISTORY, Index(done.index), 0)], files=FILES)
    machine = Machine.open(
        directory, history=history, limits=Limits(), files=FILES, log=MemoryLog()
    )
    [(name, highest)] = machine.lineage
    assert name == HISTORY
    assert live.database.session <= highest < session_number(done.index + 1, 0)
    before = machine.content_hash().total
    again = Entry(Index(done.index + 1), Term(5), last.payloads)
    replies = machine.apply([again])
    assert machine.content_hash().total == before == live.machine.content_hash().total
    assert len(replies[0]) == len(last.payloads)
    machine.close()
    # A second fork keeps the first one's past; a line of its own keeps nothing.
    later = [(HISTORY, Index(done.index), 0), (history, Index(done.index + 1), 2)]
    begin_history(directory, HistoryId("f" * 32), later, files=FILES)
    machine = Machine.open(
        directory, history=HistoryId("f" * 32), limits=Limits(), files=FILES, log=MemoryLog()
    )
    assert [one for one, _last in machine.lineage] == [HISTORY, history]
    assert machine.sessions_open() == 1
    machine.close()
    begin_history(directory, HistoryId("9" * 32), [], files=FILES)
    machine = Machine.open(
        directory, history=HistoryId("9" * 32), limits=Limits(), files=FILES, log=MemoryLog()
    )
    assert machine.sessions_open() == 0
    assert machine.lineage == ()
    machine.close()
    live.close()


def test_a_journal_begins_where_the_restored_database_is(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    Journal.create(FILES, directory, RealRandom(), (1234, 7))
    report = inspect_journal(FILES, directory)
    assert (report.first_index, report.last_index, report.last_term) == (1234, 1234, 7)
    assert not report.damage
