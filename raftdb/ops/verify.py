"""Whether an archive would restore: every object read, and a restore really done."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftdb.archive import (
    Archive,
    ArchiveUnavailableError,
    ChainMovedError,
    ChainWriter,
    Point,
    Sources,
    load_timeline,
)
from raftdb.archive.verify import verify_objects, walk
from raftdb.base.errors import ConfigError, Error
from raftdb.base.ports import Clock
from raftdb.machine import fingerprint
from raftdb.ops.archive import ATTEMPTS, Destinations
from raftdb.ops.restore import COPIES, remove_work, restore_copy
from raftdb.runtime.clock import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.log import StreamLog

__all__ = ["check_room", "verify_archive", "verify_restore"]

RATE_REQUESTS_MIN = 500
"""Fewer tell little of how fast a log is replayed."""
ROOM_BYTES = 256 << 20
"""Left free beside it."""
Decode = Callable[[bytes], tuple[bytes, ...]]


def verify_archive(
    found: Destinations, *, every_object: bool = True
) -> tuple[dict[str, Any], Destinations]:
    """Read everything that all destinations hold, or what is in `found` of their chains alone: what
    there is to say, and `found`, or the whole of a destination where not all is as it should be.
    It is enough when `found` has what the newest moments need."""
    problems = list(found.unreachable)
    lines = []
    objects = 0
    for line in found.sources.timelines:
        # Where anything was found, all of it was read.
        damaged = any(not one.harmless for one in line.problems)
        walked = walk(line.archive) if every_object and not damaged else None
        if walked is not None:
            objects += walked.objects
            problems += walked.notes
        else:
            if every_object:
                line = line if damaged else load_timeline(line.archive)
                problems += verify_objects(line)
                objects += len(line.links("segment", "base"))
            problems += line.problems
            objects += sum(len(chain.links) for chain in line.chains)
        lines.append(line)
    facts = {
        "objects": objects,
        "problems": [str(one) for one in problems if not one.harmless],
        "notes": [str(one) for one in problems if one.harmless],
    }
    return facts, Destinations(found.archives, Sources(lines), found.unreachable)


def verify_restore(
    found: Destinations, decode: Decode, scratch: Path | None = None
) -> list[dict[str, Any]]:
    """Restore the newest moment of each destination by itself, into a scratch directory (emptied
    before and after; without one, below the system's); note a success in its chain."""
    results = []
    for archive, line in zip(found.archives, found.sources.timelines, strict=True):
        alone = Destinations((archive,), Sources([line]), ())
        facts: dict[str, Any] = {"url": archive.url, "problem": ""}
        work = scratch or Path(tempfile.mkdtemp(prefix="raftdb-verify-"))
        remove_work(work)
        clock = RealClock()
        start_s = clock.monotonic_s()
        try:
            target = alone.sources.last()
            work.parent.mkdir(parents=True, exist_ok=True)
            check_room(alone, target, work.parent)
            log = StreamLog(level="error")
            marks: dict[str, float] = {}

            def progress(
                what: str,
                _done: int,
                _of: int,
                marks: dict[str, float] = marks,
                clock: Clock = clock,
            ) -> None:
                marks[what] = clock.monotonic_s()

            done = restore_copy(
                alone,
                target,
                work,
                files=RealFiles(),
                log=log,
                decode=decode,
                progress=progress,
            )
            replay_s = marks.get("log", 0.0) - marks.get("base", start_s)
            rate = int(done.requests / replay_s) if done.requests >= RATE_REQUESTS_MIN else 0
            facts |= {
                "point": str(done.point),
                "requests": done.requests,
                "compared": done.compared,
                "proven": done.proven,
                "content": done.content.hex(),
                "replay_rate": rate,
                "seconds": round(clock.monotonic_s() - start_s, 2),
            }
            if not done.proven:
                facts["problem"] = f"no hash was recorded at {done.point} ({archive.url})"
            else:
                _note(archive, target.index, done.content, facts, clock)
        except Error as error:
            facts["problem"] = f"{archive.url}: {error}"
        finally:
            remove_work(work)
        results.append(facts)
    return results


def check_room(found: Destinations, target: Point, directory: Path) -> None:
    """A restore on trial must not fill the disk that others write to. Raises ConfigError."""
    needed = COPIES * found.sources.plan(target).base.link.manifest.total_bytes + ROOM_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ConfigError(
            f"a restore on trial needs {needed:,} bytes below {directory}, {free:,} are free",
            code="no_room",
            hint="make room, or run `raftdb archive verify --restore` on another machine",
        )


def _note(
    archive: Archive, index: int, content: bytes, facts: dict[str, Any], clock: Clock
) -> None:
    writer = ChainWriter(
        archive,
        history=archive.claims()[-1].history,
        node="verify",
        wall_ms=clock.wall_ms,
        randbytes=os.urandom,
        build=fingerprint().to_bytes(),
    )
    tail = writer.begin()
    for _attempt in range(ATTEMPTS):
        try:
            note = f"restored in {facts['seconds']:g} s"
            writer.verified(tail, index, content, note, facts["replay_rate"])
            return
        except ChainMovedError:
            tail = writer.follow(tail)
    raise ArchiveUnavailableError("the chain moved on too fast to note the restore")
