"""Idempotency keys: a user's own names for requests, across sessions and processes (rule S3).

A key is remembered for a time, and so are at most so many. What is forgotten is bounded by the
horizon: nothing that was used at or after it has been forgotten. Whoever asks with a horizon of
before it is told that it is too long ago to know. Times are session time, in milliseconds.
"""

from __future__ import annotations

from collections import deque

from raftdb.base.errors import UNKNOWN, Error, ProgrammingError, SessionError
from raftdb.command import Key, ResultDropped, encode_reply
from raftdb.machine import format
from raftdb.machine.format import MARK, PREFIX
from raftdb.machine.layout import Run
from raftdb.machine.sessions import BURNED

TOO_OLD = "key_too_old"


class Keys:
    """The keys of one machine; they live in the database. On the apply lane."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._order: deque[tuple[int, str, int]] = deque()
        """(used_ms, name, bytes of the reply), the oldest first."""
        self._bytes = 0
        self._kept_ms = 0
        """The horizon by number: keys used before it may have been forgotten."""
        self.dirty = False
        """Something was written since the last commit."""

    def load(self) -> None:
        """As of the last commit."""
        self._order = deque(self._run(_LOAD))
        self._bytes = sum(size for _used_ms, _name, size in self._order)
        rows = list(self._run(f"SELECT kept_ms FROM {PREFIX}horizon {MARK}"))
        self._kept_ms = rows[0][0] if rows else 0
        self.dirty = False

    def find(self, key: Key, digest: bytes, now_ms: int) -> bytes | Error | None:
        """What a request under this key gets without being executed: the reply of the first time,
        or an error. None: the key is new. `digest`: of what is asked, `` to ask for any."""
        rows = list(self._run(_FIND, (key.name,)))
        if rows:
            [(found, reply)] = rows
            if digest and found and found != digest:
                return ProgrammingError(
                    "the idempotency key was used for other SQL",
                    code="key_reused",
                    hint="a key names one request for ever: choose another one",
                )
            assert isinstance(reply, bytes)
            return reply
        horizon_ms = max(self._kept_ms, now_ms - format.KEY_KEPT_MS)
        if key.horizon and key.horizon < horizon_ms:
            return too_old()
        return None

    def burn(self, key: Key, now_ms: int) -> bytes | Error:
        """What became of the request under this key; one that was not seen never takes effect."""
        known = self.find(key, b"", now_ms)
        if known is None and not key.horizon and self.may_have_forgotten(now_ms):
            known = too_old()
        if known is None:
            self.record(key, b"", BURNED, now_ms)
            known = BURNED
        return known

    def may_have_forgotten(self, now_ms: int) -> bool:
        """Whether any key can have been forgotten at all."""
        return self._kept_ms > 0 or now_ms > format.KEY_KEPT_MS

    def record(self, key: Key, digest: bytes, reply: bytes, now_ms: int) -> None:
        """Keep the reply of the request that was just executed; `digest` as for `find`."""
        if len(reply) > format.REPLY_KEPT_BYTES_MAX:
            reply = encode_reply(ResultDropped(len(reply)))
        self.dirty = True
        self._run(_INSERT, (key.name, now_ms, digest, reply))
        self._order.append((now_ms, key.name, len(reply)))
        self._bytes += len(reply)
        while self._order and self._order[0][0] < now_ms - format.KEY_KEPT_MS:
            self._drop_oldest()
        while len(self._order) > format.KEYS_MAX or self._bytes > format.KEYS_BYTES_MAX:
            # All of one time go together: which of them came first is not stored.
            oldest_ms = self._order[0][0]
            while self._order and self._order[0][0] == oldest_ms:
                self._drop_oldest()
            self._kept_ms = oldest_ms + 1
            self._run(_HORIZON, (self._kept_ms,))

    def _drop_oldest(self) -> None:
        _used_ms, name, size = self._order.popleft()
        self._bytes -= size
        self._run(f"DELETE FROM {PREFIX}key WHERE name = ? {MARK}", (name,))


def too_old() -> Error:
    """Nobody can tell any more."""
    return SessionError(
        "the idempotency key is from before what is kept",
        code=TOO_OLD,
        outcome=UNKNOWN,
        hint="read the data to see whether it took effect then",
    )


_LOAD = f"SELECT used_ms, name, length(reply) FROM {PREFIX}key ORDER BY used_ms, name {MARK}"
_FIND = f"SELECT digest, reply FROM {PREFIX}key WHERE name = ? {MARK}"
_INSERT = f"INSERT INTO {PREFIX}key(name, used_ms, digest, reply) VALUES (?, ?, ?, ?) {MARK}"
_HORIZON = f"INSERT OR REPLACE INTO {PREFIX}horizon(id, kept_ms) VALUES (1, ?) {MARK}"
