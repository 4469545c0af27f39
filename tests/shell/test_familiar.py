"""Commands of the sqlite3 shell that its users miss first: parameters, plans, widths."""

from __future__ import annotations

import pytest

from raftdb.shell.shell import drawn_plan
from raftdb.shell.statements import parameters_of, verb_of
from tests.shell.conftest import Bench


def test_parameters_have_their_values_in_later_statements(bench: Bench) -> None:
    script = """.mode list
.headers off
.parameter set :id 1+1
.parameter set $name "it's"
.parameter set @day "'2026-01-01'"
.parameter set ?2 42
.parameter list
SELECT :id, $name, @day, ':id', "a" FROM (SELECT 1 AS a);
SELECT :id + 1, :missing IS NULL;
SELECT ?1 IS NULL, ?2;
.parameter unset :id
SELECT :id IS NULL, $name;
"""
    assert bench.run(script) == (
        "$name 'it''s'\n:id 2\n?2 42\n@day '2026-01-01'\n"
        "2|it's|2026-01-01|:id|1\n3|1\n1|42\n1|it's\n"
    )
    bench.run(".parameter clear\nSELECT ?1;")
    assert "bindings" in bench.said, "nothing is NULL by mistake where nothing was set"


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (".parameter set x 1", "x is no parameter"),
        (".parameter set ? 1", "? is no parameter"),
        (".parameter set :x", "usage: .parameter"),
        (".parameter what", "usage: .parameter"),
        (".parameter set :x 1\nSELECT :x, ?", ":x beside ?"),
        (".parameter set :x 1\nSELECT ?99999999", "no parameter ?99999999"),
        (".width 3 b", "widths are numbers"),
        (".width 99999", "10000 characters at most"),
    ],
)
def test_what_is_wrong_is_said(bench: Bench, script: str, complaint: str) -> None:
    bench.run(script)
    assert complaint in bench.said


def test_eqp_shows_the_plan_before_the_result(bench: Bench) -> None:
    bench.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b);")
    script = ".mode list\n.eqp on\nUPDATE t SET b = 1 WHERE a = 2;\nBEGIN;\nCOMMIT;\nSELECT 7;"
    shown = bench.run(script)
    plan = "QUERY PLAN\n`--SEARCH t USING INTEGER PRIMARY KEY (rowid=?)\n"
    assert shown == plan + "QUERY PLAN\n`--SCAN CONSTANT ROW\n7\n7\n"
    assert bench.run(".eqp off\nSELECT 7;") == "7\n7\n"


def test_a_plan_is_drawn_as_a_tree() -> None:
    rows = [(2, 0, 0, "A"), (3, 2, 0, "B"), (9, 3, 0, "C"), (5, 2, 0, "D"), (7, 0, 0, "E")]
    drawn = "QUERY PLAN\n|--A\n|  |--B\n|  |  `--C\n|  `--D\n`--E\n"
    assert drawn_plan(rows) == drawn
    assert drawn_plan([]) == "QUERY PLAN\n"


def test_widths_fold_and_align(bench: Bench) -> None:
    script = ".mode column\n.headers off\n.width 3 -4\nSELECT 'abcdef', 'x', 'as it is';"
    assert bench.run(script) == "abc     x  as it is\ndef\n"
    assert bench.run(".width\nSELECT 'abcdef', 'x';") == "abcdef  x\n"


def test_a_separator_may_be_a_semicolon(bench: Bench) -> None:
    script = ".mode list\n.headers off\n.separator ;\nSELECT 1, 2;\n.separator ,;\nSELECT 1, 2;"
    assert bench.run(script) == "1;2\n1,2\n"


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("select 1", "SELECT"),
        ("/* c */ -- d\n VALUES (1)", "VALUES"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
        ("WITH RECURSIVE a(x) AS (VALUES (1)), b AS MATERIALIZED (SELECT ')') SELECT 1", "SELECT"),
        ("with a as (select 1) insert into t select * from a", "INSERT"),
        ("WITH a AS (SELECT 1) DELETE FROM t", "DELETE"),
        ('WITH "select" AS (SELECT 1) UPDATE t SET a = 1', "UPDATE"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("", ""),
    ],
)
def test_what_a_statement_is_for(sql: str, verb: str) -> None:
    assert verb_of(sql) == verb


def test_parameters_are_found_where_they_are() -> None:
    sql = """SELECT ?, ?12, :a, @b, $c, ':d', "?e", [:f], `?`, x -> '$.g', 1.5e3 -- :h
        /* ?1 */ FROM t WHERE a = :é"""
    assert parameters_of(sql) == ["?", "?12", ":a", "@b", "$c", ":é"]


def test_a_query_with_a_common_table_streams(bench: Bench) -> None:
    asked: list[bool] = []
    execute = bench.connection.execute

    def watched(sql: str, parameters: object = (), /, **options: object) -> object:
        asked.append(bool(options.get("stream")))
        return execute(sql, parameters, **options)

    bench.connection.execute = watched  # type: ignore[method-assign, assignment]
    bench.run(".mode csv\nWITH a AS (SELECT 1) SELECT * FROM a;\nCREATE TABLE t(x);")
    bench.run("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a;")
    assert asked == [True, False, False]
