"""Restoring: to one SQLite file, and what a plan looks like to people."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raftdb.archive import ArchiveDamagedError, NotRestorableError, Plan, Point, Restored, restore
from raftdb.base.errors import ConfigError
from raftdb.base.ports import Clock, Files, Log
from raftdb.base.startup import logged_time, time_text
from raftdb.machine import DATABASE_FILE, make_plain
from raftdb.ops.archive import Destinations, parse_time
from raftdb.ops.making import making

__all__ = [
    "check_damage",
    "check_target_room",
    "check_time",
    "make_file",
    "plan_facts",
    "remove_work",
    "restore_copy",
    "work_of",
]

Decode = Callable[[bytes], tuple[bytes, ...]]
Progress = Callable[[str, int, int], None]
WORK_SUFFIX = ".restoring"
COPIES = 3
"""A restore holds the base, the database that grows from it, and a copy of the result."""


def check_damage(found: Destinations, *, explicit: bool, accepted: bool) -> None:
    """The newest moment is the newest only if nothing beyond it is lost: with damage everywhere a
    restore to "the end" would stop early without anybody's knowing. Raises ArchiveDamagedError."""
    if explicit or accepted or not found.damage:
        return
    whole = [
        line
        for line in found.sources.timelines
        if not any(not one.harmless for one in line.problems)
    ]
    if whole:
        return
    first = found.damage[0]
    raise ArchiveDamagedError(
        first.object,
        f"{first.what}; entries after the newest readable one may be lost "
        f"({len(found.damage)} problems: see `raftdb archive verify`)",
        hint="add another destination, name the moment (--index, --at), or accept it with "
        "--despite-damage",
    )


def check_time(found: Destinations, at: str | None, clock: Clock) -> None:
    """A moment that has not come yet is a mistake, and nobody's newest state. Raises
    NotRestorableError."""
    if at is None or parse_time(at) <= clock.wall_ms():
        return
    times = [one.manifest.time_ms for line in found.sources.timelines if (one := line.last)]
    newest = logged_time(max(times, default=0)) or "no time: nothing was written yet"
    raise NotRestorableError(
        f"{at} is {time_text(parse_time(at))}, and it is {time_text(clock.wall_ms())} now: that "
        "moment is still to come",
        hint=f"the archive's newest request is of {newest}: leave --at out for it",
    )


def work_of(target: Path) -> Path:
    """Where a restore to `target` works, and goes on after an interruption."""
    return target.with_name(target.name + WORK_SUFFIX)


def check_target_room(facts: Mapping[str, Any], target: Path, nodes: int = 0) -> None:
    """Before gigabytes are fetched: is there room for them, and for a new cluster's `nodes`? What
    an earlier try left counts. Raises ConfigError."""
    directory = target.absolute().parent
    while not directory.exists():
        directory = directory.parent
    needed = (COPIES + nodes) * int(facts["base_bytes"])
    work = work_of(target)
    have = sum(one.stat().st_size for one in work.rglob("*") if one.is_file())
    free = shutil.disk_usage(directory).free
    if free + have < needed:
        raise ConfigError(
            f"this restore needs some {needed:,} bytes in {directory}, {free:,} are free",
            code="no_room",
            hint="make room, or restore to another disk",
        )


def plan_facts(found: Destinations, plan: Plan, clock: Clock) -> dict[str, Any]:
    """What a restore would do, as plain values."""
    base = plan.base.link.manifest
    return {
        "target": str(plan.target),
        "base_index": base.last,
        "base_time": logged_time(base.time_ms),
        "base_bytes": base.total_bytes,
        "segments": len(plan.segments),
        "requests_to_replay": plan.requests,
        "fetch_bytes": plan.fetch_bytes,
        "from": sorted({plan.base.archive.url, *(one.archive.url for one in plan.segments)}),
        "newest_index": plan.last_index,
        "newest_time": logged_time(plan.last_time_ms),
        "newest_age_s": round(max(0, clock.wall_ms() - plan.last_time_ms) / 1000, 1)
        if plan.last_time_ms
        else None,
        "entries_left_out": plan.last_index - plan.target.index,
        "problems": [str(one) for one in found.problems],
    }


def restore_copy(
    found: Destinations,
    target: Point,
    work: Path,
    *,
    files: Files,
    log: Log,
    decode: Decode,
    progress: Progress | None = None,
) -> Restored:
    """Restore into a work directory, which a later try goes on with."""
    plan = found.sources.plan(target)
    with making():
        return restore(
            found.sources,
            plan,
            str(work),
            files=files,
            log=log,
            decode=decode,
            progress=progress,
        )


def make_file(done: Restored, target: Path, files: Files) -> None:
    """Make the copy a plain SQLite file, without raftdb's own tables. Raises ConfigError when
    there is a file already."""
    if target.exists():
        raise ConfigError(f"{target} is there already", hint="a restore overwrites nothing")
    copy = os.path.join(done.copy, DATABASE_FILE)
    with making():
        make_plain(copy)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(copy, target)
    files.sync_directory(str(target.parent.absolute()))


def remove_work(work: Path) -> None:
    """The work directory is not needed any more."""
    shutil.rmtree(work, ignore_errors=True)
