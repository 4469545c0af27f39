"""One member on a bench: the real core and wall over a journal that syncs when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.errors import InternalError
from raftdb.base.ids import Address, Index, NodeId, Term
from raftdb.base.limits import Limits
from raftdb.consensus.core import Core
from raftdb.consensus.entry import NOOP
from raftdb.consensus.log import HardState, LogEntry
from raftdb.consensus.membership import VOTER, Configurations, Member, configuration_of
from raftdb.consensus.messages import Message, PreVoteResponse, Vote
from raftdb.consensus.port import Timing
from raftdb.consensus.wall import Wall


class HandJournal:
    """A log in memory: `sync()` makes what is queued durable, `lose()` drops what is not."""

    def __init__(self, terms: Sequence[int] = (), *, term: int = 0) -> None:
        self._entries = [LogEntry(Index(1), Term(0), b"")]
        for position, entry_term in enumerate(terms):
            self._entries.append(LogEntry(Index(position + 2), Term(entry_term), NOOP))
        self._base = (0, 0)
        self._hard_state = HardState(Term(max([term, *terms])), None)
        self._sequence = 0
        self.durable_sequence = 0
        self._durable = (list(self._entries), self._hard_state)
        self._on_durable: Callable[[], None] = lambda: None
        self.on_fatal: Callable[[BaseException], None] = lambda _error: None
        self.appends = 0

    @property
    def first_index(self) -> int:
        return self._base[0] + 1

    @property
    def last_index(self) -> int:
        return self._base[0] + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._base[1]

    @property
    def durable_index(self) -> int:
        durable = self._durable[0]
        same = 0
        for mine, disk in zip(self._entries, durable, strict=False):
            if mine is not disk:
                break
            same += 1
        return self._base[0] + same

    @property
    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def durable_hard_state(self) -> HardState:
        return self._durable[1]

    def sequence(self) -> int:
        return self._sequence

    def term_at(self, index: int) -> int:
        base, base_term = self._base
        if index == base:
            return base_term
        if not base < index <= self.last_index:
            raise InternalError(f"no entry {index}")
        return self._entries[index - base - 1].term

    def entry(self, index: int) -> LogEntry:
        return self._entries[index - self._base[0] - 1]

    def entries(self, first: int, last: int, max_bytes: int) -> list[LogEntry]:
        found: list[LogEntry] = []
        size = 0
        base = self._base[0]
        for entry in self._entries[first - base - 1 : last - base]:
            size += len(entry.data) + 32
            if found and size > max_bytes:
                break
            found.append(entry)
        return found

    def append(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            if entry.index != self.last_index + 1 or entry.term < self.last_term:
                raise InternalError(f"entry {entry.index} does not follow")
            self._entries.append(entry)
        self._sequence += 1
        self.appends += 1

    def truncate_from(self, index: int) -> None:
        del self._entries[index - self._base[0] - 1 :]
        self._sequence += 1

    def reset(self, index: int, term: int) -> None:
        self._base, self._entries = (index, term), []
        self._durable = ([], self._durable[1])
        self._sequence += 1

    def drop_below(self, index: int) -> None:
        """Compaction."""
        term = self.term_at(index - 1)
        del self._entries[: index - self.first_index]
        self._base = (index - 1, term)
        self._durable = (list(self._entries), self._durable[1])

    def set_hard_state(self, state: HardState) -> None:
        self._hard_state = state
        self._sequence += 1

    def wake(
        self, on_durable: Callable[[], None], on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._on_durable, self.on_fatal = on_durable, on_fatal

    def sync(self) -> None:
        """The disk has everything queued so far."""
        self._durable = (list(self._entries), self._hard_state)
        self.durable_sequence = self._sequence
        self._on_durable()

    def terms(self) -> list[int]:
        """Terms from index 2 on."""
        return [entry.term for entry in self._entries[1:]]


class HandClock:
    """Time moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


class HalfRandom:
    """Always in the middle."""

    def random(self) -> float:
        return 0.5

    def randbytes(self, count: int) -> bytes:
        return bytes(count)


class ListLog:
    """Log lines as (event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def events(self) -> list[str]:
        return [event for event, _fields in self.lines]


def record(name: str, role: str = VOTER) -> Member:
    """A member of that name."""
    return Member(NodeId(name), f"zone/{name}", Address(name, 7000), Address(name, 7001), role)


class HandLinks:
    """Everybody is connected; what is sent is kept."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []
        self.down: set[str] = set()
        self.hung_up: list[str] = []
        self.epochs: dict[str, int] = {}

    def connected(self, peer: str) -> bool:
        return peer not in self.down

    def epoch(self, peer: str) -> int:
        return self.epochs.get(peer, 1)

    def send(self, peer: str, message: Message) -> None:
        if peer not in self.down:
            self.sent.append((peer, message))

    def hang_up(self, peer: str) -> None:
        self.hung_up.append(peer)


class Bench:
    """Member n1 of `size`, with a log of the given terms (from index 2)."""

    def __init__(
        self,
        terms: Sequence[int] = (),
        *,
        size: int = 3,
        term: int = 0,
        wall: Wall | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.journal = HandJournal(terms, term=term)
        self.clock = HandClock()
        self.links = HandLinks()
        self.log = ListLog()
        self.timing = Timing()
        self.peers = [f"n{number}" for number in range(2, size + 1)]
        self.core = Core(
            node_id="n1",
            configurations=Configurations(
                configuration_of([record("n1"), *map(record, self.peers)])
            ),
            log=self.journal,
            wall=wall or Wall(),
            clock=self.clock,
            random=HalfRandom(),
            log_port=self.log,
            timing=self.timing,
            limits=limits or Limits(),
            links=self.links,
        )
        self.library = self.core.library
        self.library.seed_applied(1)
        self.journal.wake(self.core.on_durable, lambda _error: None)

    def take(self, kind: type[Any] | None = None, peer: str | None = None) -> list[Any]:
        """What was sent since the last call, of a type and to a peer."""
        sent, self.links.sent = self.links.sent, []
        return [
            message
            for to, message in sent
            if (kind is None or isinstance(message, kind)) and (peer is None or to == peer)
        ]

    def receive(self, peer: str, message: Message) -> None:
        """A message of a peer; on a leader, then count."""
        self.core.on_message(peer, message)
        self.core.advance_commit()

    def pass_time(self, seconds: float) -> None:
        self.clock.now_s += seconds

    def elect(self) -> int:
        """Lead the next term, with the votes of just enough peers, in order; returns the term."""
        self.pass_time(1.0)
        self.core.on_election_deadline()
        term = self.library.term + 1
        voters = self.peers[: (len(self.peers) + 1) // 2]
        for peer in voters:
            self.receive(peer, PreVoteResponse(term - 1, term))
        self.journal.sync()
        for peer in voters:
            self.receive(peer, Vote(term))
        assert self.library.role == "leader"
        assert self.library.term == term
        self.journal.sync()
        return term

    def append(self, count: int = 1, data: bytes = b"new") -> int:
        """Entries of this leader; returns the last index."""
        for _ in range(count):
            last = self.core.append_own(data)
        return last
