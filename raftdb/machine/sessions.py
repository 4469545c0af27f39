"""Sessions: every write of a session takes effect exactly once (thesis 6.3; rules S1 and S2).

All sessions are held in memory as small records; their replies stay in the database. What a
transaction changes is written once, by `flush`, inside that transaction. Time here (`now_ms`) is
session time: it follows logged time, in steps that are bounded.
"""

from __future__ import annotations

import heapq
from typing import Any

from raftdb.base.errors import (
    APPLIED,
    NOT_APPLIED,
    UNKNOWN,
    Error,
    OperationalError,
    OverloadedError,
    ProtocolError,
    SessionError,
)
from raftdb.command import Failed, ResultDropped, encode_reply
from raftdb.machine import format
from raftdb.machine.format import MARK, PREFIX
from raftdb.machine.layout import Run

_SEQUENCE_MAX = (1 << 63) - 1

BURNED = encode_reply(
    Failed(
        OperationalError(
            "the request did not take effect and never will: its outcome was asked for before it"
            " was seen",
            code="burned",
            outcome=NOT_APPLIED,
            hint="send it as a new request if it is still wanted",
        ),
        -1,
    )
)
"""The reply of a request whose outcome was asked for too early (rule S3)."""


class _Session:
    __slots__ = (
        "floor",
        "is_new",
        "kept_bytes",
        "label",
        "number",
        "opened_ms",
        "pending",
        "row_first",
        "sequence",
        "sizes",
        "stored",
        "token",
        "used_ms",
    )

    def __init__(self, number: int, token: bytes, label: str, opened_ms: int, used_ms: int) -> None:
        self.number = number
        self.token = token
        self.label = label
        self.opened_ms = opened_ms
        self.used_ms = used_ms
        """Session time of its last request."""
        self.sequence = 0
        """Of the last request that was applied; 0 before the first."""
        self.floor = 0
        self.sizes: list[int] = []
        """Bytes of the replies that are kept: of sequences up to `sequence`, without gaps."""
        self.pending: list[bytes] = []
        """Replies of this transaction, up to `sequence`; not all of them need be kept."""
        self.kept_bytes = 0
        self.stored = 0
        """`sequence` as of the last commit: whose reply stands in the session's own row."""
        self.row_first = 0
        """Least sequence whose reply stands in a row of its own; 0: none does."""
        self.is_new = True

    @property
    def first_kept(self) -> int:
        return self.sequence - len(self.sizes) + 1


class Sessions:
    """The session table of one machine. Changes on the apply lane; `token` from any thread."""

    def __init__(self, run: Run, write: Run) -> None:
        self._run = run
        self._write = write
        """As `run`, for statements that return no rows."""
        self._sessions: dict[int, _Session] = {}
        self._dirty: dict[int, _Session] = {}
        self._closed: list[int] = []
        self._heap: list[tuple[int, int]] = []
        """(used_ms, number): a time not later than the session's own. Every session is in it."""
        self.ended: list[int] = []
        """Numbers of sessions that ended by time since the reader of this list emptied it."""

    def __len__(self) -> int:
        return len(self._sessions)

    def last_sequence(self, number: int) -> int:
        """The last sequence of a session that was applied; 0 for one that is not open. From any
        thread, and a hint then."""
        session = self._sessions.get(number)
        return session.sequence if session is not None else 0

    def token(self, number: int) -> bytes | None:
        """The 16 bytes that attach to the session, or None when there is no such session."""
        session = self._sessions.get(number)
        return None if session is None else session.token

    # What requests do

    def open(
        self, number: int, token: bytes, label: str, opened_ms: int, now_ms: int
    ) -> Error | None:
        """Open a session at logged time `opened_ms`. The error, if it must be refused."""
        if len(token) != format.TOKEN_BYTES:
            return ProtocolError(f"a session's token has {format.TOKEN_BYTES} bytes")
        if len(self._sessions) >= format.SESSIONS_MAX and not self._evict(now_ms):
            return OverloadedError(
                f"{format.SESSIONS_MAX} sessions are open",
                code="sessions_full",
                hint="close connections that are not needed, or try again later",
            )
        label = label[: format.LABEL_CHARACTERS_MAX]
        session = _Session(number, token, label, opened_ms, now_ms)
        self._sessions[number] = self._dirty[number] = session
        if len(self._heap) > 2 * len(self._sessions) + 64:
            self._rebuild_heap()
        else:
            heapq.heappush(self._heap, (now_ms, number))
        return None

    def close(self, number: int) -> None:
        """Forget a session and its replies; harmless when there is none."""
        if self._sessions.pop(number, None) is not None:
            self._dirty.pop(number, None)
            self._closed.append(number)

    def check(self, number: int, sequence: int) -> bytes | Error | None:
        """What a request with this (session, sequence) gets without being executed: the reply of
        the first time, or an error. None: it is the next one, execute it."""
        session = self._sessions.get(number)
        if session is None:
            return _unknown_session(sequence)
        if sequence == session.sequence + 1 and sequence <= _SEQUENCE_MAX:
            return None
        if sequence < 1 or sequence > _SEQUENCE_MAX:
            return ProtocolError(f"{sequence} is no sequence: they count 1, 2, 3, …")
        if sequence > session.sequence:
            return SessionError(
                f"sequence {sequence} came before {session.sequence + 1}",
                code="sequence_gap",
                retryable=True,
                hint="send the missing ones first, in order",
            )
        if sequence < session.first_kept:
            return SessionError(
                f"sequence {sequence} was applied, and its reply is not kept any more",
                code="reply_forgotten",
                outcome=APPLIED,
                hint="it took effect or failed then; read the data to see which",
            )
        return self._kept(session, sequence)

    def burn(self, number: int, sequence: int, now_ms: int) -> bytes | Error:
        """What became of that request: its reply, or that nobody can tell. One that was not seen is
        taken, and all before it: when they arrive after all they are refused (rule S3)."""
        session = self._sessions.get(number)
        if session is None:
            return _unknown_session(2)
        if sequence <= session.sequence or sequence > _SEQUENCE_MAX:
            known = self.check(number, sequence)
            assert known is not None, "it is not the next one"
            return known
        if sequence - session.sequence > format.SESSION_REPLIES_MAX:
            return ProtocolError(
                f"sequence {sequence} is far beyond {session.sequence}, the last one that was seen"
            )
        for unseen in range(session.sequence + 1, sequence + 1):
            self.record(number, unseen, session.floor, BURNED, now_ms)
        return BURNED

    def record(self, number: int, sequence: int, floor: int, reply: bytes, now_ms: int) -> None:
        """Keep the reply of the request that was just executed, with its effect."""
        session = self._sessions[number]
        assert sequence == session.sequence + 1, "sequences apply in order"
        if len(reply) > format.REPLY_KEPT_BYTES_MAX:
            reply = encode_reply(ResultDropped(len(reply)))
        session.sequence = sequence
        session.used_ms = now_ms
        session.pending.append(reply)
        if floor >= sequence - 1:
            # The client has all the others: the common case.
            session.floor = sequence - 1
            session.sizes = [len(reply)]
            session.kept_bytes = len(reply)
        else:
            if floor > session.floor:
                session.floor = floor
            session.sizes.append(len(reply))
            session.kept_bytes += len(reply)
            _forget(session)
        self._dirty[number] = session

    def _kept(self, session: _Session, sequence: int) -> bytes:
        place = sequence - session.sequence - 1
        if -place <= len(session.pending):
            return session.pending[place]
        if sequence == session.stored:
            query = f"SELECT reply FROM {PREFIX}session WHERE number = ? {MARK}"
            [(reply,)] = self._run(query, (session.number,))
        else:
            query = f"SELECT reply FROM {PREFIX}reply WHERE session = ? AND sequence = ? {MARK}"
            [(reply,)] = self._run(query, (session.number, sequence))
        assert isinstance(reply, bytes)
        return reply

    # Expiry

    def expire(self, now_ms: int) -> None:
        """End the sessions that have been idle too long."""
        last = now_ms - format.SESSION_IDLE_MS
        while self._heap and self._heap[0][0] < last:
            oldest = self._oldest()
            if oldest is None or oldest.used_ms >= last:
                break
            self._end(oldest)

    def _end(self, session: _Session) -> None:
        self.close(session.number)
        self.ended.append(session.number)

    def _rebuild_heap(self) -> None:
        self._heap = [(s.used_ms, s.number) for s in self._sessions.values()]
        heapq.heapify(self._heap)

    def _oldest(self) -> _Session | None:
        """The session with the least (used_ms, number); the heap's top tells the truth then."""
        heap = self._heap
        while heap:
            used_ms, number = heap[0]
            session = self._sessions.get(number)
            if session is None:
                heapq.heappop(heap)
            elif session.used_ms != used_ms:
                heapq.heapreplace(heap, (session.used_ms, number))
            else:
                return session
        return None

    def _evict(self, now_ms: int) -> bool:
        oldest = self._oldest()
        if oldest is None or oldest.used_ms > now_ms - format.SESSION_EVICT_MS:
            return False
        self._end(oldest)
        return True

    # Into the database and back

    def flush(self) -> None:
        """Write what changed, inside the transaction that is about to be committed."""
        for number in self._closed:
            self._write(f"DELETE FROM {PREFIX}session WHERE number = ? {MARK}", (number,))
            self._write(f"DELETE FROM {PREFIX}reply WHERE session = ? {MARK}", (number,))
        for session in self._dirty.values():
            if session.is_new:
                self._run(
                    _INSERT, (session.number, session.token, session.label, session.opened_ms)
                )
            if session.row_first or len(session.sizes) > 1:
                self._flush_replies(session)
            last = session.pending[-1] if session.pending else None
            self._write(
                _UPDATE,
                (session.used_ms, session.sequence, session.floor, last, session.number),
            )

    def _flush_replies(self, session: _Session) -> None:
        """Give replies before the last one rows of their own; drop those that are not kept."""
        number, stored, first = session.number, session.stored, session.first_kept
        if first <= stored < session.sequence and stored:
            self._write(_MOVE, (number,))
        for sequence in range(max(first, stored + 1), session.sequence):
            reply = session.pending[sequence - stored - 1]
            self._write(_INSERT_REPLY, (number, sequence, reply))
        if 0 < session.row_first < first:
            query = f"DELETE FROM {PREFIX}reply WHERE session = ? AND sequence < ? {MARK}"
            self._write(query, (number, first))
        session.row_first = first if first < session.sequence else 0

    def committed(self) -> None:
        """The transaction that `flush` wrote into is committed."""
        for session in self._dirty.values():
            session.pending.clear()
            session.stored = session.sequence
            session.is_new = False
        self._dirty.clear()
        self._closed.clear()

    def revert(self) -> None:
        """The transaction was lost: sessions are again as of the last commit."""
        numbers = list(self._dirty) + self._closed
        for number in numbers:
            if not self._load(f"{_SELECT} WHERE number = ? {MARK}", (number,)):
                self._sessions.pop(number, None)
        self._after_load()

    def load(self) -> None:
        """Take all sessions from the database, as of its last commit."""
        self._sessions = {}
        self._load(f"{_SELECT} {MARK}", ())
        self._after_load()

    def _load(self, query: str, parameters: tuple[Any, ...]) -> int:
        found = list(self._run(query, parameters))
        for number, token, label, opened_ms, used_ms, sequence, floor, last in found:
            session = _Session(number, token, label, opened_ms, used_ms)
            session.floor = floor
            session.sequence = session.stored = sequence
            session.is_new = False
            rows = list(self._run(_SIZES, (number,)))
            session.sizes = [size for _sequence, size in rows]
            if rows:
                session.row_first = rows[0][0]
            if sequence:
                session.sizes.append(last)
            session.kept_bytes = sum(session.sizes)
            self._sessions[number] = session
        return len(found)

    def _after_load(self) -> None:
        self._rebuild_heap()
        self._dirty.clear()
        self._closed.clear()
        self.ended.clear()


_INSERT = (
    f"INSERT INTO {PREFIX}session(number, token, label, opened_ms, used_ms, sequence, floor)"
    f" VALUES (?, ?, ?, ?, 0, 0, 0) {MARK}"
)
_UPDATE = (
    f"UPDATE {PREFIX}session SET used_ms = ?, sequence = ?, floor = ?, reply = ?"
    f" WHERE number = ? {MARK}"
)
_MOVE = (
    f"INSERT INTO {PREFIX}reply(session, sequence, reply)"
    f" SELECT number, sequence, reply FROM {PREFIX}session WHERE number = ? {MARK}"
)
_INSERT_REPLY = f"INSERT INTO {PREFIX}reply(session, sequence, reply) VALUES (?, ?, ?) {MARK}"
_SELECT = (
    "SELECT number, token, label, opened_ms, used_ms, sequence, floor, length(reply)"
    f" FROM {PREFIX}session"
)
_SIZES = (
    f"SELECT sequence, length(reply) FROM {PREFIX}reply WHERE session = ? ORDER BY sequence {MARK}"
)


def _forget(session: _Session) -> None:
    """Drop what the client has, and what is over the bounds."""
    sizes = session.sizes
    drop = max(0, session.floor - session.first_kept + 1, len(sizes) - format.SESSION_REPLIES_MAX)
    kept = session.kept_bytes - sum(sizes[:drop])
    while kept > format.SESSION_REPLY_BYTES_MAX and drop < len(sizes) - 1:
        kept -= sizes[drop]
        drop += 1
    del sizes[:drop]
    session.kept_bytes = kept


def _unknown_session(sequence: int) -> SessionError:
    return SessionError(
        "the session is not open: it expired, was closed, or belongs to another cluster",
        code="session_unknown",
        outcome=UNKNOWN if sequence > 1 else NOT_APPLIED,
        hint="open a new session; read the data to see whether an earlier attempt took effect",
    )
