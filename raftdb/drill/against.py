"""Rehearsals with a real cluster's archive: they read, and write to a scratch directory alone.

Nothing of the cluster is touched: not a node, not the archive. So there is no load and no RPO here;
measured is how long a restore takes, and whether what comes out is what the nodes had.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from raftdb.base.config import load_config
from raftdb.base.errors import ConfigError, Error
from raftdb.base.startup import time_text
from raftdb.drill.cluster import command
from raftdb.drill.objectives import Objective
from raftdb.drill.result import Phase, Result
from raftdb.runtime.clock import RealClock

HARMLESS = ("total-loss", "point-in-time")


def rehearse(
    name: str, config: Path, points: int, objective: Objective, say: Callable[[str], None]
) -> Result:
    """Restore from the archive that a node's raftdb.toml names: the newest moment, or `points`
    moments of the past. Raises ConfigError when that kind of drill is not harmless."""
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
        objective=replace(objective, rpo_writes=None, rpo_s=None, full_s=None),
    )
    result.facts["against"] = str(config)
    scratch = Path(tempfile.mkdtemp(prefix="raftdb-drill-"))
    begin_s = clock.monotonic_s()

    def phase(text: str) -> None:
        at_s = clock.monotonic_s() - begin_s
        result.phases.append(Phase(at_s, text))
        say(f"{at_s:6.2f} s  {text}")

    try:
        state = command("archive", "status", "--config", config, environ=os.environ)
        result.facts["archive"] = state["destinations"]
        result.check("the archive is whole", not state["problems"], "; ".join(state["problems"]))
        for place, index in enumerate(_moments(name, state, points, clock.wall_ms())):
            flags = () if index is None else ("--index", str(index))
            done = command(
                *("restore", "--config", config, *flags, "--to", scratch / f"{place}.db"),
                environ=os.environ,
            )
            what = "the newest moment" if index is None else f"entry {index}"
            result.check(f"{what} is proven by its hash", bool(done["proven"]), str(done["point"]))
            phase(f"{what} is restored, in {done['seconds']} s")
            result.rto_s = max(result.rto_s or 0.0, float(done["seconds"]))
            (scratch / f"{place}.db").unlink()
    except Error as error:
        result.error = f"the drill did not come to its end: {error}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return result


def _moments(name: str, state: dict[str, Any], points: int, seed: int) -> list[int | None]:
    """Entries to restore to; None: the newest."""
    if name == "total-loss":
        return [None]
    lines = [one for one in state["destinations"] if one["last_index"] is not None]
    bases = [one for one in lines if one["first_index"] is not None]
    if not bases:
        raise ConfigError("the archive holds no base copy yet", hint="see raftdb archive status")
    first = min(int(one["first_index"]) for one in bases)
    last = max(int(one["last_index"]) for one in lines)
    draw = random.Random(seed)
    return [draw.randint(first, last) for _ in range(points)]
