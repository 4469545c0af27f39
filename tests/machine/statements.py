"""Statements over all of SQLite's features, drawn by hypothesis: small values, many collisions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftdb.command import Statement

SCHEMA = (
    "CREATE TABLE plain(id INTEGER PRIMARY KEY, a UNIQUE, b REAL, c TEXT COLLATE NOCASE,"
    " d DEFAULT (hex(randomblob(3))), e DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE nokey(a, b NUMERIC, c BLOB)",
    "CREATE TABLE strict_one(id INT PRIMARY KEY, a REAL, b TEXT, c ANY) STRICT",
    "CREATE TABLE keyed(a, b, c REAL, PRIMARY KEY (b, a)) WITHOUT ROWID",
    "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE ON CONFLICT REPLACE)",
    "CREATE TABLE stored(a, b AS (a * 2) STORED, c)",
    "CREATE TABLE virtual_one(a UNIQUE, b AS (a || '!'), c REAL, d AS (c + 1) STORED)",
    "CREATE TABLE virtual_keyed(a PRIMARY KEY, b AS (a || '!'), c) WITHOUT ROWID",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY, a)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent ON DELETE CASCADE"
    " ON UPDATE SET NULL)",
    "CREATE TABLE late(p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE log(what, n, at DEFAULT (unixepoch('subsec')), r DEFAULT (random()))",
    "CREATE VIRTUAL TABLE words USING fts5(x, y)",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
    "CREATE INDEX plain_b ON plain(b) WHERE b > 0",
    "CREATE INDEX plain_c ON plain(lower(c))",
    "CREATE VIEW seen AS SELECT id, a FROM plain",
    "CREATE TRIGGER seen_insert INSTEAD OF INSERT ON seen BEGIN"
    " INSERT INTO plain(a, c) VALUES (new.a, 'view'); END",
    "CREATE TRIGGER plain_log AFTER UPDATE ON plain BEGIN"
    " INSERT INTO log(what, n) VALUES ('plain', changes() + total_changes()); END",
    "CREATE TRIGGER nokey_fail BEFORE INSERT ON nokey WHEN new.a = 3 BEGIN"
    " INSERT INTO log(what, n) VALUES ('fail', new.a); SELECT RAISE(FAIL, 'three'); END",
    "CREATE TRIGGER nokey_rollback BEFORE DELETE ON nokey WHEN old.a = 7 BEGIN"
    " SELECT RAISE(ROLLBACK, 'seven'); END",
    "CREATE TABLE tree(id INTEGER PRIMARY KEY, n UNIQUE, up REFERENCES tree(n)"
    " DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TRIGGER tree_down AFTER INSERT ON tree WHEN new.n BETWEEN 1 AND 6 BEGIN"
    " INSERT OR REPLACE INTO tree(n, up) VALUES (new.n - 1, new.n); END",
    "CREATE TRIGGER counted_gone AFTER DELETE ON counted BEGIN"
    " INSERT INTO log(what, n) VALUES ('gone', old.a); END",
    "CREATE TRIGGER seen_update INSTEAD OF UPDATE ON seen BEGIN"
    " UPDATE plain SET a = new.a WHERE id = old.id; END",
    "CREATE TRIGGER seen_delete INSTEAD OF DELETE ON seen BEGIN"
    " DELETE FROM plain WHERE id = old.id; END",
    "CREATE TABLE docs(id INTEGER PRIMARY KEY, j BLOB CHECK (json_valid(j, 15) IS NOT 0),"
    " k AS (CASE WHEN json_valid(j, 15) THEN j ->> '$.k' END) STORED)",
    "CREATE INDEX docs_k ON docs(k) WHERE k IS NOT NULL",
    "CREATE UNIQUE INDEX nokey_part ON nokey(b) WHERE a = 1",
    "CREATE TABLE collated(a TEXT COLLATE RTRIM, b TEXT COLLATE NOCASE, c INT,"
    " PRIMARY KEY (a, b)) STRICT, WITHOUT ROWID",
    "CREATE VIRTUAL TABLE areas USING rtree_i32(id, x0, x1, +label)",
    "CREATE VIRTUAL TABLE mirror USING fts5(c, content='plain', content_rowid='id')",
    "CREATE VIRTUAL TABLE papers USING/**/fts4(t, n, tokenize=porter, prefix='2')",
    "CREATE VIRTUAL TABLE notes USING fts3(t)",
    "CREATE VIRTUAL TABLE bare USING fts5(t, content='', contentless_delete=1, detail=column)",
    "CREATE VIRTUAL TABLE terms USING fts5vocab(words, row)",
    "CREATE VIRTUAL TABLE shapes USING geopoly(label)",
    "CREATE TABLE pragma_table_xinfo(a REAL, b AS (a + 1))",
    "CREATE TRIGGER docs_gone AFTER DELETE ON docs BEGIN INSERT INTO words(words, rank)"
    " VALUES ('rank', 'bm25(5.0)'); SELECT RAISE(ABORT, 'kept') WHERE old.id % 2; END",
    "CREATE TRIGGER mirror_in AFTER INSERT ON plain BEGIN"
    " INSERT INTO mirror(rowid, c) VALUES (new.id, new.c); END",
)

HEAVY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
    " INSERT INTO log(what, n) SELECT 'heavy', sum(i) FROM n"
)
"""Takes more than HEAVY_STEPS steps of SQLite's machine; all else takes less."""
HEAVY_STEPS = 200_000

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 7),
    st.integers(-2, 9),
    st.sampled_from([None, 0.0, -0.0, 1.5, 5.0, 1e300, -5e-324, float("inf"), (1 << 63) - 1]),
    st.sampled_from(["", "a", "A", "12", "1.5", " 7", "é", "\0", "hello world", "9" * 20]),
    st.binary(max_size=3),
)

_CONFLICT = st.sampled_from(["", "", "", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ROLLBACK"])
_TABLES = {
    "plain": ["id", "a", "b", "c"],
    "nokey": ["a", "b", "c"],
    "strict_one": ["id", "a", "b", "c"],
    "keyed": ["a", "b", "c"],
    "counted": ["id", "a"],
    "stored": ["a", "c"],
    "virtual_one": ["a", "c"],
    "virtual_keyed": ["a", "c"],
    "parent": ["id", "a"],
    "child": ["id", "p"],
    "late": ["p"],
    "words": ["rowid", "x", "y"],
    "boxes": ["id", "x0", "x1"],
    "seen": ["a"],
    "tree": ["n", "up"],
    "docs": ["id", "j"],
    "collated": ["a", "b", "c"],
    "areas": ["id", "x0", "x1", "label"],
    "papers": ["docid", "t", "n"],
    "notes": ["docid", "t"],
    "bare": ["rowid", "t"],
    "pragma_table_xinfo": ["a"],
}
_FREE = [
    "INSERT INTO nokey SELECT random(), randomblob(2), strftime('%f') FROM log LIMIT 3",
    "INSERT INTO log(what, n) SELECT a, b FROM nokey ORDER BY random() LIMIT 2",
    "INSERT INTO keyed SELECT id, a, b FROM plain WHERE true ON CONFLICT DO UPDATE SET c = c + 1",
    "INSERT INTO plain(a) VALUES (1), (2) ON CONFLICT(a) DO UPDATE SET b = b + 1 RETURNING *",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)"
    " INSERT INTO counted(a) SELECT i % 7 FROM n",
    "DELETE FROM log",
    "DELETE FROM keyed",
    "DELETE FROM parent",
    "UPDATE plain SET id = id + 100 RETURNING id, typeof(b)",
    "UPDATE virtual_one SET rowid = rowid + 50",
    "UPDATE keyed SET a = a || 'x'",
    "UPDATE sqlite_sequence SET seq = seq + 10",
    "DELETE FROM sqlite_sequence",
    "INSERT INTO words(words) VALUES ('optimize')",
    "INSERT INTO words(words) VALUES ('rebuild')",
    "SELECT * FROM words('hello') ORDER BY rank",
    "SELECT count(*), sum(b), max(a), last_insert_rowid(), changes() FROM plain",
    "SELECT json_group_array(a) FROM (SELECT a FROM nokey WHERE typeof(a) <> 'blob')",
    "INSERT INTO nokey VALUES (CAST(x'ff' AS TEXT), 1, 1)",
    "INSERT INTO plain(id) VALUES (9223372036854775807)",
    "INSERT INTO nowhere VALUES (1)",
    "COMMIT",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA recursive_triggers = OFF",
    "INSERT INTO tree(n) VALUES (5)",
    "REPLACE INTO tree(n) VALUES (4), (5)",
    "DELETE FROM tree",
    "DELETE FROM seen WHERE id % 2",
    "UPDATE seen SET a = a + 10",
    "UPDATE plain SET b = log.n FROM log WHERE log.rowid = plain.id",
    "INSERT INTO log(what, n) SELECT 'window', row_number() OVER (ORDER BY a, id) FROM plain",
    "INSERT INTO docs(j) SELECT jsonb_object('k', a, 'at', unixepoch()) FROM plain"
    " WHERE typeof(a) IN ('integer', 'text')",
    "UPDATE docs SET j = jsonb_set(j, '$.k', 7, '$.r', random()) WHERE json_valid(j, 8)",
    "INSERT INTO docs(id, j) SELECT 3, jsonb_group_array(n) FROM log WHERE typeof(n) <> 'blob'"
    " ON CONFLICT(id) DO UPDATE SET j = jsonb_patch(j, '{\"k\":1}') WHERE json_valid(j, 8)",
    "INSERT INTO nokey(a, b) VALUES (1, 5) ON CONFLICT(b) WHERE a = 1 DO NOTHING RETURNING c",
    "INSERT INTO mirror(mirror) VALUES ('rebuild')",
    "INSERT INTO mirror(mirror) VALUES ('integrity-check')",
    "SELECT rowid FROM mirror('hello OR a') ORDER BY rowid",
    "DELETE FROM words WHERE words MATCH 'hello'",
    "INSERT INTO words(words, rank) VALUES ('secure-delete', 1)",
    "INSERT INTO words(words, rank) VALUES ('secure-delete', 0)",
    "INSERT INTO words(words, rank) VALUES ('rank', 'bm25(10.0, 2.0)')",
    "INSERT INTO words(words, rank) VALUES ('automerge', 2)",
    "INSERT INTO words(words, rank) VALUES ('crisismerge', 3)",
    "INSERT INTO words(words, rank) VALUES ('crisismerge', 1999)",
    "INSERT INTO words(words, rank) VALUES ('pgsz', 64)",
    "INSERT INTO words(words, rank) VALUES ('deletemerge', 5)",
    "INSERT INTO words(words, rank) VALUES ('merge', 4)",
    "INSERT INTO words(words) VALUES ('delete-all')",
    "INSERT INTO bare(bare, rank) VALUES ('automerge', 4)",
    "INSERT INTO bare(bare) VALUES ('delete-all')",
    "INSERT INTO log(what, n) SELECT term, doc || '/' || cnt FROM terms",
    "INSERT INTO log(what, n) SELECT 'rank', rank FROM words('hello OR a*')",
    "DELETE FROM docs",
    "INSERT INTO papers(papers) VALUES ('automerge=2')",
    "INSERT INTO papers(papers) VALUES ('merge=9,2')",
    "INSERT INTO notes(notes) VALUES ('automerge=4')",
    "INSERT INTO notes(notes) VALUES ('automerge=0')",
    "INSERT INTO notes(notes) VALUES ('optimize')",
    "INSERT INTO papers(papers) VALUES ('rebuild')",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)"
    " INSERT INTO papers(t, n) SELECT 'hello ' || i, i * 7 FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9)"
    " INSERT INTO words(rowid, x) SELECT 1000 - i, 'hello ' || i FROM n",
    "SELECT snippet(papers), hex(matchinfo(papers, 'pcnalx')) FROM papers"
    " WHERE papers MATCH 'hel*'",
    "INSERT INTO shapes(_shape, label) VALUES (geopoly_regular(1, 2, 3.3, 5), random())",
    "UPDATE shapes SET _shape = geopoly_xform(_shape, 0.7, 0.7, -0.7, 0.7, 1, 0)",
    "SELECT rowid, geopoly_area(_shape) FROM shapes WHERE geopoly_overlap(_shape,"
    " '[[0,0],[3,0],[3,3],[0,0]]')",
    "EXPLAIN SELECT * FROM words",
    "EXPLAIN QUERY PLAN SELECT * FROM plain WHERE a > 1",
    "INSERT INTO log(what, n) SELECT name, type FROM pragma_table_list WHERE schema = 'main'",
    "INSERT INTO log(what, n) SELECT name, rootpage FROM sqlite_schema",
    "INSERT INTO nokey SELECT a, b, c FROM plain LIMIT 3",
    "UPDATE nokey SET b = (SELECT group_concat(a) FROM plain), c = (SELECT total(b) FROM keyed)",
    "INSERT INTO log(what, n) SELECT 'math', sin(n) FROM log WHERE typeof(n) = 'integer' LIMIT 5",
]
SCHEMA_CHANGES = [
    "ALTER TABLE plain ADD COLUMN extra REAL DEFAULT 5",
    "ALTER TABLE plain DROP COLUMN extra",
    "ALTER TABLE nokey ADD COLUMN extra TEXT DEFAULT 5",
    "ALTER TABLE nokey RENAME COLUMN extra TO more",
    "ALTER TABLE nokey DROP COLUMN more",
    "ALTER TABLE stored ADD COLUMN v AS (a || 'v')",
    "ALTER TABLE stored DROP COLUMN v",
    "ALTER TABLE virtual_one RENAME TO virtual_two",
    "ALTER TABLE virtual_two RENAME TO virtual_one",
    "ALTER TABLE words RENAME TO words2",
    "ALTER TABLE words2 RENAME TO words",
    "CREATE TABLE made AS SELECT a, b FROM plain",
    "CREATE TABLE IF NOT EXISTS made(a, b)",
    "INSERT INTO made SELECT a, b FROM nokey",
    "DROP TABLE made",
    "DROP TABLE IF EXISTS made",
    "CREATE UNIQUE INDEX nokey_a ON nokey(a)",
    "DROP INDEX IF EXISTS nokey_a",
    "ANALYZE",
    "REINDEX",
    "REINDEX plain_c",
    "ANALYZE plain",
    "DROP TRIGGER IF EXISTS mirror_in",
    "PRAGMA user_version = 3",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA table_info(plain)",
    "DROP TABLE child",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent ON DELETE CASCADE)",
]


@st.composite
def _insert(draw: st.DrawFn) -> Statement:
    table = draw(st.sampled_from(sorted(_TABLES)))
    columns = draw(st.lists(st.sampled_from(_TABLES[table]), min_size=1, unique=True))
    rows = draw(st.integers(1, 3))
    marks = ", ".join(["(" + ", ".join("?" * len(columns)) + ")"] * rows)
    count = rows * len(columns)
    values = draw(st.lists(VALUES, min_size=count, max_size=count))
    sql = f"INSERT{draw(_CONFLICT)} INTO {table}({', '.join(columns)}) VALUES {marks}"
    return Statement(sql, (tuple(values),))


@st.composite
def _update(draw: st.DrawFn) -> Statement:
    table = draw(st.sampled_from(sorted(set(_TABLES) - {"seen"})))
    column, other = (draw(st.sampled_from(_TABLES[table])) for _ in range(2))
    sets = draw(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=2))
    sql = f"UPDATE{draw(_CONFLICT)} {table} SET {column} = ? WHERE {other} >= ?"
    return Statement(sql, tuple(sets))


@st.composite
def _delete(draw: st.DrawFn) -> Statement:
    table = draw(st.sampled_from(sorted(set(_TABLES) - {"seen"})))
    column = draw(st.sampled_from(_TABLES[table]))
    return Statement(f"DELETE FROM {table} WHERE {column} >= ?", ((draw(VALUES),),))


def statements() -> st.SearchStrategy[Statement]:
    """One statement."""
    return st.one_of(
        _insert(),
        _insert(),
        _update(),
        _delete(),
        st.sampled_from(_FREE).map(Statement),
        st.sampled_from(SCHEMA_CHANGES).map(Statement),
        st.sampled_from(_FREE).map(Statement),
    )


def requests() -> st.SearchStrategy[list[tuple[Statement, ...]]]:
    """The statements of several requests; most have one."""
    several = st.lists(statements(), min_size=1, max_size=3).map(tuple)
    one = statements().map(lambda statement: (statement,))
    heavy = st.just((Statement(HEAVY),))
    return st.lists(st.one_of(*[one, several] * 6, heavy), min_size=12, max_size=40)
