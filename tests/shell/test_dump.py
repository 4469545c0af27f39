"""`.dump`: what comes out makes the same database again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.shell import dump as dumping
from raftdb.shell.commands import ABSENT, COMMANDS
from raftdb.shell.dump import SchemaMoved, dump
from raftdb.shell.literals import literal
from raftdb.shell.statements import read_pieces
from tests.shell.conftest import Bench

SCHEMA = """
CREATE TABLE plain (a, b TEXT, c REAL, d AS (typeof(a) || b), e AS (length(b)) STORED); -- a remark
CREATE TABLE keyed (id INTEGER PRIMARY KEY AUTOINCREMENT, up REFERENCES keyed (id));
CREATE TABLE [odd "name'(] (rowid, "two words" DEFAULT 'x', UNIQUE (rowid));
CREATE TABLE alias_less (id INTEGER PRIMARY KEY DESC, v);
CREATE TABLE without (k TEXT, v BLOB, PRIMARY KEY (k, v)) WITHOUT ROWID;
CREATE TABLE strict (i INT, t TEXT, b BLOB, x ANY) STRICT;
CREATE TABLE log (what) -- no more
;
CREATE VIRTUAL TABLE words USING fts5(t, u UNINDEXED);
CREATE VIRTUAL TABLE [over (it] USING fts5(b, content=plain, content_rowid=rowid);
CREATE VIRTUAL TABLE bare USING fts5(t, content='');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, +label);
CREATE INDEX by_b ON plain (b) WHERE c > 1;
CREATE UNIQUE INDEX by_expression ON keyed (up, abs(id));
CREATE TRIGGER noted AFTER INSERT ON plain BEGIN INSERT INTO log VALUES (new.a); SELECT ';'; END;
CREATE VIEW all_of_it AS SELECT * FROM plain, keyed;
PRAGMA user_version = 7;
"""
ROWS = """
INSERT INTO plain (rowid, a, b, c) VALUES (5, 1, 'it''s', 1.5), (9, NULL, 'two
.lines; --', 9e999), (-3, x'00ff', char(0) || 'a' || char(13, 8232), -0.1);
INSERT INTO keyed VALUES (7, 9), (9, NULL), (11, 7);
DELETE FROM keyed WHERE id = 11;
INSERT INTO [odd "name'(] (oid, rowid) VALUES (4, 'r'), (2, 's');
INSERT INTO alias_less (rowid, id, v) VALUES (3, 1, 2), (1, 5, 9223372036854775807);
INSERT INTO without VALUES ('a', x''), ('a', x'01');
INSERT INTO strict VALUES (-9223372036854775808, '12', x'', 1.0), (1, '', NULL, '1.0');
INSERT INTO words (rowid, t, u) VALUES (3, 'hello world', 'x'), (8, 'good bye', NULL);
INSERT INTO [over (it] ([over (it]) VALUES ('rebuild');
INSERT INTO bare (rowid, t) VALUES (1, 'gone');
INSERT INTO boxes VALUES (1, 0.5, 1.5, 'one');
ANALYZE;
"""
SHADOWS = "SELECT name FROM pragma_table_list WHERE type = 'shadow'"


def content(raw: sqlite3.Connection) -> dict[str, Any]:
    """Everything that a dump is to bring, rowids included."""
    names = [
        name
        for name, sql in raw.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE '%content%'"
            f" AND name NOT IN ({SHADOWS}) AND name NOT LIKE 'sqlite_stat%'"
        )
    ]
    found: dict[str, Any] = {
        "schema": sorted(
            raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall(), key=repr
        ),
        "version": raw.execute("PRAGMA user_version").fetchone(),
    }
    for name in names:
        rowid = "oid, " if name == "odd \"name'(" else "rowid, "
        rowid = "" if name in ("without", "boxes") else rowid
        quoted = name.replace('"', '""')
        rows = raw.execute(f'SELECT {rowid}* FROM "{quoted}"').fetchall()
        found[name] = sorted(map(repr, rows))
    return found


def again(text: str) -> Bench:
    """Another database, that has read it."""
    bench = Bench()
    bench.run(text)
    assert bench.said == ""
    return bench


def test_a_dump_makes_the_same_again_in_raftdb_and_in_sqlite(bench: Bench) -> None:
    bench.connection.foreign_keys = True
    bench.run(SCHEMA + "PRAGMA foreign_keys = OFF;" + ROWS)
    assert bench.said == ""
    text = bench.run(".dump")
    assert "bare is made, but empty" in bench.said
    other = again(text)
    assert content(other.connection.raw) == content(bench.connection.raw)
    found = other.connection.raw.execute("SELECT rowid FROM [over (it] ('lines')").fetchall()
    assert found == [(9,)], "rebuilt over its table"
    assert other.connection.foreign_keys
    assert other.run(".dump") == text
    plain = sqlite3.connect(":memory:", isolation_level=None)
    plain.executescript(text)
    assert content(plain) == content(bench.connection.raw)
    plain.close()
    other.connection.close()


def test_a_part_of_it_and_without_a_transaction(bench: Bench) -> None:
    bench.run(SCHEMA + "PRAGMA foreign_keys = OFF;" + ROWS)
    text = bench.run(".dump --no-transaction keyed with%")
    assert "BEGIN" not in text
    assert "COMMIT" not in text
    assert "user_version" not in text
    other = again(text)
    assert other.run(".tables\n").count("table") == 2
    assert other.run(".mode quote\n.headers off\nSELECT * FROM sqlite_sequence;") == "'keyed',11\n"
    assert "by_expression" in other.run(".schema")
    other.connection.close()


def test_a_dump_needs_no_transaction_of_its_own(bench: Bench) -> None:
    bench.run("BEGIN;\n.dump\n")
    assert "a transaction is open" in bench.said


def test_long_values_come_in_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumping, "LITERAL_BYTES", 400)
    bench.run(
        "CREATE TABLE t (a BLOB, b, c TEXT, n INTEGER, PRIMARY KEY (n));"
        "INSERT INTO t VALUES (randomblob(1000), 'é' || hex(randomblob(700)), '012' ||"
        " replace(hex(zeroblob(300)), '0', ''''), 1), (1, x'', NULL, 2),"
        " (zeroblob(300), char(0) || hex(zeroblob(300)), 'c', 3);"
        "CREATE TABLE u (k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
        "INSERT INTO u VALUES (hex(randomblob(300)), zeroblob(300));"
    )
    text = bench.run(".dump")
    # A key without a rowid cannot be put together: its row comes as a whole.
    longest = max(
        len(piece.text)
        for piece in read_pieces(text.splitlines(keepends=True))
        if '"u"' not in piece.text
    )
    assert longest < 1_600
    other = again(text)
    for table in "tu":
        rows = [
            one.connection.raw.execute(f"SELECT * FROM {table}").fetchall()
            for one in (bench, other)
        ]
        assert rows[0] == rows[1]
    other.connection.close()


def test_many_tables(bench: Bench) -> None:
    bench.run("BEGIN;" + "".join(f"CREATE TABLE t{n} (a);" for n in range(900)) + "COMMIT;")
    bench.run("INSERT INTO t899 VALUES (1);")
    assert bench.run(".dump").count("CREATE TABLE") == 900
    assert 'INSERT INTO "t899"' in bench.output.getvalue()


def test_a_schema_that_changes_under_way_is_read_again(bench: Bench) -> None:
    raw = bench.connection.raw
    raw.execute("CREATE TABLE t (a)")
    changes: list[str] = ["ALTER TABLE t ADD b", "CREATE TABLE u (x)"]

    def query(sql: str) -> Iterable[Sequence[Any]]:
        if "'rows'" in sql and changes:
            raw.execute(changes.pop())
        return raw.execute(sql)

    raw.execute("INSERT INTO t VALUES (1)")
    text = "".join(dump(query, (), transaction=True))
    assert 'INSERT INTO "t"(rowid,"a","b") VALUES\n(1,1,NULL);' in text
    assert "CREATE TABLE u" in text
    changes += [f"CREATE TABLE u{n} (x)" for n in range(20)]
    with pytest.raises(SchemaMoved):
        list(dump(query, (), transaction=True))


@given(st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.binary() | st.text())
def test_literals_read_back(value: object) -> None:
    raw = sqlite3.connect(":memory:")
    if isinstance(value, str) and any(0xD800 <= ord(sign) < 0xE000 for sign in value):
        value = ""
    (found,) = raw.execute(f"SELECT {literal(value)}").fetchone()
    assert (found, type(found)) == (value, type(value))
    raw.close()


# ---- the other commands that sqlite3 has


def test_once_separator_and_databases(bench: Bench, tmp_path: Path) -> None:
    bench.run("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2);")
    path = tmp_path / "once.txt"
    shown = bench.run(
        f'.mode list\n.separator "\\t"\n.once {path}\nSELECT * FROM t;\n.headers off\nSELECT 3;'
    )
    assert (path.read_text(), shown) == ("a\tb\n1\t2\n", "3\n")
    assert bench.run(f".once {path}\nSELEC;\n") == ""
    bench.settings.bail = False
    bench.run(".separator")
    assert "separator: '\\t'" in bench.said
    assert bench.run(".databases").startswith("main\t")


def test_fullschema_has_the_statistics(bench: Bench) -> None:
    bench.run("CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1); ANALYZE;")
    found = bench.run(".mode list\n.fullschema")
    assert "CREATE INDEX i" in found
    assert "t|i|1 1" in found


def test_line_ends_and_other_separators_in_text_are_kept(bench: Bench, tmp_path: Path) -> None:
    text = "a\rb\r\nc\u2028d\x0be\x1cf"
    path = tmp_path / "script.sql"
    path.write_text(f"SELECT '{text}' = '{text}', hex('{text}') AS h;\n", newline="")
    wanted = text.encode().hex().upper()
    assert wanted in bench.run(f".mode list\n.read {path}\n")
    assert wanted in bench.run(f"SELECT hex('{text}');")


def test_commands_of_sqlite_that_cannot_be_say_what_to_do(bench: Bench) -> None:
    bench.settings.bail = False
    for name, hint in ABSENT.items():
        assert name not in COMMANDS
        bench.run(name + " x")
        assert hint in bench.said


def test_a_query_streams_where_its_format_can(bench: Bench) -> None:
    asked: list[bool] = []
    execute = bench.connection.execute

    def noted(sql: str, parameters: Any = (), /, **options: Any) -> sqlite3.Cursor:
        asked.append(bool(options.get("stream")))
        return execute(sql, parameters, **options)

    bench.connection.execute = noted  # type: ignore[method-assign]
    bench.run("SELECT 1;\n.mode csv\nSELECT 1;\nVALUES (1);\nBEGIN;\nSELECT 1;\nROLLBACK;")
    assert asked == [False, True, True, False, False, False]
