"""Texts of logged failures, by feature level: replicas of two releases have to say the same.

`level-1.json` is what 0.1.0 says. A later level's file holds what that level changes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from raftdb.base.errors import to_wire
from raftdb.base.release import LEVEL_MAX
from raftdb.command import Commit, Configure, Execute, Failed, Key, Outcome, Recorded, Statement
from raftdb.command.requests import Reference, Request
from tests.machine.support import Database, stamp
from tests.meta.source import ROOT

PLACE = Path(__file__).parent

LOGGED = frozenset(
    (
        *(
            "applier",
            "content",
            "determinism",
            "failures",
            "keys",
            "lastrowid",
            "patience",
            "policy",
        ),
        *("replay", "schemasum", "sessions", "settings", "sqltext", "statements", "switches"),
        *("totals", "transaction", "units", "virtual"),
    )
)
"""Modules of raftdb.machine that make, or may make, what a logged request is answered."""
FREE = frozenset(
    (
        *("__init__", "absent", "captures", "checkpoints", "connections", "fingerprint", "fork"),
        *(
            "format",
            "founding",
            "generations",
            "indexscan",
            "inspect",
            "layout",
            "logcheck",
        ),
        *(
            "logcheck",
            "logguard",
            "longrows",
            "machine",
            "overlay",
            "pages",
            "reader",
            "readers",
            "rowhash",
            "samples",
            "scan",
            "stored",
        ),
        *("streams", "tables", "vacuum", "workspace", "workspaces"),
    )
)
"""Those that do not: their texts are one node's own."""
BESIDES = ("command/references.py",)

_ENDS = ("FatalError", "CodecError", "assert_never")
_SQL = re.compile(
    r"\s*(ALTER|ANALYZE|BEGIN|COMMIT|CREATE|DELETE|DROP|INSERT|PRAGMA|RELEASE|REPLACE|ROLLBACK|SAVEPOINT"
    r"|SELECT|UPDATE|VACUUM|VALUES|WITH)\b(?!.* (may|can|is|in a|takes|stands|sets)\b)"
)


# ---- what the code says


def all_texts() -> set[str]:
    """Of all those modules."""
    paths = [ROOT / "raftdb" / "machine" / f"{name}.py" for name in sorted(LOGGED)]
    paths += [ROOT / "raftdb" / name for name in BESIDES]
    found: set[str] = set()
    for path in paths:
        if path.exists():
            found.update(_texts(ast.parse(path.read_text("utf-8"))))
    return found


def _texts(tree: ast.Module) -> Iterator[str]:
    """Strings with a space in them, that are neither documentation nor SQL; and codes of errors."""
    inside = {id(part) for node in ast.walk(tree) for part in _parts(node)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.keyword) and node.arg in ("code", "outcome", "retryable"):
            yield f"{node.arg}={ast.unparse(node.value)}"
        text = _template(node)
        if text is not None and " " in text.strip() and not _SQL.match(text):
            yield text


def _parts(node: ast.AST) -> list[ast.AST]:
    """What is no text by itself: documentation, pieces of a formatted string, and what is said when
    the node stops instead of answering."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return [node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _ENDS:
        return list(ast.walk(node))[1:]
    return list(ast.walk(node))[1:] if isinstance(node, ast.JoinedStr) else []


def _template(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    return None


# ---- what requests are answered

_SCHEMA = (
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT NOT NULL, c INT CHECK (c < 10), d UNIQUE)",
    "CREATE TABLE child(a REFERENCES t(a))",
    "CREATE TABLE late(a REFERENCES t(a) DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE strict_one(a INT) STRICT",
    "CREATE TABLE auto(a INTEGER PRIMARY KEY AUTOINCREMENT)",
    "CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'not deleted'); END",
    "CREATE TRIGGER gone BEFORE UPDATE ON t BEGIN SELECT RAISE(ROLLBACK, 'all gone'); END",
    "INSERT INTO t VALUES (1, 'x', 1, 1)",
)

_FAILING: dict[str, tuple[Any, ...]] = {
    "syntax": ("SELEC 1",),
    "no table": ("INSERT INTO missing VALUES (1)",),
    "no column": ("UPDATE t SET z = 1",),
    "primary key": ("INSERT INTO t VALUES (1, 'y', 2, 2)",),
    "not null": ("INSERT INTO t VALUES (2, NULL, 2, 2)",),
    "check": ("INSERT INTO t VALUES (2, 'y', 20, 2)",),
    "unique": ("INSERT INTO t VALUES (2, 'y', 2, 1)",),
    "foreign key": ("INSERT INTO child VALUES (99)",),
    "deferred key": ("INSERT INTO late VALUES (99)",),
    "datatype": ("INSERT INTO strict_one VALUES ('x')",),
    "mismatch": ("INSERT INTO t VALUES ('x', 'y', 2, 2)",),
    "raise": ("DELETE FROM t",),
    "raise rollback": ("UPDATE t SET b = 'z'",),
    "or rollback": ("INSERT OR ROLLBACK INTO t VALUES (1, 'y', 2, 2)",),
    "or fail": ("INSERT OR FAIL INTO t VALUES (7, 'x', 1, 7), (1, 'y', 2, 2)",),
    "second of two": ("INSERT INTO t VALUES (2, 'x', 1, 2)", "INSERT INTO t VALUES (2, 'x', 1, 3)"),
    "last rowid": ("INSERT INTO t VALUES (9223372036854775807, 'x', 1, 5)",),
    "sequence": ("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'auto'",),
    "autoincrement": ("INSERT INTO auto VALUES (9223372036854775807)",),
    "utf8": ("INSERT INTO t VALUES (2, CAST(x'ff' AS TEXT), 1, 2)",),
    "empty": ("",),
    "comment only": ("-- nothing",),
    "several": ("SELECT 1; SELECT 2",),
    "nul": ("SELECT 1\0",),
    "too few": (("INSERT INTO t VALUES (?, ?, 1, 1)", (1,)),),
    "by name": (("INSERT INTO t VALUES (?, 'x', 1, 1)", {"a": 1}),),
    "missing name": (("INSERT INTO t VALUES (:a, :b, 1, 1)", {"a": 1, "z": 2}),),
    "begin": ("BEGIN",),
    "commit": ("COMMIT",),
    "savepoint": ("SAVEPOINT s",),
    "vacuum": ("VACUUM",),
    "vacuum into": ("VACUUM INTO 'x'",),
    "attach": ("ATTACH 'x' AS y",),
    "detach": ("DETACH x",),
    "temporary": ("CREATE TEMP TABLE x(a)",),
    "own name": ("CREATE TABLE _raftdb_x(a)",),
    "own table": ("DELETE FROM _raftdb_session",),
    "statistics": ("INSERT INTO sqlite_stat1 VALUES ('t', NULL, '1')",),
    "analyze in a batch": ("ANALYZE", "SELECT 1"),
    "pragma": ("PRAGMA journal_mode = DELETE",),
    "pragma unknown": ("PRAGMA cache_size = 5",),
    "foreign keys": ("PRAGMA foreign_keys = OFF",),
    "load extension": ("SELECT load_extension('x')",),
    "version": ("INSERT INTO t SELECT 5, sqlite_version(), 1, 5",),
    "dbpage": ("INSERT INTO t SELECT pgno, data, 1, 1 FROM sqlite_dbpage",),
    "module": ("CREATE VIRTUAL TABLE v USING dbstat",),
    "no such module": ("CREATE VIRTUAL TABLE v USING nothing",),
    "too big": ("SELECT zeroblob(100000000)",),
    "random too big": ("SELECT length(randomblob(100000000))",),
    "overflow": ("SELECT abs(-9223372036854775808)",),
    "json": ("SELECT json('{')",),
    "exists": ("CREATE TABLE t(a)",),
    "index exists": ("CREATE UNIQUE INDEX i ON t(c); ",),
    "long name": ("SELECT * FROM " + "x" * 3_000,),
    "too many columns": ("SELECT " + ",".join(["1"] * 2_001),),
}


def _bare(database: Database, **changes: Any) -> Execute:
    return database.request("SELECT 1", **changes)


def _commit(database: Database, *recorded: Recorded) -> Commit:
    database.sequence += 1
    return Commit(stamp(9), database.session, database.sequence, 0, recorded)


def _referring(database: Database, reference: Reference) -> Execute:
    statement = Statement("INSERT INTO t VALUES (?, 'x', 1, 9)", ((None,),), (reference,))
    return database.request("SELECT 1 WHERE 0", statement)


def _keyed(database: Database) -> Execute:
    key = Key("k", 1)
    database.apply(database.request("SELECT 1", key=key))
    return database.request("SELECT 2", key=key)


def _forgotten(database: Database) -> Execute:
    done = database.request("SELECT 1")
    database.apply(done)
    database.apply(database.request("SELECT 2", floor=done.sequence))
    database.apply(database.request("SELECT 3"))
    return done


def _burned(database: Database) -> Request:
    wanted = database.request("SELECT 1")
    database.apply(Outcome(stamp(8), database.session, wanted.sequence))
    return wanted


_OTHERS: dict[str, Callable[[Database], Request]] = {
    "gap": lambda one: _bare(one, sequence=one.sequence + 5),
    "sequence zero": lambda one: _bare(one, sequence=0),
    "unknown session": lambda one: _bare(one, session=99 << 16, sequence=1),
    "unknown session, later": lambda one: _bare(one, session=99 << 16, sequence=7),
    "outcome far away": lambda one: Outcome(stamp(8), one.session, 10**9),
    "outcome of nobody": lambda one: Outcome(stamp(8), 99 << 16, 1),
    "outcome of an old key": lambda one: Outcome(stamp(8), 0, 0, Key("never", 0)),
    "key of other SQL": _keyed,
    "old key": lambda one: one.request("SELECT 1", key=Key("old", 0)),
    "forgotten": _forgotten,
    "burned": _burned,
    "conflict": lambda one: _commit(one, Recorded(0, Statement("SELECT 1"), bytes(16))),
    "in a transaction": lambda one: _commit(one, Recorded(0, Statement("BEGIN"), bytes(16))),
    "reference to a row": lambda one: _referring(one, Reference(0, 0, 0, 0, 0)),
    "reference to a column": lambda one: _referring(one, Reference(0, 0, 0, "zz", 0)),
    "reference to itself": lambda one: _referring(one, Reference(0, 0, 1, 0, 0)),
}


def replies(directory: Path, level: int) -> dict[str, Any]:
    """What each is answered at that level, by a machine that has seen those before it."""
    database = Database(directory / "machine")
    try:
        if level > 1:
            database.apply(Configure(stamp(1), {"feature_level": level}))
        for sql in _SCHEMA:
            database.run(sql)
        found: dict[str, Any] = {}
        for name, statements in _FAILING.items():
            found[name] = _answer(database, database.request(*statements))
        for name, make in _OTHERS.items():
            found[name] = _answer(database, make(database))
        return found
    finally:
        database.close()


def _answer(database: Database, request: Request) -> Any:
    reply = database.apply(request)
    if not isinstance(reply, Failed):
        return "done"
    return {**to_wire(reply.error), "statement": reply.statement}


# ---- what they were


def golden_replies(level: int) -> dict[str, Any]:
    """At that level."""
    found: dict[str, Any] = {}
    for one in range(1, level + 1):
        found.update(_read(one)["replies"])
    return found


def golden_texts() -> set[str]:
    """Of all levels that this release runs."""
    return {text for one in range(1, LEVEL_MAX + 1) for text in _read(one)["texts"]}


def _read(level: int) -> dict[str, Any]:
    path = PLACE / f"level-{level}.json"
    if not path.exists():
        return {"replies": {}, "texts": []}
    value: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return value
