"""What is refused before it is logged."""

from __future__ import annotations

import pytest

from raftdb.base.errors import DataError, Error, InterfaceError
from raftdb.base.limits import Limits
from raftdb.command import Execute, Statement, decode_request
from raftdb.command.requests import Stamp
from raftdb.node import Admission

LIMITS = Limits(
    sql_bytes_max=100,
    parameters_max=3,
    value_bytes_max=40,
    request_bytes_max=400,
    statements_per_request_max=2,
)


def _execute(*statements: Statement, sequence: int = 1, floor: int = 0) -> Execute:
    return Execute(Stamp(1, b"seedseed"), 5, sequence, floor, statements)


def test_what_is_within_bounds_becomes_bytes() -> None:
    request = _execute(Statement("INSERT INTO t VALUES (?, ?)", ((1, "a"), (2, "b"))))
    assert decode_request(Admission(LIMITS).encode(request)) == request


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (_execute(), "interface"),
        (_execute(*[Statement("SELECT 1")] * 3), "too_many_statements"),
        (_execute(Statement("x" * 101)), "sql_too_long"),
        (_execute(Statement("x", ((1, 2, 3, 4),))), "too_many_parameters"),
        (_execute(Statement("x", ({"a": 1, "b": 2, "c": 3, "d": 4},))), "too_many_parameters"),
        (_execute(Statement("x", ((b"x" * 41,),))), "value_too_large"),
        (_execute(Statement("x", (("x" * 41,),))), "value_too_large"),
        (_execute(Statement("x", (("\N{SNOWMAN}" * 14,),))), "value_too_large"),
        (_execute(Statement("x", tuple((b"x" * 40,) for _ in range(10)))), "request_too_large"),
        (_execute(Statement("x", ((object(),),))), "data"),  # type: ignore[arg-type]
        (_execute(Statement("x", ((1 << 63,),))), "integer_too_large"),
        (_execute(Statement("x", (("\ud800",),))), "data"),
        (_execute(Statement("x"), sequence=0), "interface"),
        (_execute(Statement("x"), sequence=3, floor=3), "interface"),
    ],
)
def test_what_is_out_of_bounds_says_so(request_: Execute, code: str) -> None:
    with pytest.raises(Error) as caught:
        Admission(LIMITS).encode(request_)
    assert caught.value.code == code
    assert caught.value.outcome == "not_applied"
    assert isinstance(caught.value, DataError | InterfaceError)


def test_text_is_measured_in_bytes_and_allowed_up_to_the_bound() -> None:
    request = _execute(Statement("x", (("\N{SNOWMAN}" * 13,),)))
    assert Admission(LIMITS).encode(request)
