"""Runs drills one after the other, and judges them."""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raftdb.base.errors import ConfigError, Error
from raftdb.base.startup import time_text
from raftdb.drill.objectives import Objective
from raftdb.drill.previous import Release, find_previous
from raftdb.drill.result import Result
from raftdb.drill.scenarios import SCENARIOS
from raftdb.drill.stage import Stage
from raftdb.runtime.clock import RealClock

SECONDS = 3.0
POINTS = 3


@dataclass(frozen=True, slots=True)
class Options:
    """How to run drills."""

    nodes: int = 3
    seconds: float = SECONDS
    """Of load, before the disaster and after the recovery."""
    repeat: int = 1
    points: int = POINTS
    """Moments of the past that point-in-time restores."""
    directory: Path | None = None
    """Where to work, and to leave everything; None: a temporary directory."""
    archive: str | None = None
    """URL of an empty place for the archive; None: a directory of the drill's own."""
    previous: Path | None = None
    """The release before this one (previous.py); None: from the checkout's history."""
    lenient: bool = False
    """What cannot begin for want of a release before this one is `not run`, the others are."""


def run(
    names: Sequence[str],
    options: Options,
    objectives: dict[str, Objective],
    say: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Run these scenarios. Never raises for what a drill finds; raises ConfigError when it cannot
    begin."""
    for name in names:
        if name not in SCENARIOS:
            raise ConfigError(
                f"there is no drill called {name!r}", hint="there are " + ", ".join(SCENARIOS)
            )
    if options.archive is not None and "archive-outage" in names:
        raise ConfigError(
            "archive-outage breaks an archive of its own",
            hint="leave --archive out, or name the drills that are to use it",
        )
    previous, problem = None, ""
    if any(SCENARIOS[name].needs_previous for name in names):
        previous, problem = _find_previous(options)
    results = []
    for number in range(options.repeat):
        for name in names:
            label = f"{name}-{number + 1}"
            say(f"{name}: {SCENARIOS[name].summary}")
            if SCENARIOS[name].needs_previous and previous is None:
                started = time_text(RealClock().wall_ms())
                nothing = Result(name, started, options.nodes, not_run=problem)
                nothing.rpo_writes = nothing.rpo_s = None
                results.append(nothing)
            else:
                try:
                    done = _run_one(name, label, options, objectives[name], say, previous)
                except ConfigError as error:
                    if not results:
                        raise
                    # What the drills before it found is not lost for that.
                    done = Result(name, time_text(RealClock().wall_ms()), options.nodes)
                    done.error = f"the drill did not begin: {error}"
                    done.rpo_writes = done.rpo_s = None
                results.append(done)
            say(f"{name}: {results[-1].verdict}")
    return results


def _find_previous(options: Options) -> tuple[Release | None, str]:
    """The release before this one, or why there is none. Raises ConfigError unless lenient."""
    try:
        return find_previous(options.previous), ""
    except ConfigError as error:
        if not options.lenient or options.previous is not None:
            raise
        return None, f"{error.message}; {error.hint}"


def _run_one(
    name: str,
    label: str,
    options: Options,
    objective: Objective,
    say: Callable[[str], None],
    previous: Release | None,
) -> Result:
    clock = RealClock()
    result = Result(name, time_text(clock.wall_ms()), options.nodes, objective=objective)
    kept = options.directory
    if kept is None:
        home = Path(tempfile.mkdtemp(prefix=f"raftdb-drill-{name}-"))
    else:
        home = kept.absolute() / label
        if home.exists():
            raise ConfigError(f"{home} is there already", hint="a drill begins in a new directory")
        home.mkdir(parents=True)
    archive = None if options.archive is None else f"{options.archive.rstrip('/')}/{label}"
    stage = Stage(
        home,
        result,
        clock,
        say,
        seconds=options.seconds,
        points=options.points,
        archive=archive,
        previous=previous,
    )
    try:
        SCENARIOS[name].run(stage)
    except ConfigError:
        raise
    except Error as error:
        result.error = f"the drill did not come to its end: {error}"
        for line in stage.logs().splitlines():
            say(line)
    except Exception:
        result.error = f"the drill failed: {traceback.format_exc(limit=3)}"
    finally:
        stage.close()
        if kept is None:
            shutil.rmtree(home, ignore_errors=True)
    return result
