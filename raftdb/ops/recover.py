"""A cluster that goes on from what survivors have: planned, made beside everything, switched to.

What comes out is a bundle: a copy of the database as of the fork, and who is a member from then on.
A node joins from it by having its former data set aside; nothing of a survivor is changed before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftdb.archive import Archive, Claim, Sources, layout, load_timeline
from raftdb.base.atomic import replace_file
from raftdb.base.errors import ConfigError
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.base.ports import Clock, Files, Log
from raftdb.base.settings import MemberConfig
from raftdb.base.startup import time_text
from raftdb.machine import Machine, begin_history
from raftdb.ops.inspect import Payloads
from raftdb.ops.survivors import Account, Kept, Survivor, choose, lost_voters, may_lack, merge

__all__ = [
    "BUNDLE_FILE",
    "Archives",
    "Recovery",
    "check_unmoved",
    "claim_fork",
    "find_archives",
    "make_bundle",
    "plan_recovery",
    "recovery_facts",
]

BUNDLE_FILE = "bundle.json"
BUNDLE_FORMAT = 1
COPY = "copy"
CLAIM = "raftdb recover"
APPLY_ENTRIES = 128
WAL_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Archives:
    """The cluster's archives, read up to the history that is to be continued."""

    archives: tuple[Archive, ...]
    parents: tuple[int, ...]
    """Of each, the epoch of that history; 0 where nothing was archived."""
    sources: Sources


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is going to be done."""

    source: Survivor
    """Whose log counts."""
    database: Survivor
    """Whose database it is applied to."""
    kept: Kept
    accounts: tuple[Account, ...]
    voters: tuple[MemberConfig, ...]
    """Of the new cluster."""
    last_term: int
    archives: Archives | None

    @property
    def last_index(self) -> int:
        """Where the new history forks."""
        return max(self.kept.log_to, self.kept.archive_to)


@dataclass(frozen=True, slots=True)
class _Entry:
    index: Index
    term: Term
    payloads: tuple[bytes, ...]
    configuration: bytes = b""
    """Never there: the members of what is lost are not those of what is recovered."""


# ---- the archive


def find_archives(archives: Sequence[Archive], cluster_id: str, history: str) -> Archives:
    """Read what they have of a history. Raises ConfigError when it was continued elsewhere, and
    ArchiveUnavailableError."""
    parents, timelines = [], []
    for archive in archives:
        if archive.root.cluster_id != cluster_id:
            raise ConfigError(
                f"{archive.url} is the archive of cluster {archive.root.cluster_id}, and this is "
                f"{cluster_id}",
                code="wrong_archive",
                hint="check the URL",
            )
        parent = _epoch_of(archive, archive.claims(), history)
        parents.append(parent)
        if parent:
            timelines.append(load_timeline(archive, parent))
    return Archives(tuple(archives), tuple(parents), Sources(timelines))


def _epoch_of(archive: Archive, claims: Sequence[Claim], history: str) -> int:
    if not claims:
        return 0
    last = claims[-1]
    while last.history != history and last.mode == "recover" and last.parent:
        # A recovery that got no further than its claim: nobody follows it, it has no objects.
        if archive.listing(layout.folder(last.epoch, "manifests")):
            break
        last = claims[last.parent - 1]
    if last.history == history:
        return last.epoch
    if all(one.history != history for one in claims):
        raise ConfigError(
            f"{archive.url} follows history {last.history} up to epoch {last.epoch}, and never "
            f"heard of {history}, which these nodes have: it was out of reach when that began, or "
            "is not theirs",
            code="archive_of_another",
            hint="name the other destinations by --from, or give --ignore-archive; the cluster "
            "needs an empty prefix there (docs/archive.md)",
        )
    raise ConfigError(
        f"epoch {last.epoch} of {archive.url} was claimed by {last.claimed_by} with history "
        f"{last.history}: the cluster goes on elsewhere, from entry {last.fork_index}",
        code="superseded",
        hint="bring these nodes back into it: `raftdb rejoin BUNDLE DIR`",
    )


def claim_fork(found: Archives, history: HistoryId, fork_index: int, clock: Clock) -> None:
    """End the former history at `fork_index` in every archive (rule A2). Raises ConfigError when
    somebody else was faster."""
    for archive, parent in zip(found.archives, found.parents, strict=True):
        claim = Claim(
            epoch=len(archive.claims()) + 1,
            history=history,
            parent=parent,
            fork_index=fork_index,
            fork_position=0,
            mode="recover",
            claimed_ms=clock.wall_ms(),
            claimed_by=CLAIM,
        )
        if not archive.make_claim(claim):
            raise ConfigError(
                f"epoch {claim.epoch} of {archive.url} was claimed by somebody else just now",
                hint="one recovery is enough: see `raftdb archive status`",
            )


def check_unmoved(before: Archives, former: HistoryId, cluster_id: str) -> None:
    """Nobody archived anything of the former history while it was being left. Raises ConfigError
    when somebody did: those entries were committed, and are not in what was made."""
    again = find_archives(before.archives, cluster_id, former)
    if _last(again.sources) != _last(before.sources):
        raise ConfigError(
            "a node of the former cluster archived more while this went on",
            code="archive_moved",
            hint="run the same command again: it takes the new entries in",
        )


def _last(sources: Sources) -> int:
    return sources.last().index if sources.timelines else 0


# ---- the plan


def plan_recovery(
    here: Sequence[Survivor],
    elsewhere: Sequence[Account],
    archives: Archives | None,
    keep: Sequence[str],
    files: Files,
) -> Recovery:
    """What to do; changes nothing. `keep` names voters of the new cluster beside the survivors
    here, which are not needed for it to begin but count. Raises ConfigError."""
    source, database = choose(here, elsewhere)
    after = database.account.applied_index
    log = {after: 0}
    log |= {int(one.index): int(one.term) for one in source.entries(files) if one.index > after}
    if len(log) == 1:
        log = {source.account.last_index: source.account.last_term}
    archived = _archived_terms(archives, min(log))
    kept = merge(log, archived)
    last_term = archived[kept.archive_to] if kept.archive_to > kept.log_to else log[kept.log_to]
    known = {one.node_id: one for one in source.members}
    names = [one.account.node_id for one in here]
    for name in keep:
        if name not in known:
            raise ConfigError(
                f"{name} was no member of the cluster", hint=f"there were {', '.join(known)}"
            )
        if name not in names:
            names.append(name)
    strange = [name for name in names if name not in known]
    if strange:
        raise ConfigError(
            f"{', '.join(strange)} was no member any more when {source.account.node_id} last wrote",
            hint="recover without it: a removed member stays removed",
        )
    voters = tuple(one for name, one in known.items() if name in names)
    accounts = (*(one.account for one in here), *elsewhere)
    return Recovery(source, database, kept, accounts, voters, last_term, archives)


def _archived_terms(archives: Archives | None, applied: int) -> dict[int, int]:
    """Of the entries that follow each other up to the archive's last one."""
    if archives is None or not any(archives.parents):
        return {}
    last, first = _last(archives.sources), applied + 1
    if last < first:
        return {}
    if archives.sources.way(first, last) is None:
        bad = [str(one) for one in archives.sources.problems if not one.harmless]
        raise ConfigError(
            f"the archive reaches entry {last}, and lacks some after entry {applied}"
            + (f": {bad[0]}" if bad else ""),
            code="archive_apart",
            hint="`raftdb restore --replace` uses the archive alone, --ignore-archive the "
            "survivors alone",
        )
    return {entry.index: entry.term for entry in archives.sources.entries(first, last)}


def recovery_facts(plan: Recovery, running: Sequence[str]) -> dict[str, Any]:
    """The plan as plain values."""
    lost = lost_voters(plan.accounts, running)
    lacks = may_lack(plan.accounts)
    kept, account = plan.kept, plan.source.account
    return {
        "survivors": [one.to_json() for one in plan.accounts],
        "log_of": account.node_id,
        "database_of": plan.database.account.node_id,
        "last_index": plan.last_index,
        "last_term": plan.last_term,
        "time": time_text(account.time_ms),
        "from_archive": max(0, kept.archive_to - kept.log_to),
        "entries_dropped": kept.dropped,
        "not_seen": lost,
        "may_be_lost": lacks,
        "voters": [one.node_id for one in plan.voters],
        "quorum": len(plan.voters) // 2 + 1,
        "archives": [] if plan.archives is None else [one.url for one in plan.archives.archives],
    }


# ---- what is made


def make_bundle(
    plan: Recovery,
    history: HistoryId,
    bundle: Path,
    *,
    files: Files,
    log: Log,
    payloads: Payloads,
    clock: Clock,
) -> dict[str, Any]:
    """Copy the database, apply what the plan keeps, and describe it all. Returns the description.
    Raises ConfigError and FatalError; `bundle` is a new directory."""
    work = bundle / "work"
    database, former = work / "database", plan.source.config.history
    bundle.mkdir(parents=True)
    shutil.copytree(plan.database.node.database, database)
    machine = Machine.open(
        str(database), history=former, limits=DEFAULT_LIMITS, files=files, log=log
    )
    try:
        machine = _apply_all(machine, plan, files, payloads)
        index, term = machine.applied()
        copy = machine.capture(str(bundle / COPY), lambda _done: None, files=files)
        time_ms = machine.time_ms()
    finally:
        machine.close()
    shutil.rmtree(work)
    facts = {
        "format": BUNDLE_FORMAT,
        "cluster_id": plan.source.config.cluster_id,
        "history": history,
        "former": former,
        "index": int(index),
        "term": int(term),
        "time": time_text(time_ms),
        "content": copy.content_total.hex(),
        "voters": [_member(one) for one in plan.voters],
        "former_members": [_member(one) for one in plan.source.members],
        "archive": plan.archives is not None,
        "made": time_text(clock.wall_ms()),
    }
    replace_file(files, str(bundle / BUNDLE_FILE), (json.dumps(facts, indent=2) + "\n").encode())
    return facts


def _member(one: MemberConfig) -> dict[str, str]:
    return {
        "node_id": one.node_id,
        "location": one.location,
        "peer_address": str(one.peer_address),
        "client_address": str(one.client_address),
    }


def _apply_all(machine: Machine, plan: Recovery, files: Files, payloads: Payloads) -> Machine:
    waiting: list[_Entry] = []
    for entry in _entries(plan, int(machine.applied()[0]), files, payloads):
        waiting.append(entry)
        if len(waiting) % APPLY_ENTRIES == 0:
            waiting = _apply(machine, waiting)
            if machine.wal_bytes() > WAL_BYTES_MAX:
                machine.checkpoint()
    # What ran long and has no verdict in the log was answered to nobody: it ends here, undone.
    _apply(machine, waiting)
    return machine


def _apply(machine: Machine, batch: list[_Entry]) -> list[_Entry]:
    if not batch or (machine.held() is not None and not machine.look_ahead(batch[1:])):
        return batch
    return batch[len(machine.apply(batch)) :]


def _entries(plan: Recovery, applied: int, files: Files, payloads: Payloads) -> Iterator[_Entry]:
    kept, source = plan.kept, plan.source
    for entry in source.entries(files):
        if applied < entry.index <= kept.log_to:
            yield _Entry(entry.index, entry.term, tuple(payloads(entry.data)))
    if plan.archives is not None and kept.archive_to > kept.log_to:
        for one in plan.archives.sources.entries(max(kept.log_to, applied) + 1, kept.archive_to):
            yield _Entry(Index(one.index), Term(one.term), tuple(payloads(one.data)))


def fill_from(bundle: Path, facts: dict[str, Any], database: str, files: Files) -> None:
    """Make the bundle's copy the database in that directory, as the beginning of its history."""
    copy = os.path.join(database, "recovered")
    shutil.copytree(bundle / COPY, copy)
    Machine.install(database, copy, history=facts["former"], files=files, verify_content=False)
    shutil.rmtree(copy)
    lineage = [(HistoryId(facts["former"]), Index(facts["index"]), 0)]
    begin_history(database, HistoryId(facts["history"]), lineage, files=files)
