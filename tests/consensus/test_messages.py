"""Messages between members: what is listed decodes, nothing else does, nothing is unpickled."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import FatalError, ProtocolError
from raftdb.consensus import messages
from raftdb.consensus.entry import BASE_DATA, BATCH, NOOP, decode_payloads, encode_batch
from raftdb.consensus.messages import (
    Ack,
    Append,
    CopyAsk,
    CopyFetch,
    CopyGone,
    CopyHello,
    CopyLater,
    CopyNeeded,
    CopyOffer,
    CopyPart,
    Directory,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Note,
    Packed,
    Part,
    PartAck,
    Ping,
    PreVote,
    PreVoteResponse,
    ReadIndex,
    ReadIndexIs,
    Removed,
    RequestVote,
    Superseded,
    TermHint,
    TimeoutNow,
    Vote,
    decode,
    encode,
)

EXAMPLES: list[Any] = [
    Hello(1, "c" * 32, "n1", "h" * 32, "0.3.17", b"\x01\x02"),
    Ping(),
    Part(True, b"data"),
    PartAck(3),
    PreVote(1, 2, 3),
    PreVoteResponse(1, 2),
    RequestVote(1, 2, 3, True),
    Vote(1),
    TermHint(1, False),
    TimeoutNow(1),
    Append(1, 2, 3, 4, 5, ((1, b"one"), (2, b""))),
    Append(1, 2, 3, 4, 5, ()),
    Ack(1, 2, True, 3),
    Heartbeat(1, 2, 3),
    Note(b"anything"),
    Packed(b"anything"),
    HeartbeatAck(1, (1 << 63) - 1),
    ReadIndex(7),
    ReadIndexIs(7, 8, True),
    CopyHello(1, "c" * 32, "n1", "h" * 32, "0.3.17", b"\x01\x02"),
    CopyNeeded(1, 2),
    CopyAsk(b"id", 3),
    CopyLater("busy"),
    CopyOffer(b"id", 1, 2, 3, b"words"),
    CopyFetch(b"id", 1, 2),
    CopyPart(b"id", 1, 2, b"data"),
    CopyGone(b"id"),
    Removed(9),
    Superseded("a" * 32, "b" * 32),
    Directory(b"all"),
]


@contextmanager
def nothing_unpickled() -> Iterator[None]:
    """Fails when anything looks up a class for a pickle, or runs what one could run."""
    seen: list[str] = []
    watching = True

    def hook(event: str, _arguments: object) -> None:
        if watching and (event == "pickle.find_class" or event.startswith(("os.system", "exec"))):
            seen.append(event)

    sys.addaudithook(hook)
    try:
        yield
    finally:
        watching = False
    assert seen == []


class Bomb:
    """A pickle of this runs a command when it is loaded."""

    def __reduce__(self) -> Any:
        return (eval, ("__import__('os').system('exit 3')",))


def test_every_type_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(messages.MESSAGE_TYPES)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip(message: Any) -> None:
    again = decode(encode(message))
    assert again == message
    assert type(again) is type(message)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_each_field_is_checked(message: Any) -> None:
    code, *fields = msgpack.unpackb(encode(message), use_list=False)
    wrong: list[Any] = [None, -1, 1 << 63, 1.5, "x" * 300, {}, [[]], [[1, "text"]], [[-1, b""]]]
    for position, good in enumerate(fields):
        for value in wrong:
            if type(good) is bytes and type(value) is bytes:
                continue
            changed = [code, *fields]
            changed[position + 1] = value
            with pytest.raises(ProtocolError):
                decode(msgpack.packb(changed))
    for size in ([], [code, *fields, 1], [code, *fields[:-1]] if fields else [code, 0]):
        with pytest.raises(ProtocolError):
            decode(msgpack.packb(size))


def test_booleans_are_not_numbers_and_numbers_are_not_booleans() -> None:
    with pytest.raises(ProtocolError, match=r"Vote\.term"):
        decode(msgpack.packb([13, True]))
    with pytest.raises(ProtocolError, match=r"TermHint\.leader_alive"):
        decode(msgpack.packb([14, 1, 1]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x00",
        msgpack.packb({1: 2}),
        msgpack.packb([99, 1]),
        msgpack.packb([[1], 2]),
        msgpack.packb(["append_entries"]),
        msgpack.packb([20, 1, 1, 1, 1, 1, [[1, b""]] * 1025]),
        msgpack.packb([13, msgpack.Timestamp(1)]),
        msgpack.packb([13, msgpack.ExtType(4, b"x")]),
        msgpack.packb([13, 1]) + b"\x00",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        message = decode(data)
    except ProtocolError:
        return
    assert decode(encode(message)) == message


def test_pickles_are_bytes_like_any_other() -> None:
    bombs = [pickle.dumps(Bomb(), protocol=number) for number in range(6)]
    bombs += [pickle.dumps({"type": "append_entries", "term": 9}), pickle.dumps(("status",))]
    with nothing_unpickled():
        for bomb in bombs:
            with pytest.raises(ProtocolError):
                decode(bomb)
            for example in EXAMPLES:
                code, *fields = msgpack.unpackb(encode(example), use_list=False)
                for position in range(len(fields)):
                    changed = [code, *fields]
                    changed[position + 1] = bomb
                    try:
                        decode(msgpack.packb(changed))
                    except ProtocolError:
                        continue
                    assert type(fields[position]) is bytes


# -- an entry's data -----------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_payloads_round_trip(payloads: list[bytes]) -> None:
    assert decode_payloads(encode_batch(payloads)) == tuple(payloads)


def test_the_bytes_of_an_entry() -> None:
    assert encode_batch([b"a", b"bc"]) == b"\x10\x92\xc4\x01a\xc4\x02bc"
    assert decode_payloads(NOOP) == ()
    assert decode_payloads(BASE_DATA) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"\x02",
        b"\x00",
        b"\x01x",
        b"\xff",
        BATCH,
        BATCH + b"\x91\xa1a",
        BATCH + b"\x01",
        BATCH + b"\x80",
    ],
)
def test_entries_that_cannot_be_read_stop_the_node(data: bytes) -> None:
    with pytest.raises(FatalError, match="cannot be read"):
        decode_payloads(data)


@pytest.mark.parametrize("size", [0, 65_535, 65_536, 65_537, 1_000_000])
@pytest.mark.parametrize("count", [1, 2])
def test_a_long_entry_is_encoded_as_msgpack_does(size: int, count: int) -> None:
    entries = ((7, b"x" * size),) * count
    message = Append(7, 1 << 40, 3, 7, (1 << 63) - 1, entries)
    assert encode(message) == msgpack.packb((20, *message), use_bin_type=True)
    assert decode(encode(message)) == message


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 1 << 20])
@pytest.mark.parametrize("others", [0, 3, 16])
def test_a_long_payload_is_packed_as_msgpack_does(size: int, others: int) -> None:
    payloads = [*[bytes((number,)) for number in range(others)], b"x" * size]
    assert encode_batch(payloads) == BATCH + msgpack.packb(payloads)
    assert decode_payloads(encode_batch(payloads)) == tuple(payloads)


def test_a_long_payload_is_copied_once() -> None:
    payload = b"x" * (8 << 20)
    tracemalloc.start()
    try:
        encode_batch((b"y", payload))
        assert tracemalloc.get_traced_memory()[1] < len(payload) + (1 << 20)
    finally:
        tracemalloc.stop()
