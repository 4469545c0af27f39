"""Questions for the content hash: few at a time, and one look for all who wait."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raftdb.base.errors import DeadlineError, OverloadedError
from raftdb.node import hashes
from tests.node.fakes import Bench
from tests.node.test_reading import token


def looking() -> Bench:
    bench = Bench()
    nothing = b""
    content = SimpleNamespace(
        index=50, position=0, total=b"t", schema=nothing, sequences=nothing, results=nothing
    )
    content.tables = {}
    bench.machine.content_hash = lambda: content  # type: ignore[attr-defined]
    return bench


@pytest.mark.parametrize("what", ["hash", "durability"])
def test_a_few_questions_do_not_take_the_room_that_reads_have(what: str) -> None:
    """8,192 of them, of a few clients, and no read was taken for an hour."""
    bench, never = looking(), 1 << 62
    for _ in range(hashes.ASKED_MAX + 1):
        if what == "hash":
            bench.replica.content_hash(never, 3_600.0, bench.done)
        else:
            bench.replica.await_durable(token(never), "", 3_600.0, bench.done)
    bench.loop.run()
    (refused,) = bench.answers
    assert isinstance(refused, OverloadedError)
    assert len(bench.engine.waits) == hashes.ASKED_MAX
    bench.loop.pass_time(3_601.0)
    assert isinstance(bench.answers[-1], DeadlineError)
    if what == "hash":
        bench.replica.content_hash(None, 5.0, bench.done)
        bench.loop.run()
        assert bench.answers[-1].body["total"] == b"t".hex(), "there is room again"
    else:
        bench.replica.await_durable(token(51), "", 5.0, bench.done)
        bench.engine.apply(51)
        bench.loop.run()
        assert bench.answers[-1].body == {"index": 51}


def test_who_asks_meanwhile_shares_the_next_look() -> None:
    """Each look is on the lane that applies: a thousand would hold up every write."""
    bench = looking()
    for _ in range(100):
        bench.replica.content_hash(None, 5.0, bench.done)
    assert bench.loop.lanes == ["apply"]
    bench.loop.run()
    assert bench.loop.lanes == ["apply", "apply"], "what was asked after the first began"
    assert [one.body["index"] for one in bench.answers] == [50] * 100
