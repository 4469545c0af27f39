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


@pytest.mark.parametrize(
    ("target", "next_leader", "reason"),
    [
        (None, "n2", ""),
        (None, "n3", ""),
        (None, "n1", "n1 became leader instead"),
        ("n2", "n2", ""),
        ("n2", "n3", "n3 became leader instead"),
    ],
)
def test_anyone_will_do_when_nobody_was_named(
    target: str | None, next_leader: str, reason: str
) -> None:
    """Two followers may stand at the same moment: the asked one, and one whose deadline is up."""
    library = SimpleNamespace(
        role="leader",
        term=1,
        leader="n1",
        transfer=lambda _peer: True,
        match_index=lambda _peer: 1,
    )
    core: Any = SimpleNamespace(
        node_id="n1",
        electorate=SimpleNamespace(peers=("n2", "n3"), voters=("n2", "n3")),
        library=library,
        links=SimpleNamespace(connected=lambda _peer: True),
    )
    told: list[str] = []
    executor: Any = _NoTimers()
    transfer = Transfer(core, executor, lambda: None)
    transfer.begin(target, told.append, 1.0)
    transfer.step(drained=True)
    library.role, library.term, library.leader = "follower", 2, None
    transfer.step(drained=True)
    assert told == []
    library.term, library.leader = 3, next_leader
    if next_leader == "n1":
        library.role = "leader"
    transfer.step(drained=True)
    assert told == [reason]
