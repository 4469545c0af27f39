"""What the client can tell of SQL from its text: read or write, and where statements end.

SQLite's own compiler decides at the node; here everything uncertain counts as a write, which is
always right and only slower. Tokens: https://www.sqlite.org/lang_keywords.html, lang_comment.html.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from functools import lru_cache

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n\f\r\ufeff]+ | --[^\n]*(?:\n|\Z) | /\*(?:.*?\*/|.*\Z))
  | (?P<quoted>'(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z)
                | \[[^\]]*(?:\]|\Z))
  | (?P<word>[^\W\d][\w$]*)
  | (?P<other>.)
""",
    re.VERBOSE | re.DOTALL,
)

READ, WRITE, BLANK = "read", "write", "blank"

_READ_VERBS = frozenset(("SELECT", "VALUES", "EXPLAIN"))
_CHANGE_VERBS = frozenset(("INSERT", "REPLACE", "UPDATE", "DELETE"))

# PRAGMAs that only tell. Those of the first kind take an argument and still only tell.
_PRAGMAS_WITH_ARGUMENT = re.compile(
    r"table_(x?info|list)|index_(list|x?info)|foreign_key_(list|check)|(integrity|quick)_check"
)
_PRAGMAS_WITHOUT = re.compile(
    _PRAGMAS_WITH_ARGUMENT.pattern + r"|(database|collation|function|module|pragma)_list"
    r"|compile_options|(user|schema|data)_version|application_id|encoding|page_(count|size)"
    r"|freelist_count"
)
SHORT = 4_096
"""Characters of a statement up to which its kind is remembered."""


class Kind:
    """What one statement is, as far as its text tells."""

    __slots__ = ("kind", "verb")

    def __init__(self, kind: str, verb: str) -> None:
        self.kind = kind
        """READ, WRITE or BLANK."""
        self.verb = verb
        """The verb that decides, in upper case: INSERT for WITH … INSERT."""

    @property
    def changes_rows(self) -> bool:
        """INSERT, REPLACE, UPDATE or DELETE: `rowcount` has a meaning."""
        return self.verb in _CHANGE_VERBS

    @property
    def inserts(self) -> bool:
        """INSERT or REPLACE: `lastrowid` has a meaning."""
        return self.verb in ("INSERT", "REPLACE")


def classify(sql: str) -> Kind:
    """Read, write, or nothing at all."""
    if len(sql) > SHORT:
        return _classify(sql)
    return classify_short(sql)


def _classify(sql: str) -> Kind:
    tokens = _tokens(sql)
    for kind, text in tokens:
        if text == ";":
            continue
        verb = text.upper() if kind == "word" else ""
        if verb in _READ_VERBS:
            return Kind(READ, verb)
        if verb == "WITH":
            verb = _verb_after_with(tokens)
            return Kind(READ if verb in ("SELECT", "VALUES") else WRITE, verb)
        if verb == "PRAGMA":
            return Kind(_pragma(tokens), verb)
        return Kind(WRITE, verb)
    return Kind(BLANK, "")


classify_short = lru_cache(maxsize=1024)(_classify)
"""`classify` for SQL of at most SHORT characters."""


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of all tokens but white space and comments."""
    for match in _TOKEN.finditer(sql):
        if match.lastgroup != "space":
            yield str(match.lastgroup), match.group()


def _verb_after_with(tokens: Iterator[tuple[str, str]]) -> str:
    """WITH [RECURSIVE] name [(columns)] AS [[NOT] MATERIALIZED] (select), … verb: the verb is the
    first word outside of parentheses behind a closing one that is not AS."""
    depth, closed = 0, False
    for kind, text in tokens:
        if text == "(":
            depth, closed = depth + 1, False
        elif text == ")":
            depth, closed = depth - 1, True
        else:
            word = text.upper()
            if depth == 0 and closed and kind == "word" and word != "AS":
                return word
            closed = False
    return ""


def _pragma(tokens: Iterator[tuple[str, str]]) -> str:
    """PRAGMA [schema.]name [= value | (value)]"""
    texts = [text for _kind, text in tokens if text != ";"]
    if len(texts) > 2 and texts[1] == ".":
        texts = texts[2:]
    if not texts:
        return WRITE
    name = texts[0].lower()
    if len(texts) == 1:
        return READ if _PRAGMAS_WITHOUT.fullmatch(name) else WRITE
    tells = texts[1] == "(" and _PRAGMAS_WITH_ARGUMENT.fullmatch(name)
    return READ if tells else WRITE


_TRUE = frozenset(("on", "yes", "true"))


def keys_pragma(sql: str) -> bool | str | None:
    """PRAGMA foreign_keys, which is the connection's own affair: whether it is to be on; `` when
    only asked; None for every other statement. Anything that is not true is false, as in SQLite."""
    texts = [text.lower() for _kind, text in _tokens(sql) if text != ";"]
    if texts[2:3] == ["."]:
        texts = texts[:1] + texts[3:]
    if texts[:2] != ["pragma", "foreign_keys"]:
        return None
    rest = texts[2:]
    if not rest:
        return ""
    if rest[0] == "(" and rest[-1] == ")":
        rest = rest[:-1]
    if rest[0] not in ("=", "(") or len(rest) != 2:
        return None
    value = rest[1].strip("'\"")
    return int(value) != 0 if value.isdigit() else value in _TRUE


_MODES = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")
BEGIN, BEGIN_NOW, COMMIT, ROLLBACK, SAVEPOINT = (
    "begin",
    "begin now",
    "commit",
    "rollback",
    "savepoint",
)


def control_of(sql: str, kind: Kind) -> str:
    """Which step of a transaction a statement is (`` for none), when it is one for the client to
    take: BEGIN [DEFERRED | IMMEDIATE | EXCLUSIVE] [TRANSACTION], COMMIT, END, ROLLBACK (without
    TO); SAVEPOINT, which begins a transaction where none is open."""
    if kind.verb not in ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT"):
        return ""
    if kind.verb == "SAVEPOINT":
        return SAVEPOINT
    found = [text.upper() for _kind, text in _tokens(sql) if text != ";"]
    rest = found[1:]
    if kind.verb == "BEGIN" and rest[:1] and rest[0] in _MODES:
        rest = rest[1:]
    if rest not in ([], ["TRANSACTION"]):
        return ""
    if kind.verb == "BEGIN":
        return BEGIN_NOW if found[1:2] and found[1] in _MODES[1:] else BEGIN
    return ROLLBACK if kind.verb == "ROLLBACK" else COMMIT


_SAVEPOINTS = {
    "SAVEPOINT": ("SAVEPOINT",),
    "RELEASE": ("RELEASE", "?SAVEPOINT"),
    "ROLLBACK": ("ROLLBACK", "?TRANSACTION", "TO", "?SAVEPOINT"),
}
"""By verb, the words before the name; `?`: it may be left out."""
_NAME = re.compile(
    r"""(?P<quote>['"`])(?P<quoted>.*)(?P=quote)|\[(?P<bracketed>.*)\]|(?P<plain>.+)""", re.S
)


def savepoint_of(sql: str) -> str | None:
    """The name in SAVEPOINT, RELEASE or ROLLBACK TO, as the nodes compare names (what is in the log
    keeps them from changing how); None for what they call a syntax error."""
    found = [text.upper() if kind == "word" else text for kind, text in _tokens(sql) if text != ";"]
    for word in _SAVEPOINTS.get(found[0] if found else "", ("",)):
        optional, word = word.startswith("?"), word.removeprefix("?")
        # An optional word that is the last one is the name itself.
        if found and found[0] == word and not (optional and len(found) == 1):
            del found[0]
        elif not optional:
            return None
    match = _NAME.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        return None
    name, quote = match["plain"] or match["bracketed"] or match["quoted"] or "", match["quote"]
    return (name.replace(2 * quote, quote) if quote else name).lower()


def split(script: str) -> list[str]:
    """The statements of a script, without those that are blank. Semicolons in strings, comments and
    trigger bodies don't end a statement."""
    found: list[str] = []
    start, first_words = 0, 0
    trigger = False
    for match in _TOKEN.finditer(script):
        if match.lastgroup == "word" and first_words < 4:
            first_words += 1
            trigger = trigger or match.group().upper() == "TRIGGER"
        if match.group() != ";":
            continue
        text = script[start : match.end()]
        # Only a trigger holds semicolons of its own, and SQLite knows where one ends.
        if trigger and not sqlite3.complete_statement(text):
            continue
        found.append(text)
        start, first_words, trigger = match.end(), 0, False
    found.append(script[start:])
    return [text.strip() for text in found if classify(text).kind != BLANK]
