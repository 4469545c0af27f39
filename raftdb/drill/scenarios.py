"""The scenarios: what breaks, and how the documents say that it is mended."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raftdb.drill.cluster import DrillCluster, command
from raftdb.drill.load import TABLE
from raftdb.drill.majority import log_end_loss, majority_loss
from raftdb.drill.releases import release_crash, release_rollback
from raftdb.drill.stage import Stage
from raftdb.ops.ports import free_ports

ALARM_MS = 2_000
"""In a drill an archive that is behind raises its alarm sooner than by default."""
LOST_TRY_S = 0.5
"""Where the whole cluster goes, clients don't wait long for it before they look for the next."""
ARCHIVED_CLIENTS = 16
"""Each waits for the next upload: more of them write as much."""
ACCIDENT = f"DELETE FROM {TABLE}"
ALARMS_S = 60.0
REPLACE_S = 300


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of drill."""

    name: str
    summary: str
    run: Callable[[Stage], None]
    needs_previous: bool = False
    """The release before this one is run too."""


def leader_kill(stage: Stage) -> None:
    """The leader's process is killed; the others go on; it is started again."""
    stage.begin()
    leader = stage.cluster.wait_for_leader()
    with stage.disaster(f"kill -9 {leader}, the leader"):
        stage.cluster.kill(leader)
    stage.until_committed()
    stage.run_for(stage.seconds)
    stage.phase(f"raftdb start: {leader}")
    stage.cluster.start(leader)
    stage.until_full()
    stage.end()


def node_loss(stage: Stage) -> None:
    """A follower's process is killed; nobody notices; it is started again."""
    stage.begin()
    leader = stage.cluster.wait_for_leader()
    lost = next(name for name in stage.cluster.node_ids if name != leader)
    with stage.disaster(f"kill -9 {lost}, a follower"):
        stage.cluster.kill(lost)
    stage.until_committed()
    stage.run_for(stage.seconds)
    stage.phase(f"raftdb start: {lost}")
    stage.cluster.start(lost)
    stage.until_full()
    stage.end()


def disk_loss(stage: Stage) -> None:
    """The leader's process and disk are gone for good; a new member takes its place."""
    stage.begin()
    cluster = stage.cluster
    lost = cluster.wait_for_leader()
    location = cluster.location(lost)
    with stage.disaster(f"{lost}, the leader, is killed and its directory deleted"):
        cluster.lose(lost)
    stage.until_committed()
    # As many neighbours as the cluster has ports: none of the lost node's, which look free.
    new, port = f"n{stage.result.nodes + 1}", free_ports(2 * stage.result.nodes)
    spec = f"{new},location={location},peer=127.0.0.1:{port},client=127.0.0.1:{port + 1}"
    stage.phase(f"raftdb member prepare {new}; raftdb start")
    command("member", "prepare", spec, "--dir", cluster.directory)
    cluster.adopt(new)
    cluster.start(new)
    stage.phase(f"raftdb member replace {lost} {new}")
    command(
        *("member", "replace", lost, spec, "--dir", cluster.directory),
        *("--timeout", str(REPLACE_S)),
    )
    stage.until_full()
    members = {one["node_id"]: one for one in cluster.status(new)["members"]}
    stage.result.check(f"{lost} is no member any more", lost not in members)
    stage.result.check(f"{new} is a voter", members.get(new, {}).get("role") == "voter")
    stage.end()


def region_loss(stage: Stage) -> None:
    """Every node of the leader's region is killed at once; the region comes back later."""
    stage.begin()
    cluster = stage.cluster
    region = cluster.location(cluster.wait_for_leader()).partition("/")[0]
    lost = [one for one in cluster.node_ids if cluster.location(one).startswith(region + "/")]
    with stage.disaster(f"the region {region} is lost: {', '.join(lost)}, with the leader"):
        cluster.kill(*lost)
    stage.until_committed()
    stage.run_for(stage.seconds)
    stage.phase(f"the region is back; raftdb start: {', '.join(lost)}")
    cluster.start(*lost)
    stage.until_full()
    stage.end()


def total_loss(stage: Stage) -> None:
    """Every node and every disk is gone; a new cluster is made from the archive alone."""
    _total_loss(stage, timeout=LOST_TRY_S)


def total_loss_archived(stage: Stage) -> None:
    """The same, with clients that are acknowledged only when a restore would find the write."""
    _total_loss(stage, clients=ARCHIVED_CLIENTS, durability="archive")


def _total_loss(stage: Stage, **options: Any) -> None:
    stage.require_empty_archive()
    stage.begin(archived=True, **options)
    lost = stage.cluster
    with stage.disaster("all nodes are killed, all their directories deleted"):
        lost.kill()
        lost.delete()
    stage.phase("raftdb restore --replace")
    directory = stage.home / "restored"
    done = command(
        "restore",
        *stage.archive_flags,
        "--to",
        directory,
        "--local",
        str(stage.result.nodes),
        "--replace",
    )
    stage.result.facts["restore"] = done
    stage.result.check("the restored content is proven by its hash", bool(done["proven"]))
    stage.phase(f"restored to {done['point']} in {done['seconds']} s; raftdb start")
    restored = DrillCluster(directory, stage.clock)
    restored.start()
    stage.moved(restored)
    stage.until_committed()
    stage.until_full()
    stage.end()


def point_in_time(stage: Stage) -> None:
    """A statement destroys a table; it is undeleted as of the moment before, and other moments of
    the past are restored and compared with the hashes that were seen live."""
    stage.require_empty_archive()
    stage.begin(archived=True)
    cluster, live = stage.cluster, []
    draw = random.Random(stage.result.started)
    for _ in range(stage.points):
        stage.run_for(draw.uniform(0.1, 0.5))
        with cluster.connect_to(cluster.wait_for_leader()) as connection:
            content = connection.content_hash()
            live.append((int(content["index"]), str(content["total"])))
    before = {write.key for write in stage.load.acknowledged()}
    with stage.disaster(ACCIDENT), cluster.connect() as connection:
        connection.execute(ACCIDENT)
    stage.until_archived(stage.commit_index())
    stage.phase("raftdb undelete --before-statement")
    done = command(
        "undelete",
        "--dir",
        cluster.directory,
        *stage.archive_flags,
        "--before-statement",
        ACCIDENT,
        "--table",
        TABLE,
    )
    stage.result.facts["undelete"] = done
    stage.result.rto_s = stage.phase("the table is back") - stage.disaster_s
    rows = done["tables"][0]["rows"]
    stage.result.check(
        "the rows from before the accident are back", rows >= len(before), f"{rows} rows are back"
    )
    for number, (index, total) in enumerate(live):
        _restore_point(stage, number, index, total)
    stage.end()


def _restore_point(stage: Stage, number: int, index: int, total: str) -> None:
    """Restore one moment into a file, and compare."""
    name = f"entry {index} restores to what was seen live"
    done = command(
        "restore",
        *stage.archive_flags,
        "--index",
        str(index),
        "--to",
        stage.home / f"point{number}.db",
    )
    equal = done["content_hash"] == total
    stage.result.check(name, equal, "" if equal else f"{done['content_hash']}, not {total}")
    stage.phase(name)


def archive_outage(stage: Stage) -> None:
    """The archive cannot be written; the cluster goes on and raises an alarm; the archive comes
    back and is caught up with, and then restores to the end."""
    stage.require_empty_archive()
    stage.begin(archived=True, settings=(f"archive.alarm_ms={ALARM_MS}",))
    away = stage.archive_directory.with_name("archive.away")
    with stage.disaster("the archive cannot be reached any more"):
        stage.archive_directory.rename(away)
        stage.archive_directory.write_text("no directory any more")
    stage.until_committed()
    stage.cluster.wait_for("an alarm", lambda: stage.archive_state()["alarm"], ALARMS_S)
    alarm_s = stage.phase("raftdb status shows the alarm") - stage.disaster_s
    stage.result.facts["alarm_s"] = round(alarm_s, 2)
    stage.run_for(stage.seconds)
    index = stage.commit_index()
    back_s = stage.phase("the archive is back")
    stage.archive_directory.unlink()
    away.rename(stage.archive_directory)
    stage.until_archived(index)
    stage.result.full_s = stage.phase("the backlog is archived") - back_s
    stage.cluster.wait_for(
        "the end of the alarm", lambda: not stage.archive_state()["alarm"], ALARMS_S
    )
    stage.end()
    stage.until_archived(stage.commit_index())
    stage.result.facts["verify"] = command("archive", "verify", *stage.archive_flags, "--restore")
    stage.phase("raftdb archive verify --restore: whole")


SCENARIOS: dict[str, Scenario] = {
    one.name: one
    for one in (
        Scenario("leader-kill", "The leader's process is killed.", leader_kill),
        Scenario("node-loss", "A follower's process is killed.", node_loss),
        Scenario("disk-loss", "A node's disk is gone for good.", disk_loss),
        Scenario("region-loss", "Every node of the leader's region is killed.", region_loss),
        Scenario("majority-loss", "Most voters are gone, disks included.", majority_loss),
        Scenario("log-end-loss", "One of two voters lost its log's end.", log_end_loss),
        Scenario("total-loss", "Every node and disk is gone: archive only.", total_loss),
        Scenario(
            "total-loss-archived",
            "The same; acknowledged was what the archive had.",
            total_loss_archived,
        ),
        Scenario("point-in-time", "A statement destroys a table.", point_in_time),
        Scenario("archive-outage", "The archive cannot be written.", archive_outage),
        Scenario(
            "release-rollback",
            "A release that serves is bad: back, node by node.",
            release_rollback,
            needs_previous=True,
        ),
        Scenario(
            "release-crash",
            "A release crashes on every node: back in one go.",
            release_crash,
            needs_previous=True,
        ),
    )
}

COMPOSED = ("leader-kill", "node-loss", "region-loss")
"""Those that need nothing of a cluster but that its nodes can be killed and started."""
