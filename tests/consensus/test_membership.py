"""The configuration as a value: bytes, changes, and the stack of those in the log."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import FatalError
from raftdb.base.ids import Address, NodeId
from raftdb.consensus.entry import CONFIGURATION, decode_payloads
from raftdb.consensus.membership import (
    LEARNER,
    MEMBERS_MAX,
    REMOVED_MAX,
    VOTER,
    Add,
    ChangeError,
    Configuration,
    Configurations,
    Demote,
    Member,
    Move,
    Promote,
    Remove,
    changed,
    configuration_of,
    decode_configuration,
    encode_configuration,
)
from tests.consensus.bench import record

THREE = configuration_of([record("n3"), record("n1"), record("n2")])


def names(count: int) -> list[str]:
    return [f"m{number:04}" for number in range(count)]


@given(
    st.lists(st.sampled_from(names(MEMBERS_MAX)), unique=True, min_size=1),
    st.lists(st.sampled_from(names(REMOVED_MAX)), unique=True),
    st.randoms(),
)
def test_the_bytes_of_a_configuration_come_back(
    members: list[str], removed: list[str], draw: object
) -> None:
    made = configuration_of(
        [record(one, VOTER if i % 2 else LEARNER) for i, one in enumerate(members)]
    )
    made = replace(made, removed=tuple(NodeId(one) for one in removed))
    assert decode_configuration(encode_configuration(made)) == made
    assert decode_payloads(CONFIGURATION + encode_configuration(made)) == ()


def test_the_bytes_of_a_configuration() -> None:
    one = Configuration(
        (Member(NodeId("n1"), "eu/x", Address("h", 1), Address("h", 2), LEARNER),), (NodeId("n0"),)
    )
    assert encode_configuration(one) == (
        b"\x93\x01\x91\x95\xa2n1\xa7learner\xa4eu/x\xa3h:1\xa3h:2\x91\xa2n0"
    )


@given(st.binary(max_size=200))
def test_whatever_does_not_read_stops_the_node(data: bytes) -> None:
    with contextlib.suppress(FatalError):
        decode_configuration(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_configuration(THREE)[:-1],
        encode_configuration(THREE) + b"x",
        encode_configuration(THREE).replace(b"\x93\x01", b"\x93\x02", 1),
        encode_configuration(THREE).replace(b"voter", b"votes"),
        encode_configuration(Configuration(tuple(reversed(THREE.members)))),
        encode_configuration(Configuration(THREE.members * 2)),
    ],
)
def test_what_is_not_one(data: bytes) -> None:
    with pytest.raises(FatalError, match="cannot be read"):
        decode_configuration(data)


def test_a_new_member_begins_as_a_learner() -> None:
    four = changed(THREE, Add(record("n4")))
    assert four.voters == ("n1", "n2", "n3")
    assert four.learners == ("n4",)
    assert changed(four, Add(record("n4"))) == four
    promoted = changed(four, Promote(NodeId("n4")))
    assert promoted.voters == ("n1", "n2", "n3", "n4")
    assert changed(promoted, Promote(NodeId("n4"))) == promoted
    assert changed(promoted, Demote(NodeId("n4"))) == four
    assert changed(promoted, Add(record("n4"))) == promoted


def test_a_removed_id_is_never_used_again() -> None:
    two = changed(THREE, Remove(NodeId("n3")))
    assert two.voters == ("n1", "n2")
    assert two.removed == ("n3",)
    assert changed(two, Remove(NodeId("n3"))) == two
    with pytest.raises(ChangeError, match="never used again") as caught:
        changed(two, Add(record("n3")))
    assert caught.value.code == "removed"


def test_an_address_may_be_used_again_and_only_when_it_is_free() -> None:
    n3 = THREE.member("n3")
    assert n3 is not None
    again = replace(n3, node_id=NodeId("n4"))
    with pytest.raises(ChangeError, match="address of n3"):
        changed(THREE, Add(again))
    assert changed(changed(THREE, Remove(NodeId("n3"))), Add(again)).learners == ("n4",)
    with pytest.raises(ChangeError, match="empty disk is a new member"):
        changed(THREE, Add(replace(n3, peer_address=Address("else", 1))))


@pytest.mark.parametrize("change", [Remove(NodeId("n1")), Demote(NodeId("n1"))])
def test_the_last_voter_stays(change: Remove | Demote) -> None:
    alone = configuration_of([record("n1"), record("n2", LEARNER)])
    with pytest.raises(ChangeError, match="only voter"):
        changed(alone, change)


@pytest.mark.parametrize(
    "change",
    [Remove(NodeId("n9")), Promote(NodeId("n9")), Demote(NodeId("n9")), Move(NodeId("n9"))],
)
def test_who_is_no_member(change: Remove | Promote | Demote | Move) -> None:
    with pytest.raises(ChangeError, match="n9 is no member"):
        changed(THREE, change)


def test_a_member_moves() -> None:
    address = Address("elsewhere", 7)
    moved = changed(THREE, Move(NodeId("n2"), "us/ohio", address, None)).member("n2")
    assert moved == replace(record("n2"), location="us/ohio", peer_address=address)
    with pytest.raises(ChangeError, match="address of n1"):
        changed(THREE, Move(NodeId("n2"), None, Address("n1", 7000)))
    with pytest.raises(ChangeError, match="cannot serve members and clients"):
        changed(THREE, Move(NodeId("n2"), None, Address("n2", 7001)))


def test_there_are_bounds() -> None:
    full = configuration_of([record(name) for name in names(MEMBERS_MAX)])
    with pytest.raises(ChangeError) as caught:
        changed(full, Add(record("n1")))
    assert caught.value.code == "too_many_members"
    long = replace(THREE, removed=tuple(NodeId(name) for name in names(REMOVED_MAX)))
    after = changed(long, Remove(NodeId("n1")))
    assert len(after.removed) == REMOVED_MAX
    assert after.removed[-1] == "n1"


def test_each_change_moves_one_voter_at_most() -> None:
    """So that the majorities before and after share a member (thesis 4.1)."""
    for change in (Add(record("n4")), Remove(NodeId("n1")), Demote(NodeId("n2"))):
        after = changed(THREE, change)
        assert len(set(THREE.voters) ^ set(after.voters)) <= 1


def test_the_stack() -> None:
    known = Configurations(THREE)
    assert (known.latest, known.latest_index, known.next_index) == (THREE, 0, 0)
    four, five = changed(THREE, Add(record("n4"))), changed(THREE, Add(record("n5")))
    known.append(7, four)
    known.append(9, five)
    assert (known.latest, known.committed, known.next_index) == (five, THREE, 7)
    assert known.uncommitted() == [7, 9]
    assert known.truncate([True, False])
    assert (known.latest, known.latest_index) == (four, 7)
    assert not known.settle(6)
    assert known.settle(8)
    assert (known.committed, known.committed_index, known.next_index) == (four, 7, 0)
    assert not known.truncate([])
