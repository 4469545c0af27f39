"""Five nodes in four regions, written in three of them at least; one region is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.base.errors import Error
from tests.e2e.cluster import Cluster, Finished, raftdb, running_cluster

PLACES = ("eu/madrid/r1", "eu/lyon/r1", "us/east/r1", "asia/tokyo/r1", "sa/rio/r1")


def settings(cluster: Cluster, *changes: str) -> Finished:
    return raftdb("cluster", "settings", "set", *changes, "--dir", cluster.directory)


def regions(cluster: Cluster, leader: str, index: int) -> list[str]:
    """Where that index is on disk, as the leader knows."""
    found = cluster.status(leader)["durable_by_region"]
    return sorted(place for place, upto in found.items() if upto >= index)


def test_a_region_is_lost_and_writes_go_on_in_three_others(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c", nodes=5, locations=PLACES) as cluster:
        done = settings(
            cluster, "survive=region", "durability=locations=3", "leader_preference=eu,us"
        )
        assert done.code == 0, done
        refused = settings(cluster, "durability=locations=4")
        assert refused.code == 2, refused
        assert "needs 5 regions" in refused.err, refused
        moved = raftdb("leader", "move", "--to", "eu", "--dir", cluster.directory)
        assert moved.code == 0, moved
        leader = cluster.wait_for_leader()
        assert leader in ("n1", "n2")
        with cluster.connect() as db:
            db.execute("CREATE TABLE t(a)")
            db.execute("INSERT INTO t VALUES (1)")
            assert len(regions(cluster, leader, db.last_index)) >= 3
            with db.pipeline() as p:
                p.execute("INSERT INTO t VALUES (0)", durability="quorum")
                reply = p.execute("INSERT INTO t VALUES (2)", durability="locations=4")
                p.execute("DELETE FROM t WHERE a = 0", durability="quorum")
                p.sync()
                assert len(regions(cluster, leader, reply.index)) == 4

            cluster.kill("n1", "n2")
            db.execute("INSERT INTO t VALUES (3)")
            leader = cluster.wait_for_leader()
            assert regions(cluster, leader, db.last_index) == ["asia", "sa", "us"]
            with pytest.raises(Error) as caught:
                db.execute("INSERT INTO t VALUES (4)", durability="locations=4", timeout=2.0)
            error = caught.value
            assert (error.code, error.outcome) == ("too_few_locations", "not_applied")
            assert error.retryable
            assert "survive=region is not kept" in cluster.status(leader)["survival"]["problem"]
            assert db.execute("SELECT count(*) FROM t").fetchone() == (3,)

            cluster.start("n1", "n2")
            db.execute("INSERT INTO t VALUES (5)", durability="locations=4")
            assert db.execute("SELECT sum(a) FROM t").fetchone() == (11,)
