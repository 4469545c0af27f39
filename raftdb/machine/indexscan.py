"""Whether an index says what its table says, some entries at a time.

An index that disagrees with its table gives wrong answers without an error, and neither the content
hash nor a page's checksum sees it. What is done is what `PRAGMA integrity_check` does for an index,
in pieces: each row is looked up in it by all columns of its key, so that an entry that is missing,
stale or out of its order is not found; and it has as many entries as rows were looked up, so that
there is none beside (https://www.sqlite.org/dbstat.html counts them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from raftdb.machine.format import MARK
from raftdb.machine.layout import Run, quote, read_layout, run_pragma
from raftdb.machine.sqltext import tokens

_OUTER = "_raftdb_o"
"""No table of a user has such a name."""
_EXPRESSION, _ROWID = -2, -1
_TAIL = re.compile(r"ASC|DESC", re.IGNORECASE)


def index_names(run: Run, table: str) -> list[str]:
    """Indexes of a table, those of its constraints included. The primary key of a table WITHOUT
    ROWID is the table."""
    names = {row[1] for row in run_pragma(run, "index_list", table)}
    roots = f"SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? {MARK}"
    return sorted(names & {name for (name,) in run(roots, (table,))})


def lookups(run: Run, table: str, index: str) -> str:
    """SQL that tells of each row that belongs into the index how many entries of it are there. ``:
    the index is gone, or cannot be searched for single entries (nothing names its table's rowid).
    """
    layout = read_layout(run, table)
    query = f"SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ? {MARK}"
    found = list(run(query, (index,)))
    if not found:
        return ""
    expressions, condition = definition(found[0][0] or "")
    outer: list[str] = []
    terms: list[str] = []
    keys = 0
    for row in run_pragma(run, "index_xinfo", index):
        position, column, name, _descending, collation, is_key = row
        keys += is_key
        if column == _ROWID:
            if not layout.rowid:
                return ""
            value = f"{quote(table)}.{layout.rowid}"
        elif column == _EXPRESSION:
            value = f"({expressions[position]}\n)"
        else:
            value = f"{quote(table)}.{quote(name)}"
        outer.append(f"{value} AS c{position}")
        terms.append(f"{value} COLLATE {quote(collation)} IS {_OUTER}.c{position}")
        if collation.upper() != "BINARY":
            # Found by its order; and it has to be the value itself.
            terms.append(f"{value} COLLATE binary IS {_OUTER}.c{position}")
    where = f"({condition}\n)" if condition else "1"
    source = f"main.{quote(table)}"
    count = (
        f"(SELECT count(*) FROM {source} INDEXED BY {quote(index)}"
        f" WHERE {where} AND {' AND '.join(terms)})"
    )
    rows = (
        f"FROM (SELECT {', '.join(outer)} FROM {source} {layout.by_table}"
        f" WHERE {where}) AS {_OUTER} {MARK}"
    )
    searched = _terms(run, f"SELECT {count} {rows}", index)
    if searched >= len(outer):
        return f"SELECT {count} {rows}"
    if not _is_unique(run, table, index) or searched < keys:
        return ""
    # SQLite finds a primary key without the rowid behind it. Of those with a NULL there may be
    # many, among which each would be looked for: they are only counted.
    nulls = " OR ".join(f"c{position} IS NULL" for position in range(keys))
    return f"SELECT CASE WHEN {nulls} THEN 1 ELSE {count} END {rows}"


def entries(run: Run, index: str) -> Iterator[tuple[int]]:
    """How many entries each page of an index has."""
    query = f"SELECT ncell FROM temp.dbstat WHERE schema = 'main' AND name = ? {MARK}"
    return iter(run(query, (index,)))


def _terms(run: Run, seek: str, index: str) -> int:
    """By how many terms each row is searched for, rather than among many."""
    for *_ids, text in run(f"EXPLAIN QUERY PLAN {seek}"):
        if text.startswith("SEARCH ") and f" INDEX {index} (" in text:
            return int(text.count("=?"))
    return 0


def _is_unique(run: Run, table: str, index: str) -> bool:
    return any(row[2] for row in run_pragma(run, "index_list", table) if row[1] == index)


def definition(sql: str) -> tuple[list[str], str]:
    """What CREATE INDEX says: each column or expression without its order and collation, and the
    condition of a partial index or ``."""
    items: list[list[str]] = []
    depth, rest = 0, len(sql)
    for text, _kind, end in tokens(sql):
        if text == ")":
            depth -= 1
            if depth == 0:
                rest = end
                break
        if depth == 1 and text == ",":
            items.append([])
        elif depth:
            items[-1].append(text)
        if text == "(":
            depth += 1
            if depth == 1:
                items.append([])
    after = [(text, end) for text, kind, end in tokens(sql[rest:]) if kind != "space"]
    condition = sql[rest + after[0][1] :] if after and after[0][0].upper() == "WHERE" else ""
    return ["".join(_plain(item)) for item in items], condition.rstrip("; \t\r\n")


def _plain(item: list[str]) -> list[str]:
    """An item of the list without ASC, DESC and COLLATE at its end."""
    words = [place for place, text in enumerate(item) if text.strip() and text[:2] not in _REMARKS]
    if len(words) > 1 and _TAIL.fullmatch(item[words[-1]]):
        words.pop()
    if len(words) > 2 and item[words[-2]].upper() == "COLLATE":
        del words[-2:]
    return item[: words[-1] + 1] if words else []


_REMARKS = ("--", "/*")

__all__ = ["definition", "entries", "index_names", "lookups"]
