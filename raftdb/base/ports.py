"""The ports: all that the replica's core knows of the world outside.

Real ones live in `raftdb.runtime`; simulated ones in `tests/sim`. Everything below `embedded` and
`cli` gets them by constructor and opens, sleeps, draws and starts nothing by itself.

One rule of concurrency holds everywhere: a node's state belongs to its loop. Callbacks of
Executor, Network and timers run on the loop, one at a time; work given to `submit` runs on the
lane's own thread and touches only what was handed to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from raftdb.base.ids import Address, ClusterId, NodeId


class Clock(Protocol):
    """Time. Deadlines and leases use `monotonic_s`; only logged time stamps use `wall_ms`."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards and count suspension (CLOCK_BOOTTIME)."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC; may jump."""


class Random(Protocol):
    """Randomness."""

    def random(self) -> float:
        """A float in [0, 1)."""

    def randbytes(self, count: int) -> bytes:
        """`count` random bytes, fit for identifiers."""


class Timer(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> None:
        """Forget the call; harmless when it ran already."""


Done = Callable[[Any, BaseException | None], None]
"""Takes (result, None) or (None, error)."""


class Executor(Protocol):
    """The loop, its timers, and threads beside it ("lanes")."""

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run on the loop after what is running now. Only from the loop."""

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Timer:
        """Run on the loop after `delay_s` seconds. Only from the loop."""

    def call_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run on the loop soon. From any thread."""

    def submit(self, lane: str, work: Callable[[], Any], done: Done) -> None:
        """Run `work()` on the lane's thread, in the order of submission; then `done` on the loop.

        Work on one lane never overlaps; lanes run beside each other and beside the loop.
        """


class File(Protocol):
    """One open file. Every call may raise OSError; a failed `sync` is never repeated."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end of the file."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` (short writes and EINTR are dealt with inside)."""

    def truncate(self, size: int) -> None:
        """Cut or extend the file to `size` bytes."""

    def sync(self) -> None:
        """fdatasync: returns when data and size are durable."""

    def size(self) -> int:
        """The file's size in bytes."""

    def close(self) -> None:
        """Close; nothing is made durable by it."""


class Files(Protocol):
    """Files by path. Paths are absolute. Every call may raise OSError."""

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and writing. `create` makes it when missing; `exclusive` requires that
        it was missing."""

    def read_file(self, path: str) -> bytes:
        """The whole content. FileNotFoundError when missing."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""

    def list_directory(self, path: str) -> list[str]:
        """Names in it, sorted."""

    def make_directory(self, path: str) -> None:
        """Make it, parents too; fine when it is there."""

    def rename(self, source: str, target: str) -> None:
        """Replace `target` atomically. Durable only after `sync_directory`."""

    def remove(self, path: str) -> None:
        """Remove a file. Durable only after `sync_directory`."""

    def sync_directory(self, path: str) -> None:
        """fsync the directory: names in it are durable."""

    def free_bytes(self, path: str) -> int:
        """Room on the file system of that directory, for this user."""

    def keep_room(self, path: str, size: int) -> None:
        """Have a file there that takes `size` bytes of room and holds nothing; 0: no file. OSError
        when there is no room; then there is no such file."""

    def lock(self, path: str) -> Callable[[], None]:
        """Take an exclusive lock that dies with the process; returns what releases it.
        BlockingIOError when another process has it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as its certificate proves it (or as nobody, without TLS)."""

    role: str
    """`node`, `client`, or `` where there is no certificate."""
    name: str
    """Node id or client name; `` where there is none."""
    cluster_id: ClusterId | None
    remote: str
    """Address text for messages."""


class Connection(Protocol):
    """One ordered stream of bytes, from the loop only. Nothing here raises."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""

    def write(self, data: bytes) -> None:
        """Send all of it, in order; dropped silently once the connection is closed."""

    def unsent_bytes(self) -> int:
        """Bytes accepted by `write` that the system did not take yet."""

    def close(self) -> None:
        """Close after what was written is sent."""

    def abort(self) -> None:
        """Close now; what was not sent is dropped."""

    def pause_reading(self) -> None:
        """Back-pressure: no more `data_received` until `resume_reading`."""

    def resume_reading(self) -> None:
        """Go on delivering."""


class Handler(Protocol):
    """What a connection calls, on the loop. `connection_lost` is last, and called once."""

    def connection_made(self, connection: Connection) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, reason: str) -> None: ...


class Listener(Protocol):
    """An open port."""

    @property
    def address(self) -> Address:
        """Where it listens (the real port when 0 was asked for)."""

    def close(self) -> None:
        """Accept no more; open connections stay."""


@dataclass(frozen=True, slots=True)
class ExpectedPeer:
    """Whom a dialler insists on finding at the other end."""

    node_id: NodeId | None
    """None: any node of the cluster."""


class Network(Protocol):
    """Streams to and from others; TLS and who-is-who belong to the implementation."""

    def listen(
        self,
        purpose: str,
        address: Address,
        accept: Callable[[], Handler],
        ready: Callable[[Listener | None, BaseException | None], None],
    ) -> None:
        """Open a port. `purpose` is `peer` (only certificates of nodes of this cluster get in) or
        `client` (nodes and clients). `accept` makes the handler of each new connection, after its
        handshake."""

    def connect(
        self,
        purpose: str,
        address: Address,
        expect: ExpectedPeer,
        handler: Handler,
        timeout_s: float,
        failed: Callable[[str], None],
    ) -> None:
        """Dial. Either `handler.connection_made` or `failed(reason)` is called, once."""


class Log(Protocol):
    """Where messages for the operator go: one event name, then plain fields. No secrets."""

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...

    def error(self, event: str, **fields: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All ports of one node."""

    clock: Clock
    random: Random
    executor: Executor
    files: Files
    network: Network
    log: Log
