"""Requests that nobody will answer: `python -m bench.pour`, with a specification on standard input.

Opens its connections to one node, says "ready", and at SIGUSR1 sends all requests of all of them at
once; then it waits to be killed. For a leader that is cut off (bench/rejoin.py).
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from bench import loadkit
from bench.raftdb_load import EventLoad

SQL = "INSERT INTO far (v) VALUES ('never')"


class Pour(EventLoad):
    """All connections of one process."""

    async def pour(self) -> None:
        """Open, wait, send, and stay."""
        specification, go = self.specification, asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)
        [address] = specification["addresses"]
        connections = [await self._open(address, i) for i in range(specification["connections"])]
        loadkit.emit("ready")
        await go.wait()
        for connection in connections:
            connection.pour(SQL, specification["each"])
        await asyncio.Event().wait()


def main() -> None:
    """Read the specification and pour."""
    specification: dict[str, Any] = loadkit.specification("pour")
    asyncio.run(Pour(specification).pour())


if __name__ == "__main__":
    main()
