"""The engine's port: all that the rest of raftdb knows of consensus, and all it needs of them.

The engine carries bytes. An entry of the log holds a tuple of payloads, one per proposed request;
(index, position) names one of them for ever (rule M1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from raftdb.base.frozen import frozen
from raftdb.base.ids import Index, NodeId, Term
from raftdb.consensus.membership import Configuration as Configuration
from raftdb.consensus.membership import Member as Member
from raftdb.consensus.membership import MemberChange as MemberChange


@frozen
class CommittedEntry:
    """An entry that a quorum holds durably. `payloads` is empty for a term's no-op."""

    index: Index
    term: Term
    payloads: tuple[bytes, ...]
    configuration: bytes = b""
    """Of a change of members: all of them from now on, opaque to the machine, which keeps it."""


DAMAGE = "damage"
"""Cause of standing down: this member's database or log is damaged, and it sends no copies."""


class StateMachine(Protocol):
    """What the engine drives. Called on the `apply` lane, except where it says loop."""

    absent: bool
    """There is no state, because its file is damaged: nothing is applied until a copy is there."""

    def applied(self) -> tuple[Index, Term]:
        """Loop, before start: the last entry whose effect is committed in the database (C2)."""

    def copied(self) -> tuple[Index, Term] | None:
        """Loop, before start: the entry that the database was copied at from another member; None
        if it was founded here."""

    def configuration(self) -> tuple[int, bytes] | None:
        """Loop, before start: the last configuration among what is applied, and its entry's index;
        None when there never was one (rule C2)."""

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[Sequence[bytes]]:
        """Apply in order, in one transaction; replies per entry and payload. A SQL error is a
        reply. An exception means that this node cannot go on: the engine stops it."""

    def apply_briefly(self, entries: Sequence[CommittedEntry]) -> Sequence[Sequence[bytes]] | None:
        """Loop, never while `apply` runs: the same, if it is done within a few milliseconds; None
        when it would not be, and then nothing has happened."""

    def look_ahead(self, entries: Sequence[CommittedEntry]) -> bool:
        """Loop, after `apply` returned for fewer entries than it was given: it waits for something
        that a later entry says. These are committed and not to be applied yet. Whether it can go
        on; then `apply` is called again, from the first entry that has no replies."""


@frozen
class Copied:
    """A copy of the machine's state, in a file of its own."""

    index: int
    term: int
    size: int
    path: str
    description: bytes
    """By which `install` verifies it."""


class CopyJob(Protocol):
    """A copy in the making, step by step on a lane."""

    def begin(self) -> int:
        """Freeze what is copied; the index it will be of. An Error: try again later."""

    def step(self) -> Copied | None:
        """Copy some more; the copy when it is done and durable."""

    def abort(self) -> None:
        """Give up; harmless at any time."""


class CopyStore(Protocol):
    """Makes and installs copies of the machine's state. Called on lanes, but where it says loop."""

    def begin(self, directory: str) -> CopyJob:
        """Loop: a copy into that (new, empty) directory."""

    def install(self, path: str, description: bytes) -> None:
        """Verify the file completely, and make it what the next start begins with, by one durable
        step. ConfigError: it is not what it should be, and everything is as before."""


@frozen
class Applied:
    """The proposal was committed and applied here."""

    index: Index
    position: int
    reply: bytes


@frozen
class NotApplied:
    """The proposal never entered the log and never will."""

    reason: str
    """`not_leader`, `overloaded`, `stopping`."""


@frozen
class OutcomeUnknown:
    """It entered the log here, but leadership was lost or the node stops before it was applied."""

    reason: str


ProposalOutcome = Applied | NotApplied | OutcomeUnknown


@frozen
class Changed:
    """The change is committed (or was so already), and this is what holds now."""

    index: Index
    configuration: Configuration


@frozen
class NotChanged:
    """The change never entered the log and never will."""

    code: str
    """`not_leader`, `stopping`; `not_ready`, `change_under_way`, `transfer_under_way`: the same
    request may be good in a moment; whatever ChangeError has: it makes no sense."""
    message: str
    hint: str = ""


ChangeOutcome = Changed | NotChanged | OutcomeUnknown


@frozen
class ReadReady:
    """A read at this node sees every write acknowledged before `read_index` was called, once the
    machine has applied `index` (the engine waited for that already)."""

    index: Index
    begun_s: float = 0.0
    """By this node's monotonic clock, not later than the confirmation began: what it has applied
    up to `index` is no older than that (R1)."""


ReadOutcome = ReadReady | NotApplied


class DurabilityLevel(Protocol):
    """What a success reply waits for, beyond the quorum (rule C3). Hashable: replies of equal
    levels wait together."""

    def upto(self, durable: Mapping[str, int]) -> int:
        """Up to which index of the log it holds. `durable` says per member, this leader included,
        up to which index that member has this leader's log on disk, as acknowledged in this term.
        A level may look elsewhere too, and then calls `durability_moved` when that has changed."""


class Waiting(Protocol):
    """A wait under way."""

    def cancel(self) -> None:
        """Nobody waits any more; harmless when it has ended."""


@frozen
class PeerStatus:
    """What the leader knows of one other member."""

    node_id: NodeId
    connected: bool
    match_index: Index
    round_trip_ms: float | None
    answers: bool = False
    """It is connected, and answered this leader within the leader's own time-out."""


@frozen
class EngineStatus:
    """A snapshot of the engine, for people and for routing."""

    node_id: NodeId
    role: str
    """`leader`, `follower`, `candidate` or `stopped`."""
    term: Term
    leader: NodeId | None
    first_index: Index
    last_index: Index
    durable_index: Index
    commit_index: Index
    applied_index: Index
    peers: tuple[PeerStatus, ...] = field(default=())
    configuration_index: int = 0
    """Of the entry that says who the members are; 0: still the founding list."""
    members: tuple[Member, ...] = ()
    """As that entry says, committed or not."""
    removed: tuple[NodeId, ...] = ()
    """Ids of former members, which are never used again."""


@dataclass(slots=True)
class Timing:
    """Seconds. Defaults suit a LAN: failover in about half a second. An engine has one of its own,
    which all its parts share; it changes by `Engine.set_timing` only."""

    election_min_s: float = 0.3
    election_max_s: float = 0.6
    heartbeat_s: float = 0.05
    leader_timeout_s: float = 0.6
    """A leader that heard no majority for this long steps down (check-quorum)."""
    connect_timeout_s: float = 1.0
    reconnect_s: float = 0.1

    def copy(self) -> Timing:
        """Another one, for another owner."""
        return replace(self)

    def take(self, other: Timing) -> None:
        """Become like the other one."""
        for field_ in fields(self):
            setattr(self, field_.name, getattr(other, field_.name))


@frozen
class EngineEvents:
    """Called on the loop."""

    on_role: Callable[[EngineStatus], None]
    """The role, the term or the known leader changed."""
    on_fatal: Callable[[BaseException], None]
    """The engine stopped itself; the node must stop. Called once."""
    on_waiting: Callable[[], None] | None = None
    """The machine waits for what a later entry says."""
    on_note: Callable[[NodeId, bytes], None] | None = None
    """Another member's `tell`."""
    on_members: Callable[[Configuration], None] = lambda _configuration: None
    """Other members, roles, places or addresses are in force (a change that is not committed may
    be taken back: then this is called again)."""
    on_removed: Callable[[Index], None] = lambda _index: None
    """This node is no member any more, by the committed entry of that index. It takes part in
    nothing, and will be refused by all others. Called once."""
    on_superseded: Callable[[str, str], None] = lambda _peer, _history: None
    """Another node says that the cluster goes on in the history of that id, which continues this
    node's: what it does counts no more, and all of the new one refuse it. Called once."""
    on_copied: Callable[[], None] = lambda: None
    """A copy from another member was installed: the node must be started again to begin with it."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What members say of themselves right after the hello, on connections that are not for a copy:
    opaque here. It goes as a Note, so that a release that does not know of it may drop it."""

    data: Callable[[], bytes]
    demanded: Callable[[], bool]
    """Whether nothing else is heard of a peer, and nothing said to it, before it has greeted."""
    refusal: Callable[[str, bytes], str]
    """Why the peer that greets so is refused; `` when it is not."""
    missing: Callable[[str], str]
    """Why one is refused that says something else instead."""
    met: Callable[[str], None]
    """A new connection of that peer: what it said on earlier ones is void."""
    greeted: Callable[[str], bool]
    """Whether that peer has, on its connection of now: it knows what the first release does not."""


class Held(Protocol):
    """What keeps a part of the log."""

    @property
    def overrun(self) -> bool:
        """It could not be kept."""

    def move_to(self, index: int) -> None: ...

    def release(self) -> None: ...


@frozen
class CopySettings:
    """How copies of the database are made, sent and fetched."""

    store: CopyStore
    directory: str
    """For what is under way; nothing else lies there."""
    pin: Callable[[int], Held]
    """Keeps the log from an index on (rule D2)."""
    rate_bytes_per_s: int = 64 << 20
    """Of making one, and of fetching one."""
    spare_bytes: int = 0
    """None is fetched that leaves less room than that."""


class EnginePort(Protocol):
    """One member's consensus. Everything here is called on the loop."""

    def start(self) -> None:
        """Open the peer port and take part. `on_fatal` reports what goes wrong."""

    def propose(self, payload: bytes, done: Callable[[ProposalOutcome], None]) -> None:
        """Replicate one request. `done` is called exactly once."""

    @property
    def applied_index(self) -> Index:
        """The last entry whose effect is committed in the machine."""

    def read_index(self, done: Callable[[ReadOutcome], None]) -> None:
        """Confirm leadership for a linearizable read (thesis 6.4); a follower has the leader do it.
        `done` is called once."""

    def when_applied(self, index: int, done: Callable[[str], None]) -> Waiting | None:
        """Call `done` with `` once the machine has applied `index`, or with the reason why this
        node will not. There is no bound of time: the caller has one, and cancels then. Not before
        this returns; None: `done` is called soon."""

    def when_durable(
        self, index: int, level: DurabilityLevel, done: Callable[[str], None]
    ) -> Waiting | None:
        """Leader: call `done` with `` once `level` holds up to `index`, which is applied here; or
        with the reason why this node will not know. Not before this returns; None: `done` is
        called soon, with a reason. There is no bound of time: the caller has one."""

    def durability_moved(self) -> None:
        """Something that a DurabilityLevel looks at, other than the members' disks, has changed."""

    def durable_indexes(self) -> Mapping[str, int]:
        """Leader: what a DurabilityLevel is given."""

    def transfer_leadership(self, target: NodeId | None, done: Callable[[str], None]) -> None:
        """Hand over to `target` (None: the most advanced). `done` gets `` or the reason why not."""

    def change_members(self, change: MemberChange, done: Callable[[ChangeOutcome], None]) -> None:
        """One change (thesis 4.1). `done` is called exactly once, and not before this returns; how
        long a majority takes is bounded by the leader's own time-out (check-quorum)."""

    def tell(self, data: bytes, to: NodeId | None = None) -> None:
        """Say something (at most NOTE_BYTES_MAX bytes) to all members that are connected now, or
        to one; lost when a connection is. Nothing of it is logged."""

    def disconnect(self, peer: NodeId, reason: str) -> None:
        """Close the connection of that member, if there is one. It may dial again."""

    def take_entries(self, takes: bool) -> None:
        """As a follower: whether new entries go into the log. While they don't this member lags,
        and the quorum is one of the others; it votes and hears its leader."""

    def has_lost_log(self, peer: NodeId) -> None:
        """That member says that it has lost its log (row 22): what it acknowledged counts no more,
        and it is asked anew what it has. Harmless where this node does not lead."""

    def set_timing(self, timing: Timing, far: Sequence[str] = ()) -> None:
        """From now on these times hold, and members `far` are behind long lines: what is sent to
        them is compressed. Safe at any moment: they decide when something is tried,
        never whether it is right. Raises ConfigError for times that do not fit together."""

    def step_down(self) -> None:
        """Lead no longer, at once: open proposals end as unknown, and others elect."""

    def stand_down(self, reason: str, *, cause: str = "content") -> None:
        """Never lead from now on: no campaign, no take-over. With `` the way is free again. A
        leader leads on until it hands over. Voting and replicating go on."""

    def status(self) -> EngineStatus:
        """As of now."""

    def stop(self, done: Callable[[], None]) -> None:
        """Close connections and the port. Open proposals end as OutcomeUnknown, then `done`."""
