"""The node of a toy cluster: engine and journal over a toy machine. The cluster knows only
`SimNode`, so that a test may bring a node of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftdb.base.ids import Address, ClusterId, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.consensus import (
    CopySettings,
    Engine,
    EngineEvents,
    EngineStatus,
    Member,
    ProposalOutcome,
    ReadOutcome,
    Timing,
)
from raftdb.consensus.membership import VOTER, MemberChange
from raftdb.consensus.messages import Message
from raftdb.consensus.port import ChangeOutcome
from raftdb.consensus.wall import Wall
from raftdb.journal import RetentionBounds
from tests.consensus.toy import ToyMachine, ToyStore
from tests.consensus.toy_copies import Again, ToyCopies
from tests.sim.checkers import Checker
from tests.sim.disk import SimFiles
from tests.sim.watched import WatchedJournal

DIRECTORY = "/node/journal"
COPIES = "/node/copies"
CLUSTER = ClusterId("5" * 32)


@dataclass
class Machine:
    """One machine: its disk and what else survives a process."""

    name: str
    files: SimFiles
    store: ToyStore


@dataclass(frozen=True)
class NodeSettings:
    """What the factory needs to build a node."""

    members: Sequence[Member]
    timing: Timing
    limits: Limits
    wall: Wall
    checkers: Sequence[Checker]
    retention: RetentionBounds | None = None
    copies: type[ToyCopies] = ToyCopies


class Gone(Exception):
    """The node was removed from the cluster, and knows it."""


class SimNode(Protocol):
    """One process's node, as cluster, clients and checkers use it."""

    name: str
    machine: ToyMachine

    @property
    def role(self) -> str: ...
    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def journal(self) -> Any: ...
    def start(self) -> None: ...
    def status(self) -> EngineStatus: ...
    def propose(self, payload: bytes, done: Callable[[ProposalOutcome], None]) -> None: ...
    def read_index(self, done: Callable[[ReadOutcome], None]) -> None: ...
    def transfer(self, done: Callable[[str], None]) -> None: ...


class EngineNode:
    """Engine, journal and toy machine in one life."""

    def __init__(
        self,
        home: Machine,
        settings: NodeSettings,
        ports: Ports,
        draw: Any,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.name = home.name
        self._checkers = settings.checkers
        journal = WatchedJournal.open(
            home.files,
            DIRECTORY,
            ports.executor,
            settings.limits,
            ports.log,
            settings.retention,
        )
        assert isinstance(journal, WatchedJournal)
        journal.watch(self, settings.checkers)
        self.journal = journal
        self.machine = ToyMachine(home.store, draw, self._on_applied)
        self._compacting = False
        self._store, self._executor = home.store, ports.executor
        copies = settings.copies(home.store, home.files)
        self.engine = Engine(
            node_id=NodeId(home.name),
            members=settings.members,
            cluster_id=CLUSTER,
            journal=journal,
            machine=self.machine,
            ports=ports,
            timing=settings.timing,
            limits=settings.limits,
            events=EngineEvents(
                lambda _status: None,
                on_fatal,
                on_copied=lambda: on_fatal(Again()),
                on_removed=lambda _index: on_fatal(Gone()),
            ),
            wall=settings.wall,
            fingerprint=b"toy",
            copies=CopySettings(copies, COPIES, journal.pin),
        )
        self._library = self.engine._core.library
        transport = self.engine._transport
        send = transport.send

        def watched_send(peer: str, message: Message) -> None:
            for checker in self._checkers:
                checker.on_send(self, message)
            send(peer, message)

        transport.send = watched_send  # type: ignore[method-assign]
        self.engine._core.replicator._send = watched_send

    @property
    def role(self) -> str:
        return self._library.role

    @property
    def term(self) -> int:
        return self._library.term

    @property
    def commit_index(self) -> int:
        return self._library.commit_index

    def start(self) -> None:
        self.engine.start()

    def status(self) -> EngineStatus:
        return self.engine.status()

    def propose(self, payload: bytes, done: Callable[[ProposalOutcome], None]) -> None:
        self.engine.propose(payload, done)

    def read_index(self, done: Callable[[ReadOutcome], None]) -> None:
        self.engine.read_index(done)

    def transfer(self, done: Callable[[str], None]) -> None:
        self.engine.transfer_leadership(None, done)

    def change(self, change: MemberChange, done: Callable[[ChangeOutcome], None]) -> None:
        self.engine.change_members(change, done)

    def _on_applied(self, entry: Any) -> None:
        for checker in self._checkers:
            checker.on_applied(self.name, entry)
        if not self._compacting:
            self._compacting = True
            self._executor.call_soon(self._compact)

    def _compact(self) -> None:
        self._compacting = False
        self.journal.compact(self._store.durable)


def members_of(count: int) -> list[Member]:
    """n1, n2, …, each on a machine of its own name."""
    return [member_of(f"n{number}") for number in range(1, count + 1)]


def member_of(name: str, machine: str = "", role: str = VOTER) -> Member:
    """A member of that id, on a machine (by default of its own name)."""
    host = machine or name
    return Member(NodeId(name), f"zone-{host}", Address(host, 7000), Address(host, 7001), role)
