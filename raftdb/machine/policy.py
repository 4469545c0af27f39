"""What SQL may not do, decided by SQLite's authorizer while it compiles a statement.

The authorizer sees what a statement would do after views and triggers are expanded. It is asked at
compile time only: see format.MARK for the cached statements of raftdb's own.
https://www.sqlite.org/c3ref/set_authorizer.html
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from raftdb.base.errors import NotSupportedError
from raftdb.machine.format import PREFIX

_Authorize = Callable[[str | None, str | None, str | None], str]
"""Takes the two operands and the database name; returns why not, or ``."""

READ_PRAGMAS = frozenset(
    (
        "application_id",
        "auto_vacuum",
        "collation_list",
        "compile_options",
        "data_version",
        "database_list",
        "encoding",
        "foreign_key_check",
        "foreign_key_list",
        "foreign_keys",
        "freelist_count",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "page_count",
        "page_size",
        "pragma_list",
        "quick_check",
        "schema_version",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    )
)
"""Answered by `query`, from one node's own file."""

_ARGUMENT_PRAGMAS = frozenset(
    (
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    )
)
"""Their argument names what to look at; with any other an argument is an assignment."""

LOGGED_PRAGMAS = frozenset(
    (
        "application_id",
        "collation_list",
        "data_version",
        "defer_foreign_keys",
        "encoding",
        "foreign_key_check",
        "foreign_key_list",
        "foreign_keys",
        "index_info",
        "index_list",
        "index_xinfo",
        "page_size",
        "recursive_triggers",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    )
)
"""Allowed in a logged request: their answers are the same on every replica (FTS and R-Tree ask
data_version and page_size for themselves)."""

ASSIGNED_PRAGMAS = frozenset(
    ("application_id", "defer_foreign_keys", "recursive_triggers", "user_version")
)
"""May be assigned in a logged request. defer_foreign_keys lasts until the request ends; the others
are kept in the database, on every replica."""

_FILE = "leave it out: how a node keeps its file is not SQL's to say"
_INSTEAD = {
    "journal_mode": "leave it out: nodes keep a write-ahead log, and a majority syncs each commit",
    "synchronous": "leave it out: a majority syncs each commit before it is acknowledged",
    "busy_timeout": "leave it out: there are no locks to wait for; connections have a timeout",
    "locking_mode": "leave it out: there are no locks",
    "cache_size": _FILE,
    "mmap_size": _FILE,
    "temp_store": _FILE,
    "wal_autocheckpoint": _FILE,
    "wal_checkpoint": "leave it out: nodes do it by themselves",
    "incremental_vacuum": "run `raftdb vacuum`",
    "optimize": "it depends on the node: run ANALYZE",
    "case_sensitive_like": "use GLOB",
    "writable_schema": "use ALTER TABLE",
}
"""What to do instead of PRAGMAs that programs set out of habit."""


def _not_offered(pragma: str, where: str = "") -> str:
    instead = _INSTEAD.get(pragma)
    return f"PRAGMA {pragma} is not offered{where}" + (f" ({instead})" if instead else "")


_LOCAL_FUNCTIONS = frozenset(
    (
        "fts5_source_id",
        "sqlite_compileoption_get",
        "sqlite_compileoption_used",
        "sqlite_log",
        "sqlite_offset",
        "sqlite_source_id",
        "sqlite_version",
    )
)
_UNSAFE_FUNCTIONS = frozenset(("fts3_tokenizer", "load_extension"))

MODULES = frozenset(
    (
        "fts3",
        "fts4",
        "fts4aux",
        "fts3tokenize",
        "fts5",
        "fts5vocab",
        "geopoly",
        "rtree",
        "rtree_i32",
    )
)
_LOCAL_TABLES = frozenset(
    ("bytecode", "dbstat", "sqlite_dbpage", "sqlite_memstat", "sqlite_stmt", "tables_used")
)

_TRANSACTION = "a request is a transaction of its own: send a batch, or begin() one"
_TEMPORARY = "temporary objects belong to one node; use an ordinary table"
OWN_NAMES = f"names that begin with {PREFIX} belong to raftdb"


def _is_own(name: str | None) -> bool:
    return name is not None and name[: len(PREFIX)].lower() == PREFIX


def _always(reason: str) -> _Authorize:
    return lambda _first, _second, _database: reason


def _module(_table: str | None, module: str | None, _database: str | None) -> str:
    if module is None or module.lower() in MODULES:
        return ""
    return f"virtual tables of module {module} are not the same on every node"


def _any_own(first: str | None, second: str | None, _database: str | None) -> str:
    return OWN_NAMES if _is_own(first) or _is_own(second) else ""


class _Authorizer:
    """Denies by table; `reason` says why the last statement was denied."""

    def __init__(self) -> None:
        self.user = False
        """A statement of a user is being compiled or executed: only then it speaks."""
        self.reason = ""
        self._rules: dict[int, _Authorize] = {}
        for code in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
            self._rules[code] = _always("a node has one database: ATTACH and DETACH are refused")
        for code in (apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT):
            self._rules[code] = _always(_TRANSACTION)
        for code in (
            apsw.SQLITE_CREATE_TEMP_INDEX,
            apsw.SQLITE_CREATE_TEMP_TABLE,
            apsw.SQLITE_CREATE_TEMP_TRIGGER,
            apsw.SQLITE_CREATE_TEMP_VIEW,
            apsw.SQLITE_DROP_TEMP_INDEX,
            apsw.SQLITE_DROP_TEMP_TABLE,
            apsw.SQLITE_DROP_TEMP_TRIGGER,
            apsw.SQLITE_DROP_TEMP_VIEW,
        ):
            self._rules[code] = _always(_TEMPORARY)

    def __call__(
        self,
        code: int,
        first: str | None,
        second: str | None,
        database: str | None,
        _trigger: str | None,
    ) -> int:
        if not self.user:
            return int(apsw.SQLITE_OK)
        rule = self._rules.get(code)
        reason = rule(first, second, database) if rule is not None else ""
        if reason:
            self.reason = reason
            return int(apsw.SQLITE_DENY)
        return int(apsw.SQLITE_OK)

    def refusal(self) -> NotSupportedError:
        """The error of the statement that was denied last."""
        reason, self.reason = self.reason, ""
        return NotSupportedError(f"refused: {reason}" if reason else "refused by the authorizer")


_LONG_STEPS = frozenset(
    (
        *("like", "glob", "match", "count", "instr", "replace", "trim", "ltrim", "rtrim"),
        *("hex", "unhex", "zeroblob", "randomblob", "printf", "format", "group_concat"),
        *("string_agg", "upper", "lower", "quote"),
    )
)
"""Functions one call of which may take long, and cannot be stopped: by the product of its operands'
lengths, because it makes long values of short ones, or because it walks a table (count(*) is one
step). So may everything that begins with json."""


def has_long_steps(function: str) -> bool:
    """Whether one call of that function may take long."""
    return function in _LONG_STEPS or function.startswith(("json", "->"))


class WriteAuthorizer(_Authorizer):
    """Of the writer connection; it also notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.is_dml = True
        """It begins with a verb of sqltext.DML (DROP and ANALYZE may touch sqlite_stat*)."""
        self.uses_changes = False
        self.long_steps = False
        """As ReadAuthorizer.long_steps."""
        self.tables: set[str] = set()
        """That the statement names."""
        rules = self._rules
        for code in (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE):
            rules[code] = self._write
        rules[apsw.SQLITE_READ] = self._read
        rules[apsw.SQLITE_FUNCTION] = self._function
        rules[apsw.SQLITE_PRAGMA] = self._pragma
        rules[apsw.SQLITE_CREATE_VTABLE] = _module
        for code in (
            apsw.SQLITE_ALTER_TABLE,
            apsw.SQLITE_CREATE_INDEX,
            apsw.SQLITE_CREATE_TABLE,
            apsw.SQLITE_CREATE_TRIGGER,
            apsw.SQLITE_CREATE_VIEW,
            apsw.SQLITE_DROP_INDEX,
            apsw.SQLITE_DROP_TABLE,
            apsw.SQLITE_DROP_TRIGGER,
            apsw.SQLITE_DROP_VIEW,
        ):
            rules[code] = _any_own

    def begin(self, is_dml: bool) -> None:
        """A statement of a user is about to be compiled for the first time."""
        self.is_dml = is_dml
        self.uses_changes = self.long_steps = False
        self.tables.clear()
        self.reason = ""

    def _write(self, table: str | None, _column: str | None, database: str | None) -> str:
        name = (table or "").lower()
        if database == "temp" and name != "sqlite_temp_master":
            return _TEMPORARY
        if _is_own(name):
            return OWN_NAMES
        self.tables.add(name)
        if self.is_dml and name.startswith("sqlite_stat"):
            return "statistics are written by ANALYZE alone"
        return ""

    def _read(self, table: str | None, _column: str | None, _database: str | None) -> str:
        name = (table or "").lower()
        if _is_own(name):
            return OWN_NAMES
        self.tables.add(name)
        if name in _LOCAL_TABLES:
            return f"{table} differs from node to node: read it without writing"
        return ""

    def _function(self, _first: str | None, name: str | None, _database: str | None) -> str:
        function = (name or "").lower()
        if function == "changes":
            self.uses_changes = True
        elif has_long_steps(function):
            self.long_steps = True
        if function in _UNSAFE_FUNCTIONS:
            return f"{function}() is not offered"
        if function in _LOCAL_FUNCTIONS:
            return f"{function}() reads the node: replicas could differ"
        return ""

    def _pragma(self, name: str | None, value: str | None, _database: str | None) -> str:
        pragma = (name or "").lower()
        if pragma == "foreign_keys" and value is not None:
            return "PRAGMA foreign_keys is set for a connection by the client, not in a request"
        if pragma not in LOGGED_PRAGMAS:
            return _not_offered(pragma, " in a request that is replicated")
        if value is not None and pragma not in ASSIGNED_PRAGMAS | _ARGUMENT_PRAGMAS:
            return f"PRAGMA {pragma} cannot be set"
        return ""


class ReadAuthorizer(_Authorizer):
    """Of the reader connections, which are opened read-only besides."""

    def __init__(self) -> None:
        super().__init__()
        self.long_steps = False
        """A statement that was compiled calls a function of _LONG_STEPS, be it in a view."""
        rules = self._rules
        rules[apsw.SQLITE_READ] = self._read
        rules[apsw.SQLITE_FUNCTION] = self._function
        rules[apsw.SQLITE_PRAGMA] = self._pragma

    def _read(self, table: str | None, _column: str | None, _database: str | None) -> str:
        name = (table or "").lower()
        if _is_own(name):
            return OWN_NAMES
        return f"{name} is not offered" if name == "sqlite_dbpage" else ""

    def _function(self, _first: str | None, name: str | None, _database: str | None) -> str:
        function = (name or "").lower()
        self.long_steps = self.long_steps or has_long_steps(function)
        return f"{function}() is not offered" if function in _UNSAFE_FUNCTIONS else ""

    def _pragma(self, name: str | None, value: str | None, _database: str | None) -> str:
        pragma = (name or "").lower()
        if pragma not in READ_PRAGMAS:
            return _not_offered(pragma)
        if value is not None and pragma not in _ARGUMENT_PRAGMAS:
            return f"PRAGMA {pragma} cannot be set by a query: use execute"
        return ""
