"""Messages of the client protocol: frozen values. docs/protocol.md has their bytes.

Each request carries a `request_id` that the client chooses, from 1, unique among the requests that
are open on its connection; each reply repeats it. Replies may come in any order.

    request          its reply (or ErrorMessage with the same request_id)
    OpenSession      Result (command.Opened); the new session is attached to the connection
    AttachSession    Done
    CloseSession     Result
    Execute          Result (command.Results, Failed or ResultDropped)
    Query            Rows, the last one with `last`; joined they are command.encode_reply bytes
    OpenCursor       CursorRows, as Rows: one page
    FetchCursor      CursorRows
    CloseCursor      Done
    Status           Info
    Ping             Pong
    Transfer         Done
    ContentHash      Info
    Ask              Info
    Begin            Done; a transaction is open on the connection
    Transact         Result (command.Results or Failed); not a log entry's outcome
    Commit           Result (command.Results or Failed); Done when it only read: nothing is logged
    Rollback         Done
    Outcome          Result (what the request got, or Failed when it never took effect)
    Cancel           none; the request that it names still gets its one reply
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raftdb.base.errors import Error, NotSupportedError, from_wire, to_wire
from raftdb.base.frozen import frozen
from raftdb.command import Key, Statement

VERSION = 1
"""The protocol version that this release speaks."""

VERSIONS = (VERSION,)
"""All versions that this release can speak, best first."""

LINEARIZABLE = "linearizable"
SESSION = "session"
BOUNDED = "bounded"
LOCAL = "local"
LEVELS = (LINEARIZABLE, SESSION, BOUNDED, LOCAL)
"""Read levels of version 1."""

ROWS_CHUNK_BYTES = 256 * 1024


@frozen
class Endpoint:
    """A node and where clients reach it."""

    node_id: str
    address: str
    """host:port, as `base.ids.parse_address` reads it."""
    location: str = ""
    """Where it is, such as eu/madrid/rack3; `` where that is not told."""


@frozen
class Hello:
    """The client's first message, and the only one before the Welcome."""

    versions: tuple[int, ...]
    """Protocol versions it speaks, best first; 1 to 16 of them."""
    client_name: str
    """For logs and status; up to 128 characters."""
    cluster_id: str | None = None
    """Refuse me if you are another cluster. 32 hexadecimal digits."""
    history: str | None = None
    """The history that the client's session belongs to, if it has one. 32 hexadecimal digits."""


@frozen
class OpenSession:
    """Open a session by a log entry and attach it."""

    request_id: int
    label: str
    timeout_ms: int


@frozen
class AttachSession:
    """Later Execute and CloseSession on this connection belong to this session. Whether the
    session still exists is found by the first Execute."""

    request_id: int
    session_id: bytes
    """40 bytes: command.SessionId.to_bytes()."""


@frozen
class CloseSession:
    """Forget the attached session by a log entry. What it sent and what is not applied yet will
    never be applied."""

    request_id: int
    timeout_ms: int


@frozen
class Execute:
    """Statements in one transaction, exactly once per (attached session, sequence)."""

    request_id: int
    sequence: int
    floor: int
    """The client has the replies of all sequences up to this one."""
    timeout_ms: int
    """How long the client still waits for the reply; from 1."""
    statements: tuple[Statement, ...]
    foreign_keys: bool = True
    key: Key | None = None
    """An idempotency key: across sessions too it takes effect once."""
    durability: str = ""
    """What the reply waits for (base.durability), up to 64 characters; `` for the database's."""


@frozen
class Begin:
    """Open a transaction on this connection. It ends with the connection, if not before."""

    request_id: int
    timeout_ms: int
    foreign_keys: bool = True


@frozen
class Transact:
    """One statement of the open transaction. Statements and the Commit run in their order."""

    request_id: int
    timeout_ms: int
    statement: Statement


@frozen
class Commit:
    """Commit the open transaction, exactly once per (attached session, sequence). It takes the
    sequence when its reply is a Result; a lost reply is resolved by Outcome, never by a retry."""

    request_id: int
    sequence: int
    floor: int
    timeout_ms: int
    key: Key | None = None
    durability: str = ""
    """As in Execute."""


@frozen
class Rollback:
    """Forget the open transaction, if there is one."""

    request_id: int


@frozen
class Outcome:
    """What became of a request, by session and sequence or by its key? One that was not seen yet
    never takes effect from now on."""

    request_id: int
    timeout_ms: int
    session_id: bytes
    """40 bytes, or none to ask by the key."""
    sequence: int
    key: Key | None = None
    durability: str = ""
    """As in Execute: the answer waits for it too."""


@frozen
class Query:
    """Read-only statements, all against one snapshot."""

    request_id: int
    level: str
    """One of LEVELS."""
    timeout_ms: int
    statements: tuple[Statement, ...]
    max_rows: int = 0
    """Refuse results of more rows than this; 0: only limits.result_bytes_max bounds them."""
    token: str = ""
    """Of SESSION: command.ReadToken, what the answer has to reflect; `` for nothing."""
    max_age_ms: int = 0
    """Of BOUNDED: how old the answer may be."""


@frozen
class OpenCursor:
    """A read of one statement, whose rows are taken a page at a time from one snapshot."""

    request_id: int
    level: str
    timeout_ms: int
    """Of the first page."""
    rows: int
    """Rows of the first page at most."""
    statement: Statement
    """With one parameter set."""
    token: str = ""
    max_age_ms: int = 0


@frozen
class FetchCursor:
    """The next page of a cursor that this connection opened."""

    request_id: int
    cursor: int
    timeout_ms: int
    rows: int


@frozen
class CloseCursor:
    """Let go of a cursor of this connection; harmless when it is closed."""

    request_id: int
    cursor: int


@frozen
class Status:
    """How is this node, and what does it know of the cluster?"""

    request_id: int


@frozen
class Ping:
    """Are you there?"""

    request_id: int


@frozen
class Transfer:
    """Hand leadership over (only administrators may ask)."""

    request_id: int
    target: str | None
    """Node id; None: the most advanced follower."""
    timeout_ms: int


@frozen
class Ask:
    """A question or an order about the cluster, by name. docs/protocol.md lists them."""

    request_id: int
    what: str
    """Up to 128 characters."""
    arguments: dict[str, Any]
    """Plain values by name."""
    timeout_ms: int


@frozen
class ContentHash:
    """The content hash of this node's database."""

    request_id: int
    index: int | None
    """Wait until this index is applied first; None: whatever is applied now."""
    timeout_ms: int
    exact: bool = False
    """Of the first index from that one on at which all nodes can tell it, and no later one: for
    comparing nodes that are written to all the time."""


@frozen
class Cancel:
    """Give up the open request of this id, if that is possible. A write is never taken back."""

    request_id: int


@frozen
class Welcome:
    """The Hello is accepted."""

    version: int
    cluster_id: str
    history: str
    node_id: str
    role: str
    """`leader`, `follower`, `candidate` or `stopped`, as of now."""
    term: int
    leader: Endpoint | None
    """Who leads, as far as this node knows."""
    members: tuple[Endpoint, ...]
    """Where else to go; up to 64."""
    frame_bytes_max: int
    """The largest frame that the server takes, without its header of four bytes."""
    requests_max: int
    """How many requests may be open on this connection."""
    server_version: str


@frozen
class Result:
    """A log entry's outcome: the same for every retry."""

    request_id: int
    index: int
    """Index of the log entry, or 0 where the node does not know it."""
    reply: bytes
    """command.encode_reply bytes."""


@frozen
class Rows:
    """A piece of the answer to a Query, in order."""

    request_id: int
    index: int
    """Applied index that the snapshot was taken at."""
    chunk: bytes
    last: bool
    age_ms: int = -1
    """All that was committed longer ago than this, before the snapshot, is in it; -1: not known."""


@frozen
class CursorRows:
    """A piece of a page, in order."""

    request_id: int
    cursor: int
    """0: the page is the last one, and the cursor is closed."""
    index: int
    """Log index that the cursor's snapshot holds at least."""
    chunk: bytes
    last: bool
    """The last piece of this page."""
    age_ms: int = -1
    """As in Rows; of the moment when the cursor was opened."""


@frozen
class Info:
    """Named facts. Keys that a reader does not know are to be ignored."""

    request_id: int
    info: dict[str, Any]


@frozen
class Pong:
    """I am here."""

    request_id: int


@frozen
class Done:
    """It is done, and there is nothing to add."""

    request_id: int


@frozen
class ErrorMessage:
    """The request failed, or, with request_id 0, the connection did and ends here."""

    request_id: int
    error: dict[str, Any]
    """base.errors.to_wire."""

    @classmethod
    def of(cls, request_id: int, error: Error) -> ErrorMessage:
        """Wrap an error."""
        return cls(request_id, to_wire(error))

    def exception(self) -> Error:
        """The error as an exception again."""
        return from_wire(self.error)


@frozen
class Goodbye:
    """The node drains: open requests are still answered, new ones belong elsewhere."""

    reason: str


Request = (
    OpenSession
    | AttachSession
    | CloseSession
    | Execute
    | Begin
    | Transact
    | Commit
    | Rollback
    | Outcome
    | Ask
    | Query
    | OpenCursor
    | FetchCursor
    | CloseCursor
    | Status
    | Ping
    | Transfer
    | ContentHash
)
"""What gets exactly one reply (Rows, and CursorRows, count as one)."""

Reply = Result | Rows | CursorRows | Info | Pong | Done | ErrorMessage

ClientMessage = Hello | Request | Cancel
ServerMessage = Welcome | Reply | Goodbye
Message = ClientMessage | ServerMessage


def choose_version(hello: Hello) -> int:
    """The version to speak with this client. Raises NotSupportedError when there is none in
    common; the server then refuses with ErrorMessage 0."""
    for version in hello.versions:
        if version in VERSIONS:
            return version
    raise NotSupportedError(
        f"the client speaks protocol versions {list(hello.versions)}, this node {list(VERSIONS)}",
        code="version",
        hint="install the same release of raftdb on both sides",
    )


def rows_messages(
    request_id: int,
    index: int,
    encoded: bytes,
    chunk_bytes: int = ROWS_CHUNK_BYTES,
    age_ms: int = -1,
) -> Iterator[Rows]:
    """Cut an encoded answer (command.encode_reply) into Rows of bounded size; at least one."""
    view = memoryview(encoded)
    for start in range(0, max(len(encoded), 1), chunk_bytes):
        end = start + chunk_bytes
        yield Rows(request_id, index, bytes(view[start:end]), end >= len(encoded), age_ms)


def page_messages(
    request_id: int,
    cursor: int,
    index: int,
    encoded: bytes,
    age_ms: int = -1,
    chunk_bytes: int = ROWS_CHUNK_BYTES,
) -> Iterator[CursorRows]:
    """The same for a page of a cursor."""
    for rows in rows_messages(request_id, index, encoded, chunk_bytes):
        yield CursorRows(request_id, cursor, index, rows.chunk, rows.last, age_ms)
