"""Replies that wait for more than the quorum: for locations, for the archive. (Rules C3, A1.)

Everything here runs on the loop, and only for requests that ask for it, or in a database whose
default does. What is waited for is known to the leader: its own disk, what the others acknowledged
in its term, and how far the nodes that upload say that the archive is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from raftdb.base.cluster import read_settings
from raftdb.base.durability import QUORUM, Durability, parse_durability
from raftdb.base.errors import (
    APPLIED,
    UNKNOWN,
    ConfigError,
    Error,
    InterfaceError,
    OperationalError,
    UnavailableError,
)
from raftdb.base.locations import durable_places, durable_upto, place_of, places
from raftdb.command import Failed, decode_reply, is_failure
from raftdb.consensus.port import DurabilityLevel, EnginePort, Member, Waiting
from raftdb.node.calls import Answer

PENDING = "durability_pending"
"""Committed and applied, and not yet in as many locations as were asked for."""
TOO_FEW = "too_few_locations"
"""Not applied: fewer locations are reachable than were asked for."""
ARCHIVE_AWAY = "archive_unreachable"
"""Not applied: fewer destinations of the archive answer than were asked for."""
RETRY_AFTER_MS = 200
EARLY_SHARE = 0.2
EARLY_S_MAX = 0.5
"""So much before the caller's deadline it is told how far its write has come: the answer has to
arrive before the caller gives up."""


class Call(Protocol):
    """A call under way, as the replica makes it."""

    ended: bool
    late: Callable[[float], Error]
    wait: Waiting | None

    def end(self, answer: Answer | None, error: Error | None) -> None: ...


class Archiving(Protocol):
    """How far the archive is, as this node knows."""

    @property
    def count(self) -> int:
        """How many destinations there are."""

    def answering(self) -> int:
        """How many of them answer."""

    def upto(self, count: int) -> int:
        """Up to which index a restore from so many destinations would find all."""

    def want(self, index: int) -> None:
        """Somebody waits for that index."""


class InArchive:
    """A DurabilityLevel: a restore from so many destinations would find it (rule A1)."""

    def __init__(self, count: int, archive: Callable[[], Archiving | None]) -> None:
        self._count = count
        self._archive = archive

    def upto(self, _durable: Mapping[str, int]) -> int:
        """See DurabilityLevel."""
        archive = self._archive()
        return 0 if archive is None else archive.upto(self._count)


class All:
    """A DurabilityLevel: each of several."""

    def __init__(self, levels: Sequence[DurabilityLevel]) -> None:
        self._levels = levels

    def upto(self, durable: Mapping[str, int]) -> int:
        """See DurabilityLevel."""
        return min(level.upto(durable) for level in self._levels)


class Cell(Protocol):
    """Something that is exchanged as a whole when it changes."""

    @property
    def current(self) -> Mapping[str, Any]: ...


class _Nothing:
    """No settings."""

    current: Mapping[str, Any] = {}


class InLocations:
    """A DurabilityLevel: on disk in so many distinct locations of voters."""

    def __init__(self, wanted: Durability, voters: Callable[[], Sequence[Member]]) -> None:
        self._wanted = wanted
        self._voters = voters

    def upto(self, durable: Mapping[str, int]) -> int:
        """See DurabilityLevel."""
        wanted = self._wanted
        return durable_upto(self._voters(), durable, wanted.level, wanted.locations)


class Durable:
    """What replies wait for, beyond the quorum."""

    def __init__(
        self,
        engine: EnginePort,
        voters: Callable[[], Sequence[Member]],
        own: str,
        token: Callable[[int], str],
    ) -> None:
        """`voters`: those who count now; `own`: this node's id; `token`: names a log index."""
        self._engine = engine
        self._voters = voters
        self._own = own
        self._token = token
        self._levels: dict[Durability, DurabilityLevel] = {}
        self.archive: Archiving | None = None
        """Set by whoever has one."""
        self.cell: Cell = _Nothing()
        """Where the database's settings stand."""
        self.plain_for: object = self.cell.current
        """The settings as they were when their default was found to be the quorum: while they are
        that very object, a request that asks for nothing pays this one look."""
        self._read: tuple[object, Durability] = (self.cell.current, QUORUM)

    @property
    def default(self) -> Durability:
        """Of the database: for requests that say nothing of it."""
        stored = self.cell.current
        if stored is self.plain_for:
            return QUORUM
        if stored is not self._read[0]:
            self._read = (stored, read_settings(stored).durability)
        if self._read[1].is_plain:
            self.plain_for = stored
        return self._read[1]

    def wanted(self, text: str) -> Durability | None:
        """What a request waits for; None: nothing beyond the quorum. Raises InterfaceError."""
        if not text:
            return None if self.default.is_plain else self.default
        try:
            found = parse_durability(text)
        except ConfigError as error:
            raise InterfaceError(error.message, hint=error.hint, code="durability") from None
        return None if found.is_plain else found

    def refusal(self, wanted: Durability) -> Error | None:
        """Why such a write is not taken: what it waits for there is not, or not now."""
        refused = self._too_few(wanted) if wanted.locations else None
        return refused or (self._unarchived(wanted) if wanted.archive else None)

    def _unarchived(self, wanted: Durability) -> Error | None:
        count = 0 if self.archive is None else self.archive.count
        if self.archive is None or count < wanted.archive:
            return InterfaceError(
                f"{wanted} cannot be met: the archive has {count} destinations",
                code="archive_impossible",
                hint="set archive.destinations on all nodes, or ask for less",
            )
        answering = self.archive.answering()
        if answering >= wanted.archive:
            return None
        return UnavailableError(
            f"{wanted} cannot be met now: {answering} of the archive's {count} destinations answer",
            code=ARCHIVE_AWAY,
            hint="nothing was applied: try again when they are back (raftdb status), or ask for"
            " less",
            detail={
                "answering": answering,
                "wanted": wanted.archive,
                "retry_after_ms": RETRY_AFTER_MS,
            },
        )

    def _too_few(self, wanted: Durability) -> Error | None:
        """Too few locations there are, or can be reached now."""
        voters = self._voters()
        there = places(voters, wanted.level)
        if len(there) < wanted.locations:
            return InterfaceError(
                f"{wanted} cannot be met: the voters are in {len(there)} {wanted.level}s"
                f" ({', '.join(there)})",
                code="locations_impossible",
                hint="add voters elsewhere, or ask for less",
            )
        answering = {str(one.node_id) for one in self._engine.status().peers if one.answers}
        answering.add(self._own)
        reached = places([one for one in voters if one.node_id in answering], wanted.level)
        if len(reached) >= wanted.locations:
            return None
        return UnavailableError(
            f"{wanted} cannot be met now: {len(reached)} of {len(there)} {wanted.level}s are"
            f" reachable ({', '.join(reached)})",
            code=TOO_FEW,
            hint="nothing was applied: try again when the others are back, or ask for less",
            detail={
                "reached": tuple(reached),
                "wanted": wanted.locations,
                "level": wanted.level,
                "retry_after_ms": RETRY_AFTER_MS,
            },
        )

    def hold(self, wanted: Durability, answer: Answer, call: Call) -> None:
        """The request is committed and applied here: answer when it is durable as wanted. A
        failure that changed nothing is answered at once."""
        if call.ended:
            return
        if is_failure(answer.body):
            reply = decode_reply(answer.body)
            if isinstance(reply, Failed) and reply.error.outcome != APPLIED:
                call.end(answer, None)
                return
        self.wait(wanted, answer, call)

    def wait(self, wanted: Durability, answer: Answer, call: Call) -> None:
        """Answer when all up to the answer's index is durable as wanted; at the call's deadline
        say how far it is."""
        index = answer.index

        def reached(reason: str) -> None:
            if not reason:
                call.end(answer, None)
            elif reason == "overloaded":
                call.end(None, self.pending(wanted, index))
            else:
                call.end(None, _leader_lost(wanted, reason))

        if wanted.archive and self.archive is not None:
            self.archive.want(index)
        call.late = lambda _timeout_s: self.pending(wanted, index)
        call.wait = self._engine.when_durable(index, self._level(wanted), reached)

    def reached(self, level: str, index: int) -> tuple[str, ...]:
        """Leader: the locations where all up to `index` is on disk, as known here."""
        return durable_places(self._voters(), self._engine.durable_indexes(), level, index)

    def by_place(self, level: str) -> dict[str, int]:
        """Leader: up to which index each location is durable, as known here."""
        durable = self._engine.durable_indexes()
        found: dict[str, int] = {}
        for voter in self._voters():
            place = place_of(voter, level)
            found[place] = max(found.get(place, 0), durable.get(voter.node_id, 0))
        return dict(sorted(found.items()))

    def pending(self, wanted: Durability, index: int) -> Error:
        """Committed, in k of N locations so far, or not archived yet."""
        reached = self.reached(wanted.level, index)
        detail: dict[str, Any] = {
            "token": self._token(index),
            "durability": str(wanted),
            "reached": reached,
            "wanted": wanted.locations,
            "index": index,
        }
        said = []
        if wanted.locations:
            said.append(
                f"in {len(reached)} of {wanted.locations} {wanted.level}s so far"
                f" ({', '.join(reached)})"
            )
        if wanted.archive and self.archive is not None:
            detail["archived_index"] = archived = self.archive.upto(wanted.archive)
            said.append("archived" if archived >= index else "not archived yet")
        return OperationalError(
            f"committed, {', '.join(said)}",
            code=PENDING,
            outcome=APPLIED,
            hint="it is applied and will not be lost with a minority; await_durable(error) waits"
            " for the rest",
            detail=detail,
        )

    def _level(self, wanted: Durability) -> DurabilityLevel:
        found = self._levels.get(wanted)
        if found is None:
            # Few: all that can be written is LOCATIONS_MAX * 2 * ARCHIVES_MAX.
            found = self._levels[wanted] = self._make_level(wanted)
        return found

    def _make_level(self, wanted: Durability) -> DurabilityLevel:
        levels: list[DurabilityLevel] = []
        if wanted.locations:
            levels.append(InLocations(wanted, self._voters))
        if wanted.archive:
            levels.append(InArchive(wanted.archive, lambda: self.archive))
        return levels[0] if len(levels) == 1 else All(levels)


def _leader_lost(wanted: Durability, reason: str) -> Error:
    return OperationalError(
        f"committed, but whether in {wanted} is not known: {reason}",
        code="outcome_unknown",
        retryable=True,
        outcome=UNKNOWN,
        hint="retry with the same session and sequence: it is applied once, and the retry waits",
    )


def earlier(timeout_s: float) -> float:
    """When to tell the caller how far its write has come."""
    return timeout_s - min(EARLY_S_MAX, EARLY_SHARE * timeout_s)
