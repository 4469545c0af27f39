"""What a field of a message may be. Each check gives the value back, or raises ValueError."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

INTEGER_MAX = (1 << 63) - 1
TIMEOUT_MS_MAX = 24 * 3_600_000
INFO_DEPTH_MAX = 8
VALUE_TYPES = frozenset((type(None), int, float, str, bytes))
_HEX = re.compile(r"[0-9a-f]{32}")


def shown(value: Any) -> str:
    """A value in an error's message."""
    return repr(value)[:40]


def an_integer(value: Any, what: str, low: int, high: int = INTEGER_MAX) -> int:
    """An integer within bounds."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {shown(value)}, not an integer from {low} to {high}")
    return value


def a_rid(value: Any) -> int:
    """The id of a request."""
    return an_integer(value, "the request id", 1)


def no_rid(value: Any) -> int:
    """The 0 that stands in its place."""
    return an_integer(value, "the request id", 0, 0)


def a_timeout(value: Any) -> int:
    """Milliseconds."""
    return an_integer(value, "timeout_ms", 1, TIMEOUT_MS_MAX)


def a_text(value: Any, what: str, characters_max: int) -> str:
    """Text of a bounded length."""
    if type(value) is not str or len(value) > characters_max:
        raise ValueError(f"{what} is not text of at most {characters_max} characters")
    return value


def a_hex_id(value: Any, what: str) -> str:
    """A cluster or history id."""
    if type(value) is not str or not _HEX.fullmatch(value):
        raise ValueError(f"{what} is {shown(value)}, not 32 hexadecimal digits")
    return value


def some_bytes(value: Any, what: str) -> bytes:
    """Bytes."""
    if type(value) is not bytes:
        raise ValueError(f"{what} is not bytes")
    return value


def a_boolean(value: Any, what: str) -> bool:
    """A boolean."""
    if type(value) is not bool:
        raise ValueError(f"{what} is {shown(value)}, not a boolean")
    return value


def an_array(value: Any, what: str, low: int, high: int) -> tuple[Any, ...]:
    """An array with a bounded number of elements."""
    if type(value) is not tuple or not low <= len(value) <= high:
        raise ValueError(f"{what} is not an array of {low} to {high} elements")
    return value


def check_plain(value: Any, depth: int = 0) -> None:
    """Info and errors may hold any plain value, nested a little."""
    if depth > INFO_DEPTH_MAX:
        raise ValueError(f"it is nested deeper than {INFO_DEPTH_MAX}")
    if type(value) is dict:
        if not all(type(key) is str for key in value):
            raise ValueError("a key is not text")
        value = tuple(value.values())
    if type(value) is tuple:
        for item in value:
            check_plain(item, depth + 1)
    elif type(value) not in VALUE_TYPES and type(value) is not bool:
        raise ValueError(f"{type(value).__name__} is not a plain value")


MANY = 16
"""Parameter sets, from which on they are looked at together first."""


def check_sets(sets: Any) -> None:
    """The parameter sets of a statement. Raises ValueError."""
    if len(sets) < MANY or not _all_plain(sets):
        for parameters in sets:
            check_parameters(parameters)


def _all_plain(sets: Any) -> bool:
    """Whether many parameter sets are fine for sure, a fifth of the time that each by itself
    takes."""
    if set(map(type, sets)) != {tuple}:
        return False
    values = list(chain.from_iterable(sets))
    types = set(map(type, values))
    if not types <= VALUE_TYPES or (float in types and any(v != v for v in values)):
        return False
    return int not in types or max([v for v in values if type(v) is int]) <= INTEGER_MAX


def check_parameters(parameters: Any) -> None:
    """Those of one set. Raises ValueError."""
    if type(parameters) is tuple:
        values: Any = parameters
    elif type(parameters) is dict:
        if not all(type(name) is str for name in parameters):
            raise ValueError("a parameter's name is not text")
        values = parameters.values()
    else:
        raise ValueError("parameters are neither an array nor a map")
    types = set(map(type, values))
    if not types <= VALUE_TYPES:
        raise ValueError("a parameter is not null, integer, float, text or bytes")
    if int in types and not all(type(v) is not int or v <= INTEGER_MAX for v in values):
        raise ValueError("a parameter is an integer beyond 64 bits")
    if float in types and any(v != v for v in values):
        raise ValueError("a parameter is not a number (NaN)")
