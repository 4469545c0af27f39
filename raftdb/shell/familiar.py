"""Dot commands that users of the sqlite3 shell expect, and what stands in for those that cannot be.

The same names and the same meaning, as far as there is one on a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftdb.base.errors import ProgrammingError
from raftdb.shell.commands import (
    ABSENT,
    OWN_NAMES,
    CommandError,
    command,
    find_command,
    switch,
)
from raftdb.shell.dump import SchemaMoved, dump, is_contentless
from raftdb.shell.literals import literal
from raftdb.shell.statements import parameters_of

if TYPE_CHECKING:
    from raftdb.shell.shell import Shell

WIDTH_MAX = 10_000
ABSENT |= {
    ".archive": "it works on a file: run sqlite3 on one that `raftdb restore` made",
    ".auth": "who may do what is in the certificates: docs/security.md",
    ".backup": "the cluster archives continuously: `raftdb archive`, `raftdb restore --to FILE`",
    ".clone": "`.dump` makes SQL, and `raftdb restore` a file",
    ".cd": "give `.read`, `.import` and `.output` a whole path",
    ".connection": "start another shell",
    ".excel": "`.once FILE.csv` with `.mode csv`",
    ".expert": "`.eqp on` shows the plan of each statement",
    ".explain": "EXPLAIN shows the program as rows in any mode; `.eqp on` the plan",
    ".limit": "limits are the cluster's: docs/configuration.md",
    ".load": "an extension would have to be the same on every node: docs/sql.md",
    ".log": "the nodes have logs: docs/operations.md",
    ".open": "leave, and start `raftdb sql` with the other cluster's URL or --dir",
    ".recover": "a node heals by itself; without a majority: `raftdb recover`",
    ".restore": "`raftdb restore`, or `raftdb undelete` for tables",
    ".save": "`raftdb restore` makes a file, `.dump` makes SQL",
    ".scanstats": "EXPLAIN QUERY PLAN tells the plan",
    ".selftest": "`raftdb check` compares all nodes",
    ".session": "changes are in the log: `raftdb archive log`",
    ".sha3sum": "`raftdb check` compares the content hash of all nodes",
    ".shell": "run it outside of this shell",
    ".stats": "`raftdb status` tells of load and memory",
    ".system": "run it outside of this shell",
    ".timeout": "`timeout=SECONDS` in the URL",
    ".vfsinfo": "the files are the nodes': `raftdb inspect`",
}


@command(".dump [--no-transaction] [PATTERN...]", most=100)
def _dump(shell: Shell, arguments: list[str]) -> None:
    """The database as SQL, or tables LIKE a pattern; one state of it, rowids included.

    `.read` of it makes the same content, here or in sqlite3. BEGIN and COMMIT stand around it; a
    transaction has its limits, so leave them out (--no-transaction) to read a large one into a
    cluster. Rows are fetched a page at a time.
    """
    transaction = "--no-transaction" not in arguments
    patterns = [one for one in arguments if one != "--no-transaction"]
    if shell.connection.in_transaction:
        raise CommandError("a transaction is open", hint="end it: a dump reads a state of its own")
    # Not in the script: its own text has to be what comes back when it is dumped again.
    hidden = [
        name
        for name, sql in shell.query("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL")[1]
        if is_contentless(sql)
    ]
    try:
        for piece in dump(shell.stream, patterns, transaction=transaction):
            shell.output.write(piece)
    except SchemaMoved as error:
        raise CommandError(str(error)) from None
    for name in hidden:
        shell.say(f"{name} is made, but empty: a contentless index cannot be read back")


@command(".once FILE", least=1, most=1)
def _once(shell: Shell, arguments: list[str]) -> None:
    """Write the next result (of a statement or a command) into a file."""
    shell.redirect(arguments[0], once=True)


@command(".separator [TEXT]", most=1)
def _separator(shell: Shell, arguments: list[str]) -> None:
    """What stands between the values in list mode; \\t and \\n are what they are elsewhere."""
    if not arguments:
        shell.say(f"separator: {shell.settings.style.separator!r}")
        return
    escapes = arguments[0].replace("\\t", "\t").replace("\\n", "\n")
    shell.settings.style.separator = escapes


@command(".width [NUMBER...]", most=1_000)
def _width(shell: Shell, arguments: list[str]) -> None:
    """Widths of the columns in the modes column, table and box; without NUMBER as wide as needed.

    Longer text goes on in the next line. 0 is as wide as needed; a negative one aligns right.
    """
    try:
        widths = tuple(int(text) for text in arguments)
    except ValueError:
        raise CommandError(f"widths are numbers, not {' '.join(arguments)}") from None
    if any(abs(width) > WIDTH_MAX for width in widths):
        raise CommandError(f"a column has {WIDTH_MAX} characters at most")
    shell.settings.style.widths = widths


@command(".eqp [on|off]", most=1)
def _eqp(shell: Shell, arguments: list[str]) -> None:
    """Show how each statement would be carried out (EXPLAIN QUERY PLAN) before its result."""
    shell.settings.plans = switch(shell, arguments, shell.settings.plans, "eqp")


@command(".parameter init|list|clear|set NAME VALUE|unset NAME", least=1, most=3)
def _parameter(shell: Shell, arguments: list[str]) -> None:
    """Values for parameters in statements: ?1, :name, @name and $name.

    VALUE is an SQL expression; what is none is text. A parameter without a value is NULL, once
    there are any.
    """
    known = shell.settings.parameters
    action, *rest = arguments
    wanted = {"init": 0, "list": 0, "clear": 0, "set": 2, "unset": 1}.get(action)
    if wanted != len(rest):
        raise CommandError(f"usage: {find_command('.parameter').usage}")
    if action == "clear":
        known.clear()
    elif action == "list":
        for name, value in sorted(known.items()):
            shell.output.write(f"{name} {literal(value)}\n")
    elif action == "unset":
        known.pop(rest[0], None)
    elif action == "set":
        name, text = rest
        if parameters_of(name) != [name] or name == "?":
            raise CommandError(f"{name} is no parameter", hint="?1, :name, @name or $name")
        try:
            [[known[name]]] = shell.query(f"SELECT {text}")[1]
        except (ProgrammingError, ValueError):
            known[name] = text


@command(".fullschema")
def _fullschema(shell: Shell, arguments: list[str]) -> None:
    """The schema, and the statistics that ANALYZE collected."""
    sql = f"SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND {OWN_NAMES} ORDER BY rowid"
    for (text,) in shell.query(sql)[1]:
        shell.output.write(f"{text};\n")
    tables = "SELECT name FROM sqlite_schema WHERE name IN ('sqlite_stat1', 'sqlite_stat4')"
    for (table,) in shell.query(f"{tables} ORDER BY name")[1]:
        shell.output.write(f"-- {table}\n")
        shell.show(*shell.query(f"SELECT * FROM {table}"))


@command(".databases")
def _databases(shell: Shell, arguments: list[str]) -> None:
    """The database: a cluster holds one."""
    size = "SELECT 'main' AS name, page_count * page_size AS bytes"
    shell.show(*shell.query(f"{size} FROM pragma_page_count, pragma_page_size"))
