"""A connection backed by the standard library's SQLite, with raftdb's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import DataError, Error, IntegrityError, ProgrammingError


@dataclass(frozen=True)
class ResultSet:
    """As raftdb's connection gives it."""

    columns: tuple[str, ...]
    rows: tuple[Any, ...]
    rowcount: int


class FakeConnection:
    """Has the shape of raftdb's connection; remembers what was asked of it."""

    def __init__(self) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.levels: list[str | None] = []
        self.requests: list[tuple[str, int]] = []
        self.fail_next: Error | None = None
        self.unsettled = False

    @property
    def foreign_keys(self) -> bool:
        return bool(self.raw.execute("PRAGMA foreign_keys").fetchone()[0])

    @foreign_keys.setter
    def foreign_keys(self, value: bool) -> None:
        self.raw.execute(f"PRAGMA foreign_keys = {int(value)}")

    def execute(self, sql: str, parameters: Any = (), /, **options: Any) -> sqlite3.Cursor:
        self.levels.append(options.get("read"))
        self._maybe_fail()
        try:
            return self.raw.execute(sql, parameters)
        except sqlite3.IntegrityError as error:
            raise IntegrityError(str(error)) from error
        except sqlite3.Error as error:
            detail = {"offset": 7} if "syntax" in str(error) else {}
            raise ProgrammingError(str(error), hint="read it again", detail=detail) from error
        except UnicodeEncodeError as error:
            raise DataError(str(error)) from error

    def executemany(self, sql: str, parameter_sets: Sequence[Any], /) -> sqlite3.Cursor:
        self.requests.append((sql, len(parameter_sets)))
        self._maybe_fail()
        self.raw.execute("BEGIN")
        try:
            cursor = self.raw.executemany(sql, parameter_sets)
        except sqlite3.Error as error:
            self.raw.execute("ROLLBACK")
            wrong = (
                IntegrityError if isinstance(error, sqlite3.IntegrityError) else ProgrammingError
            )
            raise wrong(str(error)) from error
        self.raw.execute("COMMIT")
        return cursor

    @property
    def in_transaction(self) -> bool:
        return self.raw.in_transaction

    def rollback(self) -> None:
        self.raw.rollback()

    def resume(self) -> list[ResultSet]:
        self.unsettled = False
        return [ResultSet(("a",), ((1,),), -1)]

    def close(self) -> None:
        self.raw.close()

    def _maybe_fail(self) -> None:
        error, self.fail_next = self.fail_next, None
        if error is not None:
            raise error
