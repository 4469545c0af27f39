"""Who is who, one live connection per peer, frames and pieces."""

from __future__ import annotations

import pickle
import struct
from dataclasses import replace

import pytest

from raftdb.base.errors import ProtocolError
from raftdb.base.ids import Address, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import Peer
from raftdb.consensus.messages import (
    Append,
    Heartbeat,
    HeartbeatAck,
    Part,
    PartAck,
    Ping,
    Removed,
    Superseded,
    Vote,
    encode,
)
from raftdb.consensus.transport import LATE_FACTOR, PENDING_MAX, STRANGERS_MAX
from tests.consensus.test_messages import EXAMPLES, Bomb, nothing_unpickled
from tests.consensus.wires import HandConnection, Station, frame, hello, node
from tests.sim.planted import rules


def test_the_first_name_dials() -> None:
    station = Station()
    assert [str(address) for address, *_rest in station.network.dials] == ["n3:1"]
    assert station.network.dials[0][1].node_id == "n3"
    assert station.network.listening


def test_both_sides_say_hello_and_are_connected() -> None:
    station = Station()
    connection = station.accepted(node("n1"))
    assert connection.take() == [hello("n2")]
    assert not station.transport.connected("n1")
    connection.receive(hello("n1"), Heartbeat(1, 1, 1))
    assert station.take() == [("ready", None), ("connected", "n1"), ("n1", Heartbeat(1, 1, 1))]
    station.transport.send("n1", HeartbeatAck(1, 1))
    assert connection.take() == [HeartbeatAck(1, 1)]


@pytest.mark.parametrize(
    ("greeting", "peer", "why"),
    [
        (hello("n1", version=2), node("n1"), "protocol 2"),
        (hello("n1", cluster_id="d" * 32), node("n1"), "belongs to cluster"),
        (hello("n1", library="0.3.14"), node("n1"), r"pysyncobj 0\.3\.14"),
        (hello("n1", fingerprint=b"other"), node("n1"), "computes differently"),
        (hello("n1", fingerprint=b"[" * 3000), node("n1"), "computes differently"),
        (hello("n1"), node("n3"), "certificate of 'n3'"),
        (hello("n1"), Peer("client", "n1", None, "x"), "certificate of 'n1'"),
        (hello("n2"), node("n2"), "own name"),
        (hello("N9"), node("N9"), "not a node id"),
        (Vote(1), node("n1"), "before the hello"),
    ],
)
def test_who_does_not_belong_is_refused_and_logged(greeting: object, peer: Peer, why: str) -> None:
    station = Station()
    connection = station.accepted(peer)
    connection.receive(greeting)  # type: ignore[arg-type]
    assert not connection.open
    assert station.take() == [("ready", None)]
    ((event, fields),) = station.log.lines
    assert event == "peer_refused"
    with pytest.raises(ProtocolError, match=why):
        raise ProtocolError(fields["error"])


def test_without_certificates_the_hello_is_believed() -> None:
    station = Station()
    connection = station.accepted(Peer("", "", None, "x"))
    connection.receive(hello("n1"))
    assert station.transport.connected("n1")


def test_who_answers_at_anothers_address_is_refused() -> None:
    station = Station()
    handler = station.network.dials[0][2]
    connection = HandConnection(handler, node("n1"))
    handler.connection_made(connection)
    connection.receive(hello("n1"))
    assert not connection.open
    assert "answers at the address of n3" in station.log.lines[0][1]["error"]


def test_a_second_hello_is_refused() -> None:
    station = Station()
    connection = station.join()
    connection.receive(hello("n1"))
    assert not connection.open


# -- row 14 --------------------------------------------------------------------------------------


def replaced(station: Station) -> tuple[HandConnection, HandConnection]:
    """n1 lost its connection without this side's knowing, and dials again."""
    old = station.join()
    new = station.join()
    station.take()
    return old, new


def test_row_14_a_replaced_connection_is_closed_and_not_heard() -> None:
    station = Station()
    old, new = replaced(station)
    assert not old.open
    assert new.open
    old.receive(Vote(1))
    assert station.take() == []
    assert station.transport.epoch("n1") == 2
    assert station.transport.connected("n1")


def test_row_14_stock_hears_both() -> None:
    station = Station(wall=rules.OldConnectionsSpeak())
    old, _new = replaced(station)
    old.receive(Vote(1))
    assert station.take() == [("n1", Vote(1))]


def test_row_14_a_silent_connection_is_given_up() -> None:
    station = Station()
    connection = station.join()
    station.executor.pass_time(1.0)
    assert connection.open
    assert Ping() in connection.take()
    station.executor.pass_time(0.6)
    assert not connection.open
    assert ("disconnected", "n1") in station.take()


def test_row_14_what_is_heard_keeps_it() -> None:
    station = Station()
    connection = station.join()
    for _ in range(10):
        station.executor.pass_time(0.5)
        connection.receive(Ping())
    assert connection.open


def test_lost_connections_are_dialled_again_with_growing_pauses() -> None:
    station = Station()
    times = []
    for _ in range(8):
        before = station.clock.now_s
        dials = station.network.dials
        dials.pop()[3]("connection refused")
        while not any(str(dial[0]) == "n3:1" for dial in dials):
            station.executor.pass_time(0.01)
        # n1 dials by itself, and was quiet for so long that n2 tries too.
        dials[:] = [dial for dial in dials if str(dial[0]) == "n3:1"]
        times.append(station.clock.now_s - before)
    assert times[0] < 0.15 < times[-1] < 1.1
    assert times == sorted(times)
    assert station.log.events() == ["peer_unreachable"]


def test_a_lost_connection_is_dialled_again() -> None:
    station = Station()
    connection = station.join("n3")
    station.network.dials.clear()
    connection.handler.connection_lost("reset")
    assert ("disconnected", "n3") in station.take()
    station.executor.pass_time(0.2)
    assert len(station.network.dials) == 1


# -- rows 15 and 18: frames ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1 << 30, 0xFFFFFFFF, 4097])
def test_long_frames_are_refused_before_the_hello(size: int) -> None:
    station = Station()
    connection = station.accepted(node("n1"))
    connection.handler.data_received(struct.pack(">I", size))
    assert not connection.open


def test_long_frames_are_refused_after_the_hello() -> None:
    station = Station()
    connection = station.join()
    connection.handler.data_received(struct.pack(">I", 1 << 30))
    assert not connection.open
    assert station.log.lines[-1][0] == "peer_refused" or "peer_refused" in station.log.events()


def test_garbage_closes_one_connection_and_serves_the_others() -> None:
    station = Station()
    first, third = station.join("n1"), station.join("n3")
    station.take()
    first.handler.data_received(frame(b"\xc1garbage"))
    assert not first.open
    third.receive(Vote(1))
    assert ("n3", Vote(1)) in station.take()


def test_what_the_engine_refuses_closes_the_connection() -> None:
    station = Station()
    connection = station.join()
    station.fail = ProtocolError("never sent")
    connection.receive(Vote(1), Vote(2))
    assert not connection.open
    assert ("n1", Vote(2)) not in station.take()


def test_pickles_in_every_place_are_never_loaded() -> None:
    with nothing_unpickled():
        for protocol in range(6):
            bomb = pickle.dumps(Bomb(), protocol=protocol)
            for bytes_in in (bomb, frame(bomb), frame(encode(Part(True, bomb)))):
                fresh = Station().accepted(node("n1"))
                fresh.handler.data_received(bytes_in)
                joined = Station().join()
                joined.handler.data_received(bytes_in)


def test_frames_may_come_in_any_pieces() -> None:
    station = Station()
    connection = station.accepted(node("n1"))
    messages = [hello("n1"), *(example for example in EXAMPLES if type(example) is Heartbeat)] * 1
    data = b"".join(frame(encode(message)) for message in [*messages, Vote(7)])
    for position in range(len(data)):
        connection.handler.data_received(data[position : position + 1])
    assert station.take()[1:] == [("connected", "n1"), ("n1", Heartbeat(1, 2, 3)), ("n1", Vote(7))]


def test_strangers_who_say_nothing_are_few_and_short() -> None:
    station = Station()
    silent = [station.accepted(Peer("", "", None, "x")) for _ in range(PENDING_MAX + 5)]
    assert sum(connection.open for connection in silent) == PENDING_MAX
    station.executor.pass_time(6)
    assert not any(connection.open for connection in silent)


# -- pieces --------------------------------------------------------------------------------------

SMALL = Limits(peer_part_bytes=1000, peer_frame_bytes_max=50_000)


def long_append(size: int) -> Append:
    return Append(1, 1, 1, 0, 0, ((1, b"x" * size),))


def test_a_long_message_goes_in_pieces_and_heartbeats_overtake_it() -> None:
    station = Station(limits=SMALL)
    connection = station.join()
    station.transport.send("n1", long_append(20_000))
    station.transport.send("n1", long_append(10))
    station.transport.send("n1", Heartbeat(1, 9, 1))
    sent = connection.take()
    assert [type(message) for message in sent] == [Part] * 8 + [Heartbeat]
    parts = [message for message in sent if isinstance(message, Part)]
    rest = []
    while len(parts) < 21:
        connection.receive(PartAck(len(parts)))
        sent = connection.take()
        parts += [message for message in sent if isinstance(message, Part)]
        rest += [message for message in sent if not isinstance(message, Part)]
    assert rest == [long_append(10)]
    assert b"".join(part.data for part in parts) == encode(long_append(20_000))
    assert [part.last for part in parts] == [False] * 20 + [True]


def test_pieces_become_the_message_again_and_are_answered() -> None:
    station = Station(limits=SMALL)
    connection = station.join()
    station.take()
    body = encode(long_append(2_500))
    pieces = [
        Part(at + 1000 >= len(body), body[at : at + 1000]) for at in range(0, len(body), 1000)
    ]
    for piece in pieces:
        connection.receive(piece)
    assert station.take() == [("bulk", "n1")] * 3 + [("n1", long_append(2_500))]
    assert connection.take() == [PartAck(1), PartAck(2), PartAck(3)]


def test_pieces_are_bounded() -> None:
    station = Station(limits=SMALL)
    connection = station.join()
    for _ in range(60):
        connection.receive(Part(False, b"x" * 1000))
    assert not connection.open
    connection = station.join()
    connection.receive(Part(False, b""))
    assert not connection.open, "any number of empty ones would fit"


def test_only_appends_come_in_pieces() -> None:
    station = Station(limits=SMALL)
    connection = station.join()
    connection.receive(Part(True, encode(Vote(1))))
    assert not connection.open


def test_answers_for_pieces_that_were_never_sent_are_refused() -> None:
    station = Station(limits=SMALL)
    connection = station.join()
    connection.receive(PartAck(1))
    assert not connection.open


def test_stop_closes_everything() -> None:
    station = Station()
    connection = station.join()
    pending = station.accepted(node("n1"))
    station.transport.stop()
    assert not connection.open
    assert not pending.open
    assert not station.network.listening
    station.network.dials.pop()[3]("refused")
    station.executor.pass_time(5)
    assert station.network.dials == []


# -- row 19 --------------------------------------------------------------------------------------


def test_a_node_that_is_no_member_here_is_listened_to_and_forgotten() -> None:
    """It may lead a cluster that this node has not heard of yet."""
    station = Station()
    connection = station.accepted(node("n9"))
    connection.receive(hello("n9"), Heartbeat(1, 1, 1))
    assert station.take()[1:] == [("connected", "n9"), ("n9", Heartbeat(1, 1, 1))]
    station.transport.send("n9", HeartbeatAck(1, 1))
    assert HeartbeatAck(1, 1) in connection.take()
    connection.abort()
    assert not station.transport.connected("n9")
    assert "n9" not in station.transport._slots


def test_strangers_are_bounded() -> None:
    station = Station()
    for number in range(STRANGERS_MAX + 1):
        connection = station.accepted(node(f"x{number}"))
        connection.receive(hello(f"x{number}"))
    assert not connection.open
    assert station.transport.connected("x0")
    assert len(station.transport._slots) == STRANGERS_MAX + 2


def test_who_was_removed_is_told_and_turned_away() -> None:
    station = Station()
    there = station.join()
    station.transport.refuse_removed(["n1"], 7)
    assert there.take() == [Removed(7)]
    assert not there.open
    again = station.accepted(node("n1"))
    again.receive(hello("n1"))
    assert again.take() == [hello("n2"), Removed(7)]
    assert not again.open
    assert not station.transport.connected("n1")


NEW, OTHER = "f" * 32, "0" * 32
MINE = hello("n2").history_id


def test_who_follows_a_history_that_was_left_is_told_so() -> None:
    station = Station(former=[OTHER])
    connection = station.accepted(node("n1"))
    connection.receive(hello("n1", history_id=OTHER))
    assert connection.take() == [hello("n2"), Superseded(MINE, OTHER)]
    assert not connection.open
    assert station.log.lines[0][0] == "peer_refused"
    assert "raftdb rejoin" in station.log.lines[0][1]["hint"]
    assert station.take() == [("ready", None)]


def test_a_node_learns_from_one_that_is_ahead_and_passes_it_on() -> None:
    station = Station()
    behind = station.accepted(node("n3"))
    behind.receive(hello("n3"))
    behind.take()
    station.take()
    connection = station.accepted(node("n1"))
    connection.receive(hello("n1", history_id=NEW))
    # Refused, and not heard; but it may say why.
    assert connection.open
    assert not station.transport.connected("n1")
    assert station.take() == []
    connection.receive(Superseded(NEW, MINE))
    assert not connection.open
    assert station.take() == [("superseded", "n1", NEW)]
    assert behind.take() == [Superseded(NEW, MINE)]
    # Once: who is told by several passes it on no more.
    station.transport.superseded("n3", Superseded(NEW, MINE))
    assert station.take() == []


@pytest.mark.parametrize(
    "word",
    [
        Superseded(OTHER, MINE),
        Superseded(NEW, OTHER),
        Superseded(MINE, NEW),
        Heartbeat(1, 1, 1),
        hello("n1", history_id=NEW),
    ],
    ids=["another history", "of another one's", "the wrong way round", "a vote", "a second hello"],
)
def test_what_a_stranger_says_besides_ends_the_connection(word: object) -> None:
    station = Station()
    connection = station.accepted(node("n1"))
    connection.receive(hello("n1", history_id=NEW), word)  # type: ignore[arg-type]
    assert not connection.open
    assert station.take() == [("ready", None)]


def test_a_history_that_is_left_supersedes_nothing() -> None:
    """Told by a node that this one's history has left: that node was restored once more, from
    before, and nobody can say which of the two counts; neither stops for the other."""
    station = Station(former=[OTHER])
    station.transport.superseded("n1", Superseded(NEW, OTHER))
    assert station.take() == [("ready", None)]


def test_a_stranger_has_the_time_of_a_handshake() -> None:
    station = Station()
    connection = station.accepted(node("n1"))
    connection.receive(hello("n1", history_id=NEW))
    station.executor.pass_time(Limits().handshake_timeout_ms / 1000 + 10)
    assert not connection.open


def test_only_a_nodes_certificate_may_say_so() -> None:
    station = Station()
    connection = station.accepted(Peer("client", "n1", None, "x"))
    connection.receive(hello("n1", history_id=NEW), Superseded(NEW, MINE))
    assert not connection.open
    assert station.take() == [("ready", None)]


def test_the_second_of_two_dials_when_nobody_came_for_long() -> None:
    station = Station()
    assert [str(dial[0]) for dial in station.network.dials] == ["n3:1"]
    station.executor.pass_time(LATE_FACTOR * station.timing.election_max_s * 1.6)
    assert "n1:1" in [str(dial[0]) for dial in station.network.dials]


def test_members_that_come_are_dialled_and_a_new_address_is_used() -> None:
    station = Station()
    n1, _me, n3 = station.members
    n4 = replace(n3, node_id=NodeId("n4"), peer_address=Address("n4", 1))
    station.transport.set_members([n1, n3, n4])
    assert [str(dial[0]) for dial in station.network.dials] == ["n3:1", "n4:1"]
    station.network.dials[0][3]("connection refused")
    station.transport.set_members([n1, replace(n3, peer_address=Address("n3b", 5)), n4])
    assert str(station.network.dials[-1][0]) == "n3b:5"
    station.transport.set_members([n1])
    before = len(station.network.dials)
    station.executor.pass_time(1.0)
    assert len(station.network.dials) == before
