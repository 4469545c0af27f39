"""Appends that go compressed to distant followers."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import ProtocolError
from raftdb.consensus import Applied
from raftdb.consensus.messages import Append, Note, Packed, encode
from raftdb.consensus.packing import PACK_BYTES_MAX, PACK_BYTES_MIN, packed, unpacked
from tests.consensus.trio import Trio

SQL = b"INSERT INTO account VALUES (17, 'somebody', 250);" * 100


@given(st.binary(min_size=1, max_size=200), st.integers(3, 60))
def test_what_is_packed_is_unpacked(piece: bytes, times: int) -> None:
    body = piece * times
    data = packed(body)
    if data:
        assert len(data) < len(body)
        assert unpacked(data, len(body)) == body
        with pytest.raises(ProtocolError):
            unpacked(data, len(body) - 1)


def test_what_does_not_pay_goes_as_it_is() -> None:
    assert packed(b"a" * (PACK_BYTES_MIN - 1)) == b""
    assert packed(b"a" * (PACK_BYTES_MAX + 1)) == b""
    assert packed(random.Random(1).randbytes(2_000)) == b""


@given(st.binary(max_size=300))
def test_nonsense_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpacked(data + b"!", 1 << 20)
    bomb = zstandard.compress(bytes(8 << 20))
    with pytest.raises(ProtocolError):
        unpacked(bomb, 1 << 20)
    with pytest.raises(ProtocolError):
        unpacked(bomb[:-3], 16 << 20)


def test_a_cluster_of_distant_members_commits_by_fewer_bytes() -> None:
    sent = {}
    for far in ((), ("n1", "n2", "n3")):
        trio = Trio(latency_s=0.05)
        leader = trio.leader()
        for node in trio.cluster.live():
            trio.cluster.call(node.name, node.engine.set_timing, node.engine._timing.copy(), far)
        total = 0
        for slot in leader.engine._transport._slots.values():
            link = slot.link
            write = link._write

            def counted(body: bytes, write=write) -> None:
                nonlocal total
                total += len(body)
                write(body)

            link._write = counted
        outcomes = [trio.propose(leader, client, padding=4_000) for client in (1, 2, 3)]
        trio.run_until(lambda outcomes=outcomes: all(outcomes))
        assert all(isinstance(outcome[0], Applied) for outcome in outcomes)
        trio.run(1.0)
        assert {status.applied_index for status in trio.statuses()} == {
            leader.status().applied_index
        }
        sent[bool(far)] = total
    assert sent[True] < sent[False] / 2, sent


def test_nothing_else_may_come_compressed() -> None:
    trio = Trio()
    leader = trio.leader()
    slots = leader.engine._transport._slots
    name = sorted(slots)[0]
    link = slots[name].link
    reports: list[str] = []
    other = trio.node(name)
    refused = other.engine._transport.link_failed
    other.engine._transport.link_failed = lambda link, error: (
        reports.append(error.message),
        refused(link, error),
    )
    data = zstandard.compress(encode(Note(SQL)))
    trio.cluster.call(leader.name, link.send, Packed(data))
    trio.run(0.5)
    assert reports == ["Note, compressed"]
    again = packed(encode(Append(1, 1, 0, 0, 0, ((1, SQL),))))
    assert again
