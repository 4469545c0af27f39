"""A connection in several hands: processes after a fork, threads, tasks, and a signal's handler."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Generator
from typing import Any

import pytest

import raftdb
import raftdb.aio
from raftdb.client.actions import Action, Pause
from raftdb.client.driver import BlockingDriver
from raftdb.client.link import Dialler
from raftdb.client.options import make_options
from raftdb.wire import Ping
from tests.client.server import FakeNode
from tests.client.world import World

FORKS = """
import os, sys, raftdb

db = raftdb.connect(sys.argv[1])
db.execute("CREATE TABLE t (a)")
child = os.fork()
if child == 0:
    try:
        db.execute("INSERT INTO t VALUES ('of the child')")
    except raftdb.InterfaceError as error:
        db.close()
        with raftdb.connect(sys.argv[1]) as own:
            own.execute("INSERT INTO t VALUES (?)", (error.code,))
        os._exit(0)
    os._exit(7)
assert os.waitpid(child, 0)[1] == 0, "the child wrote under the numbers of its parent"
db.execute("INSERT INTO t VALUES ('of the parent')")
print(db.execute("SELECT a FROM t").fetchall())
db.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_does_not_write_under_the_numbers_of_its_parent(node: FakeNode) -> None:
    """The second of two writes of one number is answered by the first one's reply, and is lost."""
    url = f"raftdb://{node.address}/?insecure=1"
    done = subprocess.run(
        [sys.executable, "-c", FORKS, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[('forked',), ('of the parent',)]\n"
    assert node.database.applied == 3


def test_a_close_that_is_refused_leaves_the_transaction_open(
    node: FakeNode, db: raftdb.Connection
) -> None:
    """Else what its thread does next is committed by itself, and what it did before is lost."""
    inside, go_on = threading.Event(), threading.Event()

    def before(message: object) -> str:
        if isinstance(message, Ping):
            inside.set()
            go_on.wait(10)
        return ""

    node.before = before
    db.begin()
    thread = threading.Thread(target=db.ping)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(raftdb.InterfaceError, match="another thread"):
        db.close()
    go_on.set()
    thread.join(10)
    assert db.in_transaction
    db.close()
    assert not db.in_transaction


def test_a_task_that_closes_leaves_another_ones_commit_its_outcome() -> None:
    async def main() -> str:
        db = raftdb.aio.connect("raftdb://127.0.0.1:1/?insecure=1")
        await db.begin()
        inside, go_on = asyncio.Event(), asyncio.Event()
        run = db._driver.run

        async def slow(steps: Any) -> Any:
            inside.set()
            await go_on.wait()
            steps.close()
            return "committed"

        async def close() -> None:
            await inside.wait()
            db._driver.run = run  # type: ignore[method-assign]
            closing = asyncio.ensure_future(db.close())
            await asyncio.sleep(0)
            go_on.set()
            await closing

        db._driver.run = slow  # type: ignore[method-assign]
        closer = asyncio.ensure_future(close())
        outcome = await db._run(lambda _left_s: db._core.close(), None)
        await closer
        with pytest.raises(raftdb.InterfaceError, match="closed"):
            await db.execute("SELECT 1")
        return str(outcome)

    assert asyncio.run(main()) == "committed"


class _Interrupted:
    """Steps, and a signal whose handler raises when the driver has the next action in hand."""

    def __init__(self, steps: Generator[Action, Any, None]) -> None:
        self.steps = steps

    def __next__(self) -> Action:
        next(self.steps)
        raise KeyboardInterrupt

    def close(self) -> None:
        self.steps.close()


def test_an_interrupt_between_two_steps_ends_them_at_once() -> None:
    """What they note at their end must not come later, over what was done since."""
    noted: list[str] = []

    def steps() -> Generator[Action, Any, None]:
        try:
            yield Pause(0.0)
        finally:
            noted.append("ended")

    options = make_options("raftdb://127.0.0.1:1/?insecure=1", {})
    driver = BlockingDriver(Dialler(options, World()), World())
    with pytest.raises(KeyboardInterrupt) as caught:
        driver.run(_Interrupted(steps()))  # type: ignore[arg-type]
    assert noted == ["ended"], caught.traceback
