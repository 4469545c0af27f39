"""The interactive prompt: history, multi-line statements, colours and completion."""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from raftdb.base.errors import Error
from raftdb.shell.commands import COMMANDS, OWN_NAMES
from raftdb.shell.statements import Piece, StatementReader, is_complete

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from raftdb.shell.shell import Shell

KEYWORDS = """
    ABORT ADD ALTER ANALYZE AND AS ASC BEGIN BETWEEN BY CASCADE CASE CAST CHECK COLLATE COLUMN
    COMMIT CONFLICT CONSTRAINT CREATE CROSS CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DEFAULT
    DELETE DESC DISTINCT DO DROP ELSE END ESCAPE EXCEPT EXISTS EXPLAIN FOREIGN FROM GENERATED GLOB
    GROUP HAVING IF IGNORE IN INDEX INNER INSERT INTERSECT INTO IS JOIN KEY LEFT LIKE LIMIT MATCH
    NATURAL NOT NOTHING NULL OFFSET ON OR ORDER OUTER OVER PARTITION PRAGMA PRIMARY QUERY RECURSIVE
    REFERENCES REINDEX RELEASE RENAME REPLACE RETURNING ROLLBACK ROW ROWS SAVEPOINT SELECT SET
    STRICT TABLE THEN TO TRANSACTION TRIGGER UNION UNIQUE UPDATE USING VALUES VIEW VIRTUAL WHEN
    WHERE WINDOW WITH WITHOUT"""
_NAMES_SQL = (
    f"SELECT name FROM sqlite_schema WHERE {OWN_NAMES} "
    "UNION SELECT c.name FROM sqlite_schema AS s, pragma_table_info(s.name) AS c "
    f"WHERE s.type IN ('table', 'view') AND {OWN_NAMES} "
    "ORDER BY 1 LIMIT 5000"
)


class SqlCompleter(Completer):
    """Keywords, dot commands, and the names of tables and columns.

    Names are read once, with a local read, and again after a statement that changed the schema.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._names: tuple[str, ...] = ()
        self._version = -1

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        """Completions of the word before the cursor."""
        before = document.text_before_cursor
        if before.lstrip().startswith(".") and " " not in before.lstrip():
            word = before.lstrip()
            yield from (
                Completion(one.name, -len(word), display_meta=one.help)
                for one in COMMANDS.values()
                if one.name.startswith(word)
            )
            return
        word = document.get_word_before_cursor()
        if not word:
            return
        folded = word.casefold()
        for name in self._known_names():
            if name.casefold().startswith(folded):
                yield Completion(name, -len(word))
        for keyword in KEYWORDS.split():
            if keyword.startswith(word.upper()):
                yield Completion(keyword if word.isupper() else keyword.lower(), -len(word))

    def _known_names(self) -> tuple[str, ...]:
        if self._shell.connection.in_transaction:
            return self._names
        if self._version != self._shell.schema_version:
            self._version = self._shell.schema_version
            try:
                cursor = self._shell.connection.execute(_NAMES_SQL, (), read="local")
                self._names = tuple(row[0] for row in cursor.fetchall())
            except Error:
                self._names = ()
        return self._names


def history_path() -> Path:
    """`RAFTDB_HISTORY`, else `raftdb/history` in the user's state directory."""
    named = os.environ.get("RAFTDB_HISTORY")
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "raftdb" / "history"


def open_history(path: Path) -> History:
    """The history file, readable by its owner alone; in memory where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def run_prompt(
    shell: Shell,
    title: str,
    terminal_input: Input | None = None,
    terminal_output: Output | None = None,
    history: History | None = None,
) -> None:
    """Read and run until `.quit` or Ctrl-D. Ctrl-C forgets the line, or stops waiting."""
    session: PromptSession[str] = PromptSession(
        history=history or open_history(history_path()),
        lexer=PygmentsLexer(SqlLexer),
        completer=SqlCompleter(shell),
        complete_while_typing=False,
        complete_in_thread=False,
        auto_suggest=AutoSuggestFromHistory(),
        multiline=Condition(lambda: not is_complete(session.default_buffer.text)),
        prompt_continuation=lambda width, line, wrap: " " * (width - 4) + "... ",
        input=terminal_input,
        output=terminal_output,
    )
    while not shell.quitting:
        try:
            text = session.prompt(HTML("<b>{}{}&gt;</b> ").format(title, _mark(shell)))
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        _run_typed(shell, text)


def _mark(shell: Shell) -> str:
    """An asterisk while a transaction is open."""
    return "*" if shell.connection.in_transaction else ""


def _run_typed(shell: Shell, text: str) -> None:
    reader = StatementReader()
    pieces: list[Piece] = []
    try:
        for line in StringIO(text, newline="\n"):
            pieces.extend(reader.feed(line))
        last = reader.finish()
    except Error as error:
        shell.report(error)
        return
    for piece in [*pieces, *([last] if last else [])]:
        try:
            if not shell.run_piece(piece, "") or shell.quitting:
                return
        except KeyboardInterrupt:
            shell.say("stopped waiting; if that was a write, it may have been applied")
            return
