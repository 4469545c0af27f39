"""Three engines over real sockets, threads and files: they elect, commit, read, lose their leader
and go on; garbage at the peer port hurts nobody."""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raftdb.base.ids import Address, ClusterId, NodeId
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.base.ports import Ports
from raftdb.consensus import (
    Applied,
    CommittedEntry,
    Engine,
    EngineEvents,
    Member,
    ReadReady,
)
from raftdb.consensus.messages import Vote, encode
from raftdb.journal import Journal
from raftdb.runtime import LoopExecutor, RealClock, RealNetwork, RealRandom
from raftdb.runtime.files import RealFiles
from tests.consensus.bench import ListLog
from tests.consensus.test_messages import Bomb, nothing_unpickled
from tests.consensus.wires import frame

FIRST_PORT = 19_310
DEADLINE_S = 20.0


class Tally:
    """A machine that counts, and says so."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.payloads: list[bytes] = []
        self._last = (0, 0)

    def applied(self) -> Any:
        return self._last

    absent = False

    def copied(self) -> Any:
        return None

    def configuration(self) -> Any:
        return None

    def apply(self, entries: Sequence[CommittedEntry]) -> Sequence[Sequence[bytes]]:
        replies = []
        for entry in entries:
            self.payloads += entry.payloads
            self._last = (entry.index, entry.term)
            replies.append([b"%d" % len(self.payloads)] * len(entry.payloads))
        self._changed()
        return replies

    def apply_briefly(self, entries: Sequence[CommittedEntry]) -> Sequence[Sequence[bytes]] | None:
        return self.apply(entries) if len(entries) == 1 else None


class RealNode:
    """One engine on the test's loop; `changed` is set whenever something about it may have."""

    def __init__(
        self, directory: Path, name: str, members: list[Member], changed: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.log = ListLog()
        self.failures: list[BaseException] = []
        self.executor = LoopExecutor(loop, self.failures.append)
        self.network = RealNetwork(loop, self.executor, self.log, credentials=None, insecure=True)
        files, random = RealFiles(), RealRandom()
        path = str(directory / name)
        if not files.exists(path):
            Journal.create(files, path, random)
        self.journal = Journal.open(files, path, self.executor, DEFAULT_LIMITS, self.log)
        self.machine = Tally(lambda: self.executor.call_threadsafe(changed.set))
        self.changed = changed
        self.engine = Engine(
            node_id=NodeId(name),
            members=members,
            cluster_id=ClusterId("a" * 32),
            journal=self.journal,
            machine=self.machine,
            ports=Ports(RealClock(), random, self.executor, files, self.network, self.log),
            events=EngineEvents(lambda _status: changed.set(), self.failures.append),
        )
        self.engine.start()

    async def stop(self) -> None:
        await ended(lambda done: self.engine.stop(lambda: done(None)))
        await ended(self.journal.close)
        self.network.close()
        self.executor.close()


async def ended(call: Callable[[Callable[[Any], None]], object]) -> Any:
    """Await what a callback is given."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call(future.set_result)
    return await asyncio.wait_for(future, DEADLINE_S)


async def until(nodes: list[RealNode], true: Callable[[], bool]) -> None:
    """Wait until something changed and it holds."""
    changed = nodes[0].changed
    async with asyncio.timeout(DEADLINE_S):
        while not true():
            changed.clear()
            await changed.wait()


@asynccontextmanager
async def cluster(directory: Path, first_port: int) -> AsyncIterator[list[RealNode]]:
    members = [
        Member(
            NodeId(f"n{number}"),
            "here",
            Address("127.0.0.1", first_port + number),
            Address("127.0.0.1", first_port + 100 + number),
        )
        for number in (1, 2, 3)
    ]
    changed = asyncio.Event()
    nodes = [RealNode(directory, str(member.node_id), members, changed) for member in members]
    try:
        yield nodes
    finally:
        for node in nodes:
            if node.engine.status().role != "stopped":
                await node.stop()
    assert [node.failures for node in nodes] == [[], [], []]


async def leader_of(nodes: list[RealNode]) -> RealNode:
    def found() -> list[RealNode]:
        return [
            node
            for node in nodes
            if node.engine.status().role == "leader"
            and all(other.engine.status().leader == node.name for other in nodes)
        ]

    await until(nodes, lambda: len(found()) == 1)
    return found()[0]


async def story(directory: Path) -> None:
    async with cluster(directory, FIRST_PORT) as nodes:
        leader = await leader_of(nodes)
        writes = [
            ended(lambda done, n=n: leader.engine.propose(b"%d" % n, done)) for n in range(200)
        ]
        outcomes = await asyncio.gather(*writes)
        assert all(isinstance(outcome, Applied) for outcome in outcomes)
        assert isinstance(await ended(leader.engine.read_index), ReadReady)
        await until(nodes, lambda: all(len(node.machine.payloads) == 200 for node in nodes))
        big = await ended(lambda done: leader.engine.propose(b"x" * 5_000_000, done))
        assert isinstance(big, Applied)
        await leader.stop()
        rest = [node for node in nodes if node is not leader]
        second = await leader_of(rest)
        outcome = await ended(lambda done: second.engine.propose(b"after", done))
        assert isinstance(outcome, Applied)
        await until(rest, lambda: all(node.machine.payloads[-1] == b"after" for node in rest))
        assert rest[0].machine.payloads == rest[1].machine.payloads
        reason = await ended(lambda done: second.engine.transfer_leadership(None, done))
        assert reason == ""


def test_three_real_nodes(tmp_path: Path) -> None:
    asyncio.run(story(tmp_path))


async def send_garbage(port: int, data: bytes) -> bytes:
    """What the node answers until it closes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return b""
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def garbage(directory: Path) -> None:
    async with cluster(directory, FIRST_PORT + 10) as nodes:
        leader = await leader_of(nodes)
        bombs = [pickle.dumps(Bomb(), protocol=number) for number in range(6)]
        samples = [frame(bomb) for bomb in bombs] + [
            struct.pack(">I", 1 << 30),
            b"GET / HTTP/1.1\r\n\r\n",
            frame(encode(Vote(1 << 60))),
            frame(b""),
        ]
        with nothing_unpickled():
            answers = await asyncio.gather(
                *(
                    send_garbage(FIRST_PORT + 10 + number, sample)
                    for number in (1, 2, 3)
                    for sample in samples
                )
            )
        # The hello is all that a stranger hears.
        assert max(len(answer) for answer in answers) < 300
        outcome = await ended(lambda done: leader.engine.propose(b"still here", done))
        assert isinstance(outcome, Applied)
        assert leader.engine.status().term < 100


def test_garbage_at_every_real_port(tmp_path: Path) -> None:
    asyncio.run(garbage(tmp_path))
