"""Admission: what may enter the log, decided once, by the leader, before it is logged.

After this point no local limit has a say: replicas apply what is in the log (rule M4: a bound that
one node enforces while applying and another does not is a divergence).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from raftdb.base.errors import DataError, InterfaceError
from raftdb.base.limits import Limits
from raftdb.command import Commit, Execute, Statement, encode_request, pack_statements
from raftdb.command.requests import KEY_CHARACTERS_MAX, Parameters
from raftdb.machine import check_no_listing

MANY = 16
"""Parameter sets, from which on they are looked at together first."""
_BYTES_PER_VALUE = 9
_BYTES_PER_STATEMENT = 64
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))


class _Checked(tuple[Statement, ...]):
    """Statements that are within bounds."""

    packed = b""
    """For the log, until they go there."""


class Admission:
    """Checks a request against the limits and makes its bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def encode(self, request: Execute | Commit) -> bytes:
        """The request as log payload. Raises DataError, InterfaceError or NotSupportedError, and
        then nothing of it was or will be applied. (A transaction's statements were checked one by
        one.)"""
        if isinstance(request, Execute):
            self.check_statements(request.statements)
            for statement in request.statements:
                check_no_listing(statement.sql)
        if request.key is not None and not 0 < len(request.key.name) <= KEY_CHARACTERS_MAX:
            raise DataError(
                f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters", code="key_length"
            )
        if request.sequence < 1 or not 0 <= request.floor < request.sequence:
            raise InterfaceError(
                f"sequence {request.sequence} with floor {request.floor}",
                hint="sequences start at 1 and the floor lies below the sequence",
            )
        if isinstance(request, Execute) and type(request.statements) is _Checked:
            packed, request.statements.packed = request.statements.packed, b""
            payload = encode_request(request, packed)
        else:
            payload = encode_request(request)
        if len(payload) > self._limits.request_bytes_max:
            raise DataError(
                f"the request has {len(payload)} bytes, and {self._limits.request_bytes_max} are"
                " allowed",
                code="request_too_large",
                hint="send it in several requests",
            )
        return payload

    def checked(
        self, statements: tuple[Statement, ...], for_log: bool = False, packed: bytes = b""
    ) -> tuple[Statement, ...]:
        """The same, checked, and packed if they are for the log (`packed`: they are already). They
        are not looked at again. From any thread, so that the loop has little to do for a long
        request. Raises as `check_statements`."""
        self.check_statements(statements)
        checked = _Checked(statements)
        if for_log:
            checked.packed = packed or pack_statements(statements)
        return checked

    def check_statements(self, statements: tuple[Statement, ...]) -> None:
        """Raises DataError or InterfaceError for statements out of bounds."""
        if type(statements) is _Checked:
            return
        limits = self._limits
        if not statements:
            raise InterfaceError("the request has no statement")
        if len(statements) > limits.statements_per_request_max:
            raise DataError(
                f"{len(statements)} statements in one request, and"
                f" {limits.statements_per_request_max} are allowed",
                code="too_many_statements",
                hint="send them in several requests",
            )
        for position, statement in enumerate(statements):
            if len(statement.sql) > limits.sql_bytes_max:
                raise DataError(
                    f"statement {position} has {len(statement.sql)} characters, and"
                    f" {limits.sql_bytes_max} are allowed",
                    code="sql_too_long",
                    hint="pass values as parameters",
                )
            if not self._plainly_fits(statement.parameter_sets):
                for parameters in statement.parameter_sets:
                    self._check_parameters(position, parameters)
            for reference in statement.references:
                if reference.statement >= position:
                    raise InterfaceError(
                        f"a parameter of statement {position} refers to statement"
                        f" {reference.statement}, which does not stand before it",
                        hint="statements count from 0",
                    )
                if type(reference.column) is int and reference.column < 0:
                    raise InterfaceError(
                        f"a parameter of statement {position} refers to column {reference.column}",
                        hint="columns count from 0",
                    )

    def _plainly_fits(self, sets: Sequence[Parameters]) -> bool:
        """Whether many parameter sets are within bounds for sure, a tenth of the time that looking
        at each value takes."""
        if len(sets) < MANY or set(map(type, sets)) != {tuple}:
            return False
        limits = self._limits
        values = list(chain.from_iterable(sets))
        if max(map(len, sets)) > limits.parameters_max or not _PLAIN.issuperset(map(type, values)):
            return False
        texts = [len(value) for value in values if type(value) is str or type(value) is bytes]
        if texts and 4 * max(texts) > limits.value_bytes_max:
            return False
        numbers = [value for value in values if type(value) is int]
        return not numbers or (min(numbers) >= -(1 << 63) and max(numbers) < 1 << 63)

    def _check_parameters(self, position: int, parameters: Parameters) -> None:
        limits = self._limits
        if len(parameters) > limits.parameters_max:
            raise DataError(
                f"statement {position} has {len(parameters)} parameters, and"
                f" {limits.parameters_max} are allowed",
                code="too_many_parameters",
                hint="use several parameter sets (executemany) or several statements",
            )
        values = parameters.values() if isinstance(parameters, dict) else parameters
        for value in values:
            if isinstance(value, str | bytes):
                # A character has at most four bytes: only long text is worth measuring.
                size = len(value)
                if isinstance(value, str) and 4 * size > limits.value_bytes_max:
                    size = len(value.encode())
                if size > limits.value_bytes_max:
                    raise DataError(
                        f"a value of statement {position} has {size} bytes, and"
                        f" {limits.value_bytes_max} are allowed",
                        code="value_too_large",
                        hint="store large objects outside, or in pieces",
                    )
            elif isinstance(value, int):
                if not -(1 << 63) <= value < 1 << 63:
                    raise DataError(
                        f"the integer {value} of statement {position} does not fit into 64 bits",
                        code="integer_too_large",
                        hint="store it as text",
                    )
            elif value is not None and not isinstance(value, float):
                raise DataError(
                    f"a value of statement {position} is of type {type(value).__name__}",
                    hint="SQLite stores None, int, float, str and bytes",
                )


def statement_bytes(statement: Statement) -> int:
    """About the bytes that the statement takes in the log."""
    size = _BYTES_PER_STATEMENT + len(statement.sql.encode("utf-8", "replace"))
    for parameters in statement.parameter_sets:
        values = parameters.values() if isinstance(parameters, dict) else parameters
        for value in values:
            size += _BYTES_PER_VALUE
            if isinstance(value, str):
                size += len(value.encode("utf-8", "replace"))
            elif isinstance(value, bytes):
                size += len(value)
    return size
