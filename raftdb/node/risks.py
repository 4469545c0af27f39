"""How a statement may run for long, from its text alone: too much rather than too little.

SQLite can be stopped between two steps of its virtual machine only, and a step may be long: LIKE
with a long pattern on a long text takes the product of both, and a value of many megabytes comes
from one call of printf. So what may contain such a step is kept out of the log until it has been
seen to be quick. (The machine keeps such reads off the loop.)
"""

from __future__ import annotations

import re
from functools import lru_cache

from raftdb.command.requests import Parameters
from raftdb.machine import leading_verb

PLAIN, JOINS, SQUARES, RECURSES = 0, 1, 2, 3
"""Only as a table is long; by joining; by long values; without an end."""
CACHED_BYTES_MAX = 4_096
SHORT_BYTES = 16_384
_SELECT = re.compile(r"\bselect\b", re.IGNORECASE)
_WITH = re.compile(r"\bwith\b", re.IGNORECASE)
_FROM = re.compile(r"\bfrom\b", re.IGNORECASE)
_NAMED = re.compile(r"[\s\S]{0,200}?\b(?:view|trigger)\b", re.IGNORECASE)
_VERBS = frozenset(("SELECT", "VALUES", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE"))
_SQUARES = re.compile(
    r"\b(?:like|glob|match)\b|->|\bcount\s*\(\s*\*|\b(?:instr|replace|[lr]?trim|jsonb?|jsonb?_\w+|hex"
    r"|unhex|zeroblob|randomblob|printf|format|group_concat|string_agg)\s*\(",
    re.IGNORECASE,
)
"""One step, and not a short one: by the product of its operands' lengths, because it makes long
values of short ones, or because it walks a whole table (count(*))."""
_SQUARE_WORDS = (
    *("like", "glob", "match", "->", "count", "instr", "replace", "trim", "json", "hex", "blob("),
    *("printf", "format", "concat", "string_agg"),
)


def risk(sql: str) -> int:
    """PLAIN, JOINS, SQUARES or RECURSES. Any WITH may recurse, whether it says so or not
    (https://www.sqlite.org/lang_with.html)."""
    return _risk_cached(sql) if len(sql) <= CACHED_BYTES_MAX else _risk_of_long(sql)


def _risk_of_long(sql: str) -> int:
    """The same, and quicker: a word may be part of another one, or of a text."""
    lowered = sql.lower()
    if "with" in lowered:
        return RECURSES
    if any(word in lowered for word in _SQUARE_WORDS):
        return SQUARES
    return JOINS if "select" in lowered or "from" in lowered else PLAIN


def _risk(sql: str) -> int:
    verb = leading_verb(sql)
    if verb not in _VERBS or (verb == "CREATE" and _NAMED.match(sql)):
        return PLAIN
    if _WITH.search(sql):
        return RECURSES
    if _SQUARES.search(sql):
        return SQUARES
    if _SELECT.search(sql) or (verb == "UPDATE" and _FROM.search(sql)):
        return JOINS
    return PLAIN


_risk_cached = lru_cache(maxsize=2_048)(_risk)


def is_short(parameters: Parameters) -> bool:
    """Whether there is no long value among them."""
    values = parameters.values() if isinstance(parameters, dict) else parameters
    return sum(len(value) for value in values if isinstance(value, str | bytes)) <= SHORT_BYTES
