"""Whether an archive would restore: every object read, and a restore really done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftdb.archive import Archive, ArchiveUnavailableError, ChainMovedError, ChainWriter, Sources
from raftdb.archive.verify import verify_objects
from raftdb.base.errors import Error
from raftdb.base.ports import Clock
from raftdb.machine import fingerprint
from raftdb.ops.archive import ATTEMPTS, Destinations
from raftdb.ops.restore import remove_work, restore_copy
from raftdb.runtime.clock import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.log import StreamLog

__all__ = ["verify_archive", "verify_restore"]

Decode = Callable[[bytes], tuple[bytes, ...]]


def verify_archive(found: Destinations) -> dict[str, Any]:
    """Read everything that all destinations hold."""
    problems = found.problems
    objects = 0
    for line in found.sources.timelines:
        problems += verify_objects(line)
        objects += sum(len(chain.links) for chain in line.chains)
        objects += len(line.links("segment", "base"))
    return {
        "objects": objects,
        "problems": [str(one) for one in problems if not one.harmless],
        "notes": [str(one) for one in problems if one.harmless],
    }


def verify_restore(found: Destinations, decode: Decode) -> list[dict[str, Any]]:
    """Restore the newest moment of each destination by itself, into a scratch directory; note a
    success in its chain."""
    results = []
    for archive, line in zip(found.archives, found.sources.timelines, strict=True):
        alone = Destinations((archive,), Sources([line]), ())
        facts: dict[str, Any] = {"url": archive.url, "problem": ""}
        work = Path(tempfile.mkdtemp(prefix="raftdb-verify-"))
        clock = RealClock()
        start_s = clock.monotonic_s()
        try:
            target = alone.sources.last()
            log = StreamLog(level="error")
            done = restore_copy(alone, target, work, files=RealFiles(), log=log, decode=decode)
            facts |= {
                "point": str(done.point),
                "requests": done.requests,
                "compared": done.compared,
                "proven": done.proven,
                "content": done.content.hex(),
                "seconds": round(clock.monotonic_s() - start_s, 2),
            }
            if not done.proven:
                facts["problem"] = f"no hash was recorded at {done.point} ({archive.url})"
            else:
                _note(archive, target.index, done.content, facts["seconds"], clock)
        except Error as error:
            facts["problem"] = f"{archive.url}: {error}"
        finally:
            remove_work(work)
        results.append(facts)
    return results


def _note(archive: Archive, index: int, content: bytes, seconds: float, clock: Clock) -> None:
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
            writer.verified(tail, index, content, f"restored in {seconds:g} s")
            return
        except ChainMovedError:
            tail = writer.follow(tail)
    raise ArchiveUnavailableError("the chain moved on too fast to note the restore")
