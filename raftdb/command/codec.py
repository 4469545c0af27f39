"""Requests and replies as msgpack. Version 1; docs/formats.md has it byte by byte.

A request is `[1, kind, time_ms, seed, …]`, a reply `[1, kind, …]`. Kinds are never reused. Every
malformed input raises CodecError.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgpack

from raftdb.base.errors import DataError, Error, FatalError, from_wire, to_wire
from raftdb.base.packing import (
    LONG_BYTES,
    array_header,
    binary_header,
    pack,
    pack_array,
    text_header,
    way_giver,
)
from raftdb.command.requests import (
    DIGEST_BYTES,
    KEY_CHARACTERS_MAX,
    CloseSession,
    Commit,
    Configure,
    Execute,
    Key,
    OpenSession,
    Outcome,
    Parameters,
    Recorded,
    Reference,
    Request,
    SessionId,
    Stamp,
    Statement,
    Tick,
    Verdict,
)
from raftdb.command.results import (
    Failed,
    Opened,
    Reply,
    ResultDropped,
    Results,
    StatementResult,
)

VERSION = 1
_DEPTH_MAX = 8

_OPEN, _CLOSE, _EXECUTE, _TICK, _KEYED, _COMMIT, _OUTCOME = 1, 2, 3, 4, 5, 6, 7
_VERDICT, _CONFIGURE = 16, 17
_RESULTS, _FAILED, _OPENED, _DROPPED = 1, 2, 3, 4
_VERDICT_BYTE = bytes((_VERDICT,))
_FAILED_BYTES = bytes((VERSION, _FAILED))


class CodecError(FatalError):
    """Bytes that no version of raftdb this node knows has written."""

    default_code = "codec"


def encode_request(request: Request, statements: bytes = b"") -> bytes:
    """The request as bytes. Raises DataError when a value cannot be stored. `statements`: those of
    an Execute, packed before."""
    if statements and isinstance(request, Execute):
        return _encode_around(request, statements)
    stamp = request.stamp
    head: list[Any] = [VERSION, 0, stamp.time_ms, stamp.seed]
    if isinstance(request, Execute):
        head[1] = _EXECUTE if request.key is None else _KEYED
        head += [request.session, request.sequence, request.floor, request.foreign_keys]
        head.append([pack_statement(s) for s in request.statements])
        if request.key is not None:
            head += pack_key(request.key)
    elif isinstance(request, Commit):
        head[1] = _COMMIT
        recorded = [(r.time_ms, r.digest, *pack_statement(r.statement)) for r in request.statements]
        head += [request.session, request.sequence, request.floor, request.foreign_keys, recorded]
        head += pack_key(request.key)
    elif isinstance(request, Outcome):
        head[1] = _OUTCOME
        head += [request.session, request.sequence, *pack_key(request.key)]
    elif isinstance(request, OpenSession):
        head[1] = _OPEN
        head += [request.token, request.label]
    elif isinstance(request, CloseSession):
        head[1] = _CLOSE
        head += [request.session]
    elif isinstance(request, Verdict):
        head[1] = _VERDICT
        head += [request.index, request.position, request.keep]
    elif isinstance(request, Configure):
        head[1] = _CONFIGURE
        head += [request.changes]
    else:
        head[1] = _TICK
    return _pack(head)


def pack_statements(statements: tuple[Statement, ...]) -> bytes:
    """What `encode_request` takes: packed in pieces, on whatever thread. Raises DataError."""
    parts = [array_header(len(statements))]
    try:
        for statement in statements:
            sql, sets, *references = pack_statement(statement)
            parts += [array_header(2 + len(references)), pack(sql), pack_array(sets)]
            parts += map(pack, references)
    except (OverflowError, UnicodeEncodeError) as error:
        _unstorable(error)
    return b"".join(parts)


def _encode_around(request: Execute, statements: bytes) -> bytes:
    stamp, key = request.stamp, request.key
    kind = _EXECUTE if key is None else _KEYED
    session = (request.session, request.sequence, request.floor, request.foreign_keys)
    head = (VERSION, kind, stamp.time_ms, stamp.seed, *session)
    tail = () if key is None else pack_key(key)
    parts = [array_header(len(head) + 1 + len(tail)), *map(_pack, head), statements]
    return b"".join((*parts, *map(_pack, tail)))


def pack_statement(statement: Statement) -> tuple[Any, ...]:
    """Its fields as they are packed: here, and in the client protocol."""
    if not statement.references:
        return (statement.sql, statement.parameter_sets)
    references = [
        (r.parameter_set, r.place, r.statement, r.column, r.row) for r in statement.references
    ]
    return (statement.sql, statement.parameter_sets, references)


def pack_key(key: Key | None) -> tuple[str | None, int]:
    """Its fields as they are packed: here, and in the client protocol."""
    return (None, 0) if key is None else (key.name, key.horizon)


def unpack_key(name: Any, horizon: Any) -> Key | None:
    """What `pack_key` made. Raises ValueError."""
    if name is None:
        return None
    if not 0 < len(_text(name)) <= KEY_CHARACTERS_MAX:
        raise ValueError(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters")
    if _integer(horizon) < 0:
        raise ValueError(f"the horizon is {horizon}")
    return Key(name, horizon)


def unpack_references(value: Any) -> tuple[Reference, ...]:
    """What `pack_statement` made of them. Raises ValueError."""
    if type(value) is not tuple:
        raise ValueError("references are an array")
    read = []
    for item in value:
        if type(item) is not tuple or len(item) != 5:
            raise ValueError("a reference is an array of five")
        parameter_set, place, statement, column, row = item
        if type(place) is not int and type(place) is not str:
            raise ValueError("a reference's place is a number or a name")
        if column is not None and type(column) is not int and type(column) is not str:
            raise ValueError("a reference's column is a number, a name or nil")
        for number in (parameter_set, statement, row):
            if _integer(number) < 0:
                raise ValueError("a reference counts from 0")
        read.append(Reference(parameter_set, place, statement, column, row))
    return tuple(read)


def decode_request(data: bytes) -> Request:
    """Read what `encode_request` wrote. Raises CodecError."""
    try:
        return _request(_unpack(data))
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        _bad("request", error)


def decode_verdict(data: bytes) -> Verdict | None:
    """The request, if it is a verdict; quick to say no. Raises CodecError."""
    if data[2:3] != _VERDICT_BYTE:
        return None
    request = decode_request(data)
    return request if isinstance(request, Verdict) else None


def encode_reply(reply: Reply) -> bytes:
    """The reply as bytes."""
    if isinstance(reply, Results):
        statements = [(r.columns, r.rows, r.changes, r.last_insert_rowid) for r in reply.statements]
        return _pack([VERSION, _RESULTS, statements])
    if isinstance(reply, Failed):
        return _pack([VERSION, _FAILED, to_wire(reply.error), reply.statement])
    if isinstance(reply, Opened):
        return _pack([VERSION, _OPENED, reply.session.to_bytes()])
    return _pack([VERSION, _DROPPED, reply.result_bytes])


class ReplyBuilder:
    """Encoded Results of reads, made row by row: what `encode_reply` gives, without ever having all
    rows as Python values, nor the interpreter to itself for as long as encoding them all takes."""

    def __init__(self) -> None:
        self._statements: list[tuple[tuple[str, ...], int, list[bytes | bytearray]]] = []
        self._parts: list[bytes | bytearray] = []
        self._rows = bytearray()

    def add_row(self, row: tuple[Any, ...]) -> int:
        """One row of the statement whose result is gathered; the bytes that it takes. A long value
        is not copied here. Raises DataError."""
        for value in row:
            if (type(value) is bytes or type(value) is str) and len(value) > LONG_BYTES:
                return self._add_long(row)
        packed = _pack(row)
        self._rows += packed
        return len(packed)

    def _add_long(self, row: tuple[Any, ...]) -> int:
        parts = [array_header(len(row))]
        for value in row:
            if type(value) is bytes and len(value) > LONG_BYTES:
                parts += (binary_header(len(value)), value)
            elif type(value) is str and len(value) > LONG_BYTES:
                data = value.encode()
                parts += (text_header(len(data)), data)
            else:
                parts.append(_pack(value))
        self._parts += (self._rows, *parts)
        self._rows = bytearray()
        return sum(map(len, parts))

    def end_statement(self, columns: tuple[str, ...], count: int) -> None:
        """It has `count` rows."""
        self._statements.append((columns, count, [*self._parts, self._rows]))
        self._parts, self._rows = [], bytearray()

    def encode(self) -> bytes:
        """The reply."""
        packer = msgpack.Packer(autoreset=False)
        packer.pack_array_header(3)
        packer.pack(VERSION)
        packer.pack(_RESULTS)
        packer.pack_array_header(len(self._statements))
        parts: list[bytes | bytearray] = []
        for columns, count, rows in self._statements:
            packer.pack_array_header(4)
            packer.pack(columns)
            packer.pack_array_header(count)
            parts += (packer.bytes(), *rows, b"\0\0")
            packer.reset()
        parts.append(packer.bytes())
        return b"".join(parts)


def is_failure(data: bytes) -> bool:
    """Whether an encoded reply is Failed; quick, and nothing else is checked."""
    return data[1:3] == _FAILED_BYTES


def decode_reply(data: bytes) -> Reply:
    """Read what `encode_reply` wrote. Raises CodecError."""
    try:
        return _reply(_unpack(data))
    except (ValueError, TypeError, IndexError, AttributeError, Error) as error:
        _bad("reply", error)


def _pack(value: Any) -> bytes:
    try:
        return pack(value)
    except (OverflowError, UnicodeEncodeError) as error:
        _unstorable(error)


def _unstorable(error: Exception) -> NoReturn:
    raise DataError(
        f"a value cannot be stored: {error}",
        hint="integers have 64 bits and text is valid Unicode",
    ) from error


def _unpack(data: bytes) -> tuple[Any, ...]:
    value = msgpack.unpackb(
        data, raw=False, strict_map_key=True, use_list=False, list_hook=way_giver(data)
    )
    if not isinstance(value, tuple) or len(value) < 2:
        raise ValueError("not an array")
    if value[0] != VERSION:
        raise ValueError(f"version {value[0]!r}, this node knows {VERSION}")
    return value


def _bad(what: str, error: BaseException) -> NoReturn:
    raise CodecError(
        f"a {what} does not decode: {error}",
        hint="a newer release may have written it: see `raftdb --version` on the other nodes",
    ) from error


def _request(value: tuple[Any, ...]) -> Request:
    # Decoding is on the path of every write: plain loops and few calls.
    kind = value[1]
    stamp = Stamp(_integer(value[2]), _bytes(value[3]))
    if kind in (_EXECUTE, _KEYED):
        key = unpack_key(*value[9:]) if kind == _KEYED else None
        session, sequence, floor, foreign_keys, statements = value[4:9]
        if not type(session) is type(sequence) is type(floor) is int:
            raise ValueError("session, sequence and floor are integers")
        read = [
            Statement(_text(item[0]), _parameter_sets(item[1]))
            if len(item) == 2
            else _statement(*item)
            for item in statements
        ]
        return Execute(stamp, session, sequence, floor, tuple(read), bool(foreign_keys), key)
    body = value[4:]
    if kind == _COMMIT:
        session, sequence, floor, foreign_keys, statements, *key_fields = body
        return Commit(
            stamp,
            _integer(session),
            _integer(sequence),
            _integer(floor),
            tuple([_recorded(*item) for item in statements]),
            bool(foreign_keys),
            unpack_key(*key_fields),
        )
    if kind == _OUTCOME:
        session, sequence, *key_fields = body
        return Outcome(stamp, _integer(session), _integer(sequence), unpack_key(*key_fields))
    if kind == _OPEN:
        token, label = body
        return OpenSession(stamp, _bytes(token), _text(label))
    if kind == _CLOSE:
        (session,) = body
        return CloseSession(stamp, _integer(session))
    if kind == _VERDICT:
        index, position, keep = body
        return Verdict(stamp, _integer(index), _integer(position), bool(keep))
    if kind == _CONFIGURE:
        (changes,) = body
        return Configure(stamp, _changes(changes))
    if kind == _TICK:
        return Tick(stamp)
    raise ValueError(f"unknown kind {kind!r}")


def _statement(sql: Any, sets: Any, references: Any = ()) -> Statement:
    return Statement(_text(sql), _parameter_sets(sets), unpack_references(references))


def _recorded(time_ms: Any, digest: Any, *statement: Any) -> Recorded:
    if len(_bytes(digest)) != DIGEST_BYTES:
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes")
    return Recorded(_integer(time_ms), _statement(*statement), digest)


def _reply(value: tuple[Any, ...]) -> Reply:
    kind, body = value[1], value[2:]
    if kind == _RESULTS:
        (statements,) = body
        return Results(tuple(StatementResult(*statement) for statement in statements))
    if kind == _FAILED:
        error, statement = body
        return Failed(from_wire(error), _integer(statement))
    if kind == _OPENED:
        (session,) = body
        return Opened(SessionId.from_bytes(_bytes(session)))
    if kind == _DROPPED:
        (result_bytes,) = body
        return ResultDropped(_integer(result_bytes))
    raise ValueError(f"unknown kind {kind!r}")


def _parameter_sets(value: Any) -> tuple[Parameters, ...]:
    if type(value) is not tuple:
        raise ValueError("parameter sets are an array")
    for item in value:
        if type(item) is not tuple and type(item) is not dict:
            raise ValueError("a parameter set is an array or a map")
    return value


def _changes(value: Any) -> dict[str, Any]:
    """Arrays come as tuples; they are stored as JSON, which has lists."""
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise ValueError("changes are a map by names")
    return {name: _plain(item) for name, item in value.items()}


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > _DEPTH_MAX:
        raise ValueError("a setting is nested too deep")
    if type(value) is tuple:
        return [_plain(item, depth + 1) for item in value]
    if type(value) is dict and all(type(name) is str for name in value):
        return {name: _plain(item, depth + 1) for name, item in value.items()}
    if value is None or type(value) in (bool, int, str):
        return value
    raise ValueError(f"{type(value).__name__} is no value of a setting")


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not an integer")
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{type(value).__name__} is not bytes")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is not text")
    return value
