"""The end of an upgrade: the feature level is raised, and from then on nobody goes back.

Refused as long as a node of the release before is there. Raised at last while one follower is
paused, which then is killed and comes back with the release before: nobody listens to it, and the
others go on. Started with that release, a node that has applied the new level ends at once and says
why; with this one it catches up.
"""

from __future__ import annotations

import os
import signal

from raftdb.base.errors import OperationalError
from raftdb.base.release import LEVEL_MAX
from raftdb.drill.cluster import DrillCluster
from raftdb.drill.previous import Release

ASK_S = 20.0
END_S = 60.0
REASON = "format"
"""What the release before finds to be later than its own."""


def level_of(cluster: DrillCluster) -> int:
    """What the leader, of this release, says."""
    with cluster.connect(timeout=ASK_S) as connection:
        return int(connection.ask("release")["feature_level"])


def require_refused(cluster: DrillCluster) -> str:
    """A node of the release before is there, and one of this release leads: the level cannot be
    raised; returns what is said. Raises AssertionError."""
    with cluster.connect(timeout=ASK_S) as connection:
        try:
            connection.ask("release", raise_to=LEVEL_MAX)
        except OperationalError as error:
            if error.code == "upgrade_incomplete":
                return error.message
            raise
    raise AssertionError(f"level {LEVEL_MAX} was taken with a node that does not know it")


def raise_level(cluster: DrillCluster, paused: str) -> bool:
    """Raise it while `paused` hears nothing; False: the leader had noticed, and refused."""
    pid = cluster.node(paused).pid
    assert pid is not None
    with cluster.connect(timeout=ASK_S) as connection:
        os.kill(pid, signal.SIGSTOP)
        try:
            connection.ask("release", raise_to=LEVEL_MAX)
        except OperationalError as error:
            os.kill(pid, signal.SIGCONT)
            if error.code != "upgrade_incomplete":
                raise
            return False
    cluster.kill(paused)
    return True


def unheard(cluster: DrillCluster, name: str, old: Release, index: int) -> None:
    """The node, which was away when the level was raised at `index`, comes back with the release
    before: it learns of nothing. Raises AssertionError."""
    cluster.become(name, old)
    cluster.start(name)
    cluster.wait_for(f"{name} with {old.version}", lambda: cluster.status(name))
    others = [one for one in cluster.node_ids if one != name]
    before = max(int(cluster.status(one)["commit_index"]) for one in others)
    cluster.wait_for(
        "writes without it",
        lambda: min(int(cluster.status(one)["applied_index"]) for one in others) > before + 20,
    )
    status = cluster.status(name)
    if status["role"] == "leader" or int(status["commit_index"]) >= index:
        raise AssertionError(f"{name}, {old.version}, is listened to: {status}")


def require_fenced(cluster: DrillCluster, name: str, old: Release) -> str:
    """A node that has applied the new level does not start with the release before; returns what
    it says. Raises AssertionError."""
    cluster.stop(name)
    cluster.become(name, old)
    cluster.start(name)
    code = cluster.until_ended(name, END_S)
    said = " ".join(cluster.node(name).log_tail(2).split())
    if code == 0 or REASON not in said:
        raise AssertionError(f"{name}, {old.version}, ended with {code}, and said: {said}")
    return said
