"""Real processes whose members come and go under load."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import ConfigError, Error
from raftdb.base.settings import MemberConfig
from raftdb.cli.member import with_learner
from raftdb.client import Connection, connect
from raftdb.demo.processes import NodeProcess
from raftdb.ops.found import free_ports, parse_member
from raftdb.ops.member import (
    add_member,
    change_member,
    list_members,
    prepare_member,
    replace_member,
)
from raftdb.ops.status import cluster_status
from raftdb.ops.target import Target
from raftdb.runtime import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom
from raftdb.security import found_certificates, issue_token, read_token, write_token
from tests.e2e.cluster import Cluster, raftdb, running_cluster

CLOCK = RealClock()
WAIT_S = 60.0
LEVELS = ("linearizable", "session", "local")


class Load:
    """One client that inserts numbers, each once, and never gives up on one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = threading.Event()
        self.acknowledged = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            try:
                self._connection.execute("INSERT INTO n VALUES (?)", (self.acknowledged,))
            except Error as error:
                self.failures.append(f"{error.code}: {error}")
                return
            self.acknowledged += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)


def new_node(cluster: Cluster, name: str, location: str) -> MemberConfig:
    """Its directory made, and its process started."""
    port = free_ports(2)
    text = f"{name},location={location},peer=127.0.0.1:{port},client=127.0.0.1:{port + 1}"
    member = parse_member(text)
    with cluster.connect() as connection:
        status, known = connection.status(), list_members(connection)["members"]
    made = prepare_member(
        *(cluster.directory, member, status, known, RealFiles(), RealRandom(), CLOCK, with_learner),
        insecure=False,
    )
    assert made == cluster.directory / name / "raftdb.toml"
    cluster.processes.nodes[name] = NodeProcess(name, cluster.directory / name)
    cluster.start(name)
    return member


def joined_node(cluster: Cluster, name: str, location: str) -> MemberConfig:
    """As `new_node`, by a token and by commands, in a directory elsewhere; it is added already."""
    port = free_ports(2)
    text = f"{name},location={location},peer=127.0.0.1:{port},client=127.0.0.1:{port + 1}"
    path, place = cluster.directory / "token", cluster.directory.parent / "elsewhere" / name
    done = raftdb("member", "token", name, "--dir", str(cluster.directory), "--to", str(path))
    assert done.code == 0, done
    where = ("--location", location, "--peer", f"127.0.0.1:{port}")
    where = (*where, "--client", f"127.0.0.1:{port + 1}")
    fingerprint = done.out.split(" CA ")[1].split()[0]
    foreign = raftdb("join", str(path), "--data", str(place), *where, "--ca", "00" * 32)
    assert foreign.code == 2
    assert "token_foreign" in foreign.err
    # By a CA that is not this cluster's, whatever it calls itself.
    other, read = place.parent / "other", read_token(path.read_text())
    found_certificates(str(other), read.cluster_id, [])
    text_of_other, *_ = issue_token(str(other / "ca"), read.node_id, read.history, read.addresses)
    write_token(str(other / "token"), text_of_other)
    foreign = raftdb("join", str(other / "token"), "--data", str(place), *where)
    assert foreign.code == 2
    assert "token_foreign" in foreign.err
    done = raftdb("join", str(path), "--data", str(place), *where, "--ca", fingerprint)
    assert done.code == 0, done
    assert f"raftdb start --config {place}/raftdb.toml" in done.out
    # Whoever else has the token comes too late; the same command here changes nothing.
    late = raftdb("join", str(path), "--data", f"{place}-late", *where)
    assert late.code == 2
    assert "token_used" in late.err
    assert not Path(f"{place}-late").exists()
    cluster.processes.nodes[name] = NodeProcess(name, place)
    cluster.start(name)
    done = raftdb("join", str(path), "--data", str(place), *where, "--promote", "--timeout", "60")
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == f"{name} is a voter"
    return parse_member(text)


def roles(connection: Connection) -> dict[str, str]:
    return {one["node_id"]: one["role"] for one in list_members(connection)["members"]}


def test_members_come_and_go_under_load(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c") as cluster, cluster.connect() as admin:
        admin.execute("CREATE TABLE n(x INTEGER PRIMARY KEY)")
        with cluster.connect() as writing:
            load = Load(writing)
            try:
                _change(cluster, admin)
            finally:
                load.stop()
        assert load.failures == []
        assert load.acknowledged > 50
        rows = admin.execute("SELECT count(*), max(x) FROM n").fetchall()
        assert rows == [(load.acknowledged, load.acknowledged - 1)]
        # The same on each of those that are left, and nobody else runs.
        for name in roles(admin):
            cluster.wait_for(
                f"{name} has all", lambda name=name: _rows(cluster, name) == load.acknowledged
            )


def _listed(status: dict[str, Any]) -> list[str]:
    return [str(one["node_id"]) for one in status["members"]]


def _rows(cluster: Cluster, name: str) -> int:
    url = f"raftdb://{_client_address(cluster, name)}/" + "?" + cluster.url.split("?", 1)[1]
    with connect(url, read="local", pin=True, timeout=5.0) as connection:
        return int(connection.execute("SELECT count(*) FROM n").fetchall()[0][0])


def _client_address(cluster: Cluster, name: str) -> str:
    with cluster.connect() as connection:
        members = list_members(connection)["members"]
    return next(str(one["client_address"]) for one in members if one["node_id"] == name)


def _change(cluster: Cluster, admin: Connection) -> None:
    """Add, promote, remove the leader, kill one and replace it."""
    n4 = joined_node(cluster, "n4", "local/rack4")
    add_member(admin, n4, timeout_s=WAIT_S)
    change_member(admin, "demote", "n4", timeout_s=WAIT_S, clock=CLOCK)
    assert roles(admin) == {"n1": "voter", "n2": "voter", "n3": "voter", "n4": "learner"}
    change_member(admin, "promote", "n4", timeout_s=WAIT_S, clock=CLOCK)
    assert roles(admin)["n4"] == "voter"

    leader = str(admin.status()["leader"])
    change_member(admin, "remove", leader, timeout_s=WAIT_S, clock=CLOCK)
    gone = cluster.node(leader)
    assert gone.process is not None
    assert gone.process.wait(WAIT_S) == 2
    # It knows, also at its next start, and says what to do.
    done = raftdb("start", "--config", str(cluster.node(leader).directory / "raftdb.toml"))
    assert done.code == 2
    assert "was removed from the cluster" in done.err
    del cluster.processes.nodes[leader]

    left = sorted(roles(admin))
    assert len(left) == 3
    for name in sorted({"n1", "n2", "n3"} - {leader}):
        cluster.wait_for(f"{name} knows", lambda name=name: _listed(cluster.status(name)) == left)
    victim = next(one for one in left if one != str(admin.status()["leader"]))
    cluster.kill(victim)
    del cluster.processes.nodes[victim]
    n5 = new_node(cluster, "n5", "local/rack5")
    told = replace_member(admin, victim, n5, timeout_s=WAIT_S, clock=CLOCK)
    assert [one["node_id"] for one in told["members"]] == sorted({*left, "n5"} - {victim})
    assert set(told["removed"]) == {leader, victim}
    assert list_members(admin)["removed"] == told["removed"]
    with pytest.raises(ConfigError, match="never used again"):
        add_member(admin, parse_member(_text(n4, victim)), timeout_s=WAIT_S)
    _leave(cluster, admin)


def _leave(cluster: Cluster, admin: Connection) -> None:
    """The leader of three must not leave while one is down; with all there it does, and it ends."""
    leader = cluster.wait_for("all are there", lambda: _complete(cluster))
    config = str(cluster.node(leader).directory / "raftdb.toml")
    asleep = next(one for one in roles(admin) if one != leader)
    cluster.kill(asleep)
    refused = raftdb("leave", "--config", config, "--json")
    assert refused.code == 3
    assert '"no_quorum"' in refused.err
    assert leader in roles(admin)
    cluster.start(asleep)

    leader = cluster.wait_for("all are there again", lambda: _complete(cluster))
    config = str(cluster.node(leader).directory / "raftdb.toml")
    with _clients_of(cluster, leader):
        done = raftdb("leave", "--config", config)
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert lines[0].endswith(" leads")
    assert lines[0].split()[0] != leader
    assert lines[1] == "removed from the members"
    assert lines[2].startswith(f"{leader} has left the cluster, and its process has ended.")
    gone = cluster.node(leader)
    assert gone.process is not None
    assert gone.process.wait(WAIT_S) == 2
    last = (cluster.node(leader).directory / "node.log").read_text("utf-8").splitlines()[-1]
    assert " exit " in last
    assert f"node {leader} was removed from the cluster" in last
    assert leader not in roles(admin)
    # Asked again it is done already.
    assert raftdb("leave", "--config", config).code == 0
    del cluster.processes.nodes[leader]


@contextmanager
def _clients_of(cluster: Cluster, node_id: str) -> Iterator[None]:
    """Clients that ask that node before all others, at each level: no request of theirs fails."""
    over, problems, counts = threading.Event(), list[str](), Counter[str]()

    def work(level: str) -> None:
        try:
            with cluster.connect(prefer=node_id, read=level) as connection:
                while not over.is_set() or not counts[level]:
                    connection.execute("INSERT INTO bound VALUES (?)", (level,))
                    connection.execute("SELECT count(*) FROM bound").fetchall()
                    counts[level] += 1
                found = connection.execute(
                    "SELECT count(*) FROM bound WHERE level = ?", (level,), read="linearizable"
                ).fetchall()
                assert found == [(counts[level],)], "each once"
        except (Error, AssertionError) as error:
            problems.append(f"{level}: {error}")

    with cluster.connect() as connection:
        connection.execute("CREATE TABLE bound (level)")
    threads = [threading.Thread(target=work, args=(one,)) for one in LEVELS]
    for thread in threads:
        thread.start()
    cluster.wait_for("requests of all", lambda: problems or len(counts) == len(LEVELS))
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert problems == []


def _complete(cluster: Cluster) -> str:
    """Who leads, once all voters follow it."""
    state = cluster_status(Target(cluster.url))
    return str(state.leader) if state.leader and state.with_leader == state.voters == 3 else ""


def _text(member: MemberConfig, name: str) -> str:
    return f"{name},location={member.location},peer=127.0.0.1:1,client=127.0.0.1:2"
