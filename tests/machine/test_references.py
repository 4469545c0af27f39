"""Parameters that refer to earlier results, as a log may hold them: no entry ends a node."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.command import Failed, Reference, Results, Statement
from tests.machine.support import Database

FAR = 1 << 63


@pytest.mark.parametrize(
    "wrong",
    [
        {"column": -9},
        {"column": -FAR},
        {"column": FAR},
        {"column": 1},
        {"column": ""},
        {"row": FAR},
        {"statement": FAR},
        {"parameter_set": FAR},
        {"place": FAR},
        {"place": -FAR},
        {"place": "a"},
    ],
)
def test_what_refers_to_nothing_is_the_requests_failure(
    database: Database, wrong: dict[str, Any]
) -> None:
    database.run("CREATE TABLE t (a)")
    fields = {"parameter_set": 0, "place": 0, "statement": 0, "column": 0, "row": 0} | wrong
    referring = Statement("INSERT INTO t VALUES (?)", ((None,),), (Reference(**fields),))
    reply = database.apply(database.request("SELECT 1", referring))
    assert isinstance(reply, Failed)
    assert (reply.error.code, reply.statement) == ("reference", 1)
    good = Statement("INSERT INTO t VALUES (?)", ((None,),), (Reference(0, 0, 0, 0, 0),))
    assert isinstance(database.apply(database.request("SELECT 1", good)), Results)
