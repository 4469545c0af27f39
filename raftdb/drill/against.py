"""Rehearsals with a real cluster, of the kinds that do it no harm.

`total-loss` and `point-in-time` read its archive, and write to a scratch directory alone: the
newest moment becomes a whole throw-away cluster beside the real one, which then has to commit;
moments of the past become files. `leader-kill` asks the leader to hand over instead of killing it,
and then back, while linearizable reads are counted. Nothing is ever written to the real cluster, so
there is no load and no RPO here.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from raftdb.base.config import load_config
from raftdb.base.errors import ConfigError, Error
from raftdb.base.startup import time_text
from raftdb.client import connect
from raftdb.drill.cluster import DrillCluster, command
from raftdb.drill.objectives import Objective
from raftdb.drill.result import Phase, Result
from raftdb.ops.target import Target, find_target
from raftdb.runtime.clock import RealClock

HARMLESS = ("leader-kill", "total-loss", "point-in-time")
NODES = 3
"""Of the throw-away cluster."""
COPIES = 2 * NODES + 3
"""What restoring one needs at most: the work directory's three, and a node's with its own log."""
READ_EVERY_S = 0.005
AROUND_S = 0.5
"""Reads are counted so long before and after leadership moves."""


def rehearse(
    name: str, config: Path, points: int, objective: Objective, say: Callable[[str], None]
) -> Result:
    """Rehearse with the cluster of a node's raftdb.toml; `points`: moments of the past. Raises
    ConfigError when that kind of drill is not harmless."""
    if name not in HARMLESS:
        raise ConfigError(
            f"{name} breaks a cluster, so it runs on one of its own only",
            hint=f"with --against there are {', '.join(HARMLESS)}",
        )
    clock = RealClock()
    result = Result(
        name,
        time_text(clock.wall_ms()),
        len(load_config(str(config), os.environ).members),
        rpo_writes=None,
        rpo_s=None,
        objective=replace(
            *(objective,),
            **({} if name == "total-loss" else {"full_s": None}),
            rpo_writes=None,
            rpo_s=None,
        ),
    )
    result.facts["against"] = str(config)
    scratch = Path(tempfile.mkdtemp(prefix="raftdb-drill-"))
    begin_s = clock.monotonic_s()

    def phase(text: str) -> None:
        at_s = clock.monotonic_s() - begin_s
        result.phases.append(Phase(at_s, text))
        say(f"{at_s:6.2f} s  {text}")

    try:
        if name == "leader-kill":
            _hand_over(result, config, phase)
        else:
            state = command("archive", "status", "--config", config, environ=os.environ)
            result.facts["archive"] = state["destinations"]
            whole = "the archive is whole"
            result.check(whole, not state["problems"], "; ".join(state["problems"]))
            if name == "total-loss":
                _beside(result, config, scratch, phase)
            else:
                _points(result, config, scratch, state, points, phase)
    except Error as error:
        result.error = f"the drill did not come to its end: {error}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _points(
    result: Result,
    config: Path,
    scratch: Path,
    state: dict[str, Any],
    points: int,
    phase: Callable[[str], None],
) -> None:
    """Moments of the past, each into a file."""
    for index in _moments(state, points, RealClock().wall_ms()):
        target = scratch / "moment.db"
        done = command(
            *("restore", "--config", config, "--index", str(index), "--to", target),
            environ=os.environ,
        )
        what = f"entry {index}"
        result.check(f"{what} is proven by its hash", bool(done["proven"]), str(done["point"]))
        phase(f"{what} is restored, in {done['seconds']} s")
        result.rto_s = max(result.rto_s or 0.0, float(done["seconds"]))
        target.unlink()


def _beside(result: Result, config: Path, scratch: Path, phase: Callable[[str], None]) -> None:
    """The newest moment as a cluster of its own, which claims nothing of the archive."""
    clock = RealClock()
    directory = scratch / "cluster"
    restore = ("restore", "--config", config, "--to", directory, "--local", str(NODES), "--clone")
    plan = command(*restore, "--plan", environ=os.environ)
    needed, free = COPIES * int(plan["base_bytes"]), shutil.disk_usage(scratch).free
    if free < needed:
        raise ConfigError(
            f"a cluster beside the real one needs {needed:,} bytes below {scratch}, and {free:,} "
            "are free",
            code="no_room",
            hint="name a directory with more room by TMPDIR, or rehearse on another machine",
        )
    begin_s = clock.monotonic_s()
    done = command(*restore, environ=os.environ)
    result.facts["restore"] = done
    what = "the newest moment"
    result.check(f"{what} is proven by its hash", bool(done["proven"]), str(done["point"]))
    phase(f"{what} is restored as {NODES} nodes, in {done['seconds']} s; raftdb start")
    cluster = DrillCluster(directory, clock)
    try:
        cluster.start()
        cluster.wait_for_leader()
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE raftdb_rehearsal(n INTEGER)")
        result.rto_s = clock.monotonic_s() - begin_s
        phase("the restored cluster commits")
        cluster.wait_for("all nodes to be there", cluster.whole)
        result.full_s = clock.monotonic_s() - begin_s
        phase("all its nodes are there")
        same = command("check", "--dir", directory)
        result.facts["check"] = same
        phase("raftdb check: its nodes hold the same")
    finally:
        cluster.abandon()


def _target(config: Path) -> Target:
    """How clients reach that node's cluster."""
    if os.environ.get("RAFTDB_URL") or os.environ.get("RAFTDB_DIR"):
        return find_target(None, None, os.environ)
    try:
        return find_target(None, config.absolute().parent.parent, {})
    except ConfigError as error:
        raise ConfigError(
            f"how do clients reach the cluster of {config}? {error.message}",
            hint="set RAFTDB_URL, or RAFTDB_DIR to a directory with its client directory",
        ) from error


class _Readers(threading.Thread):
    """Reads that a leader has to confirm, one after the other."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._clock = RealClock()
        self._end = threading.Event()
        self.answers_s: list[float] = []
        self.failure = ""

    def run(self) -> None:
        options = {**self._target.options, "timeout": 30.0, "read": "linearizable"}
        try:
            with connect(self._target.url, **options) as connection:
                while not self._end.wait(READ_EVERY_S):
                    connection.execute("SELECT 1").fetchall()
                    self.answers_s.append(self._clock.monotonic_s())
        except Error as error:
            self.failure = str(error)

    def stop(self) -> None:
        """Read no more."""
        self._end.set()
        self.join(60.0)

    def silence_s(self, since_s: float) -> float:
        """The longest time without an answer."""
        times = [since_s, *(one for one in self.answers_s if one >= since_s)]
        return max((b - a for a, b in pairwise(times)), default=0.0)


def _hand_over(result: Result, config: Path, phase: Callable[[str], None]) -> None:
    """The leader hands over to another node, and gets it back."""
    target = _target(config)
    clock, pause = RealClock(), threading.Event()
    where = _as_arguments(config, target)
    readers = _Readers(target)
    readers.start()
    try:
        pause.wait(AROUND_S)
        first_s = clock.monotonic_s()
        there = command("leader", "move", *where)
        phase(f"leadership moved from {there['from']} to {there['to']}")
        result.check("another node leads", there["from"] != there["to"], str(there["to"]))
        pause.wait(AROUND_S)
        back = command("leader", "move", "--to", str(there["from"]), *where)
        phase(f"leadership moved back to {back['to']}")
        result.check("it leads again", back["to"] == there["from"], str(back["to"]))
        pause.wait(AROUND_S)
    finally:
        readers.stop()
    result.acknowledged = len(readers.answers_s)
    result.silence_s = result.rto_s = readers.silence_s(first_s)
    result.facts["reads"] = len(readers.answers_s)
    result.check("no read failed", not readers.failure, readers.failure)


def _as_arguments(config: Path, target: Target) -> tuple[str, ...]:
    """For a command."""
    if os.environ.get("RAFTDB_URL"):
        return (target.url,)
    return ("--dir", os.environ.get("RAFTDB_DIR") or str(config.absolute().parent.parent))


def _moments(state: dict[str, Any], points: int, seed: int) -> list[int]:
    """Entries to restore to."""
    lines = [one for one in state["destinations"] if one["last_index"] is not None]
    bases = [one for one in lines if one["first_index"] is not None]
    if not bases:
        raise ConfigError("the archive holds no base copy yet", hint="see raftdb archive status")
    first = min(int(one["first_index"]) for one in bases)
    last = max(int(one["last_index"]) for one in lines)
    draw = random.Random(seed)
    return [draw.randint(first, last) for _ in range(points)]
