"""Indexes against their tables, bit by bit: every kind of index, and every way of being wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from raftdb.machine import Part
from raftdb.machine.generations import current
from raftdb.machine.indexscan import definition
from raftdb.machine.layout import quote
from tests.machine.support import FILES, Database, raw_connection

SCHEMA = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT COLLATE NOCASE, r REAL, u UNIQUE,"
    " g AS (a || '!'), s AS (length(b)) STORED)",
    'CREATE INDEX plain ON t (a, "b" DESC)',
    "CREATE INDEX other_order ON t (b COLLATE BINARY, r)",
    "CREATE INDEX trimmed ON t (b COLLATE RTRIM)",
    "CREATE INDEX expression ON t (lower(b) COLLATE NOCASE DESC, (a + r) /* , */, g, s -- x)\n)",
    "CREATE INDEX some ON t (r) WHERE t.a > 5 AND b IS NOT ')';",
    "CREATE UNIQUE INDEX \"odd \"\"name(\" ON t (id, coalesce(a, 'x,)') ) WHERE b <> 'it''s';",
    "CREATE INDEX twice ON t (a, a, id)",
    'CREATE TABLE "w ""(" ("p q", z, v, PRIMARY KEY ("p q" DESC, z)) WITHOUT ROWID',
    'CREATE INDEX rest ON "w ""(" (v, "p q")',
    'CREATE INDEX covering ON "w ""(" (v, z, "p q")',
    "CREATE TABLE k (a TEXT PRIMARY KEY, o)",
    "CREATE INDEX on_o ON k (o) WHERE o > 1",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "CREATE TABLE _o (a, c0, r)",
    "CREATE INDEX on_oo ON _o (c0, a + c0) WHERE c0",
    "CREATE TABLE hidden (rowid, oid, _rowid_)",
    "CREATE INDEX on_hidden ON hidden (oid)",
)
ROWS = (
    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) INSERT INTO t"
    " (a, b, r, u) SELECT CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN i % 7 WHEN 2 THEN 'T' || i"
    " WHEN 3 THEN CAST('b' || i AS BLOB) ELSE i * 0.5 END, CASE i % 4 WHEN 0 THEN 'ab ' ELSE"
    " char(65 + i % 60) END, i % 9, CASE WHEN i % 3 THEN i END FROM n",
    'INSERT INTO "w ""(" SELECT id, a, b FROM t WHERE a IS NOT NULL',
    "INSERT INTO k SELECT 'k' || id, id % 4 FROM t",
    "INSERT INTO f SELECT 'text ' || id FROM t LIMIT 50",
    "INSERT INTO _o SELECT r, r, r FROM t LIMIT 40",
    "INSERT INTO hidden VALUES (1, 2, 3)",
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(tmp_path_factory.mktemp("indexes") / "database")
    made.run(*SCHEMA)
    made.run(*ROWS)
    yield made
    made.close()


def scan(database: Database, step: int = 100) -> dict[str, str]:
    """What is found of each part, by name."""
    found: dict[str, str] = {}
    reader = database.machine.open_scan()
    for part in reader.parts():
        if not reader.begin(part):
            found[str(part)] = "not read"
            continue
        while (result := reader.step(step)) is None:
            pass
        found[str(part)] = "equal" if result else "differs"
    reader.end()
    return found


def wrong(database: Database, step: int = 100) -> list[str]:
    return [name for name, result in scan(database, step).items() if result == "differs"]


class Behind:
    """The file itself, changed as nothing that is logged would."""

    def __init__(self, database: Database) -> None:
        generation = current(FILES, database.directory)
        self._path = f"{generation}/database.sqlite"

    def run(self, *sql: str) -> None:
        connection = raw_connection(self._path)
        for one in sql:
            connection.execute(one)
        connection.close()

    def without(self, index: str, *sql: str) -> None:
        """Change rows while the index is out of sight."""
        name = apsw.format_sql_value(index)
        connection = raw_connection(self._path)
        connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM main.sqlite_schema")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"DELETE FROM main.sqlite_schema WHERE name = {name}")
        connection.execute("PRAGMA writable_schema = RESET")
        for one in sql:
            connection.execute(one)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            f"INSERT INTO main.sqlite_schema SELECT * FROM temp.kept WHERE name = {name}"
        )
        connection.close()


def test_sound_indexes_agree_whatever_their_kind(database: Database) -> None:
    found = scan(database)
    assert {name for name, result in found.items() if result != "equal"} == {
        "hidden index on_hidden"
    }, "it cannot be searched for one row: nothing names the rowid"
    assert found["hidden index on_hidden"] == "not read"
    indexes = [name for name in found if " index " in name]
    # All that SQLite has, but for the primary keys that are tables themselves.
    wanted = database.rows(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'index'"
        " AND tbl_name IN (SELECT name FROM sqlite_schema)"
    )
    assert len(indexes) == wanted[0][0] > 12
    assert scan(database, step=1_000_000) == found == scan(database, step=7)


CHANGES = (
    # (index, change it sees, the same undone where it does not see it)
    ("plain", "UPDATE t SET b = 'Q' WHERE id = 700", "UPDATE t SET b = {was} WHERE id = 700"),
    ("other_order", "UPDATE t SET b = 'ä' WHERE id = 7", "UPDATE t SET b = {was} WHERE id = 7"),
    # As its order has it the entry is right: only its value is not.
    ("trimmed", "UPDATE t SET b = 'ab' WHERE id = 1", "UPDATE t SET b = 'ab ' WHERE id = 1"),
    ("expression", "UPDATE t SET r = 99 WHERE id = 70", "UPDATE t SET r = {was} WHERE id = 70"),
    ("some", "UPDATE t SET r = 99 WHERE id = 205", "UPDATE t SET r = {was} WHERE id = 205"),
    # An entry of a row that does not belong into the index.
    ("some", "UPDATE t SET a = 6 WHERE id = 1", "UPDATE t SET a = NULL WHERE id = 1"),
    ('odd "name(', "UPDATE t SET a = 'y' WHERE id = 900", "UPDATE t SET a = {was} WHERE id = 900"),
)


@pytest.mark.parametrize(("index", "seen", "unseen"), CHANGES)
def test_a_stale_entry_is_found(database: Database, index: str, seen: str, unseen: str) -> None:
    column, place = seen.split(" = ")[0].split()[-1], seen.rsplit(" = ", 1)[1]
    [(was,)] = database.rows(f"SELECT quote({column}) FROM t WHERE id = {place}")
    behind = Behind(database)
    behind.run(seen)
    behind.without(index, unseen.format(was=was))
    assert wrong(database) == [f"t index {index}"]
    behind.run(f"REINDEX {quote(index)}")
    assert wrong(database) == []


def test_missing_and_additional_entries_are_found(database: Database) -> None:
    behind = Behind(database)
    [(row,)] = database.rows("SELECT rowid FROM k WHERE a = 'k7'")
    behind.run("DELETE FROM k WHERE a = 'k7'")
    behind.without("on_o", f"INSERT INTO k (rowid, a, o) VALUES ({row}, 'k7', 3)")
    assert "k index on_o" in wrong(database), "a row without its entry"
    behind.run("REINDEX on_o")
    assert "k index on_o" not in wrong(database)
    behind.run("INSERT INTO k (rowid, a, o) VALUES (9999, 'more', 3)")
    behind.without("on_o", "DELETE FROM k WHERE a = 'more'")
    assert "k index on_o" in wrong(database), "an entry without its row"
    behind.run("REINDEX on_o")


def test_the_table_is_read_where_an_index_has_all_its_columns(database: Database) -> None:
    behind = Behind(database)
    table = '"w ""("'
    behind.run(f"UPDATE {table} SET v = 'other' WHERE \"p q\" = 12")
    [(was,)] = database.rows("SELECT quote(b) FROM t WHERE id = 12")
    behind.without("covering", f'UPDATE {table} SET v = {was} WHERE "p q" = 12')
    assert wrong(database) == ['w "( index covering'], "and the rows are as they were written"
    behind.run("REINDEX covering")
    assert wrong(database) == []


def test_the_index_of_a_primary_key_is_looked_at(tmp_path: Path) -> None:
    database = Database(tmp_path / "database")
    for name, last in (("one", "3"), ("two", "4")):
        database.run(f"CREATE TABLE {name} (k PRIMARY KEY)")
        database.run(f"INSERT INTO {name} VALUES (1), (2), ({last}), (NULL), (NULL)")
    assert wrong(database) == []
    change = (
        "UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema"
        " WHERE name LIKE 'sqlite_autoindex_%_1' AND tbl_name IN ('one', 'two')) - rootpage"
        " WHERE name IN ('sqlite_autoindex_one_1', 'sqlite_autoindex_two_1')"
    )
    Behind(database).run("PRAGMA writable_schema = ON", change)
    assert wrong(database) == [f"{one} index sqlite_autoindex_{one}_1" for one in ("one", "two")]
    database.close()


def test_an_index_that_was_dropped_meanwhile_is_none(database: Database) -> None:
    reader = database.machine.open_scan()
    assert not reader.begin(Part("t", "no_such_index"))
    assert not reader.begin(Part("no_such_table", "plain"))
    reader.end()


@pytest.mark.parametrize(
    ("sql", "items", "condition"),
    [
        ("CREATE INDEX i ON t (a)", ["a"], ""),
        ("create unique index if not exists i on t(a desc,b collate x asc);", ["a", "b"], ""),
        ("CREATE INDEX i ON [t(] (f(a, ')') DESC) WHERE a>1;", ["f(a, ')')"], "a>1"),
        ("CREATE INDEX i ON t ((a collate x)) -- (\n where (b)", ["(a collate x)"], "(b)"),
        ("CREATE INDEX i ON t (a || 'DESC' /* DESC */)", ["a || 'DESC'"], ""),
        ("", [], ""),
    ],
)
def test_definitions_are_read(sql: str, items: list[str], condition: str) -> None:
    found = definition(sql)
    assert ([item.strip() for item in found[0]], found[1].strip()) == (items, condition)
