"""Handing over leadership: who may have it in the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.consensus.transfer import Transfer


class _NoTimers:
    def call_later(self, _delay_s: float, _call: Any, *_arguments: Any) -> Any:
        return SimpleNamespace(cancel=lambda: None)

    def call_soon(self, call: Any, *arguments: Any) -> None:
        call(*arguments)


def _transfer(library: Any) -> Transfer:
    core: Any = SimpleNamespace(
        node_id="n1",
        electorate=SimpleNamespace(peers=("n2", "n3"), voters=("n2", "n3")),
        library=library,
        links=SimpleNamespace(connected=lambda _peer: True),
    )
    executor: Any = _NoTimers()
    return Transfer(core, executor, lambda: None)


def _library(asked: list[str]) -> Any:
    def ask(peer: str) -> bool:
        asked.append(peer)
        return True

    return SimpleNamespace(
        role="leader", term=1, leader="n1", transfer=ask, match_index=lambda _peer: 1
    )


@pytest.mark.parametrize(
    ("target", "next_leader", "reason"),
    [
        (None, "n2", ""),
        (None, "n3", ""),
        ("n2", "n2", ""),
        ("n2", "n3", "n3 leads now, not n2"),
    ],
)
def test_anyone_will_do_when_nobody_was_named(
    target: str | None, next_leader: str, reason: str
) -> None:
    """Two followers may stand at the same moment: the asked one, and one whose deadline is up."""
    library = _library([])
    transfer = _transfer(library)
    told: list[str] = []
    transfer.begin(target, told.append, 1.0)
    transfer.step(drained=True)
    library.role, library.term, library.leader = "follower", 2, None
    transfer.step(drained=True)
    assert told == []
    library.term, library.leader = 3, next_leader
    transfer.step(drained=True)
    assert told == [reason]


@pytest.mark.parametrize("target", [None, "n2"])
def test_who_wins_again_asks_again(target: str | None) -> None:
    asked: list[str] = []
    library = _library(asked)
    transfer = _transfer(library)
    told: list[str] = []
    transfer.begin(target, told.append, 1.0)
    transfer.step(drained=True)
    library.role, library.term, library.leader = "follower", 2, None
    transfer.step(drained=True)
    library.role, library.term, library.leader = "leader", 3, "n1"
    transfer.step(drained=False)
    assert asked == ["n2"]
    transfer.step(drained=True)
    transfer.step(drained=True)
    assert asked == ["n2", "n2"]
    assert told == []
    library.role, library.term, library.leader = "follower", 4, "n2"
    transfer.step(drained=True)
    assert told == [""]
