"""A rolling restart as `raftdb upgrade plan` has it, under load: no request fails. (Two releases
mixed: the drill release-rollback. Here is one, with the same commands.)"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from raftdb._version import __version__
from tests.cli.conftest import Command
from tests.e2e.cluster import Cluster, running_cluster


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
    with running_cluster(tmp_path / "c") as cluster:
        place = ("--dir", cluster.directory)
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE n (a INTEGER PRIMARY KEY)")
        told = raftdb("upgrade", "plan", "--to", "0.2.1", *place, "--json").json()
        order = [step["node_id"] for step in told["steps"]]
        assert sorted(order) == ["n1", "n2", "n3"]
        assert told["steps"][-1]["role"] == "leader"
        with Writer(cluster) as writer:
            for node_id in order:
                writer.wait_for_more()
                assert cluster.stop(node_id, timeout_s=60.0) == {node_id: 0}
                cluster.start(node_id)
                waits = ("--wait", f"{node_id}={__version__}", "--timeout", "60")
                back = raftdb("upgrade", "status", *waits, *place)
                assert back.code == 0, back
            writer.wait_for_more()
            raised = raftdb("upgrade", "finalize", *place, "--timeout", "60", "--json")
            assert raised.code == 0, raised
            assert raised.json()["feature_level"] == 2
            writer.wait_for_more()
        assert writer.errors == []
        with cluster.connect() as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM n").fetchall()
        assert count == writer.done

        # One member away: named, and nothing is done; and nobody goes below the level.
        cluster.kill("n2")
        refused = raftdb("upgrade", "finalize", *place, "--json")
        assert refused.code == 1, refused
        assert "n2 does not answer" in refused.err
        waited = raftdb("upgrade", "status", "--wait", "n2=0.2.0", *place, "--timeout", "0.1")
        assert waited.code == 3, waited
        assert "do not go on with the next node" in waited.err
        back = raftdb("upgrade", "rollback", "--to", "0.1.0", *place)
        assert back.code == 2, back
