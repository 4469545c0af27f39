"""What a script is run against."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import apsw

import raftdb
from raftdb.base.errors import Error, NotSupportedError
from raftdb.command import Failed, Statement
from tests.machine.support import Database


@dataclass(frozen=True)
class Failure:
    """A statement failed; the extended result code, and what was said."""

    code: int | None
    message: str
    refused: bool = False
    """It is a statement that raftdb does not take, by design."""


Outcome = list[tuple[Any, ...]] | Failure


def failure(error: Error) -> Failure:
    """What raftdb says."""
    refused = isinstance(error, NotSupportedError) and error.message.startswith("refused: ")
    return Failure(error.detail.get("sqlite_code"), error.message, refused)


class Target(Protocol):
    """Runs one statement."""

    name: str

    def run(self, sql: str) -> Outcome: ...

    def close(self) -> None: ...


class Plain:
    """The bundled SQLite alone, with the settings that raftdb has as well."""

    name = "sqlite"

    def __init__(self) -> None:
        self._connection = apsw.Connection(":memory:")
        self._connection.execute("PRAGMA foreign_keys = ON")

    def run(self, sql: str) -> Outcome:
        try:
            return list(self._connection.execute(sql))
        except apsw.Error as error:
            return Failure(getattr(error, "extendedresult", None), str(error))

    def close(self) -> None:
        self._connection.close()


class OneMachine:
    """One replica's machine: each statement a request; reads go to a reader as well."""

    name = "machine"

    def __init__(self, check_every: int = 200) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="raftdb-conformance-")
        self._database = Database(Path(self._directory.name) / "database")
        self._check_every = check_every
        self._count = 0

    def run(self, sql: str) -> Outcome:
        database = self._database
        reply = database.apply(database.request(sql))
        self._count += 1
        if self._count % self._check_every == 0:
            database.entries.clear()
            database.check_hash()
        if isinstance(reply, Failed):
            return failure(reply.error)
        rows = list(reply.statements[0].rows)  # type: ignore[union-attr]
        if database.machine.is_read_only(sql):
            read = list(database.machine.query(Statement(sql)).statements[0].rows)
            if sorted(map(repr, read)) != sorted(map(repr, rows)):
                return Failure(None, "a reader and a request read differently")
        return rows

    def close(self) -> None:
        self._database.check_hash()
        self._database.close()
        self._directory.cleanup()


class Cluster:
    """A running cluster, through the client."""

    name = "cluster"

    def __init__(self, url: str) -> None:
        self._connection = raftdb.connect(url)

    def sweep(self) -> None:
        """Drop all tables and views."""
        db = self._connection
        db.foreign_keys = False
        for kind, name in db.execute(
            "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_raftdb%' ESCAPE '\\'"
            " ORDER BY sql LIKE 'CREATE VIRTUAL%' DESC"
        ).fetchall():
            quoted = name.replace('"', '""')
            db.execute(f'DROP {kind} IF EXISTS "{quoted}"')
        db.execute("PRAGMA user_version = 0")
        db.foreign_keys = True

    def run(self, sql: str) -> Outcome:
        try:
            return [tuple(row) for row in self._connection.execute(sql).fetchall()]
        except Error as error:
            return failure(error)

    def close(self) -> None:
        self._connection.close()
