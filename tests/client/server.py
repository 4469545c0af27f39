"""A node for tests of the real sockets: the server's half of the protocol over the standard
library's SQLite in memory, with sessions, in threads. One process stands for the whole cluster."""

from __future__ import annotations

import random
import socket
import sqlite3
import ssl
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.errors import (
    Error,
    IntegrityError,
    NotLeaderError,
    NotSupportedError,
    ProgrammingError,
    SessionError,
)
from raftdb.command import (
    Failed,
    Opened,
    Reply,
    Results,
    SessionId,
    Statement,
    StatementResult,
    encode_reply,
)
from raftdb.wire import (
    AttachSession,
    CloseSession,
    ContentHash,
    Done,
    Endpoint,
    ErrorMessage,
    Execute,
    Goodbye,
    Hello,
    Info,
    Message,
    OpenSession,
    Ping,
    Pong,
    Query,
    RemoteProtocolError,
    Result,
    ServerSide,
    Status,
    Transfer,
    Welcome,
    rows_messages,
)

CLUSTER, HISTORY = "c" * 32, "d" * 32
LOCAL = "127.0.0.1"


def listening_socket() -> socket.socket:
    """On a port of loopback below the range of outgoing connections."""
    chance = random.Random()
    for _ in range(500):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((LOCAL, chance.randrange(20_000, 32_000)))
        except OSError:
            sock.close()
            continue
        sock.listen(16)
        return sock
    raise AssertionError("no free port")


class Database:
    """SQLite and the sessions, shared by all nodes of one test."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.raw = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        # Python 3.13 warns of a connection that nobody closed.
        weakref.finalize(self, self.raw.close)
        self.sessions: dict[bytes, dict[int, bytes]] = {}
        self.index = 0
        self.applied = 0
        self.leader: FakeNode | None = None

    def open_session(self) -> Reply:
        self.index += 1
        session = SessionId(bytes.fromhex(HISTORY), self.index, bytes(16))
        self.sessions[session.to_bytes()] = {}
        return Opened(session)

    def execute(self, session: bytes, message: Execute) -> bytes:
        self.index += 1
        if session not in self.sessions:
            return encode_reply(Failed(SessionError("gone", code="session_unknown"), -1))
        kept = self.sessions[session]
        if message.sequence in kept:
            return kept[message.sequence]
        if message.sequence != len(kept) + 1:
            return encode_reply(Failed(SessionError("gap", code="sequence_gap"), -1))
        reply = encode_reply(self._transaction(message.statements, message.foreign_keys))
        kept[message.sequence] = reply
        self.applied += 1
        return reply

    def _transaction(self, statements: Sequence[Statement], foreign_keys: bool) -> Reply:
        self.raw.execute(f"PRAGMA foreign_keys = {int(foreign_keys)}")
        self.raw.execute("BEGIN")
        done = []
        for position, statement in enumerate(statements):
            try:
                done.append(self.one(statement))
            except sqlite3.Error as error:
                self.raw.execute("ROLLBACK")
                return Failed(translated(error), position)
            except Error as error:
                self.raw.execute("ROLLBACK")
                return Failed(error, position)
        self.raw.execute("COMMIT")
        return Results(tuple(done))

    def query(self, statements: Sequence[Statement]) -> Reply:
        self.raw.execute("PRAGMA query_only = 1")
        try:
            return Results(tuple(self.one(statement) for statement in statements))
        except sqlite3.OperationalError as error:
            if "readonly" in str(error):
                raise ProgrammingError("it writes", code="not_a_query") from error
            raise translated(error) from error
        except sqlite3.Error as error:
            raise translated(error) from error
        finally:
            self.raw.execute("PRAGMA query_only = 0")

    def one(self, statement: Statement) -> StatementResult:
        if statement.sql.split(None, 1)[0].upper().rstrip(";") in ("BEGIN", "COMMIT", "ROLLBACK"):
            raise NotSupportedError("no transactions over several requests", code="transaction")
        rows: list[tuple[Any, ...]] = []
        columns: tuple[str, ...] = ()
        before = self.raw.total_changes
        for parameters in statement.parameter_sets:
            cursor = self.raw.execute(statement.sql, parameters)
            if cursor.description:
                columns = tuple(column[0] for column in cursor.description)
                rows += cursor.fetchall()
        changes = self.raw.total_changes - before
        return StatementResult(columns, tuple(rows), changes, cursor.lastrowid or 0)


def translated(error: sqlite3.Error) -> Error:
    if isinstance(error, sqlite3.IntegrityError):
        return IntegrityError(str(error))
    return ProgrammingError(str(error))


class FakeNode:
    """One listening node."""

    def __init__(
        self,
        database: Database | None = None,
        node_id: str = "n1",
        context: ssl.SSLContext | None = None,
        cluster_id: str = CLUSTER,
    ) -> None:
        self.database = database or Database()
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.context = context
        self.members: list[FakeNode] = [self]
        self.before: Callable[[Message], str] = lambda message: ""
        """Called with each request; `drop` closes the connection before it is handled,
        `drop after` behind it, `silent` handles it and answers nothing."""
        self.connections: list[socket.socket] = []
        self.accepted = 0
        self.requests: list[Message] = []
        self.bytes_in = 0
        self._listener = listening_socket()
        self.port = self._listener.getsockname()[1]
        if self.database.leader is None:
            self.database.leader = self
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"{LOCAL}:{self.port}"

    def close(self) -> None:
        """The port and all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.cut()

    def cut(self) -> None:
        """All connections; the port stays."""
        for sock in self.connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.connections.clear()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.connections.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            stream = sock
            if self.context is not None:
                stream = self.context.wrap_socket(sock, server_side=True)
            with stream:
                Conversation(self, stream).run()
        except (OSError, RemoteProtocolError):
            sock.close()


class Conversation:
    """One connection of a node."""

    def __init__(self, node: FakeNode, sock: socket.socket) -> None:
        self.node = node
        self.sock = sock
        self.side = ServerSide()
        self.session = b""

    def run(self) -> None:
        while data := self.sock.recv(65_536):
            self.node.bytes_in += len(data)
            for message in self.side.receive(data):
                self.node.requests.append(message)
                what = self.node.before(message)
                if what == "drop":
                    return
                with self.node.database.lock:
                    replies = self.handle(message)
                if what == "drop after":
                    return
                if what != "silent":
                    self.sock.sendall(b"".join([self.side.send(reply) for reply in replies]))

    def handle(self, message: Message) -> Sequence[Any]:
        if isinstance(message, Hello):
            return (self.welcome(),)
        request_id = message.request_id  # type: ignore[union-attr]
        try:
            return tuple(self.answer(request_id, message))
        except Error as error:
            return (ErrorMessage.of(request_id, error),)

    def answer(self, request_id: int, message: Message) -> Sequence[Any]:
        database, node = self.node.database, self.node
        leads = database.leader is node
        if isinstance(message, Ping):
            return (Pong(request_id),)
        if isinstance(message, Status | ContentHash):
            info = {"node_id": node.node_id, "role": "leader" if leads else "follower", "term": 1}
            return (Info(request_id, info | {"leader": None, "index": database.index}),)
        if isinstance(message, AttachSession):
            self.session = message.session_id
            return (Done(request_id),)
        local = isinstance(message, Query) and message.level == "local"
        if not leads and not local:
            leader = database.leader
            detail = {"leader": leader.node_id, "address": leader.address} if leader else {}
            raise NotLeaderError("not the leader", detail={"term": 1, **detail})
        if isinstance(message, Query):
            encoded = encode_reply(database.query(message.statements))
            return tuple(rows_messages(request_id, database.index, encoded, 1_000))
        if isinstance(message, OpenSession):
            reply = database.open_session()
            assert isinstance(reply, Opened)
            self.session = reply.session.to_bytes()
            return (Result(request_id, database.index, encode_reply(reply)),)
        if isinstance(message, CloseSession):
            database.sessions.pop(self.session, None)
            return (Result(request_id, database.index, encode_reply(Results(()))),)
        if isinstance(message, Transfer):
            return (Done(request_id),)
        assert isinstance(message, Execute)
        encoded = database.execute(self.session, message)
        return (Result(request_id, database.index, encoded),)

    def welcome(self) -> Welcome:
        node = self.node
        leader = node.database.leader
        return Welcome(
            1,
            node.cluster_id,
            HISTORY,
            node.node_id,
            "leader" if leader is node else "follower",
            1,
            Endpoint(leader.node_id, leader.address) if leader else None,
            tuple(Endpoint(member.node_id, member.address) for member in node.members),
            self.side.limits.client_frame_bytes_max,
            self.side.limits.requests_per_connection_max,
            "test",
        )

    def goodbye(self) -> None:
        self.sock.sendall(self.side.send(Goodbye("drains")))
