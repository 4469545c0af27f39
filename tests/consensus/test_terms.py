"""Terms that no elections led to: from a member whose memory is damaged, or a hostile one."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import ProtocolError
from raftdb.consensus.messages import (
    NUMBER_MAX,
    TERM_JUMP_MAX,
    Ack,
    Heartbeat,
    RequestVote,
    TermHint,
    TimeoutNow,
    Vote,
)
from tests.consensus.bench import Bench
from tests.consensus.test_rows import append


@pytest.mark.parametrize(
    "message",
    [
        TermHint(NUMBER_MAX, False),
        RequestVote(NUMBER_MAX, 1, 0, True),
        Vote(NUMBER_MAX),
        Heartbeat(NUMBER_MAX, 1, 0),
        append(NUMBER_MAX, 1, 1, 0, 0),
        Ack(TERM_JUMP_MAX + 10, 1, True, 1),
        TimeoutNow(NUMBER_MAX),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_term_that_no_elections_led_to_is_not_adopted(message: Any) -> None:
    """Behind the highest number there is no term left to elect a leader in."""
    bench = Bench([1])
    term = bench.core.library.term
    with pytest.raises(ProtocolError, match="is in term"):
        bench.receive("n2", message)
    bench.journal.sync()
    assert bench.core.library.term == bench.journal.hard_state.term == term
    bench.receive("n2", TermHint(term + 1_000_000, False))
    assert bench.core.library.term == term + 1_000_000
