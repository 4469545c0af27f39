"""A few members on a stage, for transcripts: real cores and walls, journals that sync when told to,
and messages that wait until somebody delivers them.

Nothing moves by itself: every command of a transcript is one cause, and what it prints is all of
its effects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.ids import NodeId
from raftdb.base.limits import Limits
from raftdb.consensus.changes import Changes
from raftdb.consensus.core import Core
from raftdb.consensus.entry import CONFIGURATION, NOOP
from raftdb.consensus.log import HardState
from raftdb.consensus.membership import (
    LEARNER,
    Add,
    Configurations,
    Demote,
    Member,
    MemberChange,
    Promote,
    Remove,
    configuration_of,
)
from raftdb.consensus.messages import Append, Message, RequestVote
from raftdb.consensus.port import (
    Changed,
    ChangeOutcome,
    NotChanged,
    ReadOutcome,
    ReadReady,
    Timing,
)
from raftdb.consensus.reads import Reads
from raftdb.consensus.wall import LEADER, Wall
from tests.consensus.bench import HalfRandom, HandClock, HandJournal, ListLog, record

Wire = tuple[str, str, Message]


class _Links:
    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._name = name

    def connected(self, peer: str) -> bool:
        return peer in self._stage.members and not self._stage.is_cut(self._name, peer)

    def epoch(self, peer: str) -> int:
        return self._stage.epoch(self._name, peer)

    def send(self, peer: str, message: Message) -> None:
        self._stage.send(self._name, peer, message)

    def hang_up(self, peer: str) -> None:
        self._stage.hang_up(self._name, peer)


class Player:
    """One member."""

    def __init__(self, stage: Stage, name: str, journal: HandJournal, wall: Wall) -> None:
        self.name = name
        self.journal = journal
        self._stage = stage
        self.stopped = ""
        self.core = Core(
            node_id=name,
            configurations=Configurations(configuration_of(stage.seed(name))),
            log=journal,
            wall=wall,
            clock=stage.clock,
            random=HalfRandom(),
            log_port=ListLog(),
            timing=Timing(),
            limits=Limits(append_bytes_max=stage.append_bytes_max),
            links=_Links(stage, name),
        )
        self.changes = Changes(
            self.core, stage.clock.monotonic_s, 0.3, self.core.links.connected, _tell, _tell
        )
        self.reads = Reads(wall, lambda done, outcome: done(outcome))
        self._wall = wall
        self.core.library.seed_applied(1)
        self.seen = self.state()
        journal.wake(self.core.on_durable, lambda _error: None)

    def state(self) -> tuple[str, int, int, tuple[int, ...], int]:
        library = self.core.library
        terms = tuple(self.journal.terms())
        return library.role, library.term, library.commit_index, terms, self.journal.durable_index

    def act(self, call: Callable[..., Any], *arguments: Any) -> None:
        """One event and what follows from it, as the engine does it."""
        if self.stopped:
            return
        try:
            call(*arguments)
            self.core.advance_commit()
            if self.core.settle():
                self.changes.settle()
            if self.core.library.role == LEADER:
                self.changes.step()
            self._read_round()
        except Error as error:
            self.stopped = error.code
            self._stage.say(f"{self.name} stops: {error.code}: {error.message}")

    def _read_round(self) -> None:
        library, reads = self.core.library, self.reads
        if library.role != LEADER:
            reads.fail("not_leader")
            return
        reads.on_rounds(self.core.rounds_acked(), library.commit_index)
        if reads.wants_round() and self._wall.may_read(library.commit_index, library.noop_index):
            begun_s = self._stage.clock.now_s
            reads.begin_round(self.core.send_heartbeats(), library.commit_index, begun_s)


class Stage:
    """All members, and the wires between them."""

    def __init__(self, count: int, *, append_bytes_max: int = 1 << 16) -> None:
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self.founders = [record(name) for name in self.names]
        self.append_bytes_max = append_bytes_max
        self.clock = HandClock()
        self.members: dict[str, Player] = {}
        self.wires: deque[Wire] = deque()
        self._cut: set[tuple[str, str]] = set()
        self._epochs: dict[frozenset[str], int] = {}
        self.lines: list[str] = []
        self._reads = 0

    def join(self, name: str, terms: list[int], wall: Wall) -> None:
        """Put a member on the stage, with a log of these terms from entry 2 on."""
        self.members[name] = Player(self, name, HandJournal(terms), wall)

    def seed(self, name: str) -> list[Member]:
        """What a member of that name begins with: the founders, and itself as a learner."""
        if name in self.names[: len(self.founders)]:
            return self.founders
        return [*self.founders, record(name, LEARNER)]

    def change(self, name: str, kind: str, subject: str) -> None:
        """A change of members is asked for."""
        player, what = self.members[name], f"{kind} {subject}"
        node_id = NodeId(subject)
        change: MemberChange = {
            "add": Add(record(subject)),
            "promote": Promote(node_id),
            "demote": Demote(node_id, force=True),
            "remove": Remove(node_id, force=True),
        }[kind]

        def done(outcome: ChangeOutcome) -> None:
            if isinstance(outcome, Changed):
                self.say(f"{name} has done {what}, by entry {outcome.index}")
            elif isinstance(outcome, NotChanged):
                self.say(f"{name} refuses {what}: {outcome.code}")

        player.act(player.changes.begin, change, done, False)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cut

    def epoch(self, name: str, peer: str) -> int:
        return self._epochs.get(frozenset((name, peer)), 1)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def send(self, source: str, target: str, message: Message) -> None:
        lost = self.is_cut(source, target) or target not in self.members
        self.say(f"{source} -> {target} {show(message)}{' (lost)' if lost else ''}")
        if not lost:
            self.wires.append((source, target, message))

    def hang_up(self, name: str, peer: str) -> None:
        """What `name` has sent is lost; `peer` notices, if the way to it is open."""
        self.say(f"{name} hangs up on {peer}")
        self.wires = deque(wire for wire in self.wires if wire[:2] != (name, peer))
        pair = frozenset((name, peer))
        self._epochs[pair] = self.epoch(name, peer) + 1
        if not self.is_cut(name, peer) and peer in self.members:
            self.members[peer].act(self.members[peer].core.on_disconnected, name)

    # -- commands --------------------------------------------------------------------------------

    def deliver(self, source: str, target: str, kind: str, *, once: bool, keep: bool) -> None:
        """Deliver what waits, in order; what is sent meanwhile waits for the next time."""
        waiting, self.wires = list(self.wires), deque()
        kept: list[Wire] = []
        again: list[Wire] = []
        delivered = 0
        for wire in waiting:
            fits = _fits(wire[0], source) and _fits(wire[1], target)
            fits = fits and (not kind or type(wire[2]).__name__ == kind)
            if not fits or (once and delivered):
                kept.append(wire)
                continue
            delivered += 1
            if keep:
                again.append(wire)
            receiver = self.members.get(wire[1])
            if receiver is not None:
                receiver.act(receiver.core.on_message, wire[0], wire[2])
        self.wires.extendleft(reversed(kept + again))
        if not delivered:
            self.say("nothing waits")

    def drop(self, source: str, target: str, kind: str) -> None:
        """Lose what waits."""
        left = [
            wire
            for wire in self.wires
            if not (
                _fits(wire[0], source)
                and _fits(wire[1], target)
                and (not kind or type(wire[2]).__name__ == kind)
            )
        ]
        self.say(f"{len(self.wires) - len(left)} lost")
        self.wires = deque(left)

    def cut(self, one: str, other: str) -> None:
        """No way between two members; what is under way is lost, and both notice."""
        for pair in ((one, other), (other, one)):
            self._cut.add(pair)
        self.wires = deque(wire for wire in self.wires if {wire[0], wire[1]} != {one, other})
        for name, peer in ((one, other), (other, one)):
            player = self.members.get(name)
            if player is not None:
                player.act(player.core.on_disconnected, peer)

    def heal(self) -> None:
        """All can reach all, by new connections."""
        for one, other in sorted(self._cut):
            self._epochs[frozenset((one, other))] = self.epoch(one, other) + 1
        cut, self._cut = sorted(self._cut), set()
        for one, other in cut:
            if one in self.members and other in self.members:
                self.members[one].act(self.members[one].core.on_connected, other)

    def power(self, name: str) -> None:
        """The machine loses power: what was not synced is gone, and so is what it had sent and
        nobody got yet. It starts again."""
        old = self.members[name].journal
        entries, hard_state = old._durable
        journal = HandJournal()
        journal._entries = list(entries)
        journal._hard_state = HardState(hard_state.term, hard_state.vote)
        journal._durable = (list(entries), hard_state)
        self.wires = deque(wire for wire in self.wires if name not in wire[:2])
        self.members[name] = Player(self, name, journal, self.members[name]._wall)

    def forget(self, name: str) -> None:
        """Its log is lost, votes included, and it knows that. It starts again, by new connections;
        its configuration is in the database."""
        self.wires = deque(wire for wire in self.wires if name not in wire[:2])
        player = Player(self, name, HandJournal(), self.members[name]._wall)
        player.core.forgotten = True
        self.members[name] = player
        for other in self.names:
            self._epochs[frozenset((name, other))] = self.epoch(name, other) + 1

    def read(self, name: str) -> None:
        """A linearizable read comes in."""
        player = self.members[name]
        self._reads += 1
        number = self._reads

        def done(outcome: ReadOutcome) -> None:
            if isinstance(outcome, ReadReady):
                self.say(f"{name} answers read {number} from entry {outcome.index}")
            else:
                self.say(f"{name} refuses read {number}: {outcome.reason}")

        player.reads.add(done)
        player.act(lambda: None)

    def changes(self) -> None:
        """Say what changed at whom since the last time."""
        for player in self.members.values():
            state = player.state()
            if state != player.seen:
                player.seen = state
                self.say(describe(player))


def _tell(done: Callable[[Any], None], outcome: Any) -> None:
    done(outcome)


def _fits(name: str, wanted: str) -> bool:
    return wanted in ("", "*") or name in wanted.split(",")


def describe(player: Player) -> str:
    """One line: role, term, log, commit."""
    role, term, commit, terms, durable = player.state()
    log = " ".join(str(value) for value in terms) or "-"
    vote = player.journal.hard_state.vote
    extra = f", vote {vote}" if vote else ""
    stopped = " STOPPED" if player.stopped else ""
    return (
        f"{player.name}: {role} of term {term}{extra}; terms of entries 2..: {log}; "
        f"on disk to {durable}, committed to {commit}{stopped}"
    )


def _kind(data: bytes) -> str:
    if data == NOOP:
        return "(no-op)"
    return "(members)" if data[:1] == CONFIGURATION else ""


def show(message: Message) -> str:
    """A message in a few words."""
    fields = message._asdict()
    if isinstance(message, Append):
        terms = " ".join(f"{term}{_kind(data)}" for term, data in message.entries)
        return (
            f"Append(term {message.term}, after ({message.prev_index}, {message.prev_term}), "
            f"entries of terms [{terms}], commit {message.commit_index})"
        )
    if isinstance(message, RequestVote) and not message.forced:
        del fields["forced"]
    fields.pop("sequence", None)
    shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in fields.items())
    return f"{type(message).__name__}({shown})"
