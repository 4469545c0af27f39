"""Which Python values are stored, and as what."""

from __future__ import annotations

import datetime
import decimal
import enum
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import DataError, InterfaceError
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.client.values import adapt_parameters, adapt_sets


class Text(str):
    pass


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (None, None),
        (0, 0),
        ((1 << 63) - 1, (1 << 63) - 1),
        (-(1 << 63), -(1 << 63)),
        (True, 1),
        (Colour.RED, 3),
        (1.5, 1.5),
        (float("inf"), float("inf")),
        ("text", "text"),
        ("ünï😀\0", "ünï😀\0"),
        (Text("sub"), "sub"),
        (b"\0\xff", b"\0\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (datetime.date(2024, 5, 6), "2024-05-06"),
        (datetime.datetime(2024, 5, 6, 7, 8, 9, 10), "2024-05-06 07:08:09.000010"),
        (
            datetime.datetime(2024, 5, 6, 7, tzinfo=datetime.UTC),
            "2024-05-06 07:00:00+00:00",
        ),
    ],
)
def test_is_stored(given: Any, stored: Any) -> None:
    (value,) = adapt_parameters((given,))
    assert value == stored
    assert type(value) is type(stored), "plain types only: they are what the protocol carries"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (1 << 63, "text"),
        (-(1 << 63) - 1, "text"),
        (10**5000, "text"),
        (float("nan"), "None"),
        ("a\ud800", "bytes"),
        (decimal.Decimal("1.5"), "str(value)"),
        (uuid.UUID(int=1), "str(value)"),
        (datetime.time(1, 2), "isoformat"),
        (datetime.timedelta(1), "total_seconds"),
        ([1], "json.dumps"),
        ({"a": 1}, "json.dumps"),
        ((1,), "json.dumps"),
        (object(), "int, float"),
        (1j, "int, float"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_is_refused_with_a_way_out(given: Any, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        adapt_parameters(("x", given))
    assert "parameter 2" in caught.value.message
    assert hint in caught.value.hint
    with pytest.raises(DataError, match=":name"):
        adapt_parameters({"name": given})


def test_names_come_with_and_without_their_sign() -> None:
    assert adapt_parameters({"a": 1, ":b": 2, "@c": 3, "$d": 4}) == {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.mark.parametrize("given", ["text", b"x", 5, {1, 2}, None, {1: 2}, {"": 1}, iter(())])
def test_what_holds_no_parameters(given: Any) -> None:
    with pytest.raises(InterfaceError):
        adapt_parameters(given)


def test_sequences_of_any_type() -> None:
    assert adapt_parameters([1, "a"]) == (1, "a")
    assert adapt_parameters(range(3)) == (0, 1, 2)


def test_sets_name_the_one_that_is_wrong() -> None:
    assert adapt_sets([n] for n in range(3)) == ((0,), (1,), (2,))
    with pytest.raises(DataError, match="parameter set 3: parameter 1"):
        adapt_sets([(1,), (2,), (1j,)])
    with pytest.raises(InterfaceError, match="parameter set 1"):
        adapt_sets([5])
    with pytest.raises(InterfaceError):
        adapt_sets("abc")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 65), 1 << 65),
    st.floats(),
    st.text(st.characters(), max_size=4),
    st.binary(max_size=4),
    st.just(Colour.RED),
    st.just(Text("sub")),
    st.just(1j),
)
ROWS = st.one_of(
    st.lists(st.lists(VALUES, max_size=3) | st.dictionaries(st.just("a"), VALUES), max_size=4),
    # Of one width, mostly of one type in a column: these are looked at together.
    st.lists(st.tuples(st.integers(0, 1 << 64), st.text() | st.none()).map(list), max_size=5),
    st.lists(st.tuples(st.floats(), st.binary()).map(list), max_size=5),
    st.lists(st.tuples(st.text(st.characters())).map(list), max_size=5),
)


@given(ROWS)
def test_many_sets_are_looked_at_together_and_come_out_as_one_by_one(rows: list[Any]) -> None:
    mixed = [tuple(row) if type(row) is list and n % 2 else row for n, row in enumerate(rows)]
    wanted, wrong = None, None
    try:
        wanted = tuple([adapt_parameters(row) for row in rows])
    except DataError as error:
        wrong = error
    if wrong is None:
        found = adapt_sets(iter(mixed))
        assert repr(found) == repr(wanted)
        assert [type(v) for s in found for v in s] == [type(v) for s in wanted or () for v in s]
        return
    with pytest.raises(DataError) as caught:
        adapt_sets(mixed)
    assert caught.value.message.endswith(wrong.message)
    assert (caught.value.code, caught.value.hint) == (wrong.code, wrong.hint)


def test_the_one_that_is_wrong_is_named_wherever_it_stands() -> None:
    rows: list[Any] = [(n, "x", b"y", 1.5, None) for n in range(1_000)]
    for place, wrong in ((700, "a\ud800"), (999, 1 << 63), (255, float("nan")), (256, [1])):
        spoilt = [*rows[:place], (wrong,), *rows[place + 1 :]]
        with pytest.raises(DataError, match=f"parameter set {place + 1}: parameter 1"):
            adapt_sets(spoilt)


def test_too_many_values_for_one_request() -> None:
    rows = ((n,) for n in range(DEFAULT_LIMITS.request_values_max))
    with pytest.raises(DataError) as caught:
        adapt_sets(rows)
    assert caught.value.code == "too_many_values"


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __conform__(self, protocol: object) -> Any:
        assert protocol is sqlite3.PrepareProtocol
        return self.cents if self.cents else None


@pytest.fixture
def adapters() -> Iterator[None]:
    before = dict(sqlite3.adapters)
    yield
    sqlite3.adapters.clear()
    sqlite3.adapters.update(before)


@pytest.mark.usefixtures("adapters")
def test_what_is_registered_with_sqlite3_counts() -> None:
    """A program that goes over from sqlite3 has said so already."""
    sqlite3.register_adapter(decimal.Decimal, str)
    sqlite3.register_adapter(Text, lambda text: text.upper())
    sqlite3.register_adapter(datetime.date, datetime.date.toordinal)
    moment = datetime.datetime(2024, 5, 6, 7, 8)
    given = (decimal.Decimal("1.10"), Text("a"), datetime.date(2024, 5, 6), moment, Money(5), 5)
    stored = ("1.10", "A", 739_012, "2024-05-06 07:08:00", 5, 5)
    assert adapt_parameters(given) == stored
    assert adapt_sets([given, given]) == (stored, stored)
    with pytest.raises(DataError, match="type Money") as caught:
        adapt_parameters([Money(0)])
    assert "register_adapter" in caught.value.hint
    sqlite3.register_adapter(uuid.UUID, lambda value: value.fields)
    with pytest.raises(DataError, match="UUID was adapted to tuple"):
        adapt_parameters([uuid.UUID(int=5)])
