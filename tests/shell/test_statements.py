"""Where a statement ends."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import DataError, ProgrammingError
from raftdb.shell.statements import (
    Piece,
    StatementReader,
    is_complete,
    leading_words,
    read_pieces,
)


def pieces(text: str) -> list[tuple[int, str]]:
    return [(one.line, one.text) for one in read_pieces(text.splitlines(keepends=True))]


def test_several_statements_on_one_line_and_one_over_several() -> None:
    text = "SELECT 1; SELECT 2;\nSELECT\n  3\n;\n\nSELECT 4"
    assert pieces(text) == [
        (1, "SELECT 1;"),
        (1, "SELECT 2;"),
        (2, "SELECT\n  3\n;"),
        (6, "SELECT 4"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a;b', \"c;d\", `e;f`, [g;h];",
        "SELECT 'it''s; here';",
        "SELECT 1 -- not; here\n;",
        "SELECT 1 /* nor; \n here; */ + 2;",
        "SELECT '-- ;', 1;",
        "SELECT '/*', ';', '*/';",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM b; UPDATE c SET d = 1;\nEND;",
        "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END;",
    ],
)
def test_a_semicolon_inside_ends_nothing(statement: str) -> None:
    assert pieces(statement + "\nSELECT 2;") == [
        (1, statement),
        (statement.count("\n") + 2, "SELECT 2;"),
    ]


def test_comments_and_empty_statements_are_no_statements() -> None:
    assert pieces("-- a; b\n;;\n/* c; */ ;\n  \n") == []
    assert pieces("-- first\nSELECT 1;") == [(2, "SELECT 1;")]


def test_dot_commands_only_between_statements() -> None:
    assert pieces(".tables\nSELECT\n.5;\n  .mode csv\n") == [
        (1, ".tables"),
        (2, "SELECT\n.5;"),
        (4, ".mode csv"),
    ]


def test_an_open_quote_at_the_end_is_named_with_its_line() -> None:
    with pytest.raises(ProgrammingError, match=r"string .* line 2 is never closed"):
        pieces("SELECT 1;\nSELECT 'oops;\nSELECT 2;")


def test_an_open_comment_at_the_end_is_fine_as_in_sqlite() -> None:
    assert pieces("SELECT 1 /* and so on") == [(1, "SELECT 1 /* and so on")]


def test_a_statement_that_never_ends_is_refused_early() -> None:
    reader = StatementReader(bytes_max=100)
    assert list(reader.feed("SELECT 'oops, a quote\n")) == []
    with pytest.raises(DataError, match=r"line 1 has more than 100 bytes"):
        list(reader.feed("x" * 100))
    assert list(reader.feed("SELECT 1;")) == [Piece("SELECT 1;", 3)]


def test_leading_words_skip_comments() -> None:
    assert leading_words("/* a */ -- b\n create /* c */ unique index x", 3) == (
        "CREATE",
        "UNIQUE",
        "INDEX",
    )
    assert leading_words("(select 1)") == ()


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("", True),
        (".tables", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT ';", False),
        ("SELECT 1; SELECT 2", False),
        ("CREATE TRIGGER a AFTER INSERT ON b BEGIN SELECT 1;", False),
        ("-- just a remark", True),
        ("/* open", False),
    ],
)
def test_when_enter_runs_it(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


_TOKENS = st.lists(
    st.sampled_from(
        ["'", '"', "`", "[", "]", ";", "--", "/*", "*/", "\n", " ", "a", "SELECT", "''"]
    ),
    max_size=30,
)


@given(_TOKENS)
def test_agrees_with_sqlite_on_what_is_complete(tokens: list[str]) -> None:
    """Everything cut off is complete by SQLite's own account, and nothing is lost."""
    text = "".join(tokens)
    reader = StatementReader()
    found: list[Piece] = []
    for line in text.splitlines(keepends=True):
        found += reader.feed(line)
    for piece in found:
        assert sqlite3.complete_statement(piece.text)
    if not reader.pending and sqlite3.complete_statement(text):
        assert reader.finish() is None
    position = 0
    for piece in found:
        position = text.index(piece.text, position) + len(piece.text)
