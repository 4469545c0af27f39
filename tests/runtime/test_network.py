"""RealNetwork between honest parties: bytes, back-pressure, closing, bounds, errors."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from raftdb.base.errors import ConfigError, InterfaceError
from raftdb.base.ids import Address, NodeId
from raftdb.base.ports import Peer
from raftdb.runtime.connection import CLOSED
from raftdb.runtime.network import RealNetwork
from tests.client.server import listening_socket
from tests.runtime.conftest import CLUSTER, Pki
from tests.runtime.harness import LOCAL, Bench, End, free_port, small_limits


def node(bench: Bench, pki: Pki, node_id: str, **options: Any) -> RealNetwork:
    credentials = bench.credentials(pki.directory(node_id), CLUSTER, node_id)
    return bench.network(credentials, **options)


def pair(bench: Bench, pki: Pki, **options: Any) -> tuple[End, End]:
    """A connection from n2 to n1: (the dialler's end, the server's end)."""
    listener, ends = bench.listen(node(bench, pki, "n1", **options))
    dialled = bench.dial(node(bench, pki, "n2", **options), listener.address, "n1")
    assert dialled.made, dialled.failed
    bench.wait(lambda: bool(ends and ends[0].made))
    return dialled, ends[0]


def test_both_ends_know_each_other(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    assert (dialled.link.peer.role, dialled.link.peer.name) == ("node", "n1")
    assert (served.link.peer.role, served.link.peer.name) == ("node", "n2")
    assert dialled.link.peer.cluster_id == served.link.peer.cluster_id == CLUSTER
    assert served.link.peer.remote.startswith("127.0.0.1:")


def test_a_node_with_a_route_is_dialled_there(both: Bench, made_pki: Pki) -> None:
    listener, _ends = both.listen(node(both, made_pki, "n1"))
    routed = node(both, made_pki, "n2", routes={NodeId("n1"): listener.address})
    nobody = Address(LOCAL, free_port())
    assert both.dial(routed, nobody, "n1").made
    assert both.dial(routed, nobody, "n3").failed
    assert both.dial(routed, nobody).failed


def test_bytes_arrive_whole_and_in_order_both_ways(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    big = bytes(range(256)) * 12_000
    for start in range(0, len(big), 100_000):
        dialled.link.write(big[start : start + 100_000])
    served.link.write(b"answer")
    both.wait(lambda: len(served.data) == len(big) and dialled.data == b"answer")
    assert served.data == big


def test_close_sends_what_was_written(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    dialled.link.write(b"x" * 3_000_000)
    dialled.link.close()
    dialled.link.write(b"too late")
    both.wait(lambda: bool(served.lost and dialled.lost))
    assert len(served.data) == 3_000_000
    assert dialled.lost == ["closed by this end"]
    assert served.lost == [CLOSED]
    assert CLOSED == "closed by the other end"
    assert dialled.link.unsent_bytes() == 0


def test_close_waits_for_a_slow_reader(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    served.link.pause_reading()
    dialled.link.write(b"x" * 20_000_000)
    dialled.link.close()
    both.idle(0.05)
    assert not dialled.lost
    served.link.resume_reading()
    both.wait(lambda: bool(served.lost and dialled.lost))
    assert len(served.data) == 20_000_000


def test_close_does_not_wait_for_ever(
    both: Bench, made_pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled, served = pair(both, made_pki)
    monkeypatch.setattr("raftdb.runtime.connection.CLOSE_TIMEOUT_S", 0.1)
    served.link.pause_reading()
    dialled.link.write(b"x" * 20_000_000)
    dialled.link.close()
    both.wait(lambda: bool(dialled.lost), deadline_s=3.0)


def test_who_sends_no_more_and_does_not_read_is_not_waited_for(
    both: Bench, made_pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be sent to it any more: what waits for it would have been held, uncounted."""
    dialled, served = pair(both, made_pki)
    monkeypatch.setattr("raftdb.runtime.connection.CLOSE_TIMEOUT_S", 0.1)
    dialled.link.pause_reading()
    served.link.write(b"x" * 20_000_000)
    transport: Any = dialled.link._transport  # type: ignore[attr-defined]
    raw = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(raw.fileno())) as half:
        half.shutdown(socket.SHUT_WR)
    both.wait(lambda: bool(served.lost))


def test_abort_drops_what_was_not_sent(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    served.link.pause_reading()
    dialled.link.write(b"x" * 30_000_000)
    dialled.link.abort()
    served.link.resume_reading()
    both.wait(lambda: bool(served.lost and dialled.lost))
    assert len(served.data) < 30_000_000
    # Nothing raises afterwards, and nothing more is told.
    for end in (dialled, served):
        end.link.write(b"late")
        end.link.pause_reading()
        end.link.resume_reading()
        end.link.close()
        end.link.abort()
    both.idle(0.02)
    assert len(served.lost) == len(dialled.lost) == 1


def test_writing_to_a_connection_that_just_broke_is_harmless(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    served.link.abort()
    for _ in range(50):
        dialled.link.write(b"x" * 10_000)
        both.idle(0.001)
    both.wait(lambda: bool(dialled.lost))
    dialled.link.write(b"after")
    assert len(dialled.lost) == 1


def test_pause_holds_back_and_resume_delivers(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    served.link.pause_reading()
    dialled.link.write(b"x" * 20_000_000)
    both.idle(0.1)
    held = len(served.data)
    assert held < 2_000_000
    assert dialled.link.unsent_bytes() > 5_000_000
    served.link.resume_reading()
    both.wait(lambda: len(served.data) == 20_000_000)
    assert dialled.link.unsent_bytes() == 0


def test_who_does_not_read_is_cut_at_the_limit(both: Bench, made_pki: Pki) -> None:
    limits = small_limits(connection_buffer_bytes_max=1 << 20)
    dialled, served = pair(both, made_pki, limits=limits)
    served.link.pause_reading()
    for _ in range(400):
        dialled.link.write(b"x" * 100_000)
    both.wait(lambda: bool(dialled.lost))
    assert "does not read" in dialled.lost[0]


def test_a_handler_that_raises_stops_the_node(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)

    def raise_it(data: bytes) -> None:
        raise ValueError(f"cannot take {len(data)} bytes")

    served.data_received = raise_it  # type: ignore[method-assign]
    dialled.link.write(b"bad")
    both.wait(lambda: bool(both.crashes))
    assert repr(both.crashes.pop()) == "ValueError('cannot take 3 bytes')"


def test_an_accept_that_raises_stops_the_node(both: Bench, made_pki: Pki) -> None:
    network = node(both, made_pki, "n1")

    def accept() -> End:
        raise ValueError("no handler")

    listener = both.try_listen(network, "peer", Address(LOCAL, free_port()), accept)
    assert not isinstance(listener, BaseException)
    both.dial(node(both, made_pki, "n2"), listener.address, "n1")
    both.wait(lambda: bool(both.crashes))
    assert repr(both.crashes.pop()) == "ValueError('no handler')"


def test_a_closed_listener_keeps_its_connections(both: Bench, made_pki: Pki) -> None:
    network = node(both, made_pki, "n1")
    listener, ends = both.listen(network)
    other = node(both, made_pki, "n2")
    dialled = both.dial(other, listener.address, "n1")
    both.wait(lambda: bool(ends))
    listener.close()
    listener.close()
    refused = both.dial(other, listener.address, "n1")
    assert refused.failed == ["connection refused"]
    dialled.link.write(b"still here")
    both.wait(lambda: bytes(ends[0].data) == b"still here")
    # And the port is free again.
    again, _ = both.listen(network)
    again.close()


def test_closing_the_network_ends_everything(both: Bench, made_pki: Pki) -> None:
    dialled, served = pair(both, made_pki)
    pending = End(both.changed)
    silent = listening_socket()
    address = Address(*silent.getsockname())
    from raftdb.base.ports import ExpectedPeer

    both.networks[1].connect("peer", address, ExpectedPeer(None), pending, 10.0, pending.fail)
    for network in both.networks:
        network.close()
    both.wait(lambda: bool(dialled.lost and served.lost and pending.failed))
    assert dialled.lost == ["this node stops"]
    assert pending.failed == ["this node stops"]
    silent.close()


def test_a_port_in_use_names_the_address_and_the_way_out(one: Bench, made_pki: Pki) -> None:
    network = node(one, made_pki, "n1")
    listener, _ = one.listen(network)
    error = one.try_listen(network, "client", listener.address, lambda: End(one.changed))
    assert isinstance(error, ConfigError)
    assert str(listener.address) in error.message
    assert "in use" in error.message
    assert "client_listen" in error.hint


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (Address("203.0.113.7", 20_001), "not an address of this machine"),
        (Address("nowhere.invalid", 20_001), "no such host"),
        (Address("a" * 70 + ".example", 20_001), "no such host"),
    ],
)
def test_an_address_that_cannot_be_opened(
    one: Bench, made_pki: Pki, address: Address, problem: str
) -> None:
    network = node(one, made_pki, "n1")
    error = one.try_listen(network, "peer", address, lambda: End(one.changed))
    assert isinstance(error, ConfigError)
    assert problem in error.message
    assert "peer_listen" in error.hint


def test_port_zero_takes_a_free_one(one: Bench, made_pki: Pki) -> None:
    network = node(one, made_pki, "n1")
    listener = one.try_listen(network, "peer", Address(LOCAL, 0), lambda: End(one.changed))
    assert not isinstance(listener, BaseException)
    assert listener.address.port > 0
    assert one.dial(node(one, made_pki, "n2"), listener.address, "n1").made


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1", "::"])
def test_names_wildcards_and_ipv6(one: Bench, made_pki: Pki, host: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("no IPv6 here")
    network = node(one, made_pki, "n1")
    address = Address(host, free_port())
    listener = one.try_listen(network, "peer", address, lambda: End(one.changed))
    assert not isinstance(listener, BaseException), listener
    targets = {"localhost": ["localhost"], "0.0.0.0": [LOCAL], "::1": ["::1"], "::": ["::1", LOCAL]}
    dialler = node(one, made_pki, "n2")
    for target in targets[host]:
        assert one.dial(dialler, Address(target, address.port), "n1").made


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_dialling_nobody_fails_once_with_a_reason(both: Bench, made_pki: Pki) -> None:
    network = node(both, made_pki, "n2")
    nobody = both.dial(network, Address(LOCAL, free_port()), "n1")
    unknown = both.dial(network, Address("nowhere.invalid", 20_000), "n1")
    both.idle(0.02)
    assert nobody.failed == ["connection refused"]
    assert len(unknown.failed) == 1
    assert nobody.made == unknown.made == 0


def test_dialling_somebody_silent_ends_at_the_time_out(both: Bench, made_pki: Pki) -> None:
    with socket.socket() as silent:
        silent.bind((LOCAL, free_port()))
        silent.listen()
        end = both.dial(
            node(both, made_pki, "n2"), Address(*silent.getsockname()), "n1", timeout_s=0.1
        )
    assert end.failed == ["no connection within 0.1 s"]


def test_connections_beyond_the_limit_are_refused_with_a_line(both: Bench, made_pki: Pki) -> None:
    limits = small_limits(client_connections_max=2)
    listener, ends = both.listen(node(both, made_pki, "n1", limits=limits), "client")
    network = node(both, made_pki, "n2")
    dialled = [both.dial(network, listener.address, "n1", purpose="client") for _ in range(2)]
    both.wait(lambda: len(ends) == 2)
    third = both.dial(network, listener.address, "n1", purpose="client")
    assert third.failed
    assert "2 connections are open" in both.log.reasons()
    # A place that becomes free is given away again.
    dialled[0].link.close()
    both.wait(lambda: bool(dialled[0].lost and ends[0].lost))
    assert both.dial(network, listener.address, "n1", purpose="client").made


class _Broken:
    """A listening socket of a process that ran out of descriptors."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = 0

    def accept(self) -> Any:
        self.asked += 1
        raise OSError(self.number, "no")


def test_running_out_of_descriptors_does_not_end_the_port(one: Bench, made_pki: Pki) -> None:
    listener, _ = one.listen(node(one, made_pki, "n1"))
    broken = _Broken(errno.EMFILE)
    listener._readable(broken)  # type: ignore[attr-defined]
    assert broken.asked == 1
    assert one.log.of("accept_failed")[0]["port"] == "peer"
    end = one.dial(node(one, made_pki, "n2"), listener.address, "n1")
    assert end.made


def test_insecure_must_be_asked_for(one: Bench, made_pki: Pki) -> None:
    credentials = one.credentials(made_pki.directory("n1"), CLUSTER, "n1")
    for given, insecure in ((None, False), (credentials, True)):
        with pytest.raises(InterfaceError, match="insecure"):
            RealNetwork(one.loop, one.executor, one.log, credentials=given, insecure=insecure)


def test_insecure_is_plain_and_warns(both: Bench) -> None:
    network = both.network(None)
    assert both.log.of("insecure")
    listener, ends = both.listen(network)
    end = both.dial(network, listener.address, "n1")
    assert end.link.peer == Peer("", "", None, str(listener.address))
    end.link.write(b"plain")
    both.wait(lambda: bool(ends) and bytes(ends[0].data) == b"plain")
    assert network.certificate_days_left() is None
    assert not network.reload()


def test_unknown_purposes_are_refused(one: Bench, made_pki: Pki) -> None:
    from raftdb.base.ports import ExpectedPeer

    network = node(one, made_pki, "n1")
    end = End(one.changed)
    with pytest.raises(InterfaceError):
        network.listen("http", Address(LOCAL, 1), lambda: end, lambda *_: None)
    with pytest.raises(InterfaceError):
        network.connect("http", Address(LOCAL, 1), ExpectedPeer(None), end, 1.0, end.fail)
