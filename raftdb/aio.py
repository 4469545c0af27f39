"""raftdb for asyncio.

    import raftdb.aio

    async with raftdb.aio.connect("raftdb://host1:7001,host2:7001/?ca=…&cert=…&key=…") as db:
        await db.execute("INSERT INTO t (name) VALUES (?)", ("Ada",))

docs/client.md has more.
"""

from raftdb.client.aio import AsyncConnection, AsyncCursor, AsyncPipeline, connect

__all__ = ["AsyncConnection", "AsyncCursor", "AsyncPipeline", "connect"]
