"""The demo's check can fail: each broken promise is seen and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raftdb.base.errors import UnavailableError
from raftdb.demo.check import broken_promises, check_nodes
from raftdb.demo.ledger import Ledger

NODES = ["n1", "n2", "n3"]


class FakeConnection:
    """One node's own copy."""

    def __init__(self, rows: dict[tuple[int, int], int], total: str, index: int = 9) -> None:
        self._rows = rows
        self._content = {"index": index, "total": total}

    def __enter__(self) -> FakeConnection:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def content_hash(self, **_: Any) -> dict[str, Any]:
        return self._content

    def execute(self, _sql: str) -> list[tuple[int, int, int]]:
        return [(client, n, count) for (client, n), count in self._rows.items()]


def _ledger() -> Ledger:
    ledger = Ledger(2)
    ledger.records[0].acknowledge(range(1, 4))
    ledger.records[1].acknowledge(range(1, 3))
    return ledger


def _rows() -> dict[tuple[int, int], int]:
    return {(0, 1): 1, (0, 2): 1, (0, 3): 1, (1, 1): 1, (1, 2): 1}


def _found(ledger: Ledger, connect: Callable[[str], Any]) -> list[str]:
    return broken_promises(ledger, check_nodes(ledger, NODES, connect))


def test_kept_promises() -> None:
    assert _found(_ledger(), lambda _: FakeConnection(_rows(), "aa")) == []


def _lost(node_id: str) -> FakeConnection:
    rows = _rows()
    if node_id == "n2":
        del rows[(1, 2)]
    return FakeConnection(rows, "aa")


def _twice(node_id: str) -> FakeConnection:
    return FakeConnection({**_rows(), (0, 2): 2 if node_id == "n3" else 1}, "aa")


def _different(node_id: str) -> FakeConnection:
    return FakeConnection(_rows(), "aa" if node_id != "n1" else "ab")


def _behind(node_id: str) -> FakeConnection:
    return FakeConnection(_rows(), "aa", index=9 if node_id != "n1" else 8)


def _gone(node_id: str) -> FakeConnection:
    if node_id == "n1":
        raise UnavailableError("no such node")
    return FakeConnection(_rows(), "aa")


@pytest.mark.parametrize(
    ("connect", "words"),
    [
        (_lost, "never lost: 1 are missing on n2, such as client 1 row 2"),
        (_twice, "applied twice: 1 are there repeatedly on n3, such as client 0 row 2"),
        (_different, "content hashes differ"),
        (_behind, "n1 could not: applied 8 of 9"),
        (_gone, "n1 could not: no such node"),
    ],
)
def test_each_broken_promise_is_named(connect: Callable[[str], Any], words: str) -> None:
    assert any(words in promise for promise in _found(_ledger(), connect))


def test_failures_and_stale_reads_count() -> None:
    ledger = _ledger()
    ledger.records[0].failures.append("client 0: deadline")
    ledger.records[1].stale_reads.append("client 1 read 1 after 2")
    broken = _found(ledger, lambda _: FakeConnection(_rows(), "aa"))
    assert any("no request fails: 1 did" in promise for promise in broken)
    assert any("linearizable: 1 were not" in promise for promise in broken)


def test_the_longest_silence_is_between_two_commits_or_an_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger(1)
    for moment in (10.0, 10.1, 10.6, 10.7):
        monkeypatch.setattr("raftdb.demo.ledger.time.monotonic", lambda moment=moment: moment)
        ledger.committed()
    assert ledger.longest_silence_s(10.0, 10.8) == pytest.approx(0.5)
    assert ledger.longest_silence_s(9.0, 10.8) == pytest.approx(1.0)
    assert ledger.commits_between(10.05, 10.65) == 2
