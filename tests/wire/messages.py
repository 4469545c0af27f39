"""Messages of every kind, by hand and by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftdb import wire
from raftdb.base.errors import IntegrityError, NotLeaderError, to_wire
from raftdb.command import Key, Reference, Statement

CLUSTER, HISTORY = "0123456789abcdef" * 2, "f" * 32
HELLO = wire.Hello((1,), "test")
WELCOME = wire.Welcome(
    1,
    CLUSTER,
    HISTORY,
    "n1",
    "leader",
    7,
    wire.Endpoint("n1", "h1:7001"),
    (wire.Endpoint("n1", "h1:7001"), wire.Endpoint("n2", "[::1]:7002", "eu/madrid")),
    33 << 20,
    1024,
    "0.1.0",
)
STATEMENT = Statement("INSERT INTO t VALUES (?, ?, ?)", ((1, "x", None), (2.5, b"\xff", "ü")))

REFERRING = Statement(
    "INSERT INTO t VALUES (?, ?)",
    ((None, 1), {"a": None}),
    (Reference(0, 0, 0), Reference(1, "a", 0, "id", 3), Reference(0, 1, 0, 2)),
)

REQUESTS: tuple[Any, ...] = (
    wire.OpenSession(1, "label", 5000),
    wire.AttachSession(2, bytes(range(40))),
    wire.CloseSession(3, 1),
    wire.Execute(
        4, 9, 8, 5000, (STATEMENT, REFERRING), True, Key("ä" * 200, 1), "locations=2@zone"
    ),
    wire.Query(5, "linearizable", 100, (Statement("SELECT 1"),), 10),
    wire.Query(6, "local", 100, (Statement("SELECT 1"),)),
    wire.Status(7),
    wire.Ping(8),
    wire.Transfer(9, "n2", 5000),
    wire.Transfer(10, None, 5000),
    wire.ContentHash(11, None, 5000),
    wire.ContentHash(12, 0, 5000),
    wire.Begin(13, 5000, False),
    wire.Transact(14, 5000, STATEMENT),
    wire.Commit(15, 10, 9, 5000),
    wire.Commit(16, 10, 0, 5000, Key("order-42", 77)),
    wire.Rollback(17),
    wire.Outcome(18, 5000, bytes(range(40)), 9),
    wire.Outcome(19, 5000, b"", 0, Key("order-42")),
    wire.Execute(20, 9, 8, 5000, (STATEMENT, Statement("x", ({"a": 1},))), False),
    wire.OpenCursor(21, "bounded", 100, 50, Statement("SELECT ?", ((1,),)), "r1.x", 250),
    wire.FetchCursor(22, 3, 100, 50),
    wire.CloseCursor(23, 3),
    wire.Ask(24, "await_durable", {"token": "r1.x", "levels": ("a", None)}, 5000),
    wire.Commit(25, 10, 9, 5000, None, "locations=3"),
    wire.Outcome(26, 5000, bytes(range(40)), 9, None, "locations=3"),
)
REPLIES: tuple[Any, ...] = (
    wire.Result(1, 77, b"reply"),
    wire.Done(2),
    wire.Result(3, 0, b""),
    wire.ErrorMessage.of(4, IntegrityError("UNIQUE constraint failed", hint="h", detail={"a": 1})),
    wire.Rows(5, 3, b"a", False),
    wire.Rows(5, 3, b"b", True),
    wire.Rows(6, 3, b"", True),
    wire.Info(7, {"term": 1, "peers": ({"node_id": "n1", "lag": None},), "ok": True}),
    wire.Pong(8),
    wire.ErrorMessage.of(9, NotLeaderError("no", detail={"leader": "n2", "address": "h:1"})),
    wire.Done(10),
    wire.Info(11, {}),
    wire.Info(12, {"total": "ab"}),
    wire.Done(13),
    wire.Result(14, 0, b"x"),
    wire.Done(15),
    wire.Result(16, 5, b""),
    wire.Done(17),
    wire.Result(18, 5, b""),
    wire.Result(19, 5, b""),
    wire.Result(20, 5, b""),
    wire.CursorRows(21, 3, 7, b"ab", False),
    wire.CursorRows(21, 3, 7, b"c", True, 4),
    wire.CursorRows(22, 0, 7, b"", True),
    wire.Done(23),
    wire.Info(24, {"index": 7}),
    wire.Result(25, 5, b""),
    wire.Result(26, 5, b""),
)


def opened() -> tuple[wire.ClientSide, wire.ServerSide]:
    """Both sides after the welcome."""
    client, server = wire.ClientSide(), wire.ServerSide()
    assert server.receive(client.send(HELLO)) == [HELLO]
    assert client.receive(server.send(WELCOME)) == [WELCOME]
    return client, server


integers = st.integers(-(1 << 63), (1 << 63) - 1)
values = st.one_of(
    st.none(),
    integers,
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    st.binary(max_size=20),
)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
parameters = st.one_of(
    st.lists(values, max_size=5).map(tuple), st.dictionaries(names, values, max_size=5)
)
statements = st.lists(
    st.builds(Statement, names, st.lists(parameters, min_size=1, max_size=3).map(tuple)),
    min_size=1,
    max_size=3,
).map(tuple)
timeouts = st.integers(1, 86_400_000)
request_ids = st.integers(1, (1 << 63) - 1)
keys = st.none() | st.builds(Key, names.filter(bool), st.integers(0, 1 << 60))


durabilities = st.sampled_from(("", "quorum", "locations=3", "locations=2@zone"))


@st.composite
def executes(draw: Any) -> wire.Execute:
    sequence = draw(st.integers(1, (1 << 63) - 1))
    floor = draw(st.integers(0, sequence - 1))
    return wire.Execute(
        draw(request_ids),
        sequence,
        floor,
        draw(timeouts),
        draw(statements),
        draw(st.booleans()),
        draw(keys),
        draw(durabilities),
    )


plain = st.recursive(
    st.one_of(values, st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=8,
)
requests = st.one_of(
    st.builds(wire.OpenSession, request_ids, names, timeouts),
    st.builds(wire.AttachSession, request_ids, st.binary(min_size=40, max_size=40)),
    st.builds(wire.CloseSession, request_ids, timeouts),
    executes(),
    st.builds(
        wire.Query,
        request_ids,
        st.sampled_from(wire.LEVELS),
        timeouts,
        statements,
        st.integers(0, 1000),
    ),
    st.builds(
        wire.OpenCursor,
        request_ids,
        st.sampled_from(wire.LEVELS),
        timeouts,
        st.integers(1, 1000),
        st.builds(Statement, names, st.tuples(parameters)),
        st.text(max_size=64).filter(lambda text: text.isprintable()),
        st.integers(0, 1000),
    ),
    st.builds(wire.FetchCursor, request_ids, st.integers(1, 1000), timeouts, st.integers(1, 9)),
    st.builds(wire.CloseCursor, request_ids, st.integers(1, 1000)),
    st.builds(wire.Status, request_ids),
    st.builds(wire.Ping, request_ids),
    st.builds(wire.Transfer, request_ids, st.none() | names, timeouts),
    st.builds(wire.ContentHash, request_ids, st.none() | st.integers(0, 1 << 60), timeouts),
    st.builds(wire.Begin, request_ids, timeouts, st.booleans()),
    st.builds(wire.Transact, request_ids, timeouts, statements.map(lambda found: found[0])),
    st.builds(
        wire.Commit,
        request_ids,
        st.integers(5, 9),
        st.integers(0, 4),
        timeouts,
        keys,
        durabilities,
    ),
    st.builds(wire.Rollback, request_ids),
    st.builds(
        wire.Outcome,
        request_ids,
        timeouts,
        st.binary(min_size=40, max_size=40),
        st.integers(1, 1 << 60),
        st.none(),
        durabilities,
    ),
    st.builds(wire.Ask, request_ids, names, st.dictionaries(names, plain, max_size=3), timeouts),
)
replies = st.one_of(
    st.builds(wire.Result, request_ids, st.integers(0, 1 << 60), st.binary(max_size=50)),
    st.builds(
        wire.Rows,
        request_ids,
        st.integers(0, 1 << 60),
        st.binary(max_size=50),
        st.booleans(),
    ),
    st.builds(
        wire.CursorRows,
        request_ids,
        st.integers(0, 1000),
        st.integers(0, 1 << 60),
        st.binary(max_size=50),
        st.booleans(),
        st.integers(-1, 1000),
    ),
    st.builds(wire.Info, request_ids, st.dictionaries(names, plain, max_size=4)),
    st.builds(wire.Pong, request_ids),
    st.builds(wire.Done, request_ids),
    st.builds(
        wire.ErrorMessage.of,
        request_ids,
        st.builds(IntegrityError, names, hint=names, detail=st.dictionaries(names, plain)),
    ),
)


def raw_error(**changes: Any) -> dict[str, Any]:
    """A wire error with some fields changed."""
    return to_wire(IntegrityError("x")) | changes
