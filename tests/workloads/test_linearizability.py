"""The checker itself: histories known good, histories known bad, and every small one against the
definition by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workloads import OK, REFUSED, UNKNOWN, Record, check_linearizable
from tests.workloads.history import read_history, write_history
from tests.workloads.linearizability import FOREVER, Model
from tests.workloads.models import BankModel, CounterModel, ListModel, RegisterModel


def record(
    client: int,
    operation: str,
    invoke: int,
    end: int | None,
    result: Any = None,
    *,
    outcome: str = OK,
    error: str = "",
    **arguments: Any,
) -> Record:
    arguments.setdefault("key", 0)
    if end is None:
        outcome = UNKNOWN
    return Record(client, "w", operation, arguments, invoke, end, outcome, result, error)


def write(client: int, invoke: int, end: int | None, value: int, **more: Any) -> Record:
    return record(client, "write", invoke, end, True, value=value, **more)


def read(client: int, invoke: int, end: int | None, value: int | None, **more: Any) -> Record:
    return record(client, "read", invoke, end, value, **more)


def cas(client: int, invoke: int, end: int | None, old: int, new: int, done: bool) -> Record:
    return record(client, "cas", invoke, end, done, old=old, new=new)


def append(client: int, invoke: int, end: int | None, value: int, length: int = 0) -> Record:
    return record(client, "append", invoke, end, length, value=value)


def transfer(
    client: int, invoke: int, end: int | None, source: int, target: int, amount: int, **more: Any
) -> Record:
    return record(
        client, "transfer", invoke, end, True, source=source, target=target, amount=amount, **more
    )


GOOD: dict[str, tuple[Model, list[Record]]] = {
    "nothing": (RegisterModel(), []),
    "one after the other": (RegisterModel(), [write(1, 0, 1, 5), read(2, 2, 3, 5)]),
    "a read beside a write sees it": (RegisterModel(), [write(1, 0, 9, 5), read(2, 1, 2, 5)]),
    "a read beside a write misses it": (RegisterModel(), [write(1, 0, 9, 5), read(2, 1, 2, None)]),
    "two reads beside a write, old then new": (
        RegisterModel(),
        [write(1, 0, 9, 5), read(2, 1, 2, None), read(2, 3, 4, 5)],
    ),
    "ending and beginning at one instant is beside each other": (
        RegisterModel(),
        [write(1, 0, 5, 1), read(2, 5, 6, None)],
    ),
    "an unknown write takes effect late": (
        RegisterModel(),
        [write(1, 0, None, 5), read(2, 10, 11, None), read(2, 20, 21, 5)],
    ),
    "an unknown write never takes effect": (
        RegisterModel(),
        [write(1, 0, None, 5), read(2, 10, 11, None), read(2, 20, 21, None)],
    ),
    "a refused write is not there": (
        RegisterModel(),
        [write(1, 0, 1, 5, outcome=REFUSED), read(2, 2, 3, None)],
    ),
    "a swap that fails because of one beside it": (
        RegisterModel(),
        [
            write(1, 0, 1, 1),
            cas(1, 2, 9, 1, 2, True),
            cas(2, 3, 8, 1, 3, False),
            read(3, 10, 11, 2),
        ],
    ),
    "an unknown swap explains what is read": (
        RegisterModel(),
        [write(1, 0, 1, 1), cas(1, 2, None, 1, 2, False), read(3, 10, 11, 2)],
    ),
    "other keys don't matter": (
        RegisterModel(),
        [write(1, 0, 1, 5, key=1), read(2, 2, 3, None, key=2)],
    ),
    "appends beside each other, in either order": (
        ListModel(),
        [append(1, 0, 9, 1, 2), append(2, 0, 9, 2, 1), read(3, 10, 11, [2, 1])],  # type: ignore[arg-type]
    ),
    "a committed failure of a transfer": (
        BankModel(2, 10),
        [transfer(1, 0, 1, 0, 1, 11, error="constraint_check"), read(2, 2, 3, [10, 10])],  # type: ignore[arg-type]
    ),
    "an addition asked for again": (
        CounterModel(),
        [record(1, "add", 0, None), record(2, "add", 5, 6, 2), read(3, 7, 8, 2)],
    ),
}

BAD: dict[str, tuple[Model, list[Record]]] = {
    "a stale read": (
        RegisterModel(),
        [write(1, 0, 1, 1), write(1, 2, 3, 2), read(2, 4, 5, 1)],
    ),
    "new, then old": (
        RegisterModel(),
        [write(1, 0, 20, 5), read(2, 1, 2, 5), read(2, 3, 4, None)],
    ),
    "two clients disagree on the order": (
        RegisterModel(),
        [
            write(1, 0, 9, 1),
            write(2, 0, 9, 2),
            read(3, 10, 11, 1),
            read(4, 12, 13, 2),
        ],
    ),
    "a value from nowhere": (RegisterModel(), [read(1, 0, 1, 7)]),
    "a lost write": (RegisterModel(), [write(1, 0, 1, 5), read(2, 2, 3, None)]),
    "a refused write is there": (
        RegisterModel(),
        [write(1, 0, 1, 5, outcome=REFUSED), read(2, 2, 3, 5)],
    ),
    "two swaps from one value succeed": (
        RegisterModel(),
        [write(1, 0, 1, 1), cas(1, 2, 9, 1, 2, True), cas(2, 2, 9, 1, 3, True)],
    ),
    "an unknown write takes effect twice": (
        RegisterModel(),
        [write(1, 0, None, 5), read(2, 1, 2, 5), write(3, 3, 4, 6), read(2, 5, 6, 5)],
    ),
    "an unknown write takes effect before it began": (
        RegisterModel(),
        [read(2, 0, 1, 5), write(1, 2, None, 5)],
    ),
    "an append that vanishes": (
        ListModel(),
        [append(1, 0, 1, 1, 1), append(1, 2, 3, 2, 1)],
    ),
    "a transfer without cover": (BankModel(2, 10), [transfer(1, 0, 1, 0, 1, 11)]),
    "half a transfer is seen": (
        BankModel(2, 10),
        [transfer(1, 0, 9, 0, 1, 4), read(2, 1, 2, [6, 10])],  # type: ignore[arg-type]
    ),
    "an addition counts twice": (
        CounterModel(),
        [record(1, "add", 0, 1, 1), read(2, 2, 3, 2)],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_linearizable(name: str) -> None:
    model, records = GOOD[name]
    assert check_linearizable(records, model).linearizable is True


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_not(name: str) -> None:
    model, records = BAD[name]
    verdict = check_linearizable(records, model)
    assert verdict.linearizable is False
    assert verdict.stuck
    assert "no order explains" in verdict.explain()


def test_the_search_is_bounded_and_says_so() -> None:
    records = [append(client, 0, None, client) for client in range(12)]
    records.append(read(99, 1, 2, [1, 2, 3, 77]))  # type: ignore[arg-type]
    verdict = check_linearizable(records, ListModel(), steps_max=1000)
    assert verdict.linearizable is None
    assert "undecided" in verdict.explain()


def test_long_histories_take_no_time() -> None:
    records = []
    for number in range(3000):
        at = 10 * number
        records += [write(1, at, at + 5, number), read(2, at + 1, at + 4, number)]
    verdict = check_linearizable(records, RegisterModel())
    assert verdict.linearizable is True
    assert verdict.steps < 4 * len(records)


def by_definition(records: list[Record], model: Model) -> bool:
    """Every subset of the unknown operations, in every order that keeps what ended before what
    began later."""
    counted = [item for item in records if item.outcome != REFUSED]
    known = [item for item in counted if not item.is_unknown]
    unknown = [item for item in counted if item.is_unknown]

    def fits(order: tuple[Record, ...]) -> bool:
        for position, item in enumerate(order):
            ends = FOREVER if item.return_ns is None else item.return_ns
            if any(ends < earlier.invoke_ns for earlier in order[:position]):
                return False
        state = model.start(0)
        for item in order:
            possible, state = model.step(state, item)
            if not possible:
                return False
        return True

    return any(
        fits(order)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *chosen])
    )


def histories(make: Callable[[st.DrawFn, int, int, int | None], Record]) -> st.SearchStrategy[Any]:
    @st.composite
    def draw_history(draw: st.DrawFn) -> list[Record]:
        found = []
        for client in range(draw(st.integers(1, 5))):
            invoke = draw(st.integers(0, 12))
            end = draw(st.none() | st.integers(invoke + 1, 16))
            made = make(draw, client, invoke, end)
            if draw(st.integers(0, 9)) == 0:
                made = replace(made, outcome=REFUSED)
            found.append(made)
        return found

    return draw_history()


def draw_register(draw: st.DrawFn, client: int, invoke: int, end: int | None) -> Record:
    values = st.integers(1, 3)
    kind = draw(st.sampled_from(("read", "write", "cas")))
    if kind == "read":
        return read(client, invoke, end, draw(st.none() | values))
    if kind == "write":
        return write(client, invoke, end, draw(values))
    return cas(client, invoke, end, draw(values), draw(values), draw(st.booleans()))


def draw_list(draw: st.DrawFn, client: int, invoke: int, end: int | None) -> Record:
    if draw(st.booleans()):
        return append(client, invoke, end, client, draw(st.integers(1, 3)))
    seen = draw(st.lists(st.integers(0, 4), max_size=2, unique=True))
    return read(client, invoke, end, seen)  # type: ignore[arg-type]


def draw_bank(draw: st.DrawFn, client: int, invoke: int, end: int | None) -> Record:
    if draw(st.booleans()):
        return read(client, invoke, end, draw(st.sampled_from(([5, 5], [3, 7], [7, 3], [0, 10]))))  # type: ignore[arg-type]
    source = draw(st.integers(0, 1))
    error = draw(st.sampled_from(("", "", "constraint_check")))
    amount = draw(st.sampled_from((2, 5, 6)))
    return transfer(client, invoke, end, source, 1 - source, amount, error=error)


@settings(max_examples=250)
@given(histories(draw_register))
def test_registers_agree_with_the_definition(records: list[Record]) -> None:
    model = RegisterModel()
    assert check_linearizable(records, model).linearizable is by_definition(records, model)


@settings(max_examples=200)
@given(histories(draw_list))
def test_lists_agree_with_the_definition(records: list[Record]) -> None:
    model = ListModel()
    assert check_linearizable(records, model).linearizable is by_definition(records, model)


@settings(max_examples=200)
@given(histories(draw_bank))
def test_banks_agree_with_the_definition(records: list[Record]) -> None:
    model = BankModel(2, 5)
    assert check_linearizable(records, model).linearizable is by_definition(records, model)


def test_a_history_goes_to_a_file_and_back(tmp_path: Path) -> None:
    records = [records[0] for _model, records in GOOD.values() if records]
    path = tmp_path / "history.jsonl"
    write_history(records, path)
    assert list(read_history(path)) == records
    path.write_text(path.read_text() + '{"client": 1}\n')
    with pytest.raises(ValueError, match=f":{len(records) + 1}:"):
        list(read_history(path))
