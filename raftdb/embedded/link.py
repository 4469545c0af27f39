"""The way from a thread of this process to the node in it: messages without bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import raftdb.wire as wire
from raftdb.base.errors import DeadlineError, Error, FatalError, UnavailableError
from raftdb.base.ports import Executor
from raftdb.command import Results, Statement
from raftdb.command.requests import Parameters
from raftdb.embedded.assembly import Assembly
from raftdb.server import Dispatcher, greet, prepared

SLACK_S = 1.0
"""A call waits this much longer than the node was told to: the node's answer is the better one."""
UNTIMED_S = 5.0
LONG_SETS = 64
LONG_BYTES = 64 * 1024
"""A write with so many parameter sets, or so long a value, is packed before it gets to the loop."""


class EmbeddedLink:
    """One client's link (the client's `InProcessLink`). Its calls come from any thread."""

    def __init__(
        self,
        assembly: Assembly,
        executor: Executor,
        is_running: Callable[[], bool],
        current: Callable[[], Assembly | None],
    ) -> None:
        self._assembly = assembly
        self._current = current
        self._executor = executor
        self._is_running = is_running
        self._lock = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._dispatcher: Dispatcher | None = None

    @property
    def history(self) -> str:
        """See the client's InProcessLink."""
        return str(self._assembly.replica.history)

    def call(self, message: wire.Hello | wire.Request) -> Sequence[wire.Message]:
        """Hand a message to the node's loop, and wait for all of its reply."""
        self._require_running()
        number = 0 if isinstance(message, wire.Hello) else message.request_id
        timeout_s = getattr(message, "timeout_ms", UNTIMED_S * 1000) / 1000 + SLACK_S
        if isinstance(message, wire.Execute) and _is_long(message):
            # Here, in the caller's thread: the loop has others to answer meanwhile.
            message = cast(wire.Request, prepared(self._assembly.replica, message))
        waiting = _Waiting()
        with self._lock:
            self._waiting[number] = waiting
        self._executor.call_threadsafe(self._handle, message)
        ended = waiting.done.wait(timeout_s)
        with self._lock:
            self._waiting.pop(number, None)
        if not ended:
            self._require_running()
            raise DeadlineError(f"the node did not answer within {timeout_s:g} s")
        return waiting.replies

    def local_query(
        self, statements: tuple[Statement, ...], timeout_s: float
    ) -> tuple[Results, int]:
        """Read this node's database in the calling thread."""
        assembly = self._assembly
        if not assembly.serves:
            assembly = self._renew()
        try:
            return assembly.machine.query_at(statements, timeout_s=timeout_s)
        except Error as error:
            raise self._failed(error) from error

    def local_rows(
        self, sql: str, parameters: Parameters, timeout_s: float
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]], int]:
        """The same for one statement, and with nothing made that is not wanted."""
        assembly = self._assembly
        if not assembly.serves:
            assembly = self._renew()
        try:
            return assembly.machine.query_rows(sql, parameters, timeout_s)
        except Error as error:
            raise self._failed(error) from error

    def _renew(self) -> Assembly:
        """After an installed copy the node goes on with a new assembly."""
        current = self._current()
        if current is None or not current.serves:
            refused = (current or self._assembly).refusal(local=True)
            raise refused or _not_running()
        self._assembly = current
        return current

    def _failed(self, error: Error) -> Error:
        """What a local read's failure means for the node, and for the caller."""
        assembly = self._assembly
        if isinstance(error, FatalError):
            # A damaged page: this node's copy can't be trusted any more.
            self._executor.call_threadsafe(assembly.fail, error)
        elif not assembly.serves and error.code == "closed":
            return _not_running()
        return error

    def close(self) -> None:
        """The client is done."""
        if self._is_running():
            self._executor.call_threadsafe(self._close)

    # ---- on the loop

    def _handle(self, message: wire.Hello | wire.Request) -> None:
        if isinstance(message, wire.Hello):
            self._assembly = self._current() or self._assembly
            try:
                reply: wire.Message = greet(
                    self._assembly.replica, self._assembly.config.limits, message
                )
            except Error as error:
                reply = wire.ErrorMessage.of(0, error)
            else:
                self._close()
                self._dispatcher = Dispatcher(
                    self._assembly.replica, self._assembly.describe, self._take, administer=True
                )
            self._answer(0, reply)
        elif self._dispatcher is not None:
            self._dispatcher.handle(message)

    def _close(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher = None

    def _take(self, message: wire.Message) -> None:
        self._answer(getattr(message, "request_id", 0), message)

    def _answer(self, number: int, message: wire.Message) -> None:
        with self._lock:
            waiting = self._waiting.get(number)
        if waiting is None:
            return
        waiting.replies.append(message)
        if not isinstance(message, wire.Rows | wire.CursorRows) or message.last:
            waiting.done.set()

    def _require_running(self) -> None:
        if not self._is_running():
            raise _not_running()


def _is_long(message: wire.Execute) -> bool:
    """By the number of its parameter sets, or by a long value in one."""
    for statement in message.statements:
        sets = statement.parameter_sets
        if len(sets) >= LONG_SETS:
            return True
        for parameters in sets:
            values = parameters.values() if isinstance(parameters, dict) else parameters
            for value in values:
                if isinstance(value, str | bytes) and len(value) >= LONG_BYTES:
                    return True
    return False


def _not_running() -> Error:
    return UnavailableError("the embedded node is not running", hint="start it first")


class _Waiting:
    """One call that waits for its reply."""

    __slots__ = ("done", "replies")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.replies: list[wire.Message] = []
