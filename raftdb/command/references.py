"""Parameters that refer to results of earlier statements of the same request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftdb.base.errors import ProgrammingError
from raftdb.command.requests import Reference, Statement
from raftdb.command.results import StatementResult


def resolved(statement: Statement, results: Sequence[StatementResult]) -> Statement:
    """The statement with its references filled in. Raises ProgrammingError."""
    sets: list[Any] = [
        dict(one) if isinstance(one, dict) else list(one) for one in statement.parameter_sets
    ]
    for reference in statement.references:
        value = _referred(reference, results)
        try:
            sets[reference.parameter_set][reference.place] = value
        except (IndexError, KeyError, TypeError) as error:
            raise _bad_reference(f"there is no parameter {reference.place!r}") from error
    filled = tuple(one if isinstance(one, dict) else tuple(one) for one in sets)
    return Statement(statement.sql, filled)


def _referred(reference: Reference, results: Sequence[StatementResult]) -> Any:
    if reference.statement >= len(results):
        raise _bad_reference(f"statement {reference.statement} does not stand before this one")
    result = results[reference.statement]
    column = reference.column
    if column is None:
        return result.last_insert_rowid
    if reference.row >= len(result.rows):
        raise _bad_reference(
            f"statement {reference.statement} returned {len(result.rows)} rows, and row"
            f" {reference.row} is referred to"
        )
    if isinstance(column, str):
        names = [name.lower() for name in result.columns]
        if column.lower() not in names:
            raise _bad_reference(f"statement {reference.statement} returns no column {column!r}")
        column = names.index(column.lower())
    if not -len(result.columns) <= column < len(result.columns):
        # Leaders admit no negative one. A log may hold one from before they looked, and then it
        # means what it always did: what an entry brings does not change with the release.
        raise _bad_reference(
            f"statement {reference.statement} returns {len(result.columns)} columns"
        )
    return result.rows[reference.row][column]


def _bad_reference(why: str) -> ProgrammingError:
    return ProgrammingError(
        f"a parameter refers to an earlier result: {why}",
        code="reference",
        hint="statements, rows and columns count from 0; RETURNING makes rows",
    )
