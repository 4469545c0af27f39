"""Scripted runs of the table's rows: what pysyncobj does by itself, and what it does behind the
wall. Each script is run twice, once with the rule and once with the library's own behaviour in its
place, so that it is known to reach the hole."""

from __future__ import annotations

import pytest

from raftdb.base.errors import FatalError
from raftdb.base.limits import Limits
from raftdb.consensus.messages import (
    Ack,
    Append,
    Heartbeat,
    HeartbeatAck,
    PreVote,
    PreVoteResponse,
    RequestVote,
    TermHint,
    TimeoutNow,
    Vote,
)
from raftdb.consensus.wall import Wall
from tests.consensus.bench import Bench
from tests.sim.planted import rules

NEW = b"\x10\x90"


def append(term: int, sequence: int, prev: int, prev_term: int, commit: int, *terms: int) -> Append:
    return Append(term, sequence, prev, prev_term, commit, tuple((t, NEW) for t in terms))


# -- row 1 and rule C1 ---------------------------------------------------------------------------


def test_row_1_an_ack_waits_for_the_disk() -> None:
    bench = Bench()
    bench.receive("n2", append(1, 1, 1, 0, 0, 1))
    assert bench.take() == []
    bench.journal.sync()
    assert bench.take() == [Ack(1, 1, True, 2)]


def test_row_1_stock_acknowledges_what_a_power_cut_takes() -> None:
    bench = Bench(wall=rules.AcksDoNotWait())
    bench.receive("n2", append(1, 1, 1, 0, 0, 1))
    assert bench.take() == [Ack(1, 1, True, 2)]
    assert bench.journal.durable_index == 1


def test_row_1_a_vote_waits_for_the_disk() -> None:
    bench = Bench()
    bench.receive("n2", RequestVote(1, 1, 0, False))
    assert bench.take() == []
    assert bench.journal.durable_hard_state.vote is None
    bench.journal.sync()
    assert bench.take() == [Vote(1)]
    assert bench.journal.durable_hard_state.vote == "n2"


def test_rule_c1_the_candidates_own_vote_is_durable_before_it_asks() -> None:
    bench = Bench()
    bench.pass_time(1)
    bench.core.on_election_deadline()
    assert bench.take() == [PreVote(0, 1, 0)] * 2
    bench.receive("n2", PreVoteResponse(0, 1))
    assert bench.library.role == "candidate"
    assert bench.take() == []
    bench.journal.sync()
    assert bench.take() == [RequestVote(1, 1, 0, False)] * 2
    assert bench.journal.durable_hard_state.vote == "n1"


def votes_around_a_power_cut(wall: Wall) -> list[tuple[int, str]]:
    """(term, for whom) of every vote that left n1: n2 asks, the power goes before the disk has
    anything, and after the restart n3 asks for the same term."""
    left = []
    bench = Bench(wall=wall)
    bench.receive("n2", RequestVote(1, 1, 0, False))
    left += [(vote.term, "n2") for vote in bench.take(Vote)]
    kept = bench.journal.durable_hard_state
    reborn = Bench(wall=wall, term=kept.term)
    assert kept.vote is None
    reborn.receive("n3", RequestVote(1, 1, 0, False))
    reborn.journal.sync()
    return left + [(vote.term, "n3") for vote in reborn.take(Vote)]


def test_row_1_no_power_cut_makes_a_node_vote_twice() -> None:
    assert votes_around_a_power_cut(Wall()) == [(1, "n3")]


def test_row_1_stock_votes_twice_in_a_term() -> None:
    assert votes_around_a_power_cut(rules.VotesDoNotWait()) == [(1, "n2"), (1, "n3")]


def test_row_1_messages_leave_in_the_order_of_their_making_and_acks_are_cumulative() -> None:
    bench = Bench()
    bench.receive("n2", RequestVote(1, 1, 0, False))
    bench.receive("n2", append(1, 1, 1, 0, 0, 1))
    bench.receive("n2", append(1, 2, 2, 1, 0, 1, 1))
    bench.journal.sync()
    assert bench.take() == [Vote(1), Ack(1, 2, True, 4)]


def test_row_1_an_ack_of_a_connection_that_is_gone_is_dropped() -> None:
    bench = Bench()
    bench.receive("n2", append(1, 1, 1, 0, 0, 1))
    bench.links.epochs["n2"] = 2
    bench.journal.sync()
    assert bench.take() == []


# -- row 2 ---------------------------------------------------------------------------------------


def test_row_2_the_leader_does_not_count_what_its_disk_has_not() -> None:
    bench = Bench()
    bench.elect()
    bench.receive("n2", Ack(1, 1, True, 2))
    last = bench.append()
    sent = bench.take(Append, "n2")[-1]
    bench.receive("n2", Ack(1, sent.sequence, True, last))
    assert bench.library.commit_index < last
    bench.journal.sync()
    bench.core.advance_commit()
    assert bench.library.commit_index == last


def test_row_2_a_majority_of_others_is_enough() -> None:
    bench = Bench()
    bench.elect()
    for peer in bench.peers:
        bench.receive(peer, Ack(1, 1, True, 2))
    last = bench.append()
    for peer in bench.peers:
        bench.receive(peer, Ack(1, 2, True, last))
    assert bench.library.commit_index == last


def test_row_2_stock_counts_itself_at_once() -> None:
    bench = Bench(wall=rules.OwnCopyCountsAtOnce())
    bench.elect()
    bench.receive("n2", Ack(1, 1, True, 2))
    last = bench.append()
    bench.receive("n2", Ack(1, 2, True, last))
    assert bench.library.commit_index == last > bench.journal.durable_index


def test_row_2_a_single_member_commits_with_its_disk() -> None:
    bench = Bench(size=1)
    bench.pass_time(1)
    bench.core.on_election_deadline()
    bench.core.advance_commit()
    assert bench.library.role == "leader"
    assert bench.library.commit_index == 1
    bench.journal.sync()
    bench.core.advance_commit()
    assert bench.library.commit_index == 2


# -- row 3 ---------------------------------------------------------------------------------------


def test_row_3_a_late_append_takes_nothing_back() -> None:
    bench = Bench()
    bench.receive("n2", append(1, 1, 1, 0, 0, 1, 1, 1))
    bench.receive("n2", append(1, 2, 1, 0, 0, 1))
    bench.journal.sync()
    assert bench.journal.terms() == [1, 1, 1]
    assert bench.take(Ack)[-1] == Ack(1, 2, True, 2)


def test_row_3_stock_deletes_what_it_acknowledged() -> None:
    bench = Bench(wall=rules.StockAppend())
    bench.receive("n2", append(1, 1, 1, 0, 0, 1, 1, 1))
    bench.receive("n2", append(1, 2, 1, 0, 0, 1))
    assert bench.journal.terms() == [1]


def test_row_3_a_conflict_replaces_the_tail() -> None:
    bench = Bench([1, 1, 1], term=1)
    bench.receive("n2", append(2, 1, 2, 1, 0, 2))
    assert bench.journal.terms() == [1, 2]


def test_row_3_a_conflict_with_what_is_committed_is_fatal() -> None:
    bench = Bench([1, 1, 1], term=1)
    bench.receive("n2", append(1, 1, 4, 1, 3))
    assert bench.library.commit_index == 3
    with pytest.raises(FatalError, match="committed here"):
        bench.receive("n3", append(2, 1, 2, 1, 0, 2))
    assert bench.journal.terms() == [1, 1, 1]


def test_row_3_success_does_not_send_again_what_is_in_flight() -> None:
    bench = Bench()
    bench.elect()
    first = bench.take(Append, "n2")[0]
    bench.receive("n2", Ack(1, first.sequence, True, 2))
    bench.append(3)
    assert [m.prev_index for m in bench.take(Append, "n2")] == [2, 3, 4]
    bench.receive("n2", Ack(1, first.sequence + 1, True, 3))
    bench.core.replicator.replicate("n2")
    assert bench.take(Append, "n2") == []
    assert bench.library.next_index("n2") == 6


def test_row_3_stock_moves_next_back_with_each_success() -> None:
    bench = Bench(wall=rules.StockAppendAndNext())
    bench.elect()
    bench.receive("n2", Ack(1, 1, True, 2))
    bench.append(3)
    bench.take()
    bench.receive("n2", Ack(1, 2, True, 3))
    bench.core.replicator.replicate("n2")
    assert [m.prev_index for m in bench.take(Append, "n2")] == [3]


# -- rows 4 and 5 --------------------------------------------------------------------------------


def divergent(wall: Wall) -> Bench:
    """A tail of term 1 that exists nowhere else, and a leader of term 2 who verifies up to 3."""
    bench = Bench([1, 1, 1, 1], term=1, wall=wall)
    bench.receive("n2", append(2, 1, 3, 1, 5))
    bench.journal.sync()
    return bench


def test_row_4_commit_stops_at_what_was_verified() -> None:
    assert divergent(Wall()).library.commit_index == 3


def test_row_4_stock_commits_its_divergent_tail() -> None:
    assert divergent(rules.FollowerCommitsItsTail()).library.commit_index == 5


def test_row_4_heartbeats_commit_only_what_their_leader_verified() -> None:
    bench = Bench([1, 1, 1, 1], term=1)
    bench.receive("n2", Heartbeat(2, 1, 5))
    assert bench.library.commit_index == 1
    bench.receive("n2", append(2, 1, 3, 1, 1))
    bench.receive("n2", Heartbeat(2, 2, 5))
    assert bench.library.commit_index == 3
    bench.receive("n3", Heartbeat(3, 1, 5))
    assert bench.library.commit_index == 3


def test_row_5_an_ack_does_not_speak_for_the_tail() -> None:
    assert divergent(Wall()).take(Ack) == [Ack(2, 1, True, 3)]


def test_row_5_stock_acknowledges_its_tail() -> None:
    assert divergent(rules.AcknowledgesItsTail()).take(Ack) == [Ack(2, 1, True, 5)]


# -- row 6 ---------------------------------------------------------------------------------------


def late_ack(wall: Wall) -> tuple[Bench, int]:
    """Five members. n1 led term 1 and sent n2 six entries; it was replaced and leads term 3 now,
    with other entries; n2's acknowledgement of term 1 arrives."""
    bench = Bench(size=5, wall=wall)
    bench.elect()
    bench.append(6)
    sequence = bench.take(Append, "n2")[-1].sequence
    bench.receive("n3", append(2, 1, 1, 0, 0, 2))
    bench.elect()
    last = bench.append(3)
    bench.journal.sync()
    progress = bench.core.replicator._progress
    bench.receive("n4", Ack(3, progress["n4"].sequence, True, last))
    bench.receive("n2", Ack(1, sequence, True, last))
    return bench, last


def test_row_6_an_ack_of_an_older_term_does_not_commit() -> None:
    bench, last = late_ack(Wall())
    assert bench.library.term == 3
    assert bench.library.commit_index < last


def test_row_6_stock_commits_what_two_of_five_hold() -> None:
    bench, last = late_ack(rules.AcksOfAnyTerm())
    assert bench.library.commit_index == last


# -- thesis 3.6.2 --------------------------------------------------------------------------------


def older_term(wall: Wall) -> Bench:
    """Figure 3.7: an entry of term 1 on a majority, under a leader of term 2 whose own no-op is
    on no majority yet."""
    bench = Bench([1], term=1, wall=wall)
    bench.elect()
    sequence = bench.take(Append, "n2")[-1].sequence
    bench.receive("n2", Ack(2, sequence, False, 2))
    sent = bench.take(Append, "n2")[-1]
    bench.receive("n2", Ack(2, sent.sequence, True, 2))
    return bench


def test_an_older_terms_entry_waits_for_the_no_op() -> None:
    assert older_term(Wall()).library.commit_index == 1


def test_counting_commits_an_entry_that_can_still_be_replaced() -> None:
    assert older_term(rules.CommitsOlderTerms()).library.commit_index == 2


# -- row 7 ---------------------------------------------------------------------------------------


def two_answers_of_one_voter(wall: Wall) -> str:
    bench = Bench(size=5, wall=wall)
    bench.pass_time(1)
    bench.core.on_election_deadline()
    for peer in ("n2", "n3"):
        bench.receive(peer, PreVoteResponse(0, 1))
    bench.journal.sync()
    bench.receive("n2", Vote(1))
    bench.receive("n2", Vote(1))
    return bench.library.role


def test_row_7_a_repeated_vote_does_not_elect() -> None:
    assert two_answers_of_one_voter(Wall()) == "candidate"


def test_row_7_stock_is_elected_by_two_of_five() -> None:
    assert two_answers_of_one_voter(rules.CountsEveryVote()) == "leader"


def test_row_7_votes_of_another_term_do_not_count() -> None:
    bench = Bench()
    bench.elect()
    bench.receive("n2", Heartbeat(2, 1, 0))
    bench.receive("n3", Vote(1))
    assert bench.library.role == "follower"


# -- row 8 ---------------------------------------------------------------------------------------


def find_the_parting(wall: Wall, divergent_entries: int) -> int:
    """Messages that a leader of term 9 needs until a divergent follower takes its entries."""
    limits = Limits(append_bytes_max=1)
    leader = Bench([1] * 5 + [8] * 400, term=8, wall=wall, limits=limits)
    follower = Bench([1] * 5 + [2] * divergent_entries, term=2, wall=wall)
    leader.elect()
    for messages in range(1, 2 * divergent_entries + 10):
        sent = leader.take(Append, "n2")
        for message in sent:
            follower.receive("n1", message)
        follower.journal.sync()
        for ack in follower.take(Ack):
            if ack.success:
                return messages
            leader.receive("n2", ack)
    raise AssertionError("they never agree")


def test_row_8_ten_thousand_divergent_entries_cost_a_few_messages() -> None:
    assert find_the_parting(Wall(), 300) <= 4


def test_row_8_one_step_back_at_a_time_costs_one_message_each() -> None:
    assert find_the_parting(rules.HintIsOneBack(), 300) >= 200


def test_row_8_refusals_of_what_was_in_flight_rewind_once() -> None:
    bench = Bench([1, 1, 1, 1], term=1)
    bench.elect()
    bench.receive("n2", Ack(2, 1, True, 6))
    bench.take()
    bench.append(4)
    in_flight = [message.sequence for message in bench.take(Append, "n2")]
    bench.core.on_connected("n2")
    bench.take()
    before = bench.library.next_index("n2")
    for sequence in in_flight:
        bench.receive("n2", Ack(2, sequence, False, 3))
    assert bench.library.next_index("n2") == before
    assert bench.take(Append, "n2") == []


def test_row_8_stock_rewinds_below_what_matches() -> None:
    bench = Bench([1, 1, 1, 1], term=1, wall=rules.AnyRejectRewinds())
    bench.elect()
    bench.receive("n2", Ack(2, 1, True, 6))
    bench.take()
    bench.append(4)
    in_flight = [message.sequence for message in bench.take(Append, "n2")]
    bench.receive("n2", Ack(2, in_flight[0], False, 3))
    assert bench.take(Append, "n2")[0].prev_index + 1 <= bench.library.match_index("n2")


def test_row_8_a_follower_that_denies_what_it_acknowledged_does_not_make_the_leader_spin() -> None:
    bench = Bench()
    bench.elect()
    bench.receive("n2", Ack(1, 1, True, 2))
    bench.append(1)
    for _ in range(5):
        for message in bench.take(Append, "n2"):
            bench.receive("n2", Ack(1, message.sequence, False, 1))
    assert bench.take(Append, "n2") == []
    assert "replication_stalled" in bench.log.events()
    number = bench.core.send_heartbeats()
    bench.take()
    bench.receive("n2", HeartbeatAck(1, number))
    assert len(bench.take(Append, "n2")) == 1


# -- row 18 --------------------------------------------------------------------------------------


def test_row_18_an_answer_makes_room_for_the_next_append() -> None:
    limits = Limits(append_bytes_max=1, append_inflight_bytes_max=25)
    bench = Bench(limits=limits)
    bench.elect()
    bench.receive("n2", Ack(1, 1, True, 2))
    bench.take()
    bench.append(10, b"x" * 10)
    got = bench.take(Append, "n2")
    assert [message.prev_index for message in got] == [2, 3, 4]
    for _ in range(7):
        oldest = got.pop(0)
        bench.receive("n2", Ack(1, oldest.sequence, True, oldest.prev_index + 1))
        (following,) = bench.take(Append, "n2")
        got.append(following)
    assert bench.library.next_index("n2") == 13


def test_row_18_equally_far_followers_get_the_very_same_message() -> None:
    bench = Bench()
    bench.elect()
    for peer in bench.peers:
        bench.receive(peer, Ack(1, 1, True, 2))
    bench.take()
    bench.append(1)
    first, second = bench.take(Append)
    assert first is second
    bench.receive("n2", Ack(1, first.sequence, True, 3))
    bench.append(1)
    assert [message.sequence for message in bench.take(Append, "n3")] == [first.sequence + 1]


# -- row 9 ---------------------------------------------------------------------------------------


def returning_node(wall: Wall) -> Bench:
    """n1 follows n2, whom it heard 0.1 s ago; n3 was cut off and comes back."""
    bench = Bench([1], term=1, wall=wall)
    bench.receive("n2", Heartbeat(1, 1, 1))
    bench.pass_time(0.1)
    bench.receive("n3", PreVote(1, 2, 1))
    bench.receive("n3", RequestVote(7, 2, 1, False))
    bench.journal.sync()
    return bench


def test_row_9_a_healthy_leader_is_not_deposed() -> None:
    bench = returning_node(Wall())
    assert bench.take() == [HeartbeatAck(1, 1)]
    assert (bench.library.term, bench.library.leader) == (1, "n2")


def test_row_9_without_the_rules_it_is() -> None:
    bench = returning_node(rules.NoStickiness())
    assert PreVoteResponse(1, 2) in bench.links.sent[0:2][1]
    assert Vote(7) in bench.take()


def test_row_9_a_silent_leader_is_replaced() -> None:
    bench = Bench([1], term=1)
    bench.receive("n2", Heartbeat(1, 1, 1))
    bench.pass_time(0.31)
    bench.take()
    bench.receive("n3", PreVote(1, 2, 1))
    assert bench.take() == [PreVoteResponse(1, 2)]


def test_row_9_nobody_campaigns_alone() -> None:
    bench = Bench()
    for _ in range(5):
        bench.pass_time(1)
        bench.core.on_election_deadline()
    assert (bench.library.role, bench.library.term) == ("follower", 0)


def test_row_9_a_leader_without_quorum_steps_down() -> None:
    bench = Bench()
    bench.elect()
    bench.pass_time(0.59)
    bench.core.check_quorum()
    assert bench.library.role == "leader"
    bench.pass_time(0.02)
    bench.core.check_quorum()
    assert bench.library.role == "follower"


def test_row_9_stock_goes_on_leading_nobody() -> None:
    bench = Bench(wall=rules.LeadsWithoutQuorum())
    bench.elect()
    bench.pass_time(29)
    bench.core.check_quorum()
    assert bench.library.role == "leader"


def test_row_9_one_answering_follower_of_two_is_enough() -> None:
    bench = Bench()
    bench.elect()
    for _ in range(10):
        bench.pass_time(0.3)
        bench.receive("n2", HeartbeatAck(1, bench.core.send_heartbeats()))
        bench.core.check_quorum()
    assert bench.library.role == "leader"


def test_row_9_a_member_with_a_far_higher_term_costs_one_election() -> None:
    leader, follower = Bench(), Bench()
    leader.elect()
    follower.receive("n2", append(1, 1, 1, 0, 0, 1))
    leader.take()
    leader.receive("n3", TermHint(1001, False))
    assert (leader.library.role, leader.library.term) == ("follower", 1001)
    asked = leader.take(PreVote)
    assert asked[0] == PreVote(1001, 2, 1)
    follower.take()
    follower.receive("n2", asked[0])
    assert follower.take() == [PreVoteResponse(1, 1002)]


def test_row_9_a_leader_that_was_replaced_does_not_come_back_by_force() -> None:
    bench = Bench()
    bench.elect()
    bench.take()
    bench.receive("n3", TermHint(2, True))
    assert bench.library.role == "follower"
    assert bench.take(PreVote) == []


def test_row_9_a_lost_connection_is_no_sign_of_life() -> None:
    bench = Bench([1], term=1)
    bench.receive("n2", Heartbeat(1, 1, 1))
    deadline_s = bench.library.election_deadline_s
    assert not bench.core.on_disconnected("n3")
    assert bench.core.on_disconnected("n2")
    assert bench.library.election_deadline_s < deadline_s
    bench.take()
    bench.receive("n3", PreVote(1, 2, 1))
    assert bench.take() == [PreVoteResponse(1, 2)]


def test_row_9_who_still_hears_the_leader_refuses_who_lost_it() -> None:
    bench = Bench([1], term=1)
    bench.receive("n2", Heartbeat(1, 1, 1))
    bench.take()
    bench.receive("n3", PreVote(1, 2, 1))
    assert bench.take() == []


def test_who_stood_down_votes_and_never_leads() -> None:
    bench = Bench([1], term=1)
    bench.core.may_lead = False
    bench.core.on_election_deadline()
    bench.receive("n2", TimeoutNow(1))
    bench.journal.sync()
    assert bench.take() == []
    assert bench.library.role == "follower"
    bench.receive("n3", RequestVote(2, 2, 1, True))
    bench.journal.sync()
    assert bench.take(Vote) == [Vote(2)]
    bench.core.may_lead = True
    bench.core.on_election_deadline()
    assert len(bench.take()) == 2


def test_a_hand_over_passes_the_protection() -> None:
    bench = Bench([1], term=1)
    bench.receive("n2", append(1, 1, 2, 1, 2))
    bench.receive("n2", TimeoutNow(1))
    bench.journal.sync()
    assert bench.take(RequestVote) == [RequestVote(2, 2, 1, True)] * 2
    voter = Bench([1], term=1)
    voter.receive("n2", Heartbeat(1, 1, 1))
    voter.receive("n3", RequestVote(2, 2, 1, True))
    voter.journal.sync()
    assert voter.take(Vote) == [Vote(2)]
