"""Python values to SQLite's five, as the standard library's sqlite3 does it where it can.

    None → NULL; int, bool → INTEGER (64 bits); float → REAL; str → TEXT; bytes, bytearray,
    memoryview → BLOB; datetime.datetime and date → TEXT in ISO 8601, as SQLite's own date
    functions read it ("2024-05-06 07:08:09.000001+00:00", "2024-05-06")

For all but the exact types None, int, float, str and bytes, what a program registered with
sqlite3.register_adapter counts here too, and so does a method __conform__
(https://docs.python.org/3/library/sqlite3.html#sqlite3-adapters).

Everything else is an error that says what to pass instead: to guess a text for a Decimal or a UUID
would be to choose a database format for the user.
"""

from __future__ import annotations

import datetime
import decimal
import importlib
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from math import isnan
from typing import Any

from raftdb.base.errors import DataError, InterfaceError
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.command import Key, Reference, Statement, Value
from raftdb.command.requests import KEY_CHARACTERS_MAX, Parameters

INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1
_PIECE = 256
"""Parameter sets that are looked at together."""
_ROWS = frozenset((tuple, list))
_STORED = frozenset((type(None), int, float, str, bytes))


def adapt(value: Any, place: int | str) -> Value:
    """One parameter; `place` (from 1, or its name) is for messages. Raises DataError."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _check_text(value, place)
        return value  # type: ignore[no-any-return]
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise _refusal(
                place, f"an integer of {value.bit_length()} bits", "64 are kept: store it as text"
            )
        return value  # type: ignore[no-any-return]
    if value is None or kind is bytes:
        return value  # type: ignore[no-any-return]
    if kind is float:
        if value != value:
            raise _refusal(place, "NaN is no value that SQLite keeps", "pass None for NULL")
        return value  # type: ignore[no-any-return]
    return _adapt_others(value, place)


def _adapt_others(value: Any, place: int | str) -> Value:
    adapted = _registered(value)
    if adapted is not value:
        if type(adapted) in _STORED:
            return adapt(adapted, place)
        why = f"{type(value).__name__} was adapted to {type(adapted).__name__}"
        raise _refusal(place, why, "an adapter gives None, int, float, str or bytes")
    if isinstance(value, bool | int):
        return adapt(int(value), place)
    if isinstance(value, float):
        return adapt(float(value), place)
    if isinstance(value, str):
        return adapt(str.__str__(value), place)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    hints = {
        decimal.Decimal: "pass str(value) to keep it exact, or float(value)",
        uuid.UUID: "pass str(value) or value.bytes",
        datetime.time: "pass value.isoformat()",
        datetime.timedelta: "pass value.total_seconds()",
        list: "pass json.dumps(value), or one parameter for each element",
        tuple: "pass json.dumps(value), or one parameter for each element",
        dict: "pass json.dumps(value)",
    }
    hint = hints.get(type(value), "pass None, int, float, str or bytes")
    hint += ", or register an adapter (sqlite3.register_adapter)"
    raise _refusal(place, f"values of type {type(value).__name__} are not stored", hint)


def _registered(value: Any) -> Any:
    """What an adapter of the program makes of it; the value itself where there is none."""
    kind = type(value)
    module = sys.modules.get("sqlite3")
    if module is not None:
        adapter = module.adapters.get((kind, module.PrepareProtocol))
        # Its own ones, for dates, make what this file makes; and warn of themselves.
        if adapter is not None and getattr(adapter, "__module__", "") != "sqlite3.dbapi2":
            return adapter(value)
    conform = getattr(kind, "__conform__", None)
    if conform is None:
        return value
    made = conform(value, importlib.import_module("sqlite3").PrepareProtocol)
    return value if made is None else made


def _check_text(value: str, place: int | str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refusal(
            place,
            f"the text has a lone surrogate at character {error.start}",
            "decode it properly first, or pass bytes",
        ) from None


def _refusal(place: int | str, why: str, hint: str) -> DataError:
    name = f"parameter {place}" if isinstance(place, int) else f"parameter :{place}"
    return DataError(f"{name}: {why}", code="value", hint=hint)


def adapt_parameters(given: Any) -> Parameters:
    """Parameters of one execution: a sequence for ?, a mapping for :name. Raises DataError for a
    value, InterfaceError for anything that holds no parameters."""
    if type(given) is tuple or type(given) is list:
        return tuple([adapt(value, place) for place, value in enumerate(given, 1)])
    if isinstance(given, Mapping):
        return {_name(name): adapt(value, name) for name, value in given.items()}
    kind = type(given)
    # As with sqlite3, whatever has a length and items is a sequence.
    if (
        hasattr(kind, "__len__")
        and hasattr(kind, "__getitem__")
        and not isinstance(given, str | bytes | bytearray | memoryview)
    ):
        found = [given[place] for place in range(len(given))]
        return tuple([adapt(value, place) for place, value in enumerate(found, 1)])
    raise InterfaceError(
        f"parameters are given as {type(given).__name__}",
        hint="give a sequence such as (value,) for ?, or a mapping for :name",
    )


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InterfaceError(f"a parameter's name is {name!r}, not text")
    return name[1:] if name[0] in ":@$" else name


def adapt_sets(given: Iterable[Any]) -> tuple[Parameters, ...]:
    """Parameters of many executions, as one request. Raises as `adapt_parameters`, with the number
    of the set, and DataError when they are too many for one request."""
    if isinstance(given, str | bytes | Mapping):
        raise InterfaceError(
            f"parameter sets are given as {type(given).__name__}",
            hint="give a sequence of sequences, or of mappings",
        )
    sets: list[Parameters] = []
    values = 0
    rest = iter(given)
    while piece := list(islice(rest, _PIECE)):
        plain = _plain_values(piece)
        if plain is not None and values + plain <= DEFAULT_LIMITS.request_values_max:
            values += plain
            sets += map(tuple, piece)
            continue
        for one in piece:
            try:
                parameters = adapt_parameters(one)
            except (DataError, InterfaceError) as error:
                raise type(error)(
                    f"parameter set {len(sets) + 1}: {error.message}",
                    code=error.code,
                    hint=error.hint,
                ) from None
            values += len(parameters) + 1
            if values > DEFAULT_LIMITS.request_values_max:
                raise DataError(
                    f"more than {DEFAULT_LIMITS.request_values_max} values in one request",
                    code="too_many_values",
                    hint="split the rows into several calls of executemany",
                )
            sets.append(parameters)
    return tuple(sets)


def _plain_values(piece: list[Any]) -> int | None:
    """How many values (and sets) there are, if all are sequences of one length whose values go as
    they are, of one type in each column (or NULL); None if that is not seen. A look at each value
    by itself takes more than twice as long."""
    if not _ROWS.issuperset(map(type, piece)):
        return None
    width = len(piece[0])
    if set(map(len, piece)) != {width}:
        return None
    for column in zip(*piece, strict=True):
        types = set(map(type, column))
        values: Sequence[Any] = column
        if type(None) in types:
            types.discard(type(None))
            values = [value for value in column if value is not None]
        if len(types) > 1 or not all(_are_plain(kind, values) for kind in types):
            return None
    return (width + 1) * len(piece)


def _are_plain(kind: type, values: Sequence[Any]) -> bool:
    if kind is int:
        return bool(min(values) >= INTEGER_MIN and max(values) <= INTEGER_MAX)
    if kind is float:
        return not any(map(isnan, values))
    if kind is str:
        return all(map(str.isascii, values)) or _is_unicode("".join(values))
    return kind is bytes


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


BatchItem = str | Statement | tuple[str, Any]
"""SQL, (SQL, parameters), or a Statement with many parameter sets."""


def key_of(name: Any, horizon: int | None) -> Key:
    """An idempotency key as it is sent. Raises InterfaceError."""
    if not isinstance(name, str) or not 0 < len(name) <= KEY_CHARACTERS_MAX:
        raise InterfaceError(
            f"an idempotency key is text of 1 to {KEY_CHARACTERS_MAX} characters, not {name!r}"
        )
    if horizon is not None and (type(horizon) is not int or horizon < 1):
        raise InterfaceError(f"the horizon is {horizon!r}", hint="take it from horizon()")
    return Key(name, horizon or 0)


class Referred:
    """A parameter of a batch that is to be filled from an earlier statement's result."""

    __slots__ = ("column", "row", "statement")

    def __init__(self, statement: int, column: int | str | None, row: int) -> None:
        for number in (statement, row):
            if type(number) is not int or number < 0:
                raise InterfaceError(f"{number!r} is no position: statements and rows count from 0")
        self.statement = statement
        self.column = column
        self.row = row

    def __repr__(self) -> str:
        if self.column is None:
            return f"raftdb.lastrowid({self.statement})"
        return f"raftdb.returned({self.statement}, {self.column!r}, {self.row})"


def lastrowid(statement: int) -> Any:
    """As a parameter in a batch: the last row id of that statement (from 0) of the same batch."""
    return Referred(statement, None, 0)


def returned(statement: int, column: int | str, row: int = 0) -> Any:
    """As a parameter in a batch: what that statement (from 0) of the same batch returned, in a
    column by name or position, in a row (from 0)."""
    if type(column) is not str and (type(column) is not int or column < 0):
        raise InterfaceError(f"{column!r} is no column", hint="give a name, or a position from 0")
    return Referred(statement, column, row)


def _adapt_referring(sql: str, given: Sequence[Any]) -> Statement:
    """A statement of a batch, whose parameters may refer to earlier ones."""
    sets: list[Parameters] = []
    references: list[Reference] = []
    for number, one in enumerate(given):
        if isinstance(one, Mapping):
            places: list[tuple[Any, Any]] = [(_name(name), one[name]) for name in one]
        elif isinstance(one, Sequence) and not isinstance(one, str | bytes | bytearray):
            places = list(enumerate(one))
        else:
            places = []
        found = [(place, value) for place, value in places if isinstance(value, Referred)]
        if not found:
            sets.append(adapt_parameters(one))
            continue
        plain: Any = dict(places) if isinstance(one, Mapping) else list(one)
        for place, value in found:
            plain[place] = None
            references.append(Reference(number, place, value.statement, value.column, value.row))
        sets.append(adapt_parameters(plain))
    return Statement(sql, tuple(sets), tuple(references))


def batch_items(given: Iterable[BatchItem]) -> tuple[Statement, ...]:
    """The statements of one request. Raises InterfaceError or DataError, with the number of the
    statement that is wrong."""
    items = tuple(_batch_item(number, item) for number, item in enumerate(given))
    if len(items) > DEFAULT_LIMITS.statements_per_request_max:
        raise DataError(
            f"{len(items)} statements in one batch, and"
            f" {DEFAULT_LIMITS.statements_per_request_max} are allowed",
            code="too_many_statements",
            hint="send several batches, or use executemany for one statement on many rows",
        )
    return items


def _batch_item(number: int, item: Any) -> Statement:
    try:
        if isinstance(item, Statement):
            return _adapt_referring(item.sql, item.parameter_sets)
        if isinstance(item, str):
            return Statement(item)
        if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str):
            return _adapt_referring(item[0], (item[1],))
    except (DataError, InterfaceError) as error:
        raise type(error)(
            f"statement {number} of the batch: {error.message}", code=error.code, hint=error.hint
        ) from None
    raise InterfaceError(
        f"item {number} of the batch is {type(item).__name__}",
        hint="give SQL, (SQL, parameters) or a raftdb.Statement",
    )


def statement_bytes(statement: Statement) -> int:
    """About as many bytes as the statement takes on its way."""
    size = len(statement.sql)
    for parameters in statement.parameter_sets:
        values: Any = parameters.values() if type(parameters) is dict else parameters
        for value in values:
            size += 9 + (len(value) if type(value) is str or type(value) is bytes else 0)
    return size
