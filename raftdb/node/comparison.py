"""Replicas compare their content all the time; who differs from the majority stops serving (D1).

Each node tells the others, a few times a second, the digests of its last commits at indexes where
they commit too. Every node judges by itself: the value that more than half of all members have at
one index is right. A node that has another one is quarantined: it hands leadership over, never
leads again, answers nobody, and says why; voting and replicating go on, since its log is sound.
Where nobody has a majority, nobody knows who is right: writes and linearizable reads stop.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raftdb.base.atomic import replace_file
from raftdb.base.errors import Error, FatalError, OperationalError
from raftdb.base.ids import NodeId
from raftdb.base.ports import Ports
from raftdb.consensus.port import EnginePort
from raftdb.machine import Sample
from raftdb.node.notes import (
    HEARD_MAX,
    NAMED_MAX,
    Note,
    decode_note,
    differing,
    encode_note,
    told_tables,
    with_tables,
)

EVERY_S = 0.2
"""A node tells its news this often."""
REPEAT_S = 1.0
"""Without news it tells the last again after this long, for members that came since."""
HASTY_RECENT = 8
"""When somebody waits for an agreement, so many last commits are told, and not one: under load no
two nodes end their transactions at the same entries, but at some that are the same."""
DOUBT_S = 1.0
"""How long a difference may wait for a majority to be known before serving stops."""
DETAIL_S = 30.0
"""How long tables' sums are kept and told after the last difference."""
HEARD_TABLES_MAX = 8
WRITE_AGAIN_S = 5.0
REASON_MAX = 2_000
"""Characters of a reason that are kept: names of tables are as long as users like."""

HEALS_HINT = (
    "use another node; this one fetches a copy of the majority's database by itself "
    "(raftdb status tells)"
)
ALONE_HINT = (
    "there is no other member to fetch a copy from: keep the directory, and restore from the "
    "archive (raftdb restore, docs/archive.md)"
)

AGREES, DOUBT, QUARANTINED = "agrees", "doubt", "quarantined"


class Compared(Protocol):
    """What is needed of the machine."""

    def samples_since(self, index: int, recent: int = 1) -> list[Sample]: ...

    def sample_at(self, index: int) -> Sample | None: ...

    def last_sample(self) -> Sample | None: ...

    def copied(self) -> tuple[int, int] | None: ...

    def keep_table_sums(self, keep: bool) -> None: ...


_Value = tuple[bytes, bytes]


@dataclass(slots=True)
class _Heard:
    """What one other member told, by index; the newest ones."""

    values: dict[int, _Value] = field(default_factory=dict)
    tables: dict[int, dict[str, bytes]] = field(default_factory=dict)


class Comparison:
    """One node's part in it. Everything here runs on the loop."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        members: Sequence[NodeId],
        voters: Sequence[NodeId] | None = None,
        engine: EnginePort,
        machine: Compared,
        ports: Ports,
        quarantine_path: str,
        on_serving: Callable[[bool], None],
    ) -> None:
        """`voters`: of the members, those that count; None: all. `on_serving` is told when this
        node stops answering anybody, and when it begins again."""
        self._node_id = str(node_id)
        self._engine = engine
        self._machine = machine
        self._ports = ports
        self._path = quarantine_path
        self._on_serving = on_serving
        self._heard: dict[str, _Heard] = {}
        self._voters: frozenset[str] = frozenset()
        self._majority = 0
        self._ahead: set[int] = set()
        """Indexes that others told and this node has not reached."""
        self._told_index = -1
        self._told_s = float("-inf")
        self._detail_until_s = float("-inf")
        self._found_until_s = float("-inf")
        """For so long others are asked for tables' sums: since what this node found itself, not
        since what others said, or two would keep each other at it for ever."""
        self._first_table = 0
        """Where the next note's tables begin, if there are more than fit."""
        self._detailed = False
        self._doubt_since_s: float | None = None
        self._doubt_index = 0
        self._handing_over = False
        self._timer: Any = None
        self._from_file = False
        self._write_at_s = float("inf")
        """That this node is quarantined is not on its disk (which is full, perhaps): when that is
        tried again."""
        self._rotten = False
        """Quarantined by `quarantine`: digests say nothing of it, only another database does."""
        self.state = AGREES
        self.reason = ""
        """Why this node does not serve; `` while it does."""
        self.agreed_index = 0
        """The last index at which a majority, this node among it, held the same."""
        self.on_agreed: Callable[[], None] = _nothing
        """Called when `agreed_index` has moved."""
        self.diverged: dict[str, tuple[str, ...]] = {}
        """Members that differed from the majority when last compared, with their tables."""
        self.set_members(members if voters is None else voters, members)

    # Life

    def start(self) -> None:
        """Begin, quarantined still if this node was when it stopped."""
        if self._ports.files.exists(self._path):
            reason, rotten_since = _read_quarantine(self._ports.files.read_file(self._path))
            self._rotten = rotten_since == self._database()
            self._from_file = not self._rotten
            self._enter_quarantine(reason)
        self._arm()

    def stop(self) -> None:
        """Compare no more."""
        if self._timer is not None:
            self._timer.cancel()

    def set_members(self, voters: Sequence[NodeId], members: Sequence[NodeId]) -> None:
        """Who is compared from now on, and who counts: the majority is one of voters, and whoever
        has another content than it is wrong, learner or not."""
        names = sorted(str(member) for member in members if member != self._node_id)
        self._heard = {name: self._heard.get(name) or _Heard() for name in names}
        self._voters = frozenset(str(voter) for voter in voters)
        self._majority = len(self._voters) // 2 + 1
        self.diverged = {
            name: tables
            for name, tables in self.diverged.items()
            if name in self._heard or name == self._node_id
        }
        if self._voters == {self._node_id}:
            # Nobody else's opinion counts any more, and nobody would tell one.
            self._doubt_since_s = None
            self._end_doubt()

    def quarantine(self, reason: str) -> None:
        """This node's database is damaged in a way that its digests do not show: a scrub found
        it. Until another database is in its place it answers nobody."""
        self._rotten, self._from_file = True, False
        self._enter_quarantine(reason)
        self._ports.executor.submit("checkpoint", self._write, self._written)

    def _database(self) -> str:
        """Names the database that this node has now: where it was copied."""
        return f"copied at {self._machine.copied()}"

    def release(self) -> None:
        """The database was replaced by a copy of the majority's: serve again."""
        self.state, self.reason = AGREES, ""
        self.diverged.pop(self._node_id, None)
        self._from_file = self._rotten = False
        self._on_serving(True)
        self._engine.stand_down("")
        self._ports.log.info("quarantine_ended", node_id=self._node_id)
        self._ports.executor.submit("checkpoint", self._forget, self._written)

    def _forget(self) -> None:
        if self._ports.files.exists(self._path):
            self._ports.files.remove(self._path)

    def _arm(self) -> None:
        self._timer = self._ports.executor.call_later(EVERY_S, self._tick)

    def _tick(self) -> None:
        self._tell()
        self._catch_up()
        now_s = self._ports.clock.monotonic_s()
        doubted_s = self._doubt_since_s
        if doubted_s is not None and now_s - doubted_s >= DOUBT_S and self.state == AGREES:
            self._enter_doubt()
        if self._detailed and now_s > self._detail_until_s:
            self._detail(False)
        if self.state == QUARANTINED:
            self._hand_over()
            if now_s >= self._write_at_s:
                self._write_at_s = float("inf")
                self._ports.executor.submit("checkpoint", self._write, self._written)
        self._arm()

    def hasten(self) -> None:
        """Somebody waits for what is applied here to be agreed upon: tell it now."""
        if self._heard and self._timer is not None:
            self._tell(HASTY_RECENT)
            self._catch_up()

    # What is told and heard

    def _tell(self, recent: int = 1) -> None:
        now_s = self._ports.clock.monotonic_s()
        news = self._machine.samples_since(self._told_index, recent)
        if not news and now_s - self._told_s >= REPEAT_S:
            last = self._machine.last_sample()
            news = [last] if last is not None else []
        if news:
            self._told_index, self._told_s = news[-1].index, now_s
            first, differs = self._first_table, now_s <= self._found_until_s
            self._engine.tell(encode_note(news, differs=differs, first=first))
            detailed = with_tables(news)
            if detailed is not None and detailed.tables is not None:
                self._first_table = told_tables(detailed.tables, first)[1]

    def on_note(self, peer: NodeId, data: bytes) -> None:
        """Another member told its digests. What does not read is dropped, and logged."""
        heard = self._heard.get(str(peer))
        if heard is None:
            return
        try:
            note = decode_note(data)
        except ValueError as error:
            self._ports.log.warning("comparison_unreadable", peer=str(peer), error=str(error))
            return
        self._keep(heard, note)
        if note.differs:
            self._detail(True)
        before = self.agreed_index
        for index in sorted(note.values):
            self._judge(index)
        if self.agreed_index > before:
            self.on_agreed()

    def _keep(self, heard: _Heard, note: Note) -> None:
        heard.values.update(note.values)
        for index, tables in note.tables.items():
            heard.tables[index] = tables
        while len(heard.values) > HEARD_MAX:
            del heard.values[min(heard.values)]
        while len(heard.tables) > HEARD_TABLES_MAX:
            del heard.tables[min(heard.tables)]

    # Judging

    def _judge(self, index: int) -> None:
        """Compare all that is known of one index."""
        own = self._machine.sample_at(index)
        if own is None:
            last = self._machine.last_sample()
            if last is None or last.index < index:
                self._ahead.add(index)
            return
        values: dict[str, _Value] = {self._node_id: (own.content, own.results)}
        for peer, heard in self._heard.items():
            if index in heard.values:
                values[peer] = heard.values[index]
        voices = Counter(value for name, value in values.items() if name in self._voters)
        if not voices:
            return
        [(value, count)] = voices.most_common(1)
        if count >= self._majority:
            self._judged(index, values, value)
        elif len(voices) > 1:
            self._doubted(index, complete=voices.total() == len(self._voters))

    def _catch_up(self) -> None:
        """Judge what others told before this node had come there."""
        last = self._machine.last_sample()
        if self._ahead and last is not None:
            before = self.agreed_index
            reached = sorted(index for index in self._ahead if index <= last.index)
            self._ahead.difference_update(reached)
            for index in reached:
                self._judge(index)
            while len(self._ahead) > HEARD_MAX:
                self._ahead.remove(min(self._ahead))
            if self.agreed_index > before:
                self.on_agreed()

    def _judged(self, index: int, values: dict[str, _Value], right: _Value) -> None:
        """A majority holds `right` at `index`."""
        wrong = sorted(name for name, value in values.items() if value != right)
        if self._node_id not in wrong:
            self.agreed_index = max(self.agreed_index, index)
            for name in values:
                if name not in wrong:
                    self.diverged.pop(name, None)
            if self._from_file and self.state == QUARANTINED:
                self.release()
        if index >= self._doubt_index:
            self._doubt_since_s = None
            self._end_doubt()
        if not wrong:
            return
        self._differ()
        for name in wrong:
            self._found(name, index, self._tables_of(name, index, values, right))

    def _tables_of(
        self, name: str, index: int, values: dict[str, _Value], right: _Value
    ) -> tuple[str, ...]:
        """In which tables `name` differs from those with the right value; empty if not known."""
        if values[name][0] == right[0]:
            return ("(results)",)
        own = self._machine.sample_at(index)
        tables = {peer: heard.tables.get(index) for peer, heard in self._heard.items()}
        tables[self._node_id] = own.tables if own is not None else None
        theirs = tables.get(name)
        for member in sorted(values):
            good = tables[member]
            if values[member] == right and good is not None and theirs is not None:
                found = differing(good, theirs)
                if found:
                    return found
        return ()

    def _found(self, name: str, index: int, tables: tuple[str, ...]) -> None:
        """`name` differs from the majority, in these tables as far as they are known."""
        before = self.diverged.get(name)
        # Of very many tables each note tells some.
        tables = tuple(sorted({*tables, *(before or ())})[:NAMED_MAX])
        if before is None or tables != before:
            self.diverged[name] = tables
            where = _named(tables) or "not known yet"
            self._ports.log.error("diverged", node_id=name, index=index, tables=where)
            if name == self._node_id:
                self._from_file = False
                self._enter_quarantine(
                    f"the content of this node differs from the majority's at index {index}"
                    + (f", in table {where}" if tables else "")
                )
                self._ports.executor.submit("checkpoint", self._write, self._written)

    def _doubted(self, index: int, *, complete: bool) -> None:
        """Members differ at `index`, and no value has a majority so far."""
        self._doubt_index = max(self._doubt_index, index)
        if self._doubt_since_s is None:
            self._doubt_since_s = self._ports.clock.monotonic_s()
        self._differ()
        if complete and self.state == AGREES:
            self._enter_doubt()

    def _differ(self) -> None:
        """This node sees a difference: tables' sums are wanted, its own and the others'."""
        self._found_until_s = self._ports.clock.monotonic_s() + DETAIL_S
        self._detail(True)

    def _detail(self, wanted: bool) -> None:
        """Keep tables' sums, and tell them, for a while."""
        if wanted:
            self._detail_until_s = self._ports.clock.monotonic_s() + DETAIL_S
        if wanted == self._detailed:
            return
        self._detailed = wanted

        def kept(_result: Any, error: BaseException | None) -> None:
            if isinstance(error, FatalError):
                raise error
            # The last commit again, with its tables now: others wait for it.
            self._told_index = -1
            self._tell()

        self._ports.executor.submit("apply", lambda: self._machine.keep_table_sums(wanted), kept)

    # Consequences

    def _enter_doubt(self) -> None:
        self.state = DOUBT
        self.reason = (
            f"nodes hold different content at index {self._doubt_index}, and no majority agrees"
        )
        self._ports.log.error("doubt", reason=self.reason)

    def _end_doubt(self) -> None:
        if self.state == DOUBT:
            self.state, self.reason = AGREES, ""
            self._ports.log.info("doubt_ended", index=self._doubt_index)

    def _enter_quarantine(self, reason: str) -> None:
        reason = reason[:REASON_MAX]
        first = self.state != QUARANTINED
        self.state, self.reason = QUARANTINED, reason
        self._ports.log.error("quarantined", reason=reason)
        if first:
            self._on_serving(False)
            self._engine.stand_down(reason)
            self._hand_over()

    def _hand_over(self) -> None:
        """A leader that is quarantined gives leadership to a member of the majority."""
        if self._handing_over or self._engine.status().role != "leader":
            return
        sound = [
            peer.node_id
            for peer in sorted(self._engine.status().peers, key=lambda peer: -peer.match_index)
            if peer.connected and str(peer.node_id) not in self.diverged
        ]
        if not sound:
            return
        self._handing_over = True

        def done(why_not: str) -> None:
            self._handing_over = False
            if why_not:
                self._ports.log.warning("hand_over_failed", reason=why_not)

        self._engine.transfer_leadership(sound[0], done)

    def _write(self) -> None:
        note = {"reason": self.reason}
        if self._rotten:
            note["rotten"] = self._database()
        text = json.dumps(note) + "\n"
        replace_file(self._ports.files, self._path, text.encode())

    def _written(self, _result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._write_at_s = self._ports.clock.monotonic_s() + WRITE_AGAIN_S
            self._ports.log.warning("quarantine_not_written", error=str(error))

    # What others ask

    @property
    def quarantined(self) -> bool:
        """This node's content is not the majority's, as far as it knows."""
        return self.state == QUARANTINED

    def sound_members(self) -> tuple[str, ...]:
        """Others that a copy may be taken from: connected or not, but none that is known to differ
        from the majority. (One that is quarantined sends none.)"""
        return tuple(peer for peer in sorted(self._heard) if peer not in self.diverged)

    def refusal(self, *, local: bool) -> Error | None:
        """Why a read (`local`: of this node's own content) or write is refused now; or None."""
        if self.state == QUARANTINED:
            return OperationalError(
                f"{self._node_id} is quarantined: {self.reason}",
                code="quarantined",
                retryable=True,
                hint=HEALS_HINT if self._heard else ALONE_HINT,
            )
        if self.state == DOUBT and not local:
            return OperationalError(
                f"writes are stopped: {self.reason}",
                code="diverged",
                retryable=True,
                hint="run raftdb check; bring up the members that are down, or restore",
            )
        return None

    def facts(self) -> dict[str, Any]:
        """For the status."""
        return {
            "comparison": self.state,
            "comparison_reason": self.reason,
            "agreed_index": self.agreed_index,
            "diverged": {name: list(tables) for name, tables in sorted(self.diverged.items())},
        }


def _named(tables: tuple[str, ...]) -> str:
    """For people."""
    more = ", and others" if len(tables) == NAMED_MAX else ""
    return ", ".join(tables) + more


def _nothing() -> None:
    pass


def _read_quarantine(data: bytes) -> tuple[str, str]:
    """Why, and in which database, if that has to go (else ``)."""
    try:
        note = json.loads(data[:65_536])
        return str(note["reason"]), str(note.get("rotten", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it was quarantined before it was started, and the reason does not read", ""
