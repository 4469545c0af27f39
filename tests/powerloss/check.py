"""Opens what a crash left with the real recovery code, and looks for what was promised.

It is the code of a start, up to where the node would vote: identity, journal (with its rewriting),
database, the engine's own look at both. Then every entry that was applied before is applied again
where the database lost it, and content, replies and sessions have to come out as they were.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftdb.base.config import NodeConfig
from raftdb.base.errors import ConfigError, Error, FatalError
from raftdb.base.ids import Index, Term
from raftdb.base.layout import database_path
from raftdb.base.ports import Files
from raftdb.command import Execute, decode_request
from raftdb.consensus.entry import decode_payloads, encode_batch
from raftdb.embedded.assembly import Assembly
from raftdb.journal import Journal, LogEntry
from raftdb.machine import Machine
from raftdb.machine.stored import read_progress, run_on
from raftdb.runtime.files import RealFiles
from tests.journal.model import State, state_of
from tests.machine.support import Entry
from tests.powerloss.bench import ListLog, StepExecutor, config_of, nothing, ports_for, scratch
from tests.powerloss.story import Required, Story

_NOT_THERE = {"journal_missing", "database_missing", "config"}
"""Codes of what a start says to a directory whose founding was cut short."""
_SESSIONS = (
    "SELECT number, token, label, opened_ms, used_ms, sequence, floor, reply"
    " FROM _raftdb_session ORDER BY number",
    "SELECT session, sequence, reply FROM _raftdb_reply ORDER BY session, sequence",
)


class ViolationError(AssertionError):
    """A promise is broken."""


@dataclass(frozen=True)
class Snapshot:
    """All of a database that replicas and lives must agree on, after one entry."""

    content: Any
    sessions: Any
    position: int


def snapshot(machine: Machine) -> Snapshot:
    """As of the last commit."""
    with machine._readers.snapshot() as connection:
        sessions = tuple(tuple(connection.execute(sql).fetchall()) for sql in _SESSIONS)
        position = read_progress(run_on(connection)).position
    return Snapshot(machine.content_hash(), sessions, position)


class Reference:
    """The database after each applied entry of a story, on a machine that never stopped."""

    def __init__(self, story: Story, config: NodeConfig) -> None:
        home = scratch()
        try:
            Machine.create(str(home / "db"), config.history, files=RealFiles())
            machine = _open_machine(str(home / "db"), config)
            self.at = {0: snapshot(machine)}
            for index, entry in sorted(story.committed.items()):
                machine.apply([_applicable(entry)])
                self.at[index] = snapshot(machine)
            machine.close()
        finally:
            shutil.rmtree(home)


def _open_machine(directory: str, config: NodeConfig) -> Machine:
    return Machine.open(
        directory, history=config.history, limits=config.limits, files=RealFiles(), log=ListLog()
    )


def _applicable(entry: LogEntry) -> Entry:
    return Entry(Index(entry.index), Term(entry.term), decode_payloads(entry.data))


@dataclass
class Opened:
    """A node that was started on what a crash left."""

    assembly: Assembly
    executor: StepExecutor
    log: ListLog
    journal: Journal
    machine: Machine
    state: State

    def close(self) -> None:
        """Let go of the files, as a kill would."""
        with contextlib.suppress(BaseException):
            self.machine.close()
        self.journal._segments.close()
        self.journal._release()


def start(directory: Path, config: NodeConfig, files: Files, vfs_base: str = "") -> Opened:
    """What a start does before it takes part. Raises what would stop it."""
    executor, log = StepExecutor(), ListLog()
    stopped: list[BaseException | None] = []
    assembly = Assembly(
        config_of(directory, config),
        ports_for(files, executor, log),
        stopped.append,
        vfs_base=vfs_base,
    )
    journal, machine = assembly.journal, assembly.machine
    opened = Opened(assembly, executor, log, journal, machine, state_of(journal))
    assembly.start(nothing)
    failure = assembly._failure
    if failure is not None:
        opened.close()
        raise failure
    return opened


@contextlib.contextmanager
def started(directory: Path, config: NodeConfig) -> Iterator[Opened]:
    """`start`, for a look at it."""
    opened = start(directory, config, RealFiles())
    try:
        yield opened
    finally:
        opened.close()


@dataclass(frozen=True)
class Looked:
    """What was seen in a state that is as it should be."""

    founded: bool = True
    cut: bool = False
    """A torn tail was cut off the journal."""
    replayed: int = 0
    """Entries that the database had lost and got again from the journal."""


class Checker:
    """Checks states of one record."""

    def __init__(
        self, story: Story, config: NodeConfig, reference: Reference | None = None
    ) -> None:
        self._story = story
        self._config = config
        self.reference = reference or Reference(story, config)

    def check(self, directory: Path, required: Required) -> Looked:
        """Raises ViolationError. Changes the files, as a start and some work would."""
        try:
            with started(directory, self._config) as opened:
                return self._look(opened, required)
        except ConfigError as error:
            if required.founded or error.code not in _NOT_THERE:
                raise ViolationError(f"it does not start: {error}") from error
            return Looked(founded=False)
        except Error as error:
            raise ViolationError(f"it does not start: {error}") from error

    def _look(self, opened: Opened, required: Required) -> Looked:
        if not required.founded and not self._story.states:
            return Looked()
        why = self._story.why_not(opened.state, required)
        if why and required.founded:
            raise ViolationError(why)
        applied = self._check_database(opened.machine)
        replayed = self._replay(opened, applied, required.applied)
        if required.applied:
            self._retry(opened, required)
        self._go_on(opened)
        cut = "journal_tail_cut" in opened.log.events()
        return Looked(True, cut, replayed)

    def _check_database(self, machine: Machine) -> int:
        """What is applied is a prefix of what was applied; nothing else is in the file."""
        applied = int(machine.applied()[0])
        expected = self.reference.at.get(applied)
        if expected is None:
            raise ViolationError(f"the database shows entry {applied}, which was never applied")
        found = snapshot(machine)
        if found.position == 0 and found != expected:
            raise ViolationError(
                f"the database at entry {applied} differs: {_difference(found, expected)}"
            )
        if machine.recompute_content_hash() != found.content:
            raise ViolationError(f"rows and content hash differ at entry {applied}")
        return applied

    def _replay(self, opened: Opened, applied: int, upto: int) -> int:
        journal, machine = opened.journal, opened.machine
        if upto <= applied:
            return 0
        entries = journal.entries(applied + 1, upto, 1 << 40)
        if not entries or entries[-1].index != upto:
            raise ViolationError(f"entries {applied + 1} to {upto} are not in the journal")
        for entry in entries:
            if entry != self._story.committed[entry.index]:
                raise ViolationError(f"entry {entry.index}, which was applied, is another one")
        machine.apply([_applicable(entry) for entry in entries])
        found, expected = snapshot(machine), self.reference.at[upto]
        if found != expected:
            raise ViolationError(
                f"replayed to entry {upto}, the database differs: {_difference(found, expected)}"
            )
        return len(entries)

    def _retry(self, opened: Opened, required: Required) -> None:
        """Every client's last request that was answered, sent again: the reply of the first time,
        and no effect."""
        last: dict[int, tuple[bytes, bytes]] = {}
        sequences: dict[int, int] = {}
        for index, position, reply in self._story.acks[: required.acked]:
            payload = decode_payloads(self._story.committed[index].data)[position]
            request = decode_request(payload)
            if isinstance(request, Execute):
                last[request.session] = (payload, reply)
                sequences[request.session] = request.sequence
        machine = opened.machine
        applied, term = machine.applied()
        sessions = machine._applier.sessions._sessions
        before = machine.content_hash()
        known = [one for one in last if one in sessions]
        known = [one for one in known if sessions[one].sequence == sequences[one]]
        if not known:
            return
        payloads = tuple(last[one][0] for one in known)
        [replies] = machine.apply([Entry(Index(applied + 1), term, payloads)])
        for session, reply in zip(known, replies, strict=True):
            if bytes(reply) != last[session][1]:
                raise ViolationError(f"session {session}: a retried request got another reply")
        if machine.content_hash().total != before.total:
            raise ViolationError("a retried request was applied twice")

    def _go_on(self, opened: Opened) -> None:
        """The journal can be written on, and a restart finds that."""
        journal = opened.journal
        data = encode_batch([])
        term = Term(max(journal.last_term, journal.hard_state.term, 1))
        journal.append([LogEntry(Index(journal.last_index + 1), term, data)])
        opened.executor.settle()
        if journal.durable_index != journal.last_index:
            raise ViolationError("the journal that was recovered cannot be written")
        wanted = state_of(journal)
        opened.close()
        executor = StepExecutor()
        again = Journal.open(
            RealFiles(),
            journal._directory,
            executor,
            self._config.limits,
            ListLog(),
        )
        opened.journal = again
        if state_of(again) != wanted:
            raise ViolationError("a second start finds another journal")


def _difference(found: Snapshot, expected: Snapshot) -> str:
    if found.content != expected.content:
        return f"content {found.content}, expected {expected.content}"
    return f"sessions {found.sessions}, expected {expected.sessions}"


__all__ = ["Checker", "FatalError", "Looked", "ViolationError", "database_path", "start"]
