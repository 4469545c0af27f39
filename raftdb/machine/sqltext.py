"""What can be told of a statement from its text alone, without a database.

SQLite's own compiler decides what a statement means; this file only finds where a statement
begins and ends, and its leading verb. Comments, strings and quoted names are skipped as SQLite's
tokenizer does (https://www.sqlite.org/lang_comment.html, lang_keywords.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n\f\r\ufeff]+ | --[^\n]*(?:\n|\Z) | /\*(?:.*?\*/|.*\Z))
  | (?P<quoted>'(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z)
                | \[[^\]]*(?:\]|\Z))
  | (?P<word>[^\W\d][\w$]*)
  | (?P<other>[^\s])
""",
    re.VERBOSE | re.DOTALL,
)

DML = frozenset(("SELECT", "VALUES", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE"))
"""Statements that begin so change no schema and no setting; they can be cached and batched."""

_READ_VERBS = frozenset(("SELECT", "VALUES", "EXPLAIN"))
_WITH_VERBS = frozenset(("SELECT", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE"))
_CACHED_BYTES_MAX = 4096
"""Longer texts are looked at afresh each time, so that the cache stays small."""


def leading_verb(sql: str) -> str:
    """The first word in upper case; `` when there is none (an empty statement, a stray sign)."""
    if len(sql) > _CACHED_BYTES_MAX:
        return _leading_verb(sql)
    return _leading_verb_cached(sql)


def _leading_verb(sql: str) -> str:
    position = 0
    while match := _TOKEN.match(sql, position):
        if match.lastgroup == "space" or match.group() == ";":
            position = match.end()
            continue
        return match.group().upper() if match.lastgroup == "word" else ""
    return ""


_leading_verb_cached = lru_cache(maxsize=2048)(_leading_verb)


_PLAIN_INSERT = re.compile(
    r"\s*(?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO\s+[\w.\"`\[\]]+\s*(?:\([\w\s,\"`\[\]]*\))?\s*"
    r"VALUES\s*\([\s\w?,:@$]*\)[\s;]*",
    re.IGNORECASE,
)


def is_plain_insert(sql: str) -> bool:
    """Whether it puts in rows of parameters and short literals, and nothing that it makes of them.
    False where that is not easily seen."""
    if len(sql) > _CACHED_BYTES_MAX:
        return False
    return _is_plain_insert_cached(sql)


@lru_cache(maxsize=2048)
def _is_plain_insert_cached(sql: str) -> bool:
    return _PLAIN_INSERT.fullmatch(sql) is not None


CONTROL = frozenset(("SAVEPOINT", "RELEASE", "ROLLBACK"))
"""Statements that begin so move within an interactive transaction."""


def words(sql: str, count_max: int = 6) -> list[str]:
    """The first tokens of a statement, without comments, semicolons and what stands for itself:
    words in upper case, quoted names as they are."""
    found: list[str] = []
    position = 0
    while len(found) < count_max and (match := _TOKEN.match(sql, position)):
        position = match.end()
        if match.lastgroup == "space" or match.group() == ";":
            continue
        found.append(match.group().upper() if match.lastgroup == "word" else match.group())
    return found


def tokens(sql: str) -> Iterator[tuple[str, str, int]]:
    """Each token: its text, its kind (`space`, comments included; `quoted`, `word`, `other`), and
    where it ends."""
    position = 0
    while match := _TOKEN.match(sql, position):
        position = match.end()
        yield match.group(), str(match.lastgroup), position


def is_blank(text: str) -> bool:
    """Whether nothing but white space, comments and semicolons is left."""
    position = 0
    while match := _TOKEN.match(text, position):
        if match.lastgroup != "space" and match.group() != ";":
            return False
        position = match.end()
    return position == len(text)


def is_read(sql: str, readable_pragmas: frozenset[str]) -> bool:
    """Whether the statement only reads, so that it may go to a reader instead of the log.

    SELECT, VALUES and EXPLAIN; WITH whose main verb is SELECT or VALUES; PRAGMA by name, when no
    value is assigned. Everything else is not, ATTACH, COMMIT and PRAGMA x = y among it.
    """
    if len(sql) > _CACHED_BYTES_MAX:
        return _is_read(sql, readable_pragmas)
    return _is_read_cached(sql, readable_pragmas)


def _is_read(sql: str, readable_pragmas: frozenset[str]) -> bool:
    verb = _leading_verb(sql)
    if verb in _READ_VERBS:
        return True
    if verb == "WITH":
        return _main_verb(sql) in ("SELECT", "VALUES")
    if verb == "PRAGMA":
        return _pragma_reads(sql, readable_pragmas)
    return False


_is_read_cached = lru_cache(maxsize=2048)(_is_read)


def _main_verb(sql: str) -> str:
    """The verb of a WITH statement: the word after the body of the last common table.

    A body is what stands in parentheses after AS [NOT] [MATERIALIZED]; behind it comes a comma and
    another common table, or the verb.
    """
    depth, after_as, after_body, position = 0, False, False, 0
    while match := _TOKEN.match(sql, position):
        position = match.end()
        kind, text = match.lastgroup, match.group()
        if kind == "space":
            continue
        if text == "(":
            depth += 1
        elif text == ")":
            depth -= 1
            after_body = depth == 0 and after_as
            after_as = after_as and depth != 0
            continue
        elif depth == 0:
            word = text.upper() if kind == "word" else ""
            if after_body:
                if word:
                    return word if word in _WITH_VERBS else ""
            elif word == "AS":
                after_as = True
        after_body = False
    return ""


def _pragma_reads(sql: str, readable_pragmas: frozenset[str]) -> bool:
    words: list[str] = []
    position = 0
    while match := _TOKEN.match(sql, position):
        position = match.end()
        if match.lastgroup != "space":
            words.append(match.group().lower())
        if len(words) > 4:
            break
    words = words[1:]
    if words[1:2] == ["."]:
        words = words[2:]
    if not words or words[0] not in readable_pragmas:
        return False
    return words[1:2] != ["="]
