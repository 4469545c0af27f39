"""Workloads on journal and machine, driven by hand: every seed does the same again.

The script plays the node's part. It promises (a vote, an acknowledgement) when the journal says
that it is durable, applies what is durable, answers clients then, and starts again after kills in
the midst of anything.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.ids import Index, NodeId, Term
from raftdb.base.layout import database_path, journal_path
from raftdb.base.limits import Limits
from raftdb.base.startup import NodeIdentity, write_identity
from raftdb.command import CloseSession, Execute, OpenSession, decode_request, encode_request
from raftdb.command.requests import Request, Stamp, Statement, session_number
from raftdb.consensus.entry import BATCH, NOOP, decode_payloads, encode_batch
from raftdb.journal import HardState, LogEntry
from raftdb.machine import Machine
from tests.machine.support import Entry
from tests.powerloss.bench import (
    WALL_MS,
    ListLog,
    SeededRandom,
    StepExecutor,
    config_for,
    created,
)
from tests.powerloss.record import Event, Recorder, RecordingFiles, RecordingVfs
from tests.powerloss.story import NotedJournal

TABLES = (
    "CREATE TABLE account(id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER NOT NULL)",
    "CREATE TABLE transfer(id INTEGER PRIMARY KEY AUTOINCREMENT, memo TEXT, body BLOB)",
    "CREATE INDEX by_memo ON transfer(memo)",
)
CLIENTS = 3


@dataclass(frozen=True)
class Shape:
    """What a workload does, and how often in comparison."""

    name: str
    weights: dict[str, float]
    steps: int = 120
    limits: Limits = field(
        default_factory=lambda: Limits(journal_segment_bytes=6_000, journal_cache_bytes_max=4_000)
    )


_BASE = {"write": 10.0, "turn": 12.0, "work": 12.0, "apply": 8.0}
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("clients", {**_BASE, "write": 16, "idle": 0.5, "checkpoint": 0.5}),
        Shape(
            "rolls",
            {**_BASE, "checkpoint": 1.5, "drop": 2, "idle": 0.5},
            limits=Limits(journal_segment_bytes=1_500, journal_cache_bytes_max=1_000),
        ),
        Shape("checkpoints", {**_BASE, "apply": 14, "checkpoint": 5, "drop": 1}),
        Shape("restarts", {**_BASE, "kill": 2.5, "close": 0.4, "checkpoint": 1.5, "idle": 0.5}),
        Shape("elections", {**_BASE, "write": 4, "vote": 8, "idle": 1, "kill": 0.7}),
        Shape(
            "conflicts",
            {**_BASE, "vote": 1, "conflict": 4, "kill": 1, "checkpoint": 1},
            limits=Limits(journal_segment_bytes=2_500, journal_cache_bytes_max=2_000),
        ),
        Shape("copies", {**_BASE, "install": 1.5, "checkpoint": 1, "kill": 1}),
        Shape(
            "mixed",
            {
                **_BASE,
                "vote": 2,
                "conflict": 1.5,
                "kill": 1,
                "close": 0.3,
                "checkpoint": 2,
                "drop": 2,
                "idle": 1,
                "install": 0.3,
            },
            limits=Limits(journal_segment_bytes=2_500, journal_cache_bytes_max=2_000),
        ),
    )
}


class KilledError(BaseException):
    """The process is dead: nothing of it goes on."""


class MortalRecorder(Recorder):
    """A recorder that can end its process in the midst: from then on nothing happens."""

    def __init__(self, sink: list[Event]) -> None:
        super().__init__(sink)
        self.events = sink
        self._left: int | None = None

    def die_after(self, changes: int | None) -> None:
        """None: live."""
        self._left = changes

    def change(self, *event: Any) -> Any:
        self._live()
        return super().change(*event)

    def opened(self, path: str, opening: Callable[[], Any]) -> tuple[Any, str]:
        if self._left == 0:
            raise KilledError
        return super().opened(path, opening)

    def sync(self, handle: str, syncing: Callable[[], None]) -> None:
        self._live()
        super().sync(handle, syncing)

    def sync_names(self, path: str, syncing: Callable[[], None]) -> None:
        self._live()
        super().sync_names(path, syncing)

    def note(self, kind: str, *values: Any) -> None:
        if self._left == 0:
            raise KilledError
        super().note(kind, *values)

    def _live(self) -> None:
        if self._left is not None:
            if self._left == 0:
                raise KilledError
            self._left -= 1


@dataclass
class Client:
    """One session."""

    session: int = 0
    sequence: int = 0


class Script:
    """One workload on one directory. `run` makes the record."""

    def __init__(self, root: Path, shape: Shape, seed: int) -> None:
        self.root = root
        self.shape = shape
        self.config = config_for(root, shape.limits)
        self._draw = random.Random(f"{shape.name} {seed}")
        self.events: list[Event] = []
        self.recorder = MortalRecorder(self.events)
        self.files = RecordingFiles(self.recorder)
        self.vfs = RecordingVfs(self.recorder)
        self.executor = StepExecutor()
        self.log = ListLog()
        self._clients = [Client() for _ in range(CLIENTS)]
        self._term = 0
        self._stamps = 0
        self._captures = 0
        self.journal: NotedJournal = None  # type: ignore[assignment]
        self.machine: Machine = None  # type: ignore[assignment]

    def run(self) -> list[Event]:
        """Found, load, and leave it as a kill would."""
        try:
            self.found()
            self.open()
            self._begin()
            kinds, weights = zip(*self.shape.weights.items(), strict=True)
            for _ in range(self.shape.steps):
                step = self._draw.choices(kinds, weights)[0]
                getattr(self, f"_{step}")()
        finally:
            self.abandon()
            self.vfs.unregister()
        return self.events

    # -- life ------------------------------------------------------------------------------------

    def found(self) -> None:
        """As `raftdb init` does it."""
        config, files = self.config, self.files
        identity = NodeIdentity(config.cluster_id, config.history, config.node_id, created())
        write_identity(files, config.data_dir, identity)
        files.make_directory(journal_path(config.data_dir))
        NotedJournal.create(files, journal_path(config.data_dir), SeededRandom(7))
        files.make_directory(database_path(config.data_dir))
        files.sync_directory(config.data_dir)
        self._found_database()
        self.recorder.note("founded")

    def _found_database(self) -> None:
        directory = database_path(self.config.data_dir)
        Machine.create(directory, self.config.history, files=self.files, vfs_base=self.vfs.name)

    def open(self) -> None:
        """A new life on what the last one left."""
        config = self.config
        self.executor = StepExecutor()
        NotedJournal.recorder = self.recorder
        journal = NotedJournal.open(
            self.files, journal_path(config.data_dir), self.executor, config.limits, self.log
        )
        assert isinstance(journal, NotedJournal)
        self.journal = journal
        self.machine = Machine.open(
            database_path(config.data_dir),
            history=config.history,
            limits=config.limits,
            files=self.files,
            log=self.log,
            vfs_base=self.vfs.name,
        )
        self.journal.wake(self._on_durable, self._on_fatal)
        self._term = max(int(journal.hard_state.term), int(journal.last_term))

    def abandon(self) -> None:
        """SIGKILL, as far as files can tell: what was written stays, locks are gone."""
        self.recorder.die_after(0)
        if self.machine is not None:
            with contextlib.suppress(BaseException):
                self.machine.close()
        if self.journal is not None:
            self.journal._segments.close()
            self.journal._release()
        self.recorder.die_after(None)

    def restart(self) -> None:
        """Killed, and started again; perhaps killed in its start, too."""
        self.abandon()
        if self._draw.random() < 0.4:
            self.recorder.die_after(self._draw.randint(0, 14))
            try:
                self.open()
            except BaseException as error:
                if not _is_kill(error):
                    raise
            self.abandon()
        self.open()
        self._find_sequences()

    def _find_sequences(self) -> None:
        """What each client's next request is, by what the log holds."""
        highest = {one.session: 0 for one in self._clients}
        sessions = self.machine._applier.sessions._sessions
        for number in highest:
            if number in sessions:
                highest[number] = sessions[number].sequence
        journal = self.journal
        for entry in journal.entries(journal.first_index, journal.last_index, 1 << 40):
            for payload in decode_payloads(entry.data):
                request = decode_request(payload)
                if isinstance(request, Execute) and request.session in highest:
                    held = highest[request.session]
                    highest[request.session] = max(held, request.sequence)
        for client in self._clients:
            client.sequence = highest[client.session]

    # -- what the node does ----------------------------------------------------------------------

    def _on_durable(self) -> None:
        self.recorder.note("promise", self.journal.durable_sequence)

    def _on_fatal(self, error: BaseException) -> None:
        raise AssertionError("the journal failed without a fault") from error

    def _stamp(self) -> Stamp:
        self._stamps += 1
        return Stamp(WALL_MS + self._stamps * 10, self._stamps.to_bytes(8, "little"))

    def propose(self, *requests: Request) -> int:
        """One entry; its index."""
        index = self.journal.last_index + 1
        data = encode_batch([encode_request(one) for one in requests]) if requests else NOOP
        self.journal.append([LogEntry(Index(index), Term(max(self._term, 1)), data)])
        return int(index)

    def _begin(self) -> None:
        """Become leader, open the sessions, make the tables."""
        self._term = 1
        self.journal.set_hard_state(HardState(Term(1), self.config.node_id))
        self.propose()
        tokens = [bytes([number + 1] * 16) for number in range(CLIENTS)]
        index = self.propose(*(OpenSession(self._stamp(), token, "client") for token in tokens))
        for position, client in enumerate(self._clients):
            client.session = session_number(Index(index), position)
        self.executor.settle()
        self.apply_all()
        for statement in TABLES:
            self.propose(self._request(self._clients[0], statement))
        self.executor.settle()
        self.apply_all()

    def apply_all(self) -> None:
        """Apply all that is durable, and answer."""
        self.apply_some(int(self.journal.durable_index))

    def apply_some(self, upto: int) -> None:
        """Apply up to `upto`: first the commit, then the answers."""
        first = int(self.machine.applied()[0]) + 1
        if first > upto:
            return
        entries = [
            Entry(one.index, one.term, decode_payloads(one.data))
            for one in self.journal.entries(first, upto, 1 << 40)
        ]
        replies = self.machine.apply(entries)
        self.recorder.note("applied", upto)
        for entry, answers in zip(entries, replies, strict=True):
            for position, reply in enumerate(answers):
                self.recorder.note("acked", int(entry.index), position, bytes(reply))

    def _request(self, client: Client, sql: str, parameters: tuple[Any, ...] = ()) -> Execute:
        client.sequence += 1
        return Execute(
            stamp=self._stamp(),
            session=client.session,
            sequence=client.sequence,
            floor=client.sequence - 1,
            statements=(Statement(sql, (parameters,)),),
        )

    # -- steps -----------------------------------------------------------------------------------

    def _write(self) -> None:
        draw = self._draw
        requests = []
        for client in draw.sample(self._clients, draw.randint(1, CLIENTS)):
            kind = draw.random()
            if kind < 0.5:
                sql = "INSERT INTO transfer(memo, body) VALUES (?, ?)"
                size = draw.choice((10, 80, 80, 700, 5_000))
                memo = f"memo {draw.randint(0, 99)}"
                requests.append(self._request(client, sql, (memo, draw.randbytes(size))))
            elif kind < 0.85:
                sql = (
                    "INSERT INTO account VALUES (?, ?, 1) ON CONFLICT(id)"
                    " DO UPDATE SET balance = balance + 1"
                )
                requests.append(self._request(client, sql, (draw.randint(1, 9), "owner")))
            elif kind < 0.95:
                sql = "DELETE FROM transfer WHERE id = (SELECT min(id) FROM transfer)"
                requests.append(self._request(client, sql))
            else:
                requests.append(self._request(client, "INSERT INTO account VALUES (1, NULL, NULL)"))
        self.propose(*requests)

    def _turn(self) -> None:
        self.executor.turn()

    def _work(self) -> None:
        if self.executor.lane:
            self.executor.work()

    def _apply(self) -> None:
        durable, applied = int(self.journal.durable_index), int(self.machine.applied()[0])
        if durable > applied:
            self.apply_some(self._draw.randint(applied + 1, durable))

    def _checkpoint(self) -> None:
        self.machine.checkpoint()

    def _drop(self) -> None:
        self.journal.drop_prefix(int(self.machine.durable_index) + 1)

    def _idle(self) -> None:
        self.executor.settle()
        self.executor.advance(1.0)
        self.executor.settle()

    def _vote(self) -> None:
        self._term += self._draw.randint(1, 2)
        vote = self._draw.choice((None, self.config.node_id, NodeId("n2"), NodeId("n3")))
        self.journal.set_hard_state(HardState(Term(self._term), vote))

    def _conflict(self) -> None:
        """A new leader has other entries behind what is committed."""
        journal = self.journal
        first = max(int(self.machine.applied()[0]), int(journal.first_index)) + 1
        if journal.last_index < first:
            return
        self._vote()
        journal.truncate_from(self._draw.randint(first, int(journal.last_index)))
        self._find_sequences()
        self.propose()
        if self._draw.random() < 0.6:
            self._write()

    def _kill(self) -> None:
        """Go on for some more changes, and end in the midst of one."""
        self.recorder.die_after(self._draw.randint(0, 12))
        steps = ("write", "turn", "work", "apply", "checkpoint", "turn", "work")
        try:
            for _ in range(20):
                getattr(self, f"_{self._draw.choice(steps)}")()
        except BaseException as error:
            if not _is_kill(error):
                raise
        self.restart()

    def _close(self) -> None:
        """Stopped in order."""
        self.machine.close()
        self.journal.close(lambda _error: None)
        self.executor.settle()
        self.open()
        self._find_sequences()

    def _install(self) -> None:
        """A copy of itself becomes the next generation, as if another node had sent it."""
        self.executor.settle()
        self.apply_all()
        self._captures += 1
        target = str(self.root / f"copy-{self._captures}")
        self.machine.capture(target, lambda _bytes: None, files=self.files)
        self.machine.close()
        Machine.install(
            database_path(self.config.data_dir),
            target,
            history=self.config.history,
            files=self.files,
            vfs_base=self.vfs.name,
        )
        self.abandon()
        self.open()


def _is_kill(error: BaseException | None) -> bool:
    """SQLite's errors carry what a VFS method raised as their cause."""
    while error is not None:
        if isinstance(error, KilledError):
            return True
        error = error.__cause__ or error.__context__
    return False


__all__ = ["BATCH", "SHAPES", "CloseSession", "Error", "Script", "Shape"]
