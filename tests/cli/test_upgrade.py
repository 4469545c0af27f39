"""A rolling restart as `raftdb upgrade plan` has it, under load: no request fails. (Two releases
mixed: the drill release-rollback. Here is one, with the same commands.)"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from raftdb._version import __version__
from raftdb.ops.status import ClusterState, NodeState
from tests.cli.conftest import Command
from tests.e2e.cluster import Cluster, running_cluster
from tests.ops.test_upgrade import cluster, node, three

PATIENT = ("--timeout", "120")


class Writer:
    """Inserts numbers until it is told to stop; what failed is kept."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self.done = 0
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._cluster.connect() as connection:
                while not self._stop.is_set():
                    connection.execute("INSERT INTO n VALUES (?)", (self.done + 1,))
                    with self._moved:
                        self.done += 1
                        self._moved.notify_all()
        except BaseException as error:
            self.errors.append(error)

    def wait_for_more(self) -> None:
        """Something was written after this call began."""
        with self._moved:
            before = self.done
            assert self._moved.wait_for(lambda: self.done > before or self.errors, 60), self.errors


@pytest.mark.timeout(300)
def test_node_by_node_and_finalized_without_a_failed_request(
    tmp_path: Path, raftdb: Command
) -> None:
    with running_cluster(tmp_path / "c") as running:
        place = ("--dir", running.directory)
        with running.connect() as connection:
            connection.execute("CREATE TABLE n (a INTEGER PRIMARY KEY)")
        told = raftdb("upgrade", "plan", "--to", "0.2.1", *place, *PATIENT, "--json").json()
        order = [step["node_id"] for step in told["steps"]]
        assert sorted(order) == ["n1", "n2", "n3"]
        assert told["steps"][-1]["role"] == "leader"
        back = raftdb(
            *("upgrade", "rollback", "--to", "0.1.0", "--package", sys.executable),
            *(*place, *PATIENT, "--json"),
        )
        assert back.code == 1, back
        wrong = [one for one in back.json()["checks"] if not one["ok"]]
        assert [one["name"] for one in wrong] == ["package"]
        assert f"is raftdb {__version__}, not 0.1.0" in wrong[0]["detail"]
        assert [step["node_id"] for step in back.json()["steps"]] == order
        with Writer(running) as writer:
            for node_id in order:
                writer.wait_for_more()
                assert running.stop(node_id, timeout_s=60.0) == {node_id: 0}
                running.start(node_id)
                waits = ("--wait", f"{node_id}={__version__}", *PATIENT)
                back = raftdb("upgrade", "status", *waits, *place)
                assert back.code == 0, back
            writer.wait_for_more()
            raised = raftdb("upgrade", "finalize", *place, *PATIENT, "--json")
            assert raised.code == 0, raised
            assert raised.json()["feature_level"] == 2
            writer.wait_for_more()
        assert writer.errors == []
        with running.connect() as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM n").fetchall()
        assert count == writer.done

        # Nobody goes below the level; and a node that is away holds up the next step.
        back = raftdb("upgrade", "rollback", "--to", "0.1.0", *place, *PATIENT)
        assert back.code == 2, back
        assert "does not run feature level 2" in back.err
        running.kill("n2")
        waited = raftdb("upgrade", "status", "--wait", "n2=0.2.0", *place, "--timeout", "0.1")
        assert waited.code == 3, waited
        assert "do not go on with the next node" in waited.err


URL = "raftdb://127.0.0.1:1/?insecure=1"


@pytest.mark.parametrize(
    ("state", "named"),
    [
        (three("0.1.0", "0.2.0", "0.2.0"), "n1 runs 0.1.0"),
        (
            cluster(node("n1", "eu"), NodeState("n2", "n2:1", "us", problem="refused")),
            "n2 does not answer",
        ),
    ],
)
def test_finalize_names_who_does_not_run_it(
    raftdb: Command, monkeypatch: pytest.MonkeyPatch, state: ClusterState, named: str
) -> None:
    monkeypatch.setattr("raftdb.ops.status.cluster_status", lambda *_arguments: state)
    refused = raftdb("upgrade", "finalize", URL, "--json")
    assert refused.code == 1, refused
    assert named in refused.err
    assert "upgrade_incomplete" in refused.err


def test_finalize_twice_and_a_plan_with_nothing_to_do(
    raftdb: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = three("0.2.0", "0.2.0", "0.2.0", level=2)
    monkeypatch.setattr("raftdb.ops.status.cluster_status", lambda *_arguments: state)
    done = raftdb("upgrade", "finalize", URL)
    assert (done.code, done.out) == (0, "feature level 2 on all 3 nodes\n"), done
    done = raftdb("upgrade", "plan", URL, "--to", "0.2.0")
    assert done.code == 0, done
    assert "nothing to do: every member runs 0.2.0" in done.out
    done = raftdb("upgrade", "status", URL, "--wait", "n1")
    assert done.code == 2, done
    assert "is not NODE=VERSION" in done.err
