"""Runs CPython's own tests of `sqlite3` against raftdb's DB-API.

They are loaded from the test package of the Python that runs (none of them stands in this
repository), with `sqlite3` replaced by a module that connects to a cluster. What fails is either in
the table of what raftdb does otherwise on purpose, with the reason, or a failure.
"""

from __future__ import annotations

import datetime
import importlib
import sqlite3
import sys
import types
import unittest
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import raftdb
from raftdb.client.connection import Connection
from tests.conformance.otherwise import OTHERWISE
from tests.conformance.targets import Cluster

PACKAGE = "test.test_sqlite3"
MODULES = (
    "test_dbapi",
    "test_types",
    "test_factory",
    "test_regression",
    "test_transactions",
    "test_dump",
    "test_backup",
    "test_hooks",
    "test_userfunctions",
)


@dataclass
class Report:
    """By test: module.class.method."""

    passed: list[str] = field(default_factory=list)
    otherwise: dict[str, str] = field(default_factory=dict)
    """Does not pass, and why that is meant."""
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    """Rows of the table that no test needs any more."""


class Stand:
    """The module that the tests take for `sqlite3`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opened: list[Connection] = []
        self._sweeper = Cluster(url)

    def connect(self, database: Any = "", *args: Any, **options: Any) -> Connection:
        """An empty database, as `:memory:` gives. Options of `sqlite3` are not raftdb's."""
        if not isinstance(database, str):
            raise TypeError("the tests connect by name")
        if args or options.keys() - {"isolation_level", "timeout", "uri"}:
            raise raftdb.NotSupportedError(f"connect has no {[*args, *options]}")
        if options.get("isolation_level") is not None:
            raise raftdb.NotSupportedError("connect has no isolation_level")
        if database != ":memory:":
            raise raftdb.NotSupportedError("a cluster is not a file")
        self.sweep()
        made = raftdb.connect(self.url, timeout=20.0)
        self.opened.append(made)
        return made

    def sweep(self) -> None:
        """Drop all that there is."""
        for one in self.opened:
            one.close()
        self.opened.clear()
        self._sweeper.sweep()

    def close(self) -> None:
        """Close all connections."""
        self.sweep()
        self._sweeper.close()

    def module(self) -> types.ModuleType:
        """What `import sqlite3` gives to the tests."""
        made = types.ModuleType("sqlite3")
        for name, value in vars(sqlite3).items():
            # Numbers and version texts: names of limits and codes, for the tests' own use.
            if isinstance(value, int | str | tuple) and not name.startswith("_"):
                setattr(made, name, value)
        for name in (*raftdb.__all__, "Connection", "Cursor", "Row", "Warning"):
            setattr(made, name, getattr(raftdb, name))
        for name in ("adapt", "adapters", "register_adapter", "PrepareProtocol"):
            setattr(made, name, getattr(sqlite3, name))  # What is registered there counts.
        made.connect = self.connect  # type: ignore[attr-defined]
        made.datetime = datetime  # type: ignore[attr-defined]
        made.enable_callback_tracebacks = lambda _on: None  # type: ignore[attr-defined]
        made.__getattr__ = _missing  # type: ignore[attr-defined]
        return made


def _missing(name: str) -> Any:
    """Methods of sqlite3 that raftdb has not: calling one says so."""
    if name.startswith("__") or name == "_deprecated_version":
        raise AttributeError(name)

    def absent(*_args: Any, **_options: Any) -> None:
        raise raftdb.NotSupportedError(f"raftdb has no {name}")

    return absent


def take_from(library: Path) -> None:
    """Take the tests, and what they need of the package `test`, from another Python's library."""
    import test

    test.__path__[:] = [str(library / "test")]


def load(stand: Stand) -> tuple[list[unittest.TestCase], dict[str, str]]:
    """All tests, and why those of a module could not be loaded."""
    cases: list[unittest.TestCase] = []
    problems: dict[str, str] = {}
    kept = {
        name: module
        for name, module in sys.modules.items()
        if name == "sqlite3" or name.startswith((PACKAGE, "sqlite3."))
    }
    for name in kept:
        del sys.modules[name]
    sys.modules["sqlite3"] = stand.module()
    try:
        for name in MODULES:
            try:
                module = importlib.import_module(f"{PACKAGE}.{name}")
            except (Exception, unittest.SkipTest) as error:
                problems[name] = f"{type(error).__name__}: {error}"
                continue
            suite = unittest.defaultTestLoader.loadTestsFromModule(module)
            cases += _flat(suite)
    finally:
        for name in [n for n in sys.modules if n == "sqlite3" or n.startswith(PACKAGE)]:
            del sys.modules[name]
        sys.modules.update(kept)
    return cases, problems


def _flat(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for one in suite:
        found += _flat(one) if isinstance(one, unittest.TestSuite) else [one]
    return found


def run(url: str, tell: Callable[[str], None], only: str = "*") -> Report:
    """Run all tests whose name fits the pattern."""
    stand = Stand(url)
    report = Report()
    used: set[str] = set()
    try:
        cases, problems = load(stand)
        for module, problem in problems.items():
            _sort(report, used, f"{module}.*", problem)
        for case in cases:
            name = case.id().removeprefix(PACKAGE + ".")
            if not fnmatchcase(name, only):
                continue
            result = unittest.TestResult()
            case.run(result)
            wrong = [text for _case, text in result.errors + result.failures]
            if result.skipped:
                report.skipped[name] = result.skipped[0][1]
            elif wrong:
                _sort(report, used, name, wrong[0].strip().splitlines()[-1])
                tell(f"{name}\n{wrong[0]}")
            else:
                report.passed.append(name)
    finally:
        stand.close()
    if only == "*":
        report.unused = [pattern for pattern in OTHERWISE if pattern not in used]
    return report


def _sort(report: Report, used: set[str], name: str, problem: str) -> None:
    for pattern, reason in OTHERWISE.items():
        if fnmatchcase(name, pattern):
            used.add(pattern)
            report.otherwise[name] = reason
            return
    report.failed[name] = problem
