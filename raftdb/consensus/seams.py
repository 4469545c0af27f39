"""The seams: the only module that touches pysyncobj's private parts and module globals.

pysyncobj 0.3.17 reads its clock, randomness, poller, journal and pickle from globals of its main
module. Each engine therefore gets that module's code run in a namespace of its own, in which those
globals are the engine's: several engines in one process, with different clocks, do not meet, and a
program that uses pysyncobj itself keeps its own. In the engine's namespace everything that would
open, start, sleep or unpickle raises.

What is overridden, and which row of DESIGN.md's table it serves:

    global or private name             row  becomes
    pickle                             15   raises on loads, load, dumps, dump
    Serializer                      11-13   holds nothing: no dump is made or loaded
    TCPTransport, getEncryptor, os,    15   raise on any use
      time, PipeNotifier, globalDns…   18   (no sockets, files, sleep, pipes, look-ups)
    threading                          21   a lock that is none: one loop owns the engine
    monotonicTime, random              21   the Clock and Random ports
    createJournal                       1   the durable log
    createPoller                       18   polls nothing
    __connectedToAnyone                 9   asked only once a deadline passed: the pre-vote gate
    __getEntries                     3,18   no slices of the log
    __getCurrentLogIndex, …Term        18   without making an entry
    __applyLogEntries, __doApplyCommand 17  the apply lane has it; nothing is applied in a callback
    _checkCommandsToApply, _applyCommand 16 no queue, no forwarding, no request ids (row 20)
    __sendAppendEntries              8,18   the replicator's, event-driven
    __tryLogCompaction, __loadDumpFile 11-13 nothing
    __parseChangeClusterRequest     15,19   nothing is unpickled; the library's own changes of
                                            membership are off
    __otherNodes, __readonlyNodes      19   set by `set_peers`: other voters; everybody else
    __votesCount                       19   without its own vote where that does not count
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NoReturn, Protocol

import pysyncobj.node
import pysyncobj.transport
import pysyncobj.version

from raftdb.base.errors import ConfigError, InternalError
from raftdb.base.ports import Clock, Random
from raftdb.consensus.log import Block, DurableLog, LibraryLog, Tail
from raftdb.consensus.wall import CANDIDATE, FOLLOWER, LEADER

PINNED_VERSION = "0.3.17"

_ROLES = {0: FOLLOWER, 1: CANDIDATE, 2: LEADER}
_FOLLOWER = 0
_code: CodeType | None = None


class LibraryCalls(Protocol):
    """What the library asks of the engine."""

    def library_sends(self, peer: str, message: dict[str, Any]) -> None:
        """A message for `peer`: request_vote, response_vote, next_node_idx or timeout_now."""

    def library_may_campaign(self) -> bool:
        """The election deadline has passed: is an election to start?"""

    def library_leads(self) -> None:
        """It won, and appended the no-op."""

    def library_appends(self, first: int, entries: Sequence[tuple[int, bytes]]) -> None:
        """(term, data) each, from index `first` on, are in the log."""

    def library_truncates(self, index: int) -> None:
        """The log is cut from `index` on."""


class _Forbidden:
    """A global of the library that nothing may use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> NoReturn:
        raise InternalError(f"pysyncobj tried to use {self._name}.{attribute}")

    def __call__(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise InternalError(f"pysyncobj tried to call {self._name}")


class _NoPickle:
    """Row 15: the library's own pickle seams. Nothing is ever unpickled."""

    def _refuse(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise InternalError("pysyncobj tried to pickle or unpickle")

    loads = load = dumps = dump = to_bytes = _refuse


class _NoSerializer:
    """Rows 11 to 13: no dump is made, loaded or sent by the library."""

    def __init__(self, *_arguments: Any) -> None:
        pass

    def cancelTransmisstion(self, _node: Any) -> None:
        pass


class _NoLock:
    """One loop owns the engine: the library's locks protect nothing."""

    def __enter__(self) -> _NoLock:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class _NoPoller:
    def poll(self, _timeout_s: float) -> None:
        pass


class _NoResolver:
    def setTimeouts(self, *_arguments: Any) -> None:
        pass

    def setPreferredAddrFamily(self, *_arguments: Any) -> None:
        pass


class PeerNode(int, pysyncobj.node.Node):  # type: ignore[misc]
    """A member, as the library names it. It is its place in the members' list, so that the order of
    the library's sets does not depend on PYTHONHASHSEED (row 21), and so that its many look-ups by
    node call no Python."""

    def __new__(cls, _name: str, ordinal: int) -> PeerNode:
        return super().__new__(cls, ordinal)

    def __init__(self, name: str, _ordinal: int) -> None:
        pysyncobj.node.Node.__init__(self, name)

    __ne__ = int.__ne__


class _Wire(pysyncobj.transport.Transport):  # type: ignore[misc]
    """The library's transport: hands over what it sends."""

    ready = True

    def __init__(self, calls: LibraryCalls) -> None:
        super().__init__(None, None, None)
        self._calls = calls

    def send(self, node: PeerNode, message: dict[str, Any]) -> bool:
        self._calls.library_sends(node.id, message)
        return True

    def deliver(self, node: PeerNode, message: dict[str, Any]) -> None:
        self._onMessageReceived(node, message)

    def connected(self, node: PeerNode) -> None:
        self._onNodeConnected(node)

    def disconnected(self, node: PeerNode) -> None:
        self._onNodeDisconnected(node)


class _Overrides:
    """Mixed in before SyncObj. Names are the library's (`_SyncObj__x` is its private `__x`)."""

    seam_calls: LibraryCalls
    seam_log: DurableLog

    def __dir__(self) -> list[str]:
        """The constructor looks for replicated methods by name: there are none."""
        return []

    def _SyncObj__connectedToAnyone(self) -> bool:
        return self.seam_calls.library_may_campaign()

    def _SyncObj__getEntries(
        self, fromIDx: int | None, count: int | None = None, maxSizeBytes: int | None = None
    ) -> Any:
        log = self.seam_log
        if fromIDx is None or not log.first_index - 1 <= fromIDx <= log.last_index:
            return []
        if count is None and maxSizeBytes is None:
            return Tail(fromIDx, log.term_at(fromIDx), log.last_index - fromIDx + 1)
        if count == 1:
            return [(b"", fromIDx, log.term_at(fromIDx))]
        raise InternalError("pysyncobj asked for several entries of the log")

    def _SyncObj__getCurrentLogIndex(self) -> int:
        return self.seam_log.last_index

    def _SyncObj__getCurrentLogTerm(self) -> int:
        return self.seam_log.last_term

    def _SyncObj__applyLogEntries(self) -> bool:
        return False

    def _SyncObj__doApplyCommand(self, command: Any) -> NoReturn:
        raise InternalError("pysyncobj tried to apply a command")

    def _SyncObj__sendAppendEntries(self) -> None:
        pass

    def _SyncObj__tryLogCompaction(self) -> None:
        pass

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> NoReturn:
        raise InternalError("pysyncobj tried to load a dump")

    def _SyncObj__parseChangeClusterRequest(self, command: Any) -> None:
        return None

    def _SyncObj__onSetCodeVersion(self, newVersion: int) -> None:
        pass

    def _checkCommandsToApply(self) -> None:
        pass

    def _applyCommand(self, *_arguments: Any) -> NoReturn:
        raise InternalError("pysyncobj's own command queue is not used")


def _refuse_node_class(*_arguments: Any) -> NoReturn:
    raise InternalError("pysyncobj tried to make a node")


def _load_code() -> CodeType:
    """The code of pysyncobj's main module, compiled once per process."""
    global _code
    if _code is None:
        if pysyncobj.version.VERSION != PINNED_VERSION:
            raise ConfigError(
                f"pysyncobj {pysyncobj.version.VERSION} is installed",
                hint=f"raftdb is proven on {PINNED_VERSION}: install pysyncobj=={PINNED_VERSION}",
            )
        spec = importlib.util.find_spec("pysyncobj.syncobj")
        assert spec is not None
        code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
        assert isinstance(code, CodeType)
        _code = code
    return _code


def load_namespace(clock: Clock, random: Random, journal: LibraryLog) -> ModuleType:
    """pysyncobj's main module once more, for one engine, with the engine's globals."""
    module = ModuleType("pysyncobj.syncobj")
    module.__package__ = "pysyncobj"
    exec(_load_code(), module.__dict__)
    replaced = {
        "pickle": _NoPickle(),
        "monotonicTime": clock.monotonic_s,
        "random": SimpleNamespace(random=random.random),
        "createJournal": lambda _file: journal,
        "createPoller": lambda _kind: _NoPoller(),
        "Serializer": _NoSerializer,
        "globalDnsResolver": _NoResolver,
        "threading": SimpleNamespace(Lock=_NoLock),
        "PIPE_NOTIFIER_ENABLED": False,
        "logger": logging.getLogger("raftdb.pysyncobj"),
    }
    for name in ("os", "time", "TCPTransport", "TCPNode", "PipeNotifier", "getEncryptor", "sys"):
        replaced[name] = _Forbidden(name)
    for name, value in replaced.items():
        if not hasattr(module, name):
            raise InternalError(f"pysyncobj.syncobj has no global {name}")
        setattr(module, name, value)
    return module


class Library:
    """One pysyncobj instance behind plain names. Every method is one touch of its insides."""

    def __init__(
        self,
        *,
        node_id: str,
        peers: Iterable[str],
        log: DurableLog,
        calls: LibraryCalls,
        clock: Clock,
        random: Random,
        election_min_s: float,
        election_max_s: float,
    ) -> None:
        names = sorted({node_id, *peers})
        self._nodes = {name: PeerNode(name, ordinal) for ordinal, name in enumerate(names, 1)}
        self._clock = clock
        module = load_namespace(clock, random, LibraryLog(log, calls))
        raft_class = type(
            "Raft", (_Overrides, module.SyncObj), {"seam_calls": calls, "seam_log": log}
        )
        configuration = module.SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            dynamicMembershipChange=False,
            raftMinTimeout=election_min_s,
            raftMaxTimeout=election_max_s,
            appendEntriesPeriod=election_min_s / 4,
            leaderFallbackTimeout=election_max_s,
            connectionTimeout=2 * election_max_s,
            useFork=False,
        )
        self._wire = _Wire(calls)
        self._calls = calls
        others = [self._nodes[name] for name in names if name != node_id]
        self.raft: Any = raft_class(
            self._nodes[node_id],
            others,
            configuration,
            nodeClass=_refuse_node_class,
            transport=self._wire,
        )
        for node in others:
            self._wire.connected(node)

    def node(self, name: str) -> PeerNode:
        """The library's name of a member, or of somebody who speaks like one."""
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = PeerNode(name, len(self._nodes) + 1)
        return node

    def set_peers(self, voters: Iterable[str], watchers: Iterable[str]) -> None:
        """Row 19: who counts beside this node, and who only gets the log."""
        raft = self.raft
        raft._SyncObj__otherNodes = {self.node(name) for name in voters}
        raft._SyncObj__readonlyNodes = {self.node(name) for name in watchers}
        peers = raft._SyncObj__otherNodes | raft._SyncObj__readonlyNodes
        known = raft._SyncObj__raftNextIndex
        for node in sorted(known.keys() - peers):
            del known[node]
            raft._SyncObj__raftMatchIndex.pop(node, None)
            raft._SyncObj__lastResponseTime.pop(node, None)
        for node in sorted(peers - known.keys()):
            self._wire.connected(node)
            known[node] = self._last_index() + 1
            raft._SyncObj__raftMatchIndex[node] = 0
            raft._SyncObj__lastResponseTime[node] = self._clock.monotonic_s()

    def _last_index(self) -> int:
        index: int = self.raft._SyncObj__getCurrentLogIndex()
        return index

    def discount_own_vote(self) -> None:
        """Row 19: of n voters without this node more than n / 2 have to elect it. The library asks
        for more than (n + 1) / 2 with its own vote counted."""
        self.raft._SyncObj__votesCount -= 0.5

    # -- state -----------------------------------------------------------------------------------

    def view(self) -> tuple[int, int, object]:
        """Role, term and leader, for comparing with an earlier view alone."""
        raft = self.raft
        return raft._SyncObj__raftState, raft._SyncObj__raftCurrentTerm, raft._SyncObj__raftLeader

    @property
    def role(self) -> str:
        return _ROLES[self.raft._SyncObj__raftState]

    @property
    def term(self) -> int:
        term: int = self.raft._SyncObj__raftCurrentTerm
        return term

    @property
    def leader(self) -> str | None:
        node = self.raft._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def commit_index(self) -> int:
        index: int = self.raft._SyncObj__raftCommitIndex
        return index

    def set_commit_index(self, index: int) -> None:
        """Forward only."""
        assert index >= self.raft._SyncObj__raftCommitIndex
        self.raft._SyncObj__raftCommitIndex = index

    @property
    def noop_index(self) -> int:
        """Of the term this node leads; only while it leads."""
        index: int = self.raft._SyncObj__noopIDx
        return index

    @property
    def election_deadline_s(self) -> float:
        """On the Clock port's monotonic_s."""
        return float(self.raft._SyncObj__raftElectionDeadline)

    def set_election_deadline(self, at_s: float) -> None:
        self.raft._SyncObj__raftElectionDeadline = at_s

    def set_election_timeouts(self, min_s: float, max_s: float) -> None:
        """From the next draw on."""
        configuration = self.raft._SyncObj__conf
        configuration.raftMinTimeout, configuration.raftMaxTimeout = min_s, max_s

    def draw_timeout_s(self) -> float:
        """A random election timeout."""
        return float(self.raft._SyncObj__generateRaftTimeout())

    @property
    def transfer_pending(self) -> bool:
        """The leader asked this node to stand, and it has not yet."""
        return bool(self.raft._SyncObj__transferInProgress)

    def next_index(self, peer: str) -> int:
        index: int = self.raft._SyncObj__raftNextIndex[self._nodes[peer]]
        return index

    def set_next_index(self, peer: str, index: int) -> None:
        self.raft._SyncObj__raftNextIndex[self._nodes[peer]] = index

    def match_index(self, peer: str) -> int:
        index: int = self.raft._SyncObj__raftMatchIndex.get(self._nodes[peer], 0)
        return index

    def set_match_index(self, peer: str, index: int) -> None:
        """Row 22: downwards, when that member has lost its log."""
        self.raft._SyncObj__raftMatchIndex[self._nodes[peer]] = index

    def last_response_s(self, peer: str) -> float:
        return float(self.raft._SyncObj__lastResponseTime[self._nodes[peer]])

    def note_response(self, peer: str, at_s: float) -> None:
        self.raft._SyncObj__lastResponseTime[self._nodes[peer]] = at_s

    # -- actions ---------------------------------------------------------------------------------

    def seed_applied(self, index: int) -> None:
        """Rule C2: at start, applied and commit come from the machine."""
        self.raft._SyncObj__raftLastApplied = index
        self.raft._SyncObj__raftCommitIndex = index

    def note_applied(self, index: int) -> None:
        self.raft._SyncObj__raftLastApplied = index

    def campaign(self, now_s: float) -> None:
        """The library's own election: new term, own vote, request_vote to all (rule C1: the gate
        holds those until the vote is on disk). A single member leads at once."""
        commit = self.raft._SyncObj__raftCommitIndex
        self.set_election_deadline(now_s - 1.0)
        self.raft._onTick(0.0)
        # A single member has its majority at once, and the library counts it at once (row 2).
        self.raft._SyncObj__raftCommitIndex = commit
        if self.role == LEADER:
            self._calls.library_leads()

    def adopt_term(self, term: int) -> None:
        """A higher term was seen: follow in it, without a vote yet and without a leader."""
        self.raft._SyncObj__setCurrentTerm(term, None)
        self.step_down()

    def step_down(self) -> None:
        self.raft._SyncObj__setState(_FOLLOWER)
        self.raft._SyncObj__raftLeader = None

    def transfer(self, peer: str) -> bool:
        """The library's TimeoutNow to a peer that has everything; False when it has not."""
        results: list[Any] = []
        self.raft.transferLeadership(self.node(peer), lambda _none, reason: results.append(reason))
        return results == [0]

    def deliver(self, peer: str, message: dict[str, Any]) -> None:
        """A message that has passed the wall."""
        led = self.role == LEADER
        self._wire.deliver(self.node(peer), message)
        if not led and self.role == LEADER:
            self._calls.library_leads()

    # -- messages that pass ----------------------------------------------------------------------

    def deliver_append(
        self,
        peer: str,
        term: int,
        commit: int,
        prev: tuple[int, int],
        entries: tuple[tuple[int, bytes], ...],
    ) -> None:
        """append_entries, already put at its index (row 3) with its commit clamped (row 4)."""
        index, prev_term = prev
        blocks: list[tuple[Block, int, int]] = []
        if entries:
            blocks = [(Block(index + 1, entries), index + len(entries), entries[-1][0])]
        self.deliver(
            peer,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit,
                "entries": blocks,
                "prevLogIdx": index,
                "prevLogTerm": prev_term,
            },
        )

    def deliver_heartbeat(self, peer: str, term: int, commit: int) -> None:
        """append_entries without a log part: it renews the leader's claim and is not answered."""
        self.deliver(peer, {"type": "append_entries", "term": term, "commit_index": commit})
