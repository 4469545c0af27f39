"""The end of an upgrade: the feature level is raised, and from then on nobody goes back.

Refused as long as a node of the release before is there. Raised at last while one follower is
paused, which then is killed and comes back with the release before: nobody listens to it, and the
others go on. Started with that release, a node that has applied the new level ends at once and says
why; with this one it catches up. And once more with a release after this one, which is made up: the
node that was away runs this one then, hears of the level that it does not know, and ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from raftdb._version import __version__
from raftdb.base.errors import OperationalError
from raftdb.base.release import LEVEL_MAX, version_for
from raftdb.drill.cluster import DrillCluster
from raftdb.drill.previous import HERE, Release

ASK_S = 20.0
END_S = 60.0
LOG_LINES = 10_000
TRIES = 5
"""A leader on a busy machine may have noticed before it is asked."""
LATER, LEVEL_LATER = "99.0.0", LEVEL_MAX + 1
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


def raise_level(cluster: DrillCluster, paused: str, level: int = LEVEL_MAX) -> bool:
    """Raise it while `paused` hears nothing; False: the leader had noticed, and refused."""
    pid = cluster.node(paused).pid
    assert pid is not None
    with cluster.connect(timeout=ASK_S) as connection:
        # The connection stands, to the leader: it has a second before it misses the paused one.
        connection.ask("release")
        os.kill(pid, signal.SIGSTOP)
        try:
            connection.ask("release", raise_to=level)
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
    told = f"install {version_for(LEVEL_MAX)} there"
    cluster.wait_for(
        "a line in the log of one that turned it away",
        lambda: any(told in cluster.node(one).log_tail(LOG_LINES) for one in others),
    )
    status = cluster.status(name)
    if status["role"] == "leader" or int(status["commit_index"]) >= index:
        raise AssertionError(f"{name}, {old.version}, is listened to: {status}")


def later_release(home: Path) -> Release:
    """A release after this one, which knows one level more: this one's sources, changed."""
    sources = home / "later"
    package = sources / "raftdb"
    shutil.copytree(HERE / "raftdb", package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, before, after in (
        (package / "_version.py", f'"{__version__}"', f'"{LATER}"'),
        (package / "base" / "release.py", f"LEVEL_MAX = {LEVEL_MAX}", f"LEVEL_MAX = {LEVEL_LATER}"),
    ):
        text = path.read_text("utf-8")
        if text.count(before) != 1:
            raise AssertionError(f"{path} does not say {before!r} once")
        path.write_text(text.replace(before, after), "utf-8")
    return Release(LATER, sys.executable, sources, "made up")


def require_ended_beyond(cluster: DrillCluster, name: str, this: Release) -> str:
    """The node, which was away when the level was raised beyond what it knows, comes back with the
    same release: it hears of it, and ends; returns what it says. Raises AssertionError."""
    cluster.become(name, this)
    cluster.start(name)
    code = cluster.until_ended(name, END_S)
    said = " ".join(cluster.node(name).log_tail(2).split())
    if code != 2 or f"has feature level {LEVEL_LATER}" not in said or "install" not in said:
        raise AssertionError(f"{name}, {this.version}, ended with {code}, and said: {said}")
    return said


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
