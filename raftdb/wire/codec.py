"""Bodies of frames: msgpack arrays `[kind, request_id, …]`, strictly checked.

Kinds are never reused: 1 to 63 come from clients, 64 to 127 from servers. `decode` raises
RemoteProtocolError and nothing else.

Memory: an array header of five bytes can claim millions of elements, and nested ones multiply. So
bodies beyond SKIP_BYTES are walked once without building anything (what is claimed must be there),
and beyond COUNT_BYTES their values are counted against `values_max`, because a value of one byte
can take 64 once it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack

from raftdb.base.errors import OUTCOMES, DataError
from raftdb.base.packing import pack, way_giver
from raftdb.command import Statement
from raftdb.command.codec import pack_key, pack_statement, unpack_key, unpack_references
from raftdb.command.token import TOKEN_CHARACTERS_MAX
from raftdb.wire import messages as m
from raftdb.wire.checks import (
    INTEGER_MAX,
    a_boolean,
    a_hex_id,
    a_rid,
    a_text,
    a_timeout,
    an_array,
    an_integer,
    check_plain,
    check_sets,
    no_rid,
    shown,
    some_bytes,
)
from raftdb.wire.errors import LocalProtocolError, RemoteProtocolError
from raftdb.wire.shape import SKIP_BYTES, check_shape

MAGIC = "raftdb"
INTEGER_MIN = -(1 << 63)
SESSION_ID_BYTES = 40
NAME_CHARACTERS_MAX = 256
LABEL_CHARACTERS_MAX = 128
REASON_CHARACTERS_MAX = 4_096
VERSIONS_MAX = 16
LEVEL_CHARACTERS_MAX = 64
MEMBERS_MAX = 64
_FIELDS_BEFORE = 5
"""Of an Execute, between its kind and its statements."""
_HEAD_BYTES = 64
"""They have no more: nine each at most."""


_ROLES = ("leader", "follower", "candidate", "stopped")
_Built = TypeVar("_Built", bound=m.Message)


# --- encoding -----------------------------------------------------------------------------------


def encode(message: m.Message) -> bytes:
    """The frame's body. Raises DataError when a value cannot be sent."""
    entry = _ENCODERS.get(type(message))
    if entry is None:
        raise LocalProtocolError(f"{type(message).__name__} is not a message of this protocol")
    kind, fields = entry
    try:
        return pack((kind, *fields(message)))
    except (OverflowError, UnicodeEncodeError, TypeError, ValueError) as error:
        raise DataError(
            f"a value cannot be sent: {error}",
            hint="integers have 64 bits, text is valid Unicode, other types are not stored",
        ) from error


def kind_of(message_type: type) -> int:
    """The number that stands for it on the line."""
    return _ENCODERS[message_type][0]


def _statements(statements: tuple[Statement, ...]) -> list[tuple[Any, ...]]:
    return [pack_statement(statement) for statement in statements]


def _endpoint_fields(endpoint: m.Endpoint | None) -> tuple[str, ...] | None:
    if endpoint is None:
        return None
    place = (endpoint.location,) if endpoint.location else ()
    return (endpoint.node_id, endpoint.address, *place)


def _hello_fields(v: m.Hello) -> tuple[Any, ...]:
    return (0, MAGIC, v.versions, v.client_name, v.cluster_id, v.history)


def _level(durability: str) -> tuple[str, ...]:
    """The last field, left out by those who ask for nothing of their own."""
    return (durability,) if durability else ()


def _execute_fields(v: m.Execute) -> tuple[Any, ...]:
    key = () if v.key is None and not v.durability else pack_key(v.key)
    return (
        v.request_id,
        v.sequence,
        v.floor,
        v.timeout_ms,
        v.foreign_keys,
        _statements(v.statements),
        *key,
        *_level(v.durability),
    )


def _query_fields(v: m.Query) -> tuple[Any, ...]:
    return (
        v.request_id,
        v.level,
        v.timeout_ms,
        v.max_rows,
        v.token,
        v.max_age_ms,
        _statements(v.statements),
    )


def _welcome_fields(v: m.Welcome) -> tuple[Any, ...]:
    return (
        0,
        v.version,
        v.cluster_id,
        v.history,
        v.node_id,
        v.role,
        v.term,
        _endpoint_fields(v.leader),
        [_endpoint_fields(member) for member in v.members],
        v.frame_bytes_max,
        v.requests_max,
        v.server_version,
    )


_ENCODERS: dict[type, tuple[int, Callable[[Any], tuple[Any, ...]]]] = {
    m.Hello: (1, _hello_fields),
    m.OpenSession: (2, lambda v: (v.request_id, v.label, v.timeout_ms)),
    m.AttachSession: (3, lambda v: (v.request_id, v.session_id)),
    m.CloseSession: (4, lambda v: (v.request_id, v.timeout_ms)),
    m.Execute: (5, _execute_fields),
    m.Query: (6, _query_fields),
    m.Status: (7, lambda v: (v.request_id,)),
    m.Ping: (8, lambda v: (v.request_id,)),
    m.Transfer: (9, lambda v: (v.request_id, v.target, v.timeout_ms)),
    m.ContentHash: (10, lambda v: (v.request_id, v.index, v.timeout_ms, v.exact)),
    m.OpenCursor: (
        12,
        lambda v: (
            v.request_id,
            v.level,
            v.timeout_ms,
            v.rows,
            v.token,
            v.max_age_ms,
            _statements((v.statement,)),
        ),
    ),
    m.FetchCursor: (13, lambda v: (v.request_id, v.cursor, v.timeout_ms, v.rows)),
    m.CloseCursor: (14, lambda v: (v.request_id, v.cursor)),
    m.Cancel: (11, lambda v: (v.request_id,)),
    m.Ask: (15, lambda v: (v.request_id, v.what, v.arguments, v.timeout_ms)),
    m.Begin: (20, lambda v: (v.request_id, v.timeout_ms, v.foreign_keys)),
    m.Transact: (21, lambda v: (v.request_id, v.timeout_ms, pack_statement(v.statement))),
    m.Commit: (
        22,
        lambda v: (
            v.request_id,
            v.sequence,
            v.floor,
            v.timeout_ms,
            *pack_key(v.key),
            *_level(v.durability),
        ),
    ),
    m.Rollback: (23, lambda v: (v.request_id,)),
    m.Outcome: (
        24,
        lambda v: (
            v.request_id,
            v.timeout_ms,
            v.session_id,
            v.sequence,
            *pack_key(v.key),
            *_level(v.durability),
        ),
    ),
    m.Welcome: (64, _welcome_fields),
    m.Result: (65, lambda v: (v.request_id, v.index, v.reply)),
    m.Rows: (66, lambda v: (v.request_id, v.index, v.chunk, v.last, v.age_ms)),
    m.Info: (67, lambda v: (v.request_id, v.info)),
    m.Pong: (68, lambda v: (v.request_id,)),
    m.ErrorMessage: (69, lambda v: (v.request_id, v.error)),
    m.Goodbye: (70, lambda v: (0, v.reason)),
    m.Done: (71, lambda v: (v.request_id,)),
    m.CursorRows: (
        72,
        lambda v: (v.request_id, v.cursor, v.index, v.chunk, v.last, v.age_ms),
    ),
}


# --- decoding -----------------------------------------------------------------------------------


def decode(body: bytes | memoryview, values_max: int) -> m.Message:
    """Read one frame's body. Raises RemoteProtocolError."""
    try:
        if len(body) > SKIP_BYTES:
            check_shape(body, values_max)
        value = msgpack.unpackb(
            body, raw=False, use_list=False, strict_map_key=True, list_hook=way_giver(body)
        )
        if type(value) is not tuple or len(value) < 2:
            raise ValueError("it is not an array of kind and request id")
        kind = value[0]
        decoder = _DECODERS.get(kind) if type(kind) is int else None
        if decoder is None:
            raise ValueError(f"kind {shown(kind)} is unknown")
        return decoder(*value[1:])
    except (ValueError, TypeError, OverflowError) as error:
        raise RemoteProtocolError(
            f"a message does not decode: {error}",
            hint="the other side speaks another protocol or a newer version of this one",
        ) from error


def packed_statements(body: bytes) -> bytes:
    """Of an Execute that `decode` took, the statements as they stand in the body; `` when other
    fields follow them. The log has them in the same form: to pack them again is a third of what
    reading a long request costs."""
    head = msgpack.Unpacker(max_buffer_size=_HEAD_BYTES)
    head.feed(body[:_HEAD_BYTES])
    if head.read_array_header() != 2 + _FIELDS_BEFORE:
        return b""
    for _ in range(1 + _FIELDS_BEFORE):
        head.skip()
    return body[head.tell() :]


def _endpoint(value: Any) -> m.Endpoint:
    node_id, address, *place = an_array(value, "an end point", 2, 3)
    return m.Endpoint(
        a_text(node_id, "a node id", NAME_CHARACTERS_MAX),
        a_text(address, "an address", NAME_CHARACTERS_MAX + 8),
        a_text(place[0], "a location", NAME_CHARACTERS_MAX) if place else "",
    )


def _read_statements(value: Any) -> tuple[Statement, ...]:
    statements = []
    for item in an_array(value, "the statements", 1, INTEGER_MAX):
        statements.append(_read_statement(item))
    return tuple(statements)


def _read_statement(item: Any) -> Statement:
    sql, sets, *references = an_array(item, "a statement", 2, 3)
    an_array(sets, "parameter sets", 1, INTEGER_MAX)
    check_sets(sets)
    if references:
        return Statement(a_text(sql, "SQL", INTEGER_MAX), sets, unpack_references(references[0]))
    return Statement(a_text(sql, "SQL", INTEGER_MAX), sets)


def _read_hello(
    rid: Any, magic: Any, versions: Any, name: Any, cluster: Any, history: Any
) -> m.Hello:
    no_rid(rid)
    if magic != MAGIC:
        raise ValueError("a hello starts with the word raftdb")
    for version in an_array(versions, "versions", 1, VERSIONS_MAX):
        an_integer(version, "a version", 1, 65_535)
    return m.Hello(
        versions,
        a_text(name, "the client's name", LABEL_CHARACTERS_MAX),
        None if cluster is None else a_hex_id(cluster, "the cluster id"),
        None if history is None else a_hex_id(history, "the history id"),
    )


def _read_open(rid: Any, label: Any, timeout_ms: Any) -> m.OpenSession:
    return m.OpenSession(
        a_rid(rid), a_text(label, "the label", LABEL_CHARACTERS_MAX), a_timeout(timeout_ms)
    )


def _read_attach(rid: Any, session_id: Any) -> m.AttachSession:
    if len(some_bytes(session_id, "the session id")) != SESSION_ID_BYTES:
        raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes")
    return m.AttachSession(a_rid(rid), session_id)


def _read_close(rid: Any, timeout_ms: Any) -> m.CloseSession:
    return m.CloseSession(a_rid(rid), a_timeout(timeout_ms))


def _read_execute(
    rid: Any,
    sequence: Any,
    floor: Any,
    timeout_ms: Any,
    foreign_keys: Any,
    statements: Any,
    key: Any = None,
    horizon: Any = 0,
    durability: Any = "",
) -> m.Execute:
    an_integer(sequence, "the sequence", 1)
    return m.Execute(
        a_rid(rid),
        sequence,
        an_integer(floor, "the floor", 0, sequence - 1),
        a_timeout(timeout_ms),
        _read_statements(statements),
        a_boolean(foreign_keys, "foreign_keys"),
        None if key is None else unpack_key(key, horizon),
        durability if durability == "" else _read_level(durability),
    )


def _read_level(durability: Any) -> str:
    return a_text(durability, "the durability level", LEVEL_CHARACTERS_MAX)


def _read_ask(rid: Any, what: Any, arguments: Any, timeout_ms: Any) -> m.Ask:
    if type(arguments) is not dict:
        raise ValueError("the arguments are not a map")
    check_plain(arguments)
    what = a_text(what, "the question", LABEL_CHARACTERS_MAX)
    return m.Ask(a_rid(rid), what, arguments, a_timeout(timeout_ms))


def _read_begin(rid: Any, timeout_ms: Any, foreign_keys: Any) -> m.Begin:
    return m.Begin(a_rid(rid), a_timeout(timeout_ms), a_boolean(foreign_keys, "foreign_keys"))


def _read_transact(rid: Any, timeout_ms: Any, statement: Any) -> m.Transact:
    return m.Transact(a_rid(rid), a_timeout(timeout_ms), _read_statement(statement))


def _read_commit(
    rid: Any,
    sequence: Any,
    floor: Any,
    timeout_ms: Any,
    key: Any,
    horizon: Any,
    durability: Any = "",
) -> m.Commit:
    an_integer(sequence, "the sequence", 1)
    return m.Commit(
        a_rid(rid),
        sequence,
        an_integer(floor, "the floor", 0, sequence - 1),
        a_timeout(timeout_ms),
        unpack_key(key, horizon),
        _read_level(durability),
    )


def _read_rollback(rid: Any) -> m.Rollback:
    return m.Rollback(a_rid(rid))


def _read_outcome(
    rid: Any,
    timeout_ms: Any,
    session_id: Any,
    sequence: Any,
    key: Any,
    horizon: Any,
    durability: Any = "",
) -> m.Outcome:
    read_key = unpack_key(key, horizon)
    if len(some_bytes(session_id, "the session id")) != (
        SESSION_ID_BYTES if read_key is None else 0
    ):
        raise ValueError(f"it names a session by {SESSION_ID_BYTES} bytes, or a key")
    low = 1 if read_key is None else 0
    return m.Outcome(
        a_rid(rid),
        a_timeout(timeout_ms),
        session_id,
        an_integer(sequence, "the sequence", low),
        read_key,
        _read_level(durability),
    )


def _read_query(
    rid: Any,
    level: Any,
    timeout_ms: Any,
    max_rows: Any,
    token: Any,
    max_age_ms: Any,
    statements: Any,
) -> m.Query:
    if level not in m.LEVELS:
        raise ValueError(f"read level {shown(level)} is unknown")
    return m.Query(
        a_rid(rid),
        level,
        a_timeout(timeout_ms),
        _read_statements(statements),
        an_integer(max_rows, "max_rows", 0),
        a_text(token, "the token", TOKEN_CHARACTERS_MAX),
        an_integer(max_age_ms, "max_age_ms", 0),
    )


def _read_open_cursor(
    rid: Any,
    level: Any,
    timeout_ms: Any,
    rows: Any,
    token: Any,
    max_age_ms: Any,
    statements: Any,
) -> m.OpenCursor:
    query = _read_query(rid, level, timeout_ms, 0, token, max_age_ms, statements)
    if len(query.statements) != 1 or len(query.statements[0].parameter_sets) != 1:
        raise ValueError("a cursor is of one statement with one parameter set")
    return m.OpenCursor(
        query.request_id,
        query.level,
        query.timeout_ms,
        an_integer(rows, "rows", 1),
        query.statements[0],
        query.token,
        query.max_age_ms,
    )


def _read_fetch_cursor(rid: Any, cursor: Any, timeout_ms: Any, rows: Any) -> m.FetchCursor:
    cursor = an_integer(cursor, "the cursor", 1)
    return m.FetchCursor(a_rid(rid), cursor, a_timeout(timeout_ms), an_integer(rows, "rows", 1))


def _read_close_cursor(rid: Any, cursor: Any) -> m.CloseCursor:
    return m.CloseCursor(a_rid(rid), an_integer(cursor, "the cursor", 1))


def _read_cursor_rows(
    rid: Any, cursor: Any, index: Any, chunk: Any, last: Any, age_ms: Any
) -> m.CursorRows:
    rows = _read_rows(rid, index, chunk, last, age_ms)
    cursor = an_integer(cursor, "the cursor", 0)
    return m.CursorRows(rows.request_id, cursor, rows.index, rows.chunk, rows.last, rows.age_ms)


def _read_status(rid: Any) -> m.Status:
    return m.Status(a_rid(rid))


def _read_ping(rid: Any) -> m.Ping:
    return m.Ping(a_rid(rid))


def _read_transfer(rid: Any, target: Any, timeout_ms: Any) -> m.Transfer:
    if target is not None:
        a_text(target, "the target", NAME_CHARACTERS_MAX)
    return m.Transfer(a_rid(rid), target, a_timeout(timeout_ms))


def _read_content_hash(rid: Any, index: Any, timeout_ms: Any, exact: Any = False) -> m.ContentHash:
    if index is not None:
        an_integer(index, "the index", 0)
    return m.ContentHash(a_rid(rid), index, a_timeout(timeout_ms), a_boolean(exact, "exact"))


def _read_cancel(rid: Any) -> m.Cancel:
    return m.Cancel(a_rid(rid))


def _read_welcome(
    rid: Any,
    version: Any,
    cluster: Any,
    history: Any,
    node_id: Any,
    role: Any,
    term: Any,
    leader: Any,
    members: Any,
    frame_bytes_max: Any,
    requests_max: Any,
    server_version: Any,
) -> m.Welcome:
    no_rid(rid)
    if role not in _ROLES:
        raise ValueError(f"role {shown(role)} is unknown")
    return m.Welcome(
        an_integer(version, "the version", 1, 65_535),
        a_hex_id(cluster, "the cluster id"),
        a_hex_id(history, "the history id"),
        a_text(node_id, "the node id", NAME_CHARACTERS_MAX),
        role,
        an_integer(term, "the term", 0),
        None if leader is None else _endpoint(leader),
        tuple(map(_endpoint, an_array(members, "members", 0, MEMBERS_MAX))),
        an_integer(frame_bytes_max, "frame_bytes_max", 1, (1 << 32) - 1),
        an_integer(requests_max, "requests_max", 1),
        a_text(server_version, "the server's version", LABEL_CHARACTERS_MAX),
    )


def _read_result(rid: Any, index: Any, reply: Any) -> m.Result:
    return m.Result(a_rid(rid), an_integer(index, "the index", 0), some_bytes(reply, "the reply"))


def _read_rows(rid: Any, index: Any, chunk: Any, last: Any, age_ms: Any) -> m.Rows:
    return m.Rows(
        a_rid(rid),
        an_integer(index, "the index", 0),
        some_bytes(chunk, "a chunk"),
        a_boolean(last, "last"),
        an_integer(age_ms, "the age", -1),
    )


def _read_info(rid: Any, info: Any) -> m.Info:
    if type(info) is not dict:
        raise ValueError("info is not a map")
    check_plain(info)
    return m.Info(a_rid(rid), info)


def _read_pong(rid: Any) -> m.Pong:
    return m.Pong(a_rid(rid))


def _read_done(rid: Any) -> m.Done:
    return m.Done(a_rid(rid))


def _read_error(rid: Any, error: Any) -> m.ErrorMessage:
    if type(error) is not dict:
        raise ValueError("an error is not a map")
    check_plain(error)
    for key in ("class", "code", "message", "hint"):
        a_text(error.get(key), f"an error's {key}", INTEGER_MAX)
    a_boolean(error.get("retryable"), "an error's retryable")
    if error.get("outcome") not in OUTCOMES:
        raise ValueError(f"an error's outcome is {shown(error.get('outcome'))}")
    return m.ErrorMessage(an_integer(rid, "the request id", 0), error)


def _read_goodbye(rid: Any, reason: Any) -> m.Goodbye:
    no_rid(rid)
    return m.Goodbye(a_text(reason, "the reason", REASON_CHARACTERS_MAX))


_DECODERS: dict[int, Callable[..., m.Message]] = {
    1: _read_hello,
    2: _read_open,
    3: _read_attach,
    4: _read_close,
    5: _read_execute,
    6: _read_query,
    7: _read_status,
    8: _read_ping,
    9: _read_transfer,
    10: _read_content_hash,
    11: _read_cancel,
    12: _read_open_cursor,
    13: _read_fetch_cursor,
    14: _read_close_cursor,
    15: _read_ask,
    20: _read_begin,
    21: _read_transact,
    22: _read_commit,
    23: _read_rollback,
    24: _read_outcome,
    64: _read_welcome,
    65: _read_result,
    66: _read_rows,
    67: _read_info,
    68: _read_pong,
    69: _read_error,
    70: _read_goodbye,
    71: _read_done,
    72: _read_cursor_rows,
}
