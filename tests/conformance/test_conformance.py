"""The corpus in this directory, against one machine: all as the bundled SQLite has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.run import _as_expected, run
from tests.conformance.script import Record, agrees, parse, result_lines
from tests.conformance.targets import Failure, OneMachine, Outcome, Plain

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*.test")))
def test_the_own_corpus(name: str) -> None:
    plain, target = Plain(), OneMachine(check_every=10)
    try:
        tally = run((CORPUS / name).read_text(), plain, target)
    finally:
        plain.close()
        target.close()
    assert tally.differences == []
    assert tally.stale == 0
    assert tally.statements > 30
    assert tally.queries > 5


class Wrong:
    """SQLite, with something changed."""

    name = "wrong"

    def __init__(self) -> None:
        self._plain = Plain()

    def run(self, sql: str) -> Outcome:
        outcome = self._plain.run(sql)
        if isinstance(outcome, Failure):
            return Failure(1, outcome.message)
        return [(*row[:-1], 999) if row[-1] == 3 else row for row in outcome]

    def close(self) -> None:
        self._plain.close()


def test_the_runner_sees_differences() -> None:
    plain, wrong = Plain(), Wrong()
    text = (CORPUS / "features.test").read_text()
    differences = run(text, plain, wrong).differences
    assert any("999" in text for text in differences)
    assert any("error 1 'UNIQUE" in text for text in differences)
    plain.close()
    wrong.close()


def test_what_is_refused_by_design_is_counted_and_several_statements_run_one_by_one() -> None:
    plain, target = Plain(), OneMachine()
    try:
        tally = run(
            "statement ok\nCREATE TABLE t (a); CREATE TEMP VIEW v AS SELECT 1\n\n"
            "statement error\nDROP VIEW v\n\nquery I\nSELECT count(*) FROM t\n----\n0\n",
            plain,
            target,
        )
    finally:
        plain.close()
        target.close()
    assert (tally.refused, tally.differences, tally.stale) == (1, [], 0)


def test_scripts_are_read_as_they_are_meant() -> None:
    text = (
        "hash-threshold 8\n\nskipif sqlite\nstatement ok\nnot for us\n\n"
        "onlyif mysql # a remark\nstatement ok\nnor this\n\n"
        "onlyif sqlite\nstatement error\nSELECT\n"
        "FROM\n\nquery IRT rowsort label-1\nSELECT 1, 2, ''\n----\n1\n2.000\n(empty)\n\n"
        "query I valuesort\nSELECT 5\n\nhalt\n\nstatement ok\nnever\n"
    )
    records = list(parse(text))
    assert [(one.kind, one.sql) for one in records] == [
        ("statement", "SELECT\nFROM"),
        ("query", "SELECT 1, 2, ''"),
        ("query", "SELECT 5"),
    ]
    assert records[0].fails
    assert (records[1].types, records[1].sort, records[1].label) == ("IRT", "rowsort", "label-1")
    assert agrees(records[1], result_lines(records[1], [(1, 2, "")]))
    assert not agrees(records[1], result_lines(records[1], [(1, 2, "x")]))
    hashed = Record(1, "", "query", types="I", expected=["2 values hashing to " + "0" * 32])
    assert not agrees(hashed, ["1", "2"])
    hashed.expected = ["2 values hashing to 6ddb4095eb719e2a9f0a3f95677d24e0"]
    assert agrees(hashed, ["1", "2"])
    with pytest.raises(ValueError, match="line 2"):
        list(parse("\nnonsense here\n"))


def test_scripts_of_other_runners_are_read_too() -> None:
    text = (
        "\ufeffstatement count 1\r\nCREATE TABLE t (a)\r\n\r\nquery II nosort x#1\r\n"
        "SELECT 1, 2\r\n----\r\n1\t2\r\n\r\n"
        "query R\nSELECT -9223372036854775808.0\n----\n-9223372036854776000.000\n\n"
        "query R\nSELECT 9e999\n----\ninf\n\n"
    )
    plain, target = Plain(), OneMachine()
    try:
        tally = run(text, plain, target)
    finally:
        plain.close()
        target.close()
    assert (tally.statements, tally.queries, tally.stale, tally.differences) == (1, 3, 0, [])
    for wrong in ("statement", "statement maybe", "query", "query I sorted"):
        with pytest.raises(ValueError, match="line 1"):
            list(parse(f"{wrong}\nSELECT 1\n"))


def test_queries_of_one_label_say_the_same() -> None:
    plain, target = Plain(), Plain()
    same = "query I rowsort same\nSELECT {} UNION ALL SELECT {}\n----\n1\n2\n\n"
    try:
        tally = run(same.format(1, 2) + same.format(2, 1) + same.format(1, 3), plain, target)
    finally:
        plain.close()
        target.close()
    assert tally.differences == ["line 13: others of same differ"]
    assert tally.stale == 1
    narrow = Record(1, "", "query", types="II", expected=["1"])
    assert not _as_expected(narrow, [(1,)])
