"""Pipelines and the asyncio client on real sockets."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

import raftdb
import raftdb.aio
from raftdb.client import aio
from raftdb.client.pipeline import Pipeline
from raftdb.wire import Execute, Query
from tests.client.server import FakeNode, listening_socket


def executes(node: FakeNode) -> list[Execute]:
    return [message for message in node.requests if isinstance(message, Execute)]


# ---- blocking


def test_a_pipeline_gives_the_results_of_its_requests(db: raftdb.Connection) -> None:
    with db.pipeline() as p:
        p.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)")
        one = p.execute("INSERT INTO t (a) VALUES (?)", ("x",))
        many = p.executemany("INSERT INTO t (a) VALUES (?)", [(1,), (2,)])
        seen = p.execute("SELECT a FROM t ORDER BY id")
        both = p.batch(["UPDATE t SET a = 9 WHERE a = 1", ("SELECT count(*) FROM t",)[0]])
    assert (one.rowcount, one.lastrowid, one.error, one.done) == (1, 1, None, True)
    assert many.rowcount == 2
    assert seen.rows == (("x",), (1,), (2,)), "a query sees what stands ahead of it"
    assert [result.rowcount for result in both.results] == [1, -1]
    assert both.index > one.index > 0
    assert db.execute("SELECT count(*) FROM t").fetchone() == (3,)


def test_the_first_error_is_raised_at_the_end(db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a UNIQUE)")
    with pytest.raises(raftdb.IntegrityError), db.pipeline() as p:  # noqa: PT012
        p.execute("INSERT INTO t VALUES (1)")
        failed = p.execute("INSERT INTO t VALUES (1)")
        p.execute("SELECT nonsense")
        p.execute("INSERT INTO t VALUES (2)")
    assert isinstance(failed.error, raftdb.IntegrityError)
    with pytest.raises(raftdb.IntegrityError):
        _ = failed.rows
    assert db.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,)]


def test_sync_raises_what_failed_since_the_last_one(db: raftdb.Connection) -> None:
    with db.pipeline() as p:
        p.execute("SELECT nonsense")
        with pytest.raises(raftdb.ProgrammingError):
            p.sync()
        reply = p.execute("SELECT 1")
        p.sync()
        assert reply.rows == ((1,),)


def test_an_error_in_the_block_goes_on_and_what_was_sent_is_done(db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    with pytest.raises(ZeroDivisionError), db.pipeline() as p:  # noqa: PT012
        p.execute("INSERT INTO t VALUES (1)")
        p.execute("SELECT nonsense")
        _ = 1 / 0
    assert db.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_a_connection_does_one_thing_at_a_time(db: raftdb.Connection) -> None:
    with db.pipeline() as p:
        with pytest.raises(raftdb.InterfaceError, match="a pipeline is open"):
            db.execute("SELECT 1")
        with pytest.raises(raftdb.InterfaceError, match="a pipeline is open"), db.pipeline():
            pass
        reply = p.execute("SELECT 1")
        with pytest.raises(raftdb.InterfaceError, match="has not come"):
            _ = reply.rows
        assert repr(reply) == "<raftdb.Reply, waiting>"
    with pytest.raises(raftdb.InterfaceError, match="not open"):
        p.execute("SELECT 1")
    with pytest.raises(raftdb.InterfaceError):
        p.sync()
    assert db.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.execute(""),
        lambda p: p.execute("SELECT ?", (object(),)),
        lambda p: p.executemany("INSERT INTO t VALUES (?)", []),
        lambda p: p.batch([]),
        lambda p: p.execute("SELECT 1", timeout=-1),
    ],
)
def test_what_is_wrong_with_a_call_is_said_at_once(
    db: raftdb.Connection, node: FakeNode, call: Callable[[Any], Any]
) -> None:
    with db.pipeline() as p, pytest.raises((raftdb.InterfaceError, raftdb.DataError)):
        call(p)
    assert not executes(node)


def test_lost_connections_cost_nothing(node: FakeNode, db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    dropped = []

    def before(message: Any) -> str:
        if isinstance(message, Execute) and len(dropped) < 5 and message.sequence % 37 == 0:
            dropped.append(message.sequence)
            return "drop" if len(dropped) % 2 else "drop after"
        return ""

    node.before = before
    with db.pipeline() as p:
        for number in range(300):
            p.execute("INSERT INTO t VALUES (?)", (number,))
    assert [row[0] for row in db.execute("SELECT a FROM t ORDER BY rowid")] == list(range(300))
    assert len(dropped) == 5


def test_large_requests_and_large_replies_do_not_wait_for_each_other(
    db: raftdb.Connection,
) -> None:
    db.execute("CREATE TABLE t (a)")
    blob = bytes(300_000)
    with db.pipeline() as p:
        replies = [
            p.execute("INSERT INTO t VALUES (?) RETURNING a", (blob,), timeout=20)
            for _ in range(10)
        ]
    assert all(reply.rows == ((blob,),) for reply in replies)
    assert [reply.lastrowid for reply in replies] == list(range(1, 11))


def test_a_deadline_leaves_what_can_be_resumed(node: FakeNode, db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    node.before = lambda message: "silent" if isinstance(message, Execute) else ""
    with pytest.raises(raftdb.DeadlineError) as caught, db.pipeline() as p:  # noqa: PT012
        for number in range(3):
            p.execute("INSERT INTO t VALUES (?)", (number,), timeout=0.3)
    assert caught.value.outcome == "unknown"
    assert db.unsettled
    node.before = lambda message: ""
    assert [result.rowcount for result in db.resume()] == [1, 1, 1]
    assert db.execute("SELECT a FROM t").fetchall() == [(0,), (1,), (2,)]


# ---- asyncio


def url(node: FakeNode) -> str:
    return f"raftdb://{node.address}/?insecure=1"


def test_the_asyncio_client(node: FakeNode) -> None:
    async def main() -> None:
        async with raftdb.aio.connect(url(node)) as db:
            await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
            cursor = await db.execute("INSERT INTO t (a) VALUES (?)", ("x",))
            assert (cursor.rowcount, cursor.lastrowid) == (1, 1)
            await db.executemany("INSERT INTO t (a) VALUES (?)", [("y",), ("z",)])
            await db.executescript("UPDATE t SET a = 'w' WHERE id = 3; SELECT 1;")
            db.row_factory = raftdb.Row
            cursor = await db.execute("SELECT a FROM t ORDER BY id")
            assert (await cursor.fetchone())["a"] == "x"
            assert [row async for row in cursor] == [("y",), ("w",)]
            assert await cursor.fetchall() == []
            assert cursor.description is not None
            results = await db.batch(["SELECT 1", ("SELECT ?", (2,))])
            assert [result.rows for result in results] == [((1,),), ((2,),)]
            assert await db.batch([]) == []
            assert await db.ping() == "n1"
            assert (await db.status())["node_id"] == "n1"
            assert db.last_index > 0
            with pytest.raises(raftdb.ProgrammingError):
                await db.execute("SELECT nonsense")
            await cursor.close()
            with pytest.raises(raftdb.InterfaceError):
                await cursor.fetchone()
        with pytest.raises(raftdb.InterfaceError, match="closed"):
            await db.execute("SELECT 1")
        await db.close()

    asyncio.run(main())


def test_tasks_take_turns_and_their_waiting_counts(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with raftdb.aio.connect(url(node)) as db:
            await db.execute("CREATE TABLE t (a)")
            await asyncio.gather(*(db.execute("INSERT INTO t VALUES (?)", (n,)) for n in range(50)))
            rows = await (await db.execute("SELECT a FROM t ORDER BY rowid")).fetchall()
            assert [row[0] for row in rows] == list(range(50))
            node.before = lambda message: "silent" if isinstance(message, Query) else ""
            slow = asyncio.create_task(db.execute("SELECT 1", timeout=0.6))
            await asyncio.sleep(0)
            with pytest.raises(raftdb.DeadlineError, match="other calls"):
                await db.execute("SELECT 1", timeout=0.1)
            monkeypatch.setattr(aio, "WAITING_MAX", 0)
            with pytest.raises(raftdb.OverloadedError):
                await db.execute("SELECT 1")
            monkeypatch.setattr(aio, "WAITING_MAX", 8)
            with pytest.raises(raftdb.DeadlineError):
                await slow

    asyncio.run(main())


def test_a_cancelled_write_is_unsettled_and_can_be_resumed(node: FakeNode) -> None:
    async def main() -> None:
        async with raftdb.aio.connect(url(node)) as db:
            await db.execute("CREATE TABLE t (a)")
            arrived = asyncio.Event()
            loop = asyncio.get_running_loop()

            def before(message: Any) -> str:
                if isinstance(message, Execute):
                    loop.call_soon_threadsafe(arrived.set)
                    return "silent"
                return ""

            node.before = before
            task = asyncio.create_task(db.execute("INSERT INTO t VALUES (1)"))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert db.unsettled
            node.before = lambda message: ""
            await db.resume()
            assert await (await db.execute("SELECT a FROM t")).fetchall() == [(1,)]

    asyncio.run(main())


def test_an_asyncio_pipeline(node: FakeNode) -> None:
    async def main() -> None:
        async with raftdb.aio.connect(url(node)) as db:
            await db.execute("CREATE TABLE t (a UNIQUE)")
            async with db.pipeline() as p:
                replies = await asyncio.gather(
                    *(p.execute("INSERT INTO t VALUES (?)", (n,)) for n in range(200))
                )
                with pytest.raises(raftdb.InterfaceError, match="a pipeline is open"):
                    await db.execute("SELECT 1")
                await p.sync()
                assert all(reply.rowcount == 1 for reply in replies)
                await p.executemany("INSERT INTO t VALUES (?)", [(1000,)])
                batch = await p.batch(["SELECT max(a) FROM t"])
            assert batch.rows == ((1000,),)
            with pytest.raises(raftdb.IntegrityError):
                async with db.pipeline() as p:
                    await p.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with db.pipeline() as p:
                    await p.execute("SELECT nonsense")
                    _ = 1 / 0
            with pytest.raises(raftdb.InterfaceError):
                await p.execute("SELECT 1")
            rows = await (await db.execute("SELECT count(*) FROM t")).fetchone()
            assert rows == (201,)

    asyncio.run(main())


def test_a_node_that_is_gone_and_one_that_speaks_nonsense() -> None:
    node = FakeNode()

    async def main() -> None:
        async with raftdb.aio.connect(url(node), timeout=0.5) as db:
            assert await db.ping() == "n1"
            node.close()
            with pytest.raises(raftdb.DeadlineError, match="refused"):
                await db.ping()

        async def nonsense(reader: Any, writer: Any) -> None:
            writer.write(b"\xff\xff\xff\xff nonsense")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(nonsense, sock=listening_socket())
        port = server.sockets[0].getsockname()[1]
        async with raftdb.aio.connect(f"raftdb://127.0.0.1:{port}/?insecure=1", timeout=0.5) as db:
            with pytest.raises(raftdb.DeadlineError, match="protocol"):
                await db.ping()
        server.close()

    asyncio.run(main())


# ---- what both kinds of client, and all their calls, have alike


def wishes(node: FakeNode) -> list[tuple[str, str, str]]:
    """SQL, key and durability of each write, in the order of its coming."""
    return [
        (one.statements[0].sql, one.key.name if one.key else "", one.durability)
        for one in executes(node)
    ]


def test_each_request_of_a_pipeline_may_wait_for_something_else(
    node: FakeNode, db: raftdb.Connection
) -> None:
    seen: list[str] = []

    def drop_once(message: Any) -> str:
        if not isinstance(message, Execute) or message.durability != "locations=2" or seen:
            return ""
        seen.append("dropped")
        return "drop after"

    node.before = drop_once
    with db.pipeline() as p:
        one = p.execute("SELECT 1")
        p.executemany("SELECT ?", [(2,)], durability="locations=2")
        p.batch(["SELECT 3"], idempotency_key="third", horizon=7)
        with pytest.raises(raftdb.InterfaceError, match="durability"):
            p.execute("SELECT 4", durability="everywhere")
    wanted = {("SELECT 1", "", ""), ("SELECT ?", "", "locations=2"), ("SELECT 3", "third", "")}
    assert set(wishes(node)) == wanted, "also when they are sent again"
    assert len(wishes(node)) > 3
    assert db.last_write is not None
    assert one.write == (db.last_write[0], db.last_write[1] - 2)

    async def main() -> None:
        async with raftdb.aio.connect(url(node), durability="quorum") as other:
            async with other.pipeline() as pipe:
                await pipe.execute("SELECT 5", durability="archive")
                await pipe.batch(["SELECT 6"], idempotency_key="sixth")
            async with other.transaction(durability="locations=2"):
                pass

    asyncio.run(main())
    assert wishes(node)[-2:] == [("SELECT 5", "", "archive"), ("SELECT 6", "sixth", "quorum")]


def test_what_was_cut_off_is_resumed_with_its_wishes(node: FakeNode, db: raftdb.Connection) -> None:
    node.before = lambda message: "silent" if isinstance(message, Execute) else ""
    with pytest.raises(raftdb.DeadlineError), db.pipeline() as p:
        p.execute("SELECT 1", durability="locations=2", idempotency_key="k", timeout=0.3)
    node.before = lambda message: ""
    db.resume()
    assert set(wishes(node)) == {("SELECT 1", "k", "locations=2")}


ONE_KIND_ONLY = {
    "Connection": {
        "cancel",  # A task is cancelled by asyncio.
        "set_autocommit",  # Setting an attribute cannot wait.
        *(name for name in dir(raftdb.Connection) if name == "Warning" or name.endswith("Error")),
    },
    "Cursor": {"setinputsizes", "setoutputsize"},  # PEP 249 wants them, and they do nothing.
    "Pipeline": set[str](),
}


@pytest.mark.parametrize(
    ("blocking", "awaited"),
    [
        (raftdb.Connection, aio.AsyncConnection),
        (raftdb.Cursor, aio.AsyncCursor),
        (Pipeline, aio.AsyncPipeline),
    ],
)
def test_both_clients_have_the_same_calls_with_the_same_options(
    blocking: type, awaited: type
) -> None:
    def calls(kind: type) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in dir(kind):
            if name.startswith("_") or name in ONE_KIND_ONLY[blocking.__name__]:
                continue
            value = getattr(kind, name)
            found[name] = "attribute"
            if callable(value):
                taken = list(inspect.signature(value).parameters.values())[1:]
                found[name] = [(one.name, one.kind, one.default) for one in taken]
        return found

    assert calls(blocking) == calls(awaited)
