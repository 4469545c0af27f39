"""Dot commands: a function per command, registered by decorator; its docstring is its help."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raftdb.shell.formats import FORMATS
from raftdb.shell.port import READ_LEVELS, Import, is_level

if TYPE_CHECKING:
    from raftdb.shell.shell import Shell

Handler = Callable[["Shell", list[str]], None]


class CommandError(Exception):
    """A dot command was used wrongly."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Command:
    """One dot command."""

    name: str
    usage: str
    arguments_min: int
    arguments_max: int
    run: Handler

    @property
    def help(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.run) or "").split("\n", 1)[0]


OWN_NAMES = (
    "tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name NOT LIKE '\\_raftdb\\_%' ESCAPE '\\'"
)
"""SQL: what the user made, and neither SQLite nor raftdb for itself."""
COMMANDS: dict[str, Command] = {}
ABSENT: dict[str, str] = {}
"""Commands of the sqlite3 shell that make no sense here, and the way out."""


def command(usage: str, least: int = 0, most: int = 0) -> Callable[[Handler], Handler]:
    """Register a command. `usage` is its name and arguments, as help shows them."""

    def register(handler: Handler) -> Handler:
        name = usage.split()[0]
        COMMANDS[name] = Command(name, usage, least, most, handler)
        return handler

    return register


def run_command(shell: Shell, text: str) -> None:
    """Run a line that starts with a dot. Raises CommandError."""
    try:
        line = text.rstrip()
        # A semicolon of its own is an argument: `.separator ;`
        words = shlex.split(line if line.endswith(" ;") else line.removesuffix(";"))
    except ValueError as error:
        raise CommandError(f"{text}: {error}", hint="close the quote") from None
    found = find_command(words[0])
    arguments = words[1:]
    if not found.arguments_min <= len(arguments) <= found.arguments_max:
        raise CommandError(f"usage: {found.usage}")
    found.run(shell, arguments)


def find_command(name: str) -> Command:
    """By name, or by the beginning of a name that fits only one. Raises CommandError."""
    if name in COMMANDS:
        return COMMANDS[name]
    fitting = [one for one in sorted(COMMANDS) if one.startswith(name)] if len(name) > 1 else []
    if len(fitting) == 1:
        return COMMANDS[fitting[0]]
    if name in ABSENT:
        raise CommandError(f"there is no command {name} here", hint=ABSENT[name])
    hint = "did you mean " + " or ".join(fitting) + "?" if fitting else ".help lists them all"
    raise CommandError(f"there is no command {name}", hint=hint)


def switch(shell: Shell, arguments: list[str], current: bool, name: str) -> bool:
    """What a command that turns `name` on or off was given; without arguments it says which."""
    if not arguments:
        shell.say(f"{name}: {'on' if current else 'off'}")
        return current
    value = arguments[0].lower()
    if value not in ("on", "off"):
        raise CommandError(f"{name} is on or off, not {arguments[0]!r}")
    return value == "on"


@command(".help [COMMAND]", most=1)
def _help(shell: Shell, arguments: list[str]) -> None:
    """This list, or all about one command."""
    if arguments:
        found = find_command("." + arguments[0].lstrip("."))
        shell.say(f"{found.usage}\n\n{inspect.getdoc(found.run)}")
        return
    width = max(len(one.usage) for one in COMMANDS.values())
    for name in sorted(COMMANDS):
        one = COMMANDS[name]
        shell.say(f"{one.usage:<{width}}  {one.help}")


@command(".quit")
def _quit(shell: Shell, arguments: list[str]) -> None:
    """Leave the shell."""
    shell.quitting = True


@command(".exit")
def _exit(shell: Shell, arguments: list[str]) -> None:
    """Leave the shell."""
    shell.quitting = True


@command(".tables [PATTERN]", most=1)
def _tables(shell: Shell, arguments: list[str]) -> None:
    """Names of tables and views, those LIKE a pattern."""
    sql = (
        "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') "
        f"AND {OWN_NAMES} AND name LIKE ? ORDER BY name"
    )
    shell.show(*shell.query(sql, (arguments[0] if arguments else "%",)))


@command(".schema [NAME]", most=1)
def _schema(shell: Shell, arguments: list[str]) -> None:
    """The statements that made the tables, indexes, views and triggers.

    With a name: of that table and all that belongs to it. The output is SQL that can be run.
    """
    sql = (
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL "
        f"AND {OWN_NAMES} AND (? IS NULL OR tbl_name LIKE ? "
        "OR name LIKE ?) ORDER BY tbl_name, type = 'table' DESC, name"
    )
    name = arguments[0] if arguments else None
    _columns, rows = shell.query(sql, (name, name, name))
    for (text,) in rows:
        shell.output.write(f"{text};\n")


@command(".indexes [TABLE]", most=1)
def _indexes(shell: Shell, arguments: list[str]) -> None:
    """Indexes, of one table or of all."""
    sql = (
        "SELECT name, tbl_name AS 'table' FROM sqlite_schema WHERE type = 'index' "
        f"AND {OWN_NAMES} "
        "AND (? IS NULL OR tbl_name LIKE ?) ORDER BY tbl_name, name"
    )
    name = arguments[0] if arguments else None
    shell.show(*shell.query(sql, (name, name)))


@command(".mode [FORMAT [TABLE]]", most=2)
def _mode(shell: Shell, arguments: list[str]) -> None:
    """Output format: table, box, column, csv, json, jsonl, line, list, markdown, tabs and more.

    `insert TABLE` writes INSERT statements, `quote` SQL literals, `list` what `.separator` says
    between the values.
    """
    style = shell.settings.style
    if not arguments:
        shell.say(f"mode: {style.format}")
        return
    if arguments[0] not in FORMATS:
        raise CommandError(f"there is no mode {arguments[0]}", hint="one of " + ", ".join(FORMATS))
    if len(arguments) == 2 and arguments[0] != "insert":
        raise CommandError("only the mode insert takes a table")
    style.format = arguments[0]
    if len(arguments) == 2:
        style.table = arguments[1]


@command(".headers [on|off]", most=1)
def _headers(shell: Shell, arguments: list[str]) -> None:
    """Column names above tables and in the first line of CSV."""
    style = shell.settings.style
    style.headers = switch(shell, arguments, style.headers, "headers")


@command(".nullvalue [TEXT]", most=1)
def _nullvalue(shell: Shell, arguments: list[str]) -> None:
    """What stands for NULL in table, line, markdown and CSV; without TEXT the format's own."""
    shell.settings.style.null = arguments[0] if arguments else None


@command(".timer [on|off]", most=1)
def _timer(shell: Shell, arguments: list[str]) -> None:
    """Say how long each statement took, the way to the cluster and back included."""
    shell.settings.timer = switch(shell, arguments, shell.settings.timer, "timer")


@command(".changes [on|off]", most=1)
def _changes(shell: Shell, arguments: list[str]) -> None:
    """Say how many rows each write changed."""
    shell.settings.changes = switch(shell, arguments, shell.settings.changes, "changes")


@command(".bail [on|off]", most=1)
def _bail(shell: Shell, arguments: list[str]) -> None:
    """Stop a script at its first error."""
    shell.settings.bail = switch(shell, arguments, shell.settings.bail, "bail")


@command(".echo [on|off]", most=1)
def _echo(shell: Shell, arguments: list[str]) -> None:
    """Write each statement before its result."""
    shell.settings.echo = switch(shell, arguments, shell.settings.echo, "echo")


@command(".level [LEVEL]", most=1)
def _level(shell: Shell, arguments: list[str]) -> None:
    """Read level of what follows: linearizable, session, bounded(SECONDS) or local.

    `linearizable` sees every acknowledged write, `session` the own ones, `bounded(2)` what was so
    two seconds ago at most. `local` reads what the node at hand has applied; it needs no leader.
    """
    if not arguments:
        shell.say(f"level: {shell.settings.level}")
        return
    if not is_level(arguments[0]):
        raise CommandError(
            f"there is no read level {arguments[0]}", hint="one of " + ", ".join(READ_LEVELS)
        )
    shell.settings.level = arguments[0]


@command(".read FILE", least=1, most=1)
def _read(shell: Shell, arguments: list[str]) -> None:
    """Run the statements and commands in a file."""
    shell.run_file(arguments[0])


@command(".resume")
def _resume(shell: Shell, arguments: list[str]) -> None:
    """Bring a write whose outcome is unknown to its end: applied once, and its result shown.

    It is sent again under its old number, so that nodes which know it only repeat its result.
    """
    if not shell.connection.unsettled:
        raise CommandError("there is no write whose outcome is unknown")
    for result in shell.connection.resume():
        if result.columns:
            shell.show(list(result.columns), list(result.rows))
    shell.say("settled: the write is applied, once")


@command(".output [FILE]", most=1)
def _output(shell: Shell, arguments: list[str]) -> None:
    """Write results into a file; without FILE to the screen again."""
    shell.redirect(arguments[0] if arguments else None)


@command(".print TEXT...", most=1000)
def _print(shell: Shell, arguments: list[str]) -> None:
    """Write a line among the results."""
    shell.output.write(" ".join(arguments) + "\n")


@command(".import [--csv|--ascii] [--skip N] [--schema main] [-v] FILE TABLE", least=2, most=9)
def _import(shell: Shell, arguments: list[str]) -> None:
    """Load a CSV, JSON or JSON-lines file into a table (made if missing), as `raftdb load` does.

    A CSV file's first line names the columns then, and values get types. With --csv, --ascii
    (fields end with 0x1f, rows with 0x1e) or --skip it is as in sqlite3: fields count by their
    place, the first row names columns only where the table is missing, and --skip leaves rows
    out. -v tells how many rows. A row that cannot be inserted stops it; those before it are in.
    """
    if shell.hooks.import_file is None:
        raise CommandError(".import is not available here")
    shell.hooks.import_file(shell.connection, _import_of(arguments), shell.messages)
    shell.schema_version += 1


def _import_of(arguments: list[str]) -> Import:
    style, skip, verbose = "", -1, False
    names: list[str] = []
    rest = iter(arguments)
    for word in rest:
        option = word if word.startswith("-") else ""
        match "-" + option.lstrip("-"):
            case "-csv" | "-ascii":
                style = option.lstrip("-")
            case "-skip":
                skip = _rows_of(next(rest, ""))
            case "-schema":
                if (schema := next(rest, "")) != "main":
                    raise CommandError(f"there is no schema {schema!r}", hint="it is main")
            case "-v":
                verbose = True
            case "-":
                names.append(word)
            case _:
                raise CommandError(f"unknown option {word}", hint=".help import")
    if len(names) != 2:
        raise CommandError(f"usage: {COMMANDS['.import'].usage}")
    if skip >= 0 and not style:
        style = "csv"
    return Import(names[0], names[1], style, max(0, skip), verbose)


def _rows_of(word: str) -> int:
    if not word.isdecimal():
        raise CommandError(f"--skip takes a number of rows, not {word!r}")
    return int(word)


@command(".status")
def _status(shell: Shell, arguments: list[str]) -> None:
    """The cluster: nodes, roles, terms, indexes, lag."""
    if shell.hooks.status is None:
        raise CommandError(".status is not available here")
    shell.hooks.status(shell.output)


@command(".leader")
def _leader(shell: Shell, arguments: list[str]) -> None:
    """The node that leads."""
    if shell.hooks.leader is None:
        raise CommandError(".leader is not available here")
    shell.output.write(shell.hooks.leader() + "\n")


@command(".show")
def _show(shell: Shell, arguments: list[str]) -> None:
    """All settings."""
    settings = shell.settings
    null = settings.style.null
    for name, value in (
        ("mode", settings.style.format),
        ("headers", settings.style.headers),
        ("separator", repr(settings.style.separator)),
        ("nullvalue", "the format's own" if null is None else repr(null)),
        ("level", settings.level),
        ("timer", settings.timer),
        ("changes", settings.changes),
        ("bail", settings.bail),
        ("echo", settings.echo),
        ("eqp", settings.plans),
        ("width", " ".join(map(str, settings.style.widths))),
    ):
        word = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        shell.say(f"{name:>9}: {word}")
