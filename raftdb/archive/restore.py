"""Carries a plan out: the base, then the log, request by request, each proven by its hash.

Everything happens in a work directory, and what was done there is not done again: packs that were
written, entries that were applied. The result is a copy with its description, as
`Machine.capture` makes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.archive.archive import Archive
from raftdb.archive.basecopy import check_chunks, places, write_pack
from raftdb.archive.errors import ArchiveDamagedError, ArchiveUnavailableError
from raftdb.archive.parallel import each
from raftdb.archive.plan import Plan, Point, Source, Sources, read_segment
from raftdb.archive.records import ArchiveEntry, BaseRecord
from raftdb.base.atomic import NEW_SUFFIX, replace_file
from raftdb.base.errors import ConfigError, Error
from raftdb.base.ids import HistoryId, Index, Term
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.base.ports import Files, Log
from raftdb.machine import Capture, Machine, fingerprint, write_description

__all__ = ["Decode", "Progress", "Restored", "restore"]

Decode = Callable[[bytes], tuple[bytes, ...]]
"""An entry's requests, from its data."""
Progress = Callable[[str, int, int], None]
"""Takes (what, done, of): bytes of the base, entries of the log."""

APPLY_ENTRIES = 128
STATE = "restore.json"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought."""

    point: Point
    index: int
    """The last entry applied: that of the point, or the one of which it has some requests."""
    term: int
    time_ms: int
    history: HistoryId
    content: bytes
    """Computed anew from all rows."""
    proven: bool
    """Whether the archive has the hash that was recorded live at this point: it is then equal."""
    requests: int
    """Replayed, by this call."""
    compared: int
    """Of those, how many had a recorded hash; all were equal."""
    copy: str
    """Directory of the copy: database.sqlite and its description."""


@dataclass(frozen=True, slots=True)
class _Entry:
    index: Index
    term: Term
    payloads: tuple[bytes, ...]
    configuration: bytes = b""
    """Never there: who the members were says nothing about those of a restored cluster."""


class _Comparison:
    """Compares every hash of the replay with the recorded one, before it is committed."""

    def __init__(self, base: Source) -> None:
        self.expected: dict[tuple[int, int], bytes] = {}
        self.compared = 0
        self.last: bytes = b""
        """Recorded after the last request that was applied; empty when it was not."""
        self._build = base.link.manifest.note
        self._object = ""

    def expect(self, source: Source, entries: Sequence[ArchiveEntry], *, more: bool) -> None:
        """Of these entries, and with `more` of those before, which are not all applied yet."""
        self._object = source.link.manifest.object
        known = self.expected if more else {}
        self.expected = known | {
            (entry.index, place): entry.hash_at(place)
            for entry in entries
            for place in range(len(entry.hashes) // 16)
        }

    def __call__(self, _time_ms: int, items: Sequence[tuple[int, int, bytes]]) -> None:
        for index, position, found in items:
            wanted = self.expected.get((index, position), b"")
            self.last = wanted
            if not wanted:
                continue
            if found != wanted:
                mine = fingerprint().sqlite_version
                hint = "restore to the moment before it, and report this"
                if mine != self._build:
                    hint = f"install the raftdb release that has SQLite {self._build}"
                raise ArchiveDamagedError(
                    self._object,
                    f"replaying request {position} of entry {index} gave content hash "
                    f"{found.hex()}, and {wanted.hex()} was recorded (SQLite {mine} here, "
                    f"{self._build} there)",
                    hint=hint,
                )
            self.compared += 1


def restore(
    sources: Sources,
    plan: Plan,
    work: str,
    *,
    files: Files,
    log: Log,
    decode: Decode,
    progress: Progress | None = None,
) -> Restored:
    """Do it. `work` is a directory of its own, where an earlier try goes on. Raises
    ArchiveDamagedError when what is needed cannot be read from any destination."""
    job = _Restore(sources, work, files, log, decode, progress or _silent)
    while True:
        try:
            job.fetch_base(plan.base)
            break
        except ArchiveDamagedError as error:
            # Another base, or the same from another destination; `plan` raises when none is left.
            sources.reject(plan.base, error)
            plan = sources.plan(plan.target)
    return job.replay(plan)


class _Restore:
    def __init__(
        self,
        sources: Sources,
        work: str,
        files: Files,
        log: Log,
        decode: Decode,
        progress: Progress,
    ) -> None:
        self._sources = sources
        self._work = os.path.abspath(work)
        self._files = files
        self._log = log
        self._decode = decode
        self._progress = progress
        self._database = os.path.join(self._work, "database")
        self._history = HistoryId("")

    # ---- the base

    def fetch_base(self, source: Source) -> None:
        """Make the base the work directory's database, unless it is that already."""
        manifest = source.link.manifest
        self._history = HistoryId(manifest.history)
        state = self._state()
        if state.get("base") == manifest.object and state.get("installed"):
            return
        record = source.archive.read(BaseRecord, manifest.object, manifest.digest)
        check_chunks(manifest.object, record)
        if state.get("base") != manifest.object:
            self._clear()
            state = {"base": manifest.object, "packs": []}
            self._save(state)
        folder = os.path.join(self._work, "base")
        self._fetch_packs(source.archive, record, folder, state)
        capture = Capture(
            history=HistoryId(record.history),
            index=Index(record.index),
            term=Term(record.term),
            position=0,
            size_bytes=record.size_bytes,
            digest=record.file_digest,
            content_total=record.content,
        )
        write_description(folder, capture, self._files)
        try:
            Machine.install(self._database, folder, history=self._history, files=self._files)
        except ConfigError as error:
            self._clear()
            raise ArchiveDamagedError(manifest.object, error.message) from error
        self._save({**state, "installed": True})

    def _fetch_packs(
        self, archive: Archive, record: BaseRecord, folder: str, state: dict[str, Any]
    ) -> None:
        self._files.make_directory(folder)
        wanted = places(record)
        done: set[int] = set(state["packs"])
        todo = [number for number in sorted(wanted) if number not in done]
        total = sum(record.packs[number].size for number in wanted)
        have = sum(record.packs[number].size for number in done)
        file = self._files.open(os.path.join(folder, "database.sqlite"), create=True)

        def fetch(number: int) -> bytes:
            pack = record.packs[number]
            return archive.read_pack(pack.name, pack.digest)

        try:
            for number, plain in each(fetch, todo):
                if isinstance(plain, Exception):
                    raise plain
                write_pack(record, number, plain, wanted[number], file)
                have += record.packs[number].size
                state["packs"].append(number)
                if len(state["packs"]) % 16 == 0:
                    file.sync()
                    self._save(state)
                self._progress("base", have, total)
            file.sync()
        finally:
            file.close()

    def _clear(self) -> None:
        for folder in ("base", "database", "copy"):
            path = os.path.join(self._work, folder)
            if self._files.exists(path):
                _remove_tree(self._files, path)

    def _state(self) -> dict[str, Any]:
        path = os.path.join(self._work, STATE)
        if not self._files.exists(path):
            self._files.make_directory(self._work)
            # Interrupted in its first moment, a try leaves the state's half-written file.
            if set(self._files.list_directory(self._work)) - {STATE + NEW_SUFFIX}:
                raise ConfigError(
                    f"{self._work} is not empty, and no restore was begun there",
                    hint="give a new directory",
                )
            return {}
        try:
            state = json.loads(self._files.read_file(path))
        except ValueError:
            state = {}
        return state if isinstance(state, dict) else {}

    def _save(self, state: dict[str, Any]) -> None:
        replace_file(self._files, os.path.join(self._work, STATE), json.dumps(state).encode())

    # ---- the log

    def replay(self, plan: Plan) -> Restored:
        """Apply the log up to the plan's target; copy the result."""
        machine = self._open(plan)
        try:
            compare = _Comparison(plan.base)
            compare.last = plan.base.link.manifest.content
            machine.record_hashes(compare)
            requests = self._apply_all(machine, plan, compare)
            incremental, content = machine.content_hash(), machine.recompute_content_hash()
            if incremental.total != content.total:
                raise ArchiveDamagedError(
                    plan.base.link.manifest.object, "the rows are not those that were hashed"
                )
            index, term = machine.applied()
            if plan.target.position == 0 and int(index) != plan.target.index:
                raise ArchiveDamagedError(
                    plan.base.link.manifest.object, f"the replay ended at entry {index}"
                )
            copy = os.path.join(self._work, "copy")
            if self._files.exists(copy):
                _remove_tree(self._files, copy)
            machine.capture(copy, _no_pace, files=self._files)
            proven = bool(compare.last) and compare.last == content.total
            return Restored(
                point=plan.target,
                index=int(index),
                term=int(term),
                time_ms=machine.time_ms(),
                history=self._history,
                content=content.total,
                proven=proven,
                requests=requests,
                compared=compare.compared,
                copy=copy,
            )
        finally:
            machine.close()

    def _open(self, plan: Plan) -> Machine:
        """The machine, at an index from which the target can be reached."""
        machine = self._machine()
        index = int(machine.applied()[0])
        if index <= plan.target.index and self._is_on_the_way(index, plan):
            return machine
        # An earlier try went further, or another way, or ended inside of an entry.
        machine.close()
        self._clear()
        self._save({})
        self.fetch_base(plan.base)
        return self._machine()

    def _is_on_the_way(self, index: int, plan: Plan) -> bool:
        """Whether what an earlier try applied, up to `index`, is what this plan would."""
        if index == plan.base_index:
            return True
        state = self._state()
        if state.get("inside") == index:
            return False
        told = state.get("way", [])
        return _up_to(told, index) == _up_to(_histories(plan.segments), index)

    def _note_way(self, way: Sequence[Source], at: int, plan: Plan) -> None:
        """Say, before anything of it is applied, whose entries follow entry `at`."""
        state = self._state()
        pieces = _up_to(state.get("way", []), at) if at > plan.base_index else []
        for history, last in _histories(way):
            if pieces and pieces[-1][0] == history:
                pieces.pop()
            pieces.append([history, last])
        inside = plan.target.index + 1 if plan.target.position else 0
        if (state.get("way"), state.get("inside")) != (pieces, inside):
            self._save({**state, "way": pieces, "inside": inside})

    def _machine(self) -> Machine:
        return Machine.open(
            self._database,
            history=self._history,
            limits=DEFAULT_LIMITS,
            files=self._files,
            log=self._log,
        )

    def _apply_all(self, machine: Machine, plan: Plan, compare: _Comparison) -> int:
        target = plan.target
        needed = target.index + (1 if target.position else 0)
        start = int(machine.applied()[0])
        requests = 0
        while (at := int(machine.applied()[0])) < needed:
            way = self._sources.way(at + 1, needed)
            if way is None:
                self._sources.plan(target)
                raise ArchiveDamagedError(f"entry {at + 1}", "is in no readable object")
            self._note_way(way, at, plan)
            waiting: list[_Entry] = []
            for source, found in each(read_segment, way):
                if isinstance(found, ArchiveDamagedError | ArchiveUnavailableError):
                    self._reject(source, found)
                    break
                if isinstance(found, Exception):
                    raise found
                at = int(machine.applied()[0]) + len(waiting)
                entries = [one for one in found if at < one.index <= needed]
                compare.expect(source, entries, more=bool(waiting))
                fresh = [self._decoded(one, target) for one in entries]
                requests += sum(len(one.payloads) for one in fresh)
                waiting = _apply_all_of(machine, waiting, fresh)
                self._progress("log", int(machine.applied()[0]) - start, needed - start)
            else:
                self._apply_held(machine, waiting, needed)
        return requests

    def _apply_held(self, machine: Machine, waiting: list[_Entry], needed: int) -> None:
        """The last entries wait for the verdict on a request that ran long: it stands in the log
        behind them, and is looked up there without being applied."""
        if not waiting:
            return
        for entry in self._sources.entries(needed + 1, self._sources.last().index):
            later = _Entry(Index(entry.index), Term(entry.term), self._decode(entry.data))
            if machine.look_ahead([later]):
                waiting = _apply(machine, waiting)
                break
        if waiting:
            index, position = machine.held() or (needed, 0)
            raise ConfigError(
                f"request {position} of entry {index} ran long, and the archive ends before what "
                "became of it",
                code="not_restorable",
                hint="name a moment before it",
            )

    def _reject(self, source: Source, error: Error) -> None:
        if not isinstance(error, ArchiveDamagedError):
            error = ArchiveDamagedError(source.link.manifest.object, error.message)
        self._sources.reject(source, error)

    def _decoded(self, entry: ArchiveEntry, target: Point) -> _Entry:
        payloads = self._decode(entry.data)
        if entry.index > target.index:
            if target.position > len(payloads):
                raise ConfigError(
                    f"entry {entry.index} has {len(payloads)} requests",
                    hint=f"{target} names one that there is not",
                )
            payloads = payloads[: target.position]
        return _Entry(Index(entry.index), Term(entry.term), payloads)


def _histories(way: Sequence[Source]) -> list[list[Any]]:
    """[history, last index] of one piece after the other. What a history has at an index is one
    entry, in whatever object and at whatever destination it stands."""
    pieces: list[list[Any]] = []
    for one in way:
        manifest = one.link.manifest
        if pieces and pieces[-1][0] == manifest.history:
            pieces.pop()
        pieces.append([manifest.history, min(manifest.last, one.limit)])
    return pieces


def _up_to(pieces: Sequence[Sequence[Any]], index: int) -> list[list[Any]]:
    """What of the pieces is not after `index`."""
    found: list[list[Any]] = []
    for history, last in pieces:
        if found and found[-1][1] >= index:
            break
        found.append([history, min(last, index)])
    return found


def _apply_all_of(machine: Machine, waiting: list[_Entry], fresh: Sequence[_Entry]) -> list[_Entry]:
    """Apply what waits and what is new, some at a time; what is left waits for a verdict."""
    for entry in fresh:
        waiting.append(entry)
        if len(waiting) % APPLY_ENTRIES == 0:
            waiting = _apply(machine, waiting)
            if machine.wal_bytes() > 64 << 20:
                machine.checkpoint()
    return _apply(machine, waiting)


def _apply(machine: Machine, batch: list[_Entry]) -> list[_Entry]:
    """Apply what can be applied: what is left begins with a request that runs long, and waits for
    its verdict, which comes later in the log."""
    if not batch or (machine.held() is not None and not machine.look_ahead(batch[1:])):
        return batch
    return batch[len(machine.apply(batch)) :]


def _remove_tree(files: Files, path: str) -> None:
    """Empty a directory of directories. (Directories themselves stay.)"""
    for name in files.list_directory(path):
        inner = os.path.join(path, name)
        if os.path.isdir(inner):
            _remove_tree(files, inner)
        else:
            files.remove(inner)


def _silent(_what: str, _done: int, _of: int) -> None:
    pass


def _no_pace(_done: int) -> None:
    pass
