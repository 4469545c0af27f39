"""A whole new cluster from a restored copy: a new fork of the history, on as many nodes as asked.

`replace` takes the old cluster's place: its id, its lineage and its clients' sessions, and the
archive, whose next epoch is claimed before anything else is done. `clone` is another cluster.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from raftdb.archive import Archive, Claim, Point, Restored, Sources, load_timeline
from raftdb.base.config import ArchiveConfig, NodeConfig
from raftdb.base.errors import ConfigError
from raftdb.base.ids import ClusterId, HistoryId, Index
from raftdb.base.layout import database_path, journal_path
from raftdb.base.ports import Clock, Files, Random
from raftdb.base.settings import MemberConfig
from raftdb.journal import Journal
from raftdb.machine import Machine, begin_history
from raftdb.ops.archive import Destinations
from raftdb.ops.found import LocalCluster, Origin, found_cluster

__all__ = ["claim_epoch", "claim_newest", "lineage_of", "recreate_cluster"]

CLAIM = "raftdb restore --replace"
CLAIMS_MAX = 5
"""An uploader stops at the first thing that it adds after a claim; there may be some."""


def claim_epoch(found: Destinations, point: Point, history: HistoryId, clock: Clock) -> None:
    """End the former history at `point`, in every destination (rule A2): its uploaders and nodes
    stop when they see it. Raises ConfigError when another restore was faster."""
    for line in found.sources.timelines:
        archive = line.archive
        claims = archive.claims()
        # Where an earlier epoch was claimed elsewhere alone, what follows that is nobody's past.
        fork = min(point, Point(line.left_at))
        claim = Claim(
            epoch=len(claims) + 1,
            history=history,
            # What was read, not what was claimed since.
            parent=line.chains[-1].claim.epoch,
            fork_index=fork.index,
            fork_position=fork.position,
            mode="replace",
            claimed_ms=clock.wall_ms(),
            claimed_by=CLAIM,
        )
        if not archive.make_claim(claim):
            raise ConfigError(
                f"epoch {claim.epoch} of {archive.url} was claimed by another restore just now",
                hint="one of them is enough: see `raftdb archive status`",
            )


def claim_newest(
    found: Destinations, point: Point, history: HistoryId, clock: Clock
) -> tuple[Destinations, Point]:
    """Claim for the newest moment. A former uploader that lives may add to its chain until the
    claim is there, and what it added was acknowledged: then that is claimed, and is what to go on
    with. Raises ConfigError."""
    for _attempt in range(CLAIMS_MAX):
        claim_epoch(found, point, history, clock)
        lines = []
        for line in found.sources.timelines:
            again = load_timeline(line.archive, line.chains[-1].claim.epoch, newest=True)
            again.left_at = line.left_at
            lines.append(again)
        now = Sources(lines)
        if now.last() <= point:
            return found, point
        found, point = Destinations(found.archives, now, found.unreachable), now.last()
    raise ConfigError(
        f"a node of the former cluster goes on archiving: it is at entry {point}",
        code="archive_moved",
        hint="stop that cluster's nodes, and run the same command again",
    )


def lineage_of(found: Destinations, point: Point) -> list[tuple[HistoryId, Index, int]]:
    """The histories that a restore to `point` continues, and where each was left."""
    line = max(found.sources.timelines, key=lambda one: len(one.chains))
    lineage = []
    left = point
    for chain in reversed(line.chains):
        claim = chain.claim
        lineage.append((HistoryId(claim.history), Index(left.index), left.position))
        # A later fork may be before an earlier one: what was left out once is no past of it again.
        left = min(left, Point(claim.fork_index, claim.fork_position))
    return lineage[::-1]


def recreate_cluster(
    found: Destinations,
    done: Restored,
    directory: Path,
    members: Sequence[MemberConfig],
    *,
    replace: bool,
    history: HistoryId,
    files: Files,
    random: Random,
    clock: Clock,
    insecure: bool,
    archive: ArchiveConfig,
    authority: str | None = None,
) -> LocalCluster:
    """Found a cluster that holds the restored copy; with `replace`, by the certificate authority
    in that directory. Raises ConfigError."""
    lineage = lineage_of(found, done.point) if replace else []

    def fill(config: NodeConfig) -> None:
        copy = os.path.join(database_path(config.data_dir), "restored")
        shutil.copytree(done.copy, copy)
        database = database_path(config.data_dir)
        Machine.install(database, copy, history=done.history, files=files, verify_content=False)
        shutil.rmtree(copy)
        begin_history(database, history, lineage, files=files)
        Journal.create(files, journal_path(config.data_dir), random, (int(done.index), done.term))

    origin = Origin(
        cluster_id=_cluster_id(found.archives)
        if replace
        else ClusterId(random.randbytes(16).hex()),
        history=history,
        fill=fill,
        archive=archive if replace else ArchiveConfig(),
        authority=authority if replace else None,
    )
    return found_cluster(directory, members, files, random, clock, insecure=insecure, origin=origin)


def _cluster_id(archives: Sequence[Archive]) -> ClusterId:
    ids = {one.root.cluster_id for one in archives}
    if len(ids) != 1:
        raise ConfigError(
            "the destinations are archives of different clusters", hint="give those of one"
        )
    return ClusterId(ids.pop())
