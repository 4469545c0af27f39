"""The SQL shell: statements and dot commands in, rows out.

Owns: splitting text into statements, output formats, dot commands, the interactive prompt.
Promises: data goes to the output and messages to the other stream; a statement ends at its
semicolon, never at a line's end; data formats are exact; the exit code is the first failure's.
May import: base. The connection and everything beside the shell are handed in.
Never: a socket; printing; SQL that is not the user's own or a read of the schema.
"""

import raftdb.shell.familiar  # noqa: F401  (it registers its commands)
from raftdb.shell.commands import COMMANDS, CommandError, command
from raftdb.shell.formats import FORMATS, Style, text_of, to_json, write_rows
from raftdb.shell.port import READ_LEVELS, Connection, Cursor, Import, is_level
from raftdb.shell.shell import Hooks, Settings, Shell, describe
from raftdb.shell.statements import Piece, StatementReader, read_pieces

__all__ = [
    "COMMANDS",
    "FORMATS",
    "READ_LEVELS",
    "CommandError",
    "Connection",
    "Cursor",
    "Hooks",
    "Import",
    "Piece",
    "Settings",
    "Shell",
    "StatementReader",
    "Style",
    "command",
    "describe",
    "is_level",
    "read_pieces",
    "text_of",
    "to_json",
    "write_rows",
]
