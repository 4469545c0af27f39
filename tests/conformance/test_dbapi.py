"""What CPython's own tests of sqlite3 found: the loader, and the differences that were mended."""

from __future__ import annotations

import unittest
from pathlib import Path

import pytest

import raftdb
from raftdb.client import Row
from raftdb.client.values import adapt_parameters
from tests.client.server import FakeNode
from tests.conformance import dbapi

pytest.importorskip(dbapi.PACKAGE, reason="this Python comes without its tests")


def test_the_tests_are_loaded_with_raftdb_in_the_place_of_sqlite3(tmp_path: Path) -> None:
    node = FakeNode()
    try:
        stand = dbapi.Stand(f"raftdb://{node.address}/?insecure=1")
        cases, problems = dbapi.load(stand)
        names = {case.id().removeprefix(dbapi.PACKAGE + ".") for case in cases}
        assert "test_dbapi.CursorTests.test_execute_many_generator" in names
        assert len(names) > 300
        assert not problems
        case = next(case for case in cases if case.id().endswith("test_execute_many_generator"))
        result = unittest.TestResult()
        case.run(result)
        assert result.wasSuccessful(), result.errors
        stand.close()
    finally:
        node.close()
    import sqlite3

    assert sqlite3.connect is not raftdb.connect


def test_whatever_has_a_length_and_items_is_a_sequence() -> None:
    class Two:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, place: int) -> int:
            return 10 + place

    assert adapt_parameters(Two()) == (10, 11)
    for wrong in ({1, 2}, 5, "text", b"bytes", iter([1])):
        with pytest.raises(raftdb.InterfaceError):
            adapt_parameters(wrong)


def test_names_of_rows_fold_a_to_z_alone_and_ignored_inserts_keep_lastrowid() -> None:
    node = FakeNode()
    try:
        with raftdb.connect(f"raftdb://{node.address}/?insecure=1") as db:
            db.row_factory = Row
            row = db.execute('SELECT 1 AS "\xe9A"').fetchone()
            assert row["\xe9a"] == 1
            with pytest.raises(IndexError):
                row["\xc9a"]
            cursor = db.execute("CREATE TABLE t (a UNIQUE)")
            cursor.execute("INSERT INTO t VALUES (1), (2)")
            cursor.execute("INSERT OR IGNORE INTO t VALUES (2)")
            assert (cursor.lastrowid, cursor.rowcount) == (2, 0)
    finally:
        node.close()
