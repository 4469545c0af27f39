"""Looks at every object of an archive: whether it is there, whole, and what it was."""

from __future__ import annotations

from collections.abc import Callable

from raftdb.archive.basecopy import check_chunks
from raftdb.archive.chain import Link, Problem, Timeline
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.parallel import each
from raftdb.archive.plan import Source, read_segment
from raftdb.archive.records import BaseRecord, Manifest

__all__ = ["verify_objects"]


def verify_objects(
    timeline: Timeline, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Read all segments, bases, packs, second copies: problems beyond those of the chains. Raises
    ArchiveUnavailableError."""
    problems: list[Problem] = []
    links = [
        link
        for chain in timeline.chains
        for link in chain.of_kind("segment", "base", "gap", "mark", "verified")
    ]
    seen: dict[str, bytes] = {}
    """Packs that were read: several bases share them."""
    url = timeline.archive.url

    def look(link: Link) -> None:
        if link.manifest.kind == "segment":
            read_segment(Source(timeline.archive, link))
        elif link.manifest.copy and not link.adopted:
            _look_at_copy(timeline, link)

    for done, (link, result) in enumerate(each(look, links), start=1):
        found = [result] if isinstance(result, Exception) else []
        if link.manifest.kind == "base":
            found += _look_at_base(timeline, link, seen)
        for error in found:
            if not isinstance(error, ArchiveDamagedError):
                raise error
            problems.append(Problem(error.name, error.what, url))
        if progress is not None:
            progress(done, len(links))
    return problems + _gaps(timeline)


def _look_at_copy(timeline: Timeline, link: Link) -> None:
    name = link.manifest.copy
    if timeline.archive.read(Manifest, name) != link.manifest:
        raise ArchiveDamagedError(name, f"is no copy of {link.name}")


def _look_at_base(timeline: Timeline, link: Link, seen: dict[str, bytes]) -> list[Exception]:
    archive, manifest = timeline.archive, link.manifest
    try:
        record = archive.read(BaseRecord, manifest.object, manifest.digest)
        check_chunks(manifest.object, record)
    except ArchiveDamagedError as error:
        return [error]
    todo = [pack for pack in record.packs if seen.get(pack.name) != pack.digest]
    found: list[Exception] = []
    for pack, result in each(lambda pack: len(archive.read_pack(pack.name, pack.digest)), todo):
        if isinstance(result, Exception):
            found.append(result)
        else:
            seen[pack.name] = pack.digest
    return found


def _gaps(timeline: Timeline) -> list[Problem]:
    """Between segments, where the chains are whole and yet entries are missing."""
    problems = []
    at = 0
    begin = {chain.claim.epoch: chain.first for chain in timeline.chains}
    for link in timeline.links("segment", "base", "gap"):
        manifest = link.manifest
        if manifest.sequence < begin[manifest.epoch]:
            # Retention left this base alone, and took the log behind it.
            continue
        if manifest.kind == "segment":
            if at and manifest.first > at + 1 and not timeline.problems:
                what = f"begins at entry {manifest.first}, and the log before it ends at {at}"
                problems.append(Problem(manifest.object, what, timeline.archive.url))
            at = max(at, manifest.last)
        elif manifest.archived > at:
            at = manifest.archived
    return problems
