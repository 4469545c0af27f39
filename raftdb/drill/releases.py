"""Scenarios of a release that turns out to be bad: the nodes go back to the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from raftdb.drill import crashing
from raftdb.drill.previous import Release, present
from raftdb.drill.stage import Stage

CRASH_AFTER_S = (0.0, 1.5, 3.0)
"""After its start, node by node: before it ran anything, and with the cluster's data open."""
CRASHED_S = 60.0


def release_rollback(stage: Stage) -> None:
    """A rolling upgrade; the release serves and is declared bad; every node is put back, one by
    one. No request of a client fails, neither on the way there nor back."""
    old, new = stage.previous(), present()
    stage.begin(release=old)
    stage.phase(f"a rolling upgrade to {new.version}")
    switch(stage, new)
    stage.run_for(stage.seconds)
    with stage.disaster(f"{new.version} is declared bad"):
        pass
    stage.until_committed()
    switch(stage, old)
    stage.until_full()
    stage.end()
    _check_release(stage, old)
    failures = stage.load.failures()
    stage.result.check("no request of a client failed", not failures, "; ".join(failures[:3]))


def release_crash(stage: Stage) -> None:
    """A release that crashes gets onto every node, one after the other, without a look at what
    became of the one before; all are put back in one go."""
    old, new = stage.previous(), present()
    stage.begin(release=old)
    cluster = stage.cluster
    with stage.disaster(f"every node gets a {new.version} that crashes"):
        for place, name in enumerate(cluster.node_ids):
            cluster.stop(name)
            cluster.become(name, new)
            node = cluster.node(name)
            assert node.environ is not None
            after_s = CRASH_AFTER_S[place % len(CRASH_AFTER_S)]
            node.environ[crashing.VARIABLE] = str(after_s)
            node.command = (new.python, "-P", "-m", crashing.__name__)
            cluster.start(name)
        codes = {name: cluster.until_ended(name, CRASHED_S) for name in cluster.node_ids}
    stage.phase("no node runs any more")
    crashed = all(code == crashing.EXIT_CODE for code in codes.values())
    stage.result.check("the release crashed on every node", crashed, str(codes))
    back_s = stage.phase(f"raftdb start, of {old.version}, on every node")
    for name in cluster.node_ids:
        cluster.become(name, old)
    cluster.start()
    stage.until_committed()
    stage.result.facts["committed_after_start_s"] = round(stage.clock.monotonic_s() - back_s, 2)
    stage.until_full()
    stage.end()
    _check_release(stage, old)


def switch(stage: Stage, release: Release, names: Sequence[str] = ()) -> None:
    """Let these nodes, or all, run another release: each is stopped in order, which drains it, and
    started on the same directory; the next one when it has caught up. The leader comes last."""
    cluster = stage.cluster
    left = list(names or cluster.node_ids)
    while left:
        leader = cluster.leader()
        name = next((one for one in left if one != leader), left[0])
        left.remove(name)
        stage.phase(f"{name}: stop, raftdb start of {release.version}")
        cluster.restart_as(name, release)
        cluster.wait_for(f"{name} with {release.version}", cluster.whole)


def _check_release(stage: Stage, release: Release) -> None:
    versions = stage.cluster.versions()
    stage.result.facts["versions"] = versions
    ran = set(versions.values()) == {release.version}
    stage.result.check(f"every node runs {release.version}", ran, str(versions))
