"""Text to statements: where one ends, and on which line it began.

A statement ends at a semicolon outside of strings, quoted names, comments and trigger bodies, as
in the SQLite shell, never at the end of a line. Reads line by line, so a file of any size goes
through in bounded memory.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO

from raftdb.base.errors import DataError, ProgrammingError
from raftdb.base.limits import DEFAULT_LIMITS

_OPENS = re.compile(r"""['"`\[;]|--|/\*""")
_CLOSER = {"'": "'", '"': '"', "`": "`", "[": "]", "/*": "*/"}
_NAMES = {"'": "string", '"': "quoted name", "`": "quoted name", "[": "quoted name"}
_COMMENT = re.compile(r"\s+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]+")

_TOKEN = re.compile(
    r"""\s+|--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]"""
    r"""|(?P<word>[^\W\d][\w$]*)|(?P<parameter>\?\d*|[:@$]\w+)|[\d.]\w*|.""",
    re.DOTALL,
)
_VERBS = frozenset({"SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE"})


@dataclass(frozen=True, slots=True)
class Piece:
    """One SQL statement or dot command, with the line (from 1) that it starts on."""

    text: str
    line: int

    @property
    def is_command(self) -> bool:
        """A dot command, not SQL."""
        return self.text.startswith(".")


def without_leading_comments(sql: str) -> str:
    """The statement from its first word on."""
    position = 0
    while match := _COMMENT.match(sql, position):
        position = match.end()
    return sql[position:]


def leading_words(sql: str, count: int = 1) -> tuple[str, ...]:
    """The first words of a statement in upper case, comments skipped; fewer if it has fewer."""
    words: list[str] = []
    rest = sql
    while len(words) < count:
        rest = without_leading_comments(rest)
        match = _WORD.match(rest)
        if match is None:
            break
        words.append(match.group().upper())
        rest = rest[match.end() :]
    return tuple(words)


def verb_of(sql: str) -> str:
    """Its first word, in upper case; of WITH what it is for. Not sure of it: that first word."""
    first, depth = "", 0
    for match in _TOKEN.finditer(sql):
        text = match.group()
        depth += (text == "(") - (text == ")")
        if match.lastgroup == "word" and depth == 0:
            word = text.upper()
            if first and word in _VERBS:
                return word
            first = first or word
            if first != "WITH":
                break
    return first


def parameters_of(sql: str) -> list[str]:
    """The parameters that stand in it, as they are written, in their order."""
    return [match.group() for match in _TOKEN.finditer(sql) if match.lastgroup == "parameter"]


class StatementReader:
    """Feed lines, take pieces. `finish` gives what stands without a semicolon at the end."""

    def __init__(self, bytes_max: int = DEFAULT_LIMITS.sql_bytes_max) -> None:
        self._bytes_max = bytes_max
        self._line = 0
        self._reset()

    def _reset(self) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._start = 0
        self._inside = ""
        self._has_content = False

    @property
    def pending(self) -> bool:
        """A statement has begun and not ended."""
        return self._has_content or bool(self._inside)

    @property
    def inside(self) -> str:
        """What is open: '', a quote character, [ or /*."""
        return self._inside

    def feed(self, line: str) -> Iterator[Piece]:
        """Take one line (with or without its newline). Raises DataError when a statement grows
        past the limit, most likely because a quote is not closed."""
        self._line += 1
        if not self.pending and line.lstrip().startswith("."):
            self._reset()
            yield Piece(line.strip(), self._line)
            return
        if not line.endswith("\n"):
            line += "\n"
        position = 0
        while position < len(line):
            if self._inside:
                position = self._skip_inside(line, position)
                continue
            end, piece = self._take_outside(line, position)
            position = end
            if piece is not None:
                yield piece
        self._check_size()

    def finish(self) -> Piece | None:
        """The last statement when it lacks its semicolon. Raises ProgrammingError when a string,
        name or comment is still open."""
        if self._inside in _NAMES:
            raise ProgrammingError(
                f"the {_NAMES[self._inside]} in the statement that starts at line {self._start} "
                f"is never closed",
                hint=f"add the missing {_CLOSER[self._inside]}",
                code="sql_incomplete",
            )
        text = "".join(self._parts).strip()
        piece = Piece(text, self._start) if self._has_content else None
        self._reset()
        return piece

    def _append(self, text: str, content: bool) -> None:
        if content and not self._has_content:
            self._has_content = True
            self._parts, self._size = [text.lstrip()], len(text)
            self._start = self._line
            return
        self._parts.append(text)
        self._size += len(text)

    def _skip_inside(self, line: str, position: int) -> int:
        closer = _CLOSER[self._inside]
        at = line.find(closer, position)
        end = len(line) if at < 0 else at + len(closer)
        self._append(line[position:end], content=self._inside != "/*")
        if at >= 0:
            self._inside = ""
        return end

    def _take_outside(self, line: str, position: int) -> tuple[int, Piece | None]:
        match = _OPENS.search(line, position)
        end = len(line) if match is None else match.start()
        plain = line[position:end]
        if plain:
            self._append(plain, content=bool(plain.strip()))
        if match is None:
            return end, None
        token = match.group()
        if token == "--":
            self._append(line[end:], content=False)
            return len(line), None
        if token != ";":
            self._inside = token
            self._append(token, content=token != "/*")
            return match.end(), None
        if not self._has_content:
            self._reset()
            return match.end(), None
        self._parts.append(";")
        self._size += 1
        text = "".join(self._parts)
        if not _is_whole(text):
            return match.end(), None
        piece = Piece(text.strip(), self._start)
        self._reset()
        return match.end(), piece

    def _check_size(self) -> None:
        if self._size <= self._bytes_max:
            return
        start, size = self._start or self._line, self._size
        self._reset()
        raise DataError(
            f"the statement that starts at line {start} has more than {self._bytes_max} bytes "
            f"({size} so far)",
            hint="is a quote or a semicolon missing? Large values belong into parameters: "
            "see `raftdb load`",
            code="sql_too_long",
        )


def _is_whole(text: str) -> bool:
    """Whether a statement ends there, and no body of a trigger goes on. What no statement can hold
    (a NUL, half a character) is for whoever runs it to refuse."""
    try:
        return sqlite3.complete_statement(text)
    except ValueError:
        plain = text.encode("utf-8", "replace").decode().replace("\0", "?")
        return sqlite3.complete_statement(plain)


def read_pieces(
    lines: Iterable[str], bytes_max: int = DEFAULT_LIMITS.sql_bytes_max
) -> Iterator[Piece]:
    """All pieces of a script; the last statement may lack its semicolon."""
    reader = StatementReader(bytes_max)
    for line in lines:
        yield from reader.feed(line)
    last = reader.finish()
    if last is not None:
        yield last


def is_complete(text: str) -> bool:
    """Whether Enter should run it: a dot command, nothing, or whole statements."""
    stripped = text.strip()
    if not stripped or stripped.startswith("."):
        return True
    reader = StatementReader()
    for line in StringIO(text, newline="\n"):
        for _piece in reader.feed(line):
            pass
    return not reader.pending
