"""raftdb.aio at a cluster of embedded nodes: transactions, streams, outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import raftdb
import raftdb.aio
from raftdb.client.aio import AsyncConnection
from tests.embedded.conftest import Members

SCHEMA = "CREATE TABLE account (id INTEGER PRIMARY KEY, money CHECK (money >= 0))"


@pytest.fixture(scope="module")
def url(members: Members) -> str:
    with raftdb.connect(members.founded.url) as db:
        db.execute(SCHEMA)
        db.execute("CREATE TABLE late (a REFERENCES account DEFERRABLE INITIALLY DEFERRED)")
        db.execute(
            "CREATE TABLE long AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < 20000) SELECT i, 'some text of the row ' || i AS t FROM n"
        )
    return str(members.founded.url)


def run(url: str, work: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    """On two accounts of 100."""

    async def main() -> None:
        async with raftdb.aio.connect(url, timeout=15.0) as db:
            await db.execute("DELETE FROM late")
            await db.execute("DELETE FROM account")
            await db.executemany("INSERT INTO account VALUES (?, 100)", [(1,), (2,)])
            await work(db)

    asyncio.run(main())


async def money(db: AsyncConnection, id: int = 1) -> Any:
    cursor = await db.execute("SELECT money FROM account WHERE id = ?", (id,))
    return (await cursor.fetchone())[0]


def test_a_transaction_is_one_entry_or_nothing(url: str) -> None:
    async def work(db: AsyncConnection) -> None:
        async with raftdb.aio.connect(url) as other:
            async with db.transaction() as same:
                assert same is db
                assert db.in_transaction
                await db.execute("UPDATE account SET money = money - 30 WHERE id = 1")
                await db.batch(["UPDATE account SET money = money + 30 WHERE id = 2", "SELECT 1"])
                assert (await money(db), await money(other)) == (70, 100)
                with pytest.raises(raftdb.IntegrityError):
                    await db.execute("UPDATE account SET money = -1")
                with pytest.raises(raftdb.NotSupportedError, match="streamed"):
                    await db.execute("SELECT * FROM long", stream=True)
            assert not db.in_transaction
            assert (await money(other), await money(other, 2)) == (70, 130)

            async def give_up() -> None:
                async with db.transaction("immediate"):
                    await db.execute("DELETE FROM account")
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await give_up()
            await db.execute("BEGIN")
            await db.execute("SAVEPOINT s")
            await db.execute("DELETE FROM account")
            await db.execute("ROLLBACK TO s")
            await db.execute("COMMIT")
            await db.begin()
            await db.execute("INSERT INTO late VALUES (77)")
            with pytest.raises(raftdb.IntegrityError):
                await db.commit()
            assert db.in_transaction, "deferred keys leave it open"
            await db.rollback()
            await db.rollback()
            assert await money(other) == 70

    run(url, work)


def test_run_transaction_tries_again_and_autocommit_can_be_off(url: str) -> None:
    async def work(db: AsyncConnection) -> None:
        async with raftdb.aio.connect(url) as other:
            calls = []

            async def add(connection: AsyncConnection) -> int:
                calls.append(await money(connection))
                if len(calls) == 1:
                    await other.execute("UPDATE account SET money = money + 1 WHERE id = 1")
                await connection.execute("UPDATE account SET money = ? + 10", (calls[-1],))
                return int(calls[-1])

            assert await db.run_transaction(add) == 101
            assert calls == [100, 101]
            assert await money(other) == 111

            await db.set_autocommit(False)
            await db.execute("UPDATE account SET money = 1")
            assert db.in_transaction
            assert await money(other) == 111
            await db.rollback()
            await db.execute("UPDATE account SET money = 2")
            await db.set_autocommit(True)
            assert await money(other) == 2

    run(url, work)


def test_a_transaction_belongs_to_its_task(url: str) -> None:
    async def work(db: AsyncConnection) -> None:
        async def elsewhere(within_s: float) -> int:
            cursor = await db.execute("UPDATE account SET money = money * 2", timeout=within_s)
            return cursor.rowcount

        async with db.transaction():
            await db.execute("UPDATE account SET money = money + 1 WHERE id = 1")
            with pytest.raises(raftdb.DeadlineError, match="another task's transaction"):
                await asyncio.create_task(elsewhere(0.05))
            with pytest.raises(raftdb.InterfaceError, match="belongs to another task"):
                await asyncio.create_task(db.commit())
            with pytest.raises(raftdb.InterfaceError, match="pipeline"):
                async with db.pipeline():
                    pass
            later = asyncio.create_task(elsewhere(15.0))
            assert await money(db) == 101
        assert await later == 2
        assert await money(db) == 202

        # A task that ends without a word leaves the connection as if it had rolled back.
        async def forgetful() -> None:
            await db.begin()
            await db.execute("DELETE FROM account")

        await asyncio.create_task(forgetful())
        assert not db.in_transaction
        assert await money(db) == 202

        # One that is cancelled in the midst rolls back too.
        begun = asyncio.Event()

        async def slow() -> None:
            async with db.transaction():
                await db.execute("DELETE FROM account")
                begun.set()
                await db.execute(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
                    " SELECT count(*) FROM n"
                )

        task = asyncio.create_task(slow())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await money(db) == 202
        await db.begin()

    run(url, work)


def test_streams(url: str) -> None:
    async def work(db: AsyncConnection) -> None:
        cursor = await db.execute("SELECT i FROM long ORDER BY i", stream=True)
        assert cursor.index > 0
        assert cursor.description is not None
        await db.execute("DELETE FROM long WHERE i > 10000 AND i % 2 AND false")
        seen = 0
        async for (number,) in cursor:
            seen += 1
            assert number == seen
            # Only a page of it is here at any time.
            assert len(cursor._cursor._rows) <= 2_000
        assert seen == 20_000
        assert await cursor.fetchone() is None

        async with await db.execute("SELECT i FROM long ORDER BY i", stream=True) as rest:
            assert await rest.fetchmany(2_500) == [(n,) for n in range(1, 2_501)]
            assert await rest.fetchone() == (2_501,)
            # Other calls of the connection go between its pages, and leaving it early is fine.
            assert await money(db) == 100
        with pytest.raises(raftdb.InterfaceError):
            await rest.fetchone()
        everything = await db.execute("SELECT t FROM long", stream=True, read="local")
        assert len(await everything.fetchall()) == 20_000
        with pytest.raises(raftdb.ProgrammingError):
            await db.execute("DELETE FROM long", stream=True)

        # A fetch that is cancelled ends the stream, not the connection.
        slow = await db.execute(
            "SELECT i, (SELECT sum(b.i) FROM long AS b WHERE b.i < 200) FROM long AS a",
            stream=True,
        )
        task = asyncio.create_task(slow.fetchmany(20_000))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await money(db) == 100

    run(url, work)


def test_keys_and_outcomes(url: str) -> None:
    async def work(db: AsyncConnection) -> None:
        horizon = await db.horizon()
        for _time in range(2):
            cursor = await db.execute(
                "UPDATE account SET money = money + 1 RETURNING money",
                idempotency_key="aio-1",
                horizon=horizon,
            )
            assert await cursor.fetchall() == [(101,), (101,)]
        found = await db.outcome(idempotency_key="aio-1")
        assert (found.state, found.results[0].rows) == ("applied", ((101,), (101,)))
        assert (await db.outcome(idempotency_key="aio-2")).state == "not_applied"
        with pytest.raises(raftdb.Error) as caught:
            await db.execute("DELETE FROM account", idempotency_key="aio-2")
        assert caught.value.code == "burned"
        async with raftdb.aio.connect(url) as other:
            await other.run_transaction(
                lambda c: c.execute("DELETE FROM late"), idempotency_key="k"
            )
            session, sequence = other.last_write or ("", 0)
            assert (await db.outcome(session=session, sequence=sequence)).state == "applied"
        with pytest.raises(raftdb.InterfaceError):
            await db.outcome()
        with pytest.raises(raftdb.InterfaceError, match="commit"):
            async with db.transaction():
                await db.execute("DELETE FROM late", idempotency_key="aio-3")

    run(url, work)
