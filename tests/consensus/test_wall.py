"""The wall's rules one by one, as the pure functions that they are."""

from __future__ import annotations

import pytest

from raftdb.base.errors import FatalError
from raftdb.consensus.messages import (
    MESSAGE_TYPES,
    Ack,
    Append,
    Directory,
    Heartbeat,
    HeartbeatAck,
    PreVote,
    PreVoteResponse,
    Removed,
    RequestVote,
    TermHint,
    Vote,
)
from raftdb.consensus.wall import Placed, Wall

WALL = Wall()


class Log:
    """A log by its terms: `terms[0]` is the base's, at index first_index - 1."""

    def __init__(self, *terms: int, first: int = 1) -> None:
        self._terms = terms
        self.first_index = first
        self.last_index = first + len(terms) - 2

    def term_at(self, index: int) -> int:
        position = index - (self.first_index - 1)
        if position < 0:
            raise IndexError(index)
        return self._terms[position]


def append(prev: int, prev_term: int, *terms: int, term: int = 9) -> Append:
    return Append(term, 1, prev, prev_term, 0, tuple((t, b"%d" % t) for t in terms))


# -- row 1 ---------------------------------------------------------------------------------------


def test_row_1_what_promises_waits_and_nothing_else() -> None:
    waits = [Ack(1, 1, True, 1), RequestVote(1, 1, 1, False), Vote(1)]
    free = [
        PreVote(1, 1, 1),
        PreVoteResponse(1, 2),
        Heartbeat(1, 1, 1),
        HeartbeatAck(1, 1),
        TermHint(1, False),
        append(1, 0),
    ]
    assert all(WALL.waits_for_disk(message) for message in waits)
    assert not any(WALL.waits_for_disk(message) for message in free)


# -- rows 2, 4, 5, 6 -----------------------------------------------------------------------------


def test_row_2_the_own_copy_counts_when_it_is_durable() -> None:
    assert WALL.own_copy(10, 7) == 7
    assert WALL.own_copy(10, 10) == 10


@pytest.mark.parametrize(
    ("own", "matches", "expected"),
    [
        (5, [0, 0], 1),
        (5, [3, 0], 3),
        (2, [5, 4], 4),
        (5, [5, 5], 5),
        (5, [4, 3, 2, 1], 3),
        (0, [4, 3, 2, 1], 2),
        (5, [], 5),
        (5, [4], 4),
        (5, [4, 3, 2], 3),
    ],
)
def test_commit_is_what_a_majority_holds(own: int, matches: list[int], expected: int) -> None:
    assert WALL.commit_index(own, matches, 1, 1, lambda _index: 1) == expected


def test_an_older_terms_entry_does_not_commit_by_count() -> None:
    terms = {1: 0, 2: 1, 3: 1, 4: 3}
    assert WALL.commit_index(4, [3, 1], 1, 3, terms.__getitem__) == 1
    assert WALL.commit_index(4, [4, 1], 1, 3, terms.__getitem__) == 4


def test_commit_never_goes_back() -> None:
    assert WALL.commit_index(3, [3, 3], 5, 1, lambda _index: 1) == 5


def test_row_4_a_follower_commits_what_was_verified() -> None:
    assert WALL.follower_commit(10, 4) == 4
    assert WALL.follower_commit(3, 4) == 3


def test_row_5_an_ack_claims_what_was_verified() -> None:
    assert WALL.acknowledged(10, 4) == 4
    assert WALL.acknowledged(3, 4) == 3


def test_row_6_acks_of_another_term_do_not_count() -> None:
    assert WALL.ack_counts(3, 3)
    assert not WALL.ack_counts(1, 3)
    assert not WALL.ack_counts(4, 3)


# -- row 3 ---------------------------------------------------------------------------------------


def test_row_3_what_is_held_is_skipped_and_the_tail_stays() -> None:
    log = Log(0, 1, 1, 1, 1)
    placed = WALL.put_at_index(append(1, 1, 1), log, 0)
    assert placed == Placed(prev_index=4, prev_term=1, entries=(), verified=2)


def test_row_3_new_entries_follow_what_is_held() -> None:
    log = Log(0, 1, 1)
    placed = WALL.put_at_index(append(1, 1, 1, 1, 2), log, 0)
    assert placed == Placed(2, 1, ((1, b"1"), (2, b"2")), 4)


def test_row_3_the_first_conflict_cuts() -> None:
    log = Log(0, 1, 1, 2, 2)
    placed = WALL.put_at_index(append(1, 1, 1, 3), log, 2)
    assert placed == Placed(2, 1, ((3, b"3"),), 3)


def test_row_3_an_empty_append_keeps_the_tail() -> None:
    log = Log(0, 1, 1, 2)
    assert WALL.put_at_index(append(1, 1), log, 0) == Placed(3, 2, (), 1)


@pytest.mark.parametrize("message", [append(9, 1, 1), append(2, 5, 5)])
def test_row_3_what_does_not_match_verifies_nothing(message: Append) -> None:
    placed = WALL.put_at_index(message, Log(0, 1, 1, 2), 0)
    assert placed.verified == 0
    assert (placed.prev_index, placed.prev_term) == (message.prev_index, message.prev_term)


def test_row_3_a_conflict_with_what_is_committed_stops_the_node() -> None:
    with pytest.raises(FatalError, match="differs from the one committed"):
        WALL.put_at_index(append(1, 1, 3), Log(0, 1, 1, 1), 2)


def test_row_3_below_the_base_everything_matches() -> None:
    log = Log(4, 5, 5, first=11)
    overlapping = append(8, 4, 4, 4, 5, 5, 6)
    assert WALL.put_at_index(overlapping, log, 11) == Placed(12, 5, ((6, b"6"),), 13)
    assert WALL.put_at_index(append(6, 4, 4, 4), log, 11) == Placed(12, 5, (), 8)
    assert WALL.put_at_index(append(10, 4, 5), log, 11) == Placed(12, 5, (), 11)


def test_row_3_success_never_moves_next_back() -> None:
    assert WALL.next_after_success(20, 11) == 20
    assert WALL.next_after_success(11, 20) == 20


# -- rows 7, 8 -----------------------------------------------------------------------------------


def test_row_7_one_vote_per_voter() -> None:
    assert WALL.vote_counts("n2", {"n3"})
    assert not WALL.vote_counts("n2", {"n2"})


def test_row_8_the_hint_skips_a_whole_term() -> None:
    log = Log(0, *[1] * 10, *[2] * 10_000)
    assert WALL.conflict_hint(9_000, log, 3) == 11
    assert WALL.conflict_hint(11, log, 3) == 11


def test_row_8_the_hint_does_not_go_below_what_is_committed() -> None:
    assert WALL.conflict_hint(9, Log(0, *[1] * 10), 6) == 7


def test_row_8_a_gap_is_answered_with_the_end() -> None:
    assert WALL.conflict_hint(50, Log(0, 1, 1), 1) == 3
    assert WALL.conflict_hint(2, Log(3, 3, 3, first=10), 9) == 10


def test_row_8_each_hint_makes_progress() -> None:
    log = Log(0, 1, 1, 2, 2, 5)
    for refused in range(1, 9):
        assert WALL.conflict_hint(refused, log, 0) <= refused


def test_row_8_stale_refusals_do_not_count() -> None:
    assert WALL.reject_counts(8, 7)
    assert not WALL.reject_counts(7, 7)


def test_row_8_never_below_what_matches_nor_past_the_end() -> None:
    assert WALL.next_after_reject(3, 7, 20) == 8
    assert WALL.next_after_reject(12, 7, 20) == 12
    assert WALL.next_after_reject(99, 7, 20) == 21


# -- row 9 ---------------------------------------------------------------------------------------


def test_row_9_pre_votes_go_to_complete_logs_while_no_leader_is_heard() -> None:
    ask = PreVote(5, 10, 4)
    assert WALL.grants_pre_vote(ask, 5, 10, 4, hears_other=False)
    assert WALL.grants_pre_vote(ask, 5, 99, 3, hears_other=False)
    assert not WALL.grants_pre_vote(ask, 5, 10, 4, hears_other=True)
    assert not WALL.grants_pre_vote(ask, 5, 11, 4, hears_other=False)
    assert not WALL.grants_pre_vote(ask, 5, 1, 5, hears_other=False)
    assert not WALL.grants_pre_vote(ask, 6, 1, 1, hears_other=False)


def test_row_9_a_heard_leader_protects_itself_and_may_hand_over() -> None:
    assert not WALL.considers_vote(RequestVote(9, 1, 1, False), hears_other=True)
    assert WALL.considers_vote(RequestVote(9, 1, 1, True), hears_other=True)
    assert WALL.considers_vote(RequestVote(9, 1, 1, False), hears_other=False)


def test_row_9_heard_within_the_minimum_timeout() -> None:
    assert WALL.hears_leader(0.29, 0.3)
    assert not WALL.hears_leader(0.3, 0.3)


@pytest.mark.parametrize(
    ("grants", "members", "expected"),
    [(0, 1, True), (0, 2, False), (1, 2, True), (0, 3, False), (1, 3, True), (1, 5, False)],
)
def test_row_9_a_majority_grants(grants: int, members: int, expected: bool) -> None:
    assert WALL.may_campaign(grants, members) is expected


def test_row_9_check_quorum() -> None:
    assert WALL.keeps_leading([], 0.6)
    assert WALL.keeps_leading([0.1, 9], 0.6)
    assert not WALL.keeps_leading([0.6, 9], 0.6)
    assert not WALL.keeps_leading([0.1, 9, 9, 9], 0.6)


# -- rows 10, 14, 16, rule C2 --------------------------------------------------------------------


def test_row_10_reads() -> None:
    assert not WALL.may_read(9, 10)
    assert WALL.may_read(10, 10)
    assert WALL.read_confirmed(5, [5, 0])
    assert not WALL.read_confirmed(5, [4, 4])
    assert not WALL.read_confirmed(5, [5, 4, 4, 4])
    assert WALL.read_confirmed(5, [])
    assert not WALL.read_index_reached(10, 9)
    assert WALL.read_index_reached(10, 10)


def test_row_14_only_the_newest_connection_counts() -> None:
    assert WALL.connection_counts(3, 3)
    assert not WALL.connection_counts(2, 3)


def test_row_16_only_leaders_take_proposals() -> None:
    assert WALL.admits_proposal("leader")
    assert not WALL.admits_proposal("follower")
    assert not WALL.admits_proposal("candidate")


def test_rule_c2_only_what_is_durable_here_is_applied() -> None:
    assert WALL.may_apply(10, 7) == 7
    assert WALL.may_apply(7, 10) == 7


def test_row_22_who_forgot_hears_who_the_members_are_and_nothing_else() -> None:
    heeded = [kind for kind in MESSAGE_TYPES if WALL.heeds_forgotten(_any(kind))]
    assert heeded == [Removed, Directory]
    assert WALL.still_has(7) == 0


def _any(kind: type) -> object:
    return kind._make([None] * len(kind._fields))  # type: ignore[attr-defined]
