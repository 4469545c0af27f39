"""The way into the node of the same process: what is long is packed in the caller's thread."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

import raftdb.wire as wire
from raftdb.base.limits import Limits
from raftdb.command import Statement
from raftdb.embedded import link as link_module
from raftdb.embedded.link import EmbeddedLink
from raftdb.node.admission import Admission

MANY = tuple((n, "x") for n in range(100))
WRONG: Any = (*MANY, (object(), 1))


class Given(Admission):
    """Remembers which thread did the work."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.threads: list[str] = []

    def checked(
        self, statements: tuple[Statement, ...], for_log: bool = False, packed: bytes = b""
    ) -> Any:
        self.threads.append(threading.current_thread().name)
        return super().checked(statements, for_log, packed)


@pytest.mark.parametrize(
    ("statement", "long"),
    [
        (Statement("INSERT INTO t VALUES (?, ?)", MANY), True),
        (Statement("INSERT INTO t VALUES (?)", (("x" * link_module.LONG_BYTES,),)), True),
        (Statement("INSERT INTO t VALUES (:a)", ({"a": b"x" * link_module.LONG_BYTES},)), True),
        (Statement("INSERT INTO t VALUES (?, ?)", MANY[:3]), False),
        (Statement("INSERT INTO t VALUES (?, ?)", WRONG), True),
    ],
)
def test_what_is_long_is_packed_in_the_callers_thread(statement: Statement, long: bool) -> None:
    admission = Given()
    assembly: Any = SimpleNamespace(replica=SimpleNamespace(admission=admission))
    handed: list[Any] = []
    made: Any = None

    class Loop:
        def call_threadsafe(self, _call: Any, message: Any) -> None:
            handed.append(message)
            made._take(wire.Result(message.request_id, 1, b""))

    executor: Any = Loop()
    made = EmbeddedLink(assembly, executor, lambda: True, lambda: assembly)
    found: list[Any] = []
    message = wire.Execute(7, 1, 0, 60_000, (statement,))
    caller = threading.Thread(target=lambda: found.extend(made.call(message)), name="caller")
    caller.start()
    caller.join(60)
    assert len(found) == 1
    assert admission.threads == (["caller"] if long else [])
    [given] = handed
    assert given.statements == message.statements
    packed = getattr(given.statements, "packed", b"")
    # What cannot be stored is handed over as it is: the node says what is wrong with it.
    storable = all(type(v) is not object for p in statement.parameter_sets for v in p)
    assert bool(packed) == (long and storable)
