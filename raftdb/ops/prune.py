"""Pruning, with credentials of its own: the nodes' cannot delete (rule A6)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from raftdb.archive import Archive, Chain, Keyring, Timeline, open_store
from raftdb.archive.chain import load_pruned
from raftdb.archive.layout import HOLDS
from raftdb.archive.merged import Merger
from raftdb.archive.retention import Retention, carry_out, newest_ms, plan_pruning
from raftdb.archive.store import PruneStore
from raftdb.base.errors import ConfigError
from raftdb.base.ports import Clock
from raftdb.base.startup import time_text
from raftdb.ops.archive import open_archives, open_destinations

__all__ = ["hold", "merge", "prune", "release"]

CLOCK_AHEAD_MS = 3_600_000
PROBE = "probe/"
"""Objects that are made to see the store's time, and deleted at once."""
_HOLD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def prune(
    urls: Sequence[str],
    keyring: Keyring,
    retention: Retention,
    clock: Clock,
    *,
    dry_run: bool,
    merge_hours: float | None = None,
) -> list[dict[str, Any]]:
    """Each destination by itself. With `merge_hours`, segments that are older are made one first,
    some hundreds at a time. Raises ConfigError (damage, a legal hold) and ArchiveUnavailableError
    (also when the credentials may not delete)."""
    results = []
    for url in urls:
        merged = (0, 0)
        if merge_hours is not None:
            [archive] = open_archives([url], keyring)
            merged = merge(archive, merge_hours, clock, dry_run=dry_run)
        found = open_destinations([url], keyring)
        [timeline] = found.sources.timelines
        if not dry_run:
            _check_clock(timeline, open_store(url), clock)
        plan = plan_pruning(timeline, retention, clock.wall_ms())
        if not dry_run:
            carry_out(timeline, plan, open_store(url))
        results.append(
            {
                "url": timeline.archive.url,
                "deleted": 0 if dry_run else len(plan.doomed),
                "would_delete": len(plan.doomed),
                "bytes": plan.doomed_bytes,
                "kept_bases": plan.kept_bases,
                "oldest_index": plan.oldest_index,
                "holds": list(plan.holds),
                "objects": list(plan.doomed),
                "merged_segments": merged[0],
                "merged_into": merged[1],
            }
        )
    return results


def _check_clock(timeline: Timeline, store: PruneStore, clock: Clock) -> None:
    """A clock that is ahead makes the window shorter by as much. The store's time is that of the
    newest object; where nothing was archived of late, that of one made for this. Raises
    ConfigError."""
    ahead_ms = clock.wall_ms() - newest_ms(timeline)
    if ahead_ms > CLOCK_AHEAD_MS:
        name = f"{PROBE}{os.urandom(8).hex()}"
        store.put(name, b"raftdb archive prune: what time is it there?\n")
        try:
            made = [one.modified_ms for one in store.listing(PROBE) if one.name == name]
        finally:
            store.delete(name)
        ahead_ms = clock.wall_ms() - max(made, default=0)
    if ahead_ms > CLOCK_AHEAD_MS:
        raise ConfigError(
            f"this machine's clock says {time_text(clock.wall_ms())}, which is "
            f"{ahead_ms / 3_600_000:.1f} hours ahead of {timeline.archive.url}: moments that "
            "are to be kept would be deleted, so nothing was",
            code="clock_ahead",
            hint="set the clock (timedatectl, chrony), then prune again",
        )


def merge(archive: Archive, hours: float, clock: Clock, *, dry_run: bool) -> tuple[int, int]:
    """Make old segments one, some hundreds at a time: how many became how many. Needs no right to
    delete, and the memory of one of them. Raises ArchiveDamagedError."""
    segments = objects = 0
    now_ms = clock.wall_ms()
    for claim in archive.claims():
        chain = Chain(archive, claim)
        load_pruned(chain)
        merger = Merger(archive, claim.epoch, claim.history, os.urandom)
        merger.run(chain.first, now_ms - int(hours * 3_600_000), now_ms, dry_run=dry_run)
        segments += merger.segments
        objects += merger.objects
    return segments, objects


def hold(urls: Sequence[str], keyring: Keyring, name: str, clock: Clock) -> None:
    """Put a legal hold on all destinations: nothing is pruned while it is there."""
    _check_name(name)
    for url in urls:
        open_archives([url], keyring)
        open_store(url).put(HOLDS + name, f"{time_text(clock.wall_ms())}\n".encode())


def release(urls: Sequence[str], name: str) -> None:
    """Take a legal hold off all destinations. Raises ConfigError when there is none."""
    _check_name(name)
    missing = [url for url in urls if open_store(url).get(HOLDS + name) is None]
    if len(missing) == len(urls):
        raise ConfigError(f"there is no hold {name!r}", hint="see `raftdb archive prune --dry-run`")
    for url in urls:
        open_store(url).delete(HOLDS + name)


def _check_name(name: str) -> None:
    if not _HOLD.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a hold", hint="1 to 100 letters, digits, dots, hyphens, _"
        )
