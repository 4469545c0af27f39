"""Row 22: a member that has lost its log. The transcript has the story."""

from __future__ import annotations

from raftdb.consensus.messages import Ack, Append
from tests.consensus.bench import Bench


def test_row_22_what_a_member_held_counts_no_more_once_it_has_lost_it() -> None:
    bench = Bench()
    bench.elect()
    bench.core.append_own(b"\x10\x90")
    bench.journal.sync()
    bench.receive("n2", Ack(1, 1, True, 2))
    assert bench.library.match_index("n2") == 2
    bench.take()
    bench.core.replicator.forget("n2")
    assert bench.library.match_index("n2") == 0
    [probe] = [one for one in bench.take() if isinstance(one, Append)]
    assert (probe.prev_index, probe.entries) == (3, ())
    # And it is led back to where its log ends now, below what it had.
    bench.receive("n2", Ack(1, probe.sequence, False, 2))
    [again] = [one for one in bench.take() if isinstance(one, Append)]
    assert again.prev_index == 1
