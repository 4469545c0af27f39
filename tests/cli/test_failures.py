"""The commands while nodes die: what they show, and what they survive."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.e2e.cluster import Cluster
from tests.e2e.cluster import raftdb as raftdb_process


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "c")
    try:
        yield made
    finally:
        made.kill()


def test_nobody_there(cluster: Cluster, raftdb: Command) -> None:
    for command in (("status",), ("sql", "-c", "SELECT 1"), ("check",), ("leader", "show")):
        done = raftdb(*command, "--dir", cluster.directory, "--timeout", "1", "--json")
        assert done.code == 3, done
        assert json.loads(done.err)["error"]["exit_code"] == 3


def test_status_from_all_up_to_one_left(cluster: Cluster, raftdb: Command) -> None:
    leader = cluster.start_and_wait()
    follower = next(one for one in cluster.node_ids if one != leader)
    cluster.kill(follower)
    done = raftdb("status", "--dir", cluster.directory)
    assert done.code == 0, done
    assert f"problem: {follower} does not answer" in done.err
    assert "unreachable" in done.out
    assert raftdb("check", "--dir", cluster.directory).code == 3

    cluster.kill(leader)
    cluster.wait_for(
        "no leader",
        lambda: raftdb("status", "--dir", cluster.directory, "--json").code == 3,
    )
    done = raftdb("sql", "--dir", cluster.directory, "-c", "SELECT 1", "--timeout", "2")
    assert done.code == 3, done
    done = raftdb("sql", "--dir", cluster.directory, "-c", "SELECT 1", "--read", "local")
    assert done.code == 0, done

    cluster.start(leader, follower)
    cluster.wait_for_leader()
    cluster.wait_for(
        "all nodes again",
        lambda: raftdb("status", "--dir", cluster.directory, "--json").json()["with_leader"] == 3,
    )
    assert raftdb("check", "--dir", cluster.directory).code == 0


def test_a_load_goes_on_while_the_leader_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    leader = cluster.start_and_wait()
    path = tmp_path / "many.csv"
    path.write_text("n\n" + "".join(f"{n}\n" for n in range(20_000)))
    with (
        subprocess.Popen(
            [
                *(sys.executable, "-m", "raftdb.cli", "load", str(path), "--table", "many"),
                *("--dir", str(cluster.directory), "--create", "--batch-rows", "50", "--json"),
                *("--timeout", "20"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as loader,
        cluster.connect() as connection,
    ):

        def rows() -> int:
            if not connection.execute(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'many'"
            ).fetchall()[0][0]:
                return 0
            return int(connection.execute("SELECT count(*) FROM many").fetchall()[0][0])

        cluster.wait_for("some rows", lambda: rows() > 1000)
        cluster.kill(leader)
        out, err = loader.communicate(timeout=60)
        assert loader.returncode == 0, err
        assert json.loads(out)[0]["rows"] == 20_000
        counted = connection.execute("SELECT count(*), count(DISTINCT n) FROM many").fetchall()
        assert counted == [(20_000, 20_000)]


def test_a_stopped_node_is_inspected(cluster: Cluster, raftdb: Command) -> None:
    cluster.start_and_wait()
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE seen (a)")
        connection.execute("INSERT INTO seen VALUES (?)", ("a parameter",))
        index = connection.last_index
    cluster.wait_for_index(index)
    codes = cluster.stop()
    assert codes == {"n1": 0, "n2": 0, "n3": 0}, cluster.logs()
    for node_id in cluster.node_ids:
        done = raftdb("inspect", cluster.directory / node_id, "--json")
        assert done.code == 0, done
        facts = done.json()
        assert facts["journal"]["last_index"] >= index
        assert facts["database"]["applied_index"] >= index
    done = raftdb("inspect", cluster.directory / "n1", "--entries", f"{index}:{index}")
    [entry] = [json.loads(line) for line in done.out.splitlines()]
    [request] = entry["requests"]
    assert request["kind"] == "Execute"
    assert request["statements"][0]["sql"] == "INSERT INTO seen VALUES (?)"
    assert request["statements"][0]["first_parameters"] == ["a parameter"]


def test_a_node_that_cannot_start_says_why(cluster: Cluster, tmp_path: Path) -> None:
    config = cluster.directory / "n1" / "raftdb.toml"
    empty = raftdb_process("start", "--config", config, "--data-dir", tmp_path / "empty")
    assert empty.code == 2, empty
    foreign = raftdb_process(
        "start", "--config", config, "--data-dir", cluster.directory / "n2" / "data"
    )
    assert foreign.code == 2, foreign
    assert "n2" in foreign.err

    segment = damage_log(cluster)
    cluster.start("n1")
    cluster.wait_for("it says so, and waits for the others", lambda: str(segment) in cluster.logs())
    assert "damage_found" in cluster.logs()
    assert cluster.stop("n1") == {"n1": 0}


def test_a_node_that_nobody_can_heal_says_what_is_damaged(tmp_path: Path) -> None:
    alone = Cluster(tmp_path / "c", nodes=1)
    segment = damage_log(alone)
    damaged = raftdb_process("start", "--config", alone.directory / "n1" / "raftdb.toml")
    assert damaged.code == 4, damaged
    assert str(segment) in damaged.err


EARLY = """
import os, signal, sys, raftdb.cli, raftdb.cli.app as app
run = app.run_and_leave
def main():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    run()
app.run_and_leave = main
raftdb.cli.main()
"""


def test_a_node_is_stopped_in_order_from_its_first_moments_on(cluster: Cluster) -> None:
    """Before it knows which command it is to run."""
    config = cluster.directory / "n1" / "raftdb.toml"
    words = [sys.executable, "-c", EARLY, "start", "--config", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "asked to before it began" in done.stderr


def damage_log(cluster: Cluster) -> Path:
    """Flip bits in the header of the only segment of n1's log."""
    [segment] = (cluster.directory / "n1" / "data" / "journal").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[20] ^= 0xFF
    segment.write_bytes(data)
    return segment


def test_a_port_in_use_is_an_error_of_configuration(cluster: Cluster) -> None:
    cluster.start("n1")
    cluster.wait_for("n1 listens", lambda: cluster.status("n1"))
    config = cluster.directory / "n2" / "raftdb.toml"
    taken = str(cluster.founded.members[0].client_address)
    done = raftdb_process("start", "--config", config, "--client-listen", taken)
    assert done.code == 2, done
    assert taken in done.err
