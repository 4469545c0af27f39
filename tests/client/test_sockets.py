"""The blocking driver on real sockets: TLS, lost connections, silence, interruption."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

import raftdb
from raftdb.base.ids import Address, ClusterId, NodeId
from raftdb.client.actions import LinkError
from raftdb.client.dialling import connected
from raftdb.client.link import Dialler
from raftdb.client.options import Options
from raftdb.command import Statement
from raftdb.runtime import RealClock
from raftdb.runtime.tls import TlsPaths, server_context
from raftdb.security import found_certificates, load_authority
from raftdb.wire import AttachSession, CloseSession, Execute, Hello, Message, Ping, Query
from tests.client.server import CLUSTER, HISTORY, LOCAL, FakeNode, listening_socket

OTHER = "e" * 32


# ---- lost connections


def test_a_lost_reply_is_asked_for_again(node: FakeNode, db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    losses = iter(["drop after", "drop", "drop after"])

    def before(message: Message) -> str:
        return next(losses, "") if isinstance(message, Execute) else ""

    node.before = before
    assert db.execute("INSERT INTO t VALUES (1)").rowcount == 1
    assert db.execute("INSERT INTO t VALUES (2)").rowcount == 1
    assert db.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]
    sent = [m.sequence for m in node.requests if isinstance(m, Execute)]
    assert sent == [1, 2, 2, 2, 2, 3]
    assert sum(isinstance(m, AttachSession) for m in node.requests) == 3


def test_a_connection_that_ended_while_idle_is_seen_before_sending(
    node: FakeNode, db: raftdb.Connection
) -> None:
    db.execute("CREATE TABLE t (a)")
    node.cut()
    db.execute("INSERT INTO t VALUES (1)")
    assert [m.sequence for m in node.requests if isinstance(m, Execute)] == [1, 2]
    assert node.accepted == 2


def test_failover_to_another_node() -> None:
    first = FakeNode()
    second = FakeNode(first.database, "n2")
    first.members = second.members = [first, second]
    with raftdb.connect(f"raftdb://{first.address}/?insecure=1") as db:
        db.execute("CREATE TABLE t (a)")
        first.database.leader = second
        first.close()
        db.execute("INSERT INTO t VALUES (1)")
        assert db.execute("SELECT a FROM t").fetchall() == [(1,)]
    second.close()


def test_a_silent_leader_is_left_for_the_next() -> None:
    first = FakeNode()
    second = FakeNode(first.database, "n2")
    first.members = second.members = [first, second]
    with raftdb.connect(f"raftdb://{first.address}/?insecure=1&hedge=0.2") as db:
        db.execute("CREATE TABLE t (a)")

        def before(message: Message) -> str:
            first.database.leader = second
            return "silent"

        first.before = before
        started_s = time.perf_counter()
        assert db.execute("INSERT INTO t VALUES (1) RETURNING a").fetchall() == [(1,)]
        assert time.perf_counter() - started_s < 3
        assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)
    first.close()
    second.close()


def test_the_deadline_holds_and_the_outcome_is_unknown(
    node: FakeNode, db: raftdb.Connection
) -> None:
    db.execute("CREATE TABLE t (a)")
    node.before = lambda message: "silent"
    started_s = time.perf_counter()
    with pytest.raises(raftdb.DeadlineError) as caught:
        db.execute("INSERT INTO t VALUES (1)", timeout=0.3)
    assert 0.25 < time.perf_counter() - started_s < 2
    assert caught.value.outcome == "unknown"
    assert db.unsettled
    node.before = lambda message: ""
    assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert any(isinstance(message, CloseSession) for message in node.requests)
    assert not db.unsettled


def test_resume(node: FakeNode, db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    node.before = lambda message: "silent" if isinstance(message, Execute) else ""
    with pytest.raises(raftdb.DeadlineError):
        db.execute("INSERT INTO t VALUES (1) RETURNING a", timeout=0.2)
    node.before = lambda message: ""
    (result,) = db.resume()
    assert (result.rows, result.rowcount) == (((1,),), 1)
    assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_nobody_listens() -> None:
    sock = listening_socket()
    port = sock.getsockname()[1]
    sock.close()
    with raftdb.connect(f"raftdb://{LOCAL}:{port}/?insecure=1&timeout=0.3") as db:
        with pytest.raises(raftdb.DeadlineError, match="refused the connection") as caught:
            db.execute("INSERT INTO t VALUES (1)")
        assert caught.value.outcome == "not_applied"


def test_who_accepts_and_says_nothing_costs_only_the_dial_timeout() -> None:
    silent = listening_socket()
    with (
        raftdb.connect(
            f"raftdb://{LOCAL}:{silent.getsockname()[1]}/?insecure=1&timeout=0.4&dial_timeout=0.1"
        ) as db,
        pytest.raises(raftdb.DeadlineError, match="hello"),
    ):
        db.ping()
    silent.close()


def test_an_unknown_host_name() -> None:
    db = raftdb.connect("raftdb://no-such-host.invalid:7001/?insecure=1&timeout=0.3")
    with db, pytest.raises(raftdb.DeadlineError, match="name is not known"):
        db.ping()


def test_a_request_that_is_not_read_does_not_block_for_ever() -> None:
    """A stopped node with full buffers: sending stalls, and is given up."""
    node = FakeNode()
    blocked, go_on = threading.Event(), threading.Event()

    def before(message: Message) -> str:
        if isinstance(message, Execute):
            blocked.set()
            go_on.wait(20)
        return ""

    node.before = before
    with raftdb.connect(f"raftdb://{node.address}/?insecure=1&hedge=0.2") as db:
        with pytest.raises(raftdb.DeadlineError) as caught:
            db.batch([("INSERT INTO t VALUES (?)", (b"x" * (14 << 20),))] * 2, timeout=1.0)
        assert caught.value.outcome == "unknown"
        go_on.set()
    node.close()


def test_a_request_larger_than_the_frame(db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    with pytest.raises(raftdb.DataError) as caught:
        db.batch([("INSERT INTO t VALUES (?)", (b"x" * (12 << 20),))] * 3)
    assert caught.value.code == "too_large"
    assert caught.value.outcome == "not_applied"
    assert not db.unsettled
    db.execute("INSERT INTO t VALUES (1)")


def test_other_protocols_at_the_port() -> None:
    sock = listening_socket()

    def serve() -> None:
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x46"):
            one, _ = sock.accept()
            one.recv(1000)
            one.sendall(answer)
            one.close()

    thread = threading.Thread(target=serve)
    thread.start()
    dialler = Dialler(Options(insecure=True), RealClock())
    address = Address(LOCAL, sock.getsockname()[1])
    until_s = RealClock().monotonic_s() + 5
    for expected in ("larger than", "wants TLS"):
        link = dialler.dial(address, until_s)
        link.transmit((Hello((1,), "x"),), until_s, 1.0)
        with pytest.raises(LinkError, match=expected):
            link.receive(until_s)
        link.close()
    thread.join(5)
    sock.close()


INTERRUPTED = """
import signal, sys, raftdb
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
db = raftdb.connect(sys.argv[1])
try:
    db.execute("INSERT INTO t VALUES (1)", timeout=60)
except KeyboardInterrupt:
    print("interrupted", db.unsettled, db.execute("SELECT count(*) FROM t").fetchone())
"""


def test_ctrl_c_ends_a_request_at_once(node: FakeNode, db: raftdb.Connection) -> None:
    db.execute("CREATE TABLE t (a)")
    reached = threading.Event()

    def before(message: Message) -> str:
        if isinstance(message, Execute):
            reached.set()
            return "silent"
        return ""

    node.before = before
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, f"raftdb://{node.address}/?insecure=1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reached.wait(20)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out == "interrupted True (1,)\n"


# ---- TLS


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<here>/<node>/tls and client of one cluster; other/ of another one."""
    root = tmp_path_factory.mktemp("pki")
    found_certificates(str(root), ClusterId(CLUSTER), [NodeId("n1"), NodeId("n2")])
    found_certificates(str(root / "other"), ClusterId(OTHER), [NodeId("n1")])
    return root


def context_of(directory: Path) -> ssl.SSLContext:
    return server_context(
        TlsPaths(
            str(directory / "ca.crt"), str(directory / "node.crt"), str(directory / "node.key")
        )
    )


def client_files(root: Path) -> dict[str, str]:
    directory = root / "client"
    return {
        "ca": str(directory / "ca.crt"),
        "cert": str(directory / "client.crt"),
        "key": str(directory / "client.key"),
    }


@pytest.fixture
def secure(pki: Path) -> Iterator[FakeNode]:
    node = FakeNode(context=context_of(pki / "n1" / "tls"))
    yield node
    node.close()


def test_tls(pki: Path, secure: FakeNode) -> None:
    with raftdb.connect(f"raftdb://{secure.address}/", **client_files(pki)) as db:
        db.execute("CREATE TABLE t (a)")
        db.executemany("INSERT INTO t VALUES (?)", [(b"x" * 100_000,) for _ in range(20)])
        assert len(db.execute("SELECT a FROM t").fetchall()) == 20
        secure.cut()
        assert db.execute("SELECT count(*) FROM t").fetchone() == (20,)
        assert db.options.cluster == CLUSTER, "the client's own certificate says so"


@pytest.mark.parametrize("ending", ["reset", "end"])
def test_a_connection_that_ends_before_tls_begins(
    pki: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port of a node that is dying: it takes the connection, and that is all."""
    port = listening_socket()

    def connect_and_see_it_end(*args: Any) -> socket.socket:
        sock = connected(*args)
        accepted, _ = port.accept()
        if ending == "reset":
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        ended = select.poll()
        ended.register(sock, select.POLLIN)
        assert ended.poll(5_000)
        return sock

    monkeypatch.setattr("raftdb.client.link.connected", connect_and_see_it_end)
    dialler = Dialler(Options(**client_files(pki)), RealClock())  # type: ignore[arg-type]
    with pytest.raises(LinkError) as caught:
        dialler.dial(Address(LOCAL, port.getsockname()[1]), RealClock().monotonic_s() + 5)
    assert not caught.value.silent, "it was seen to end, and not waited for"
    gc.collect()  # A socket left open would warn here, and a warning is an error.
    port.close()


def refused(url: str, pattern: str, **options: Any) -> raftdb.Error:
    """The error of a ping, which must come at once: no retry mends it."""
    started_s = time.perf_counter()
    db = raftdb.connect(url, **options)
    with db, pytest.raises(raftdb.AuthError, match=pattern) as caught:
        db.ping()
    assert time.perf_counter() - started_s < 3
    assert caught.value.outcome == "not_applied"
    return caught.value


def test_a_node_of_another_ca_is_not_trusted(pki: Path, secure: FakeNode) -> None:
    refused(f"raftdb://{secure.address}/", "certificate is refused", **client_files(pki / "other"))


def test_another_cluster_with_a_trusted_ca_is_refused(pki: Path, tmp_path: Path) -> None:
    """Two clusters whose CA files were put together by mistake."""
    both = tmp_path / "both.crt"
    both.write_bytes(
        (pki / "client" / "ca.crt").read_bytes()
        + (pki / "other" / "client" / "ca.crt").read_bytes()
    )
    context = context_of(pki / "other" / "n1" / "tls")
    context.load_verify_locations(str(both))
    node = FakeNode(context=context, cluster_id=OTHER)
    files = client_files(pki) | {"ca": str(both)}
    error = refused(f"raftdb://{node.address}/", "belongs to cluster", **files)
    assert error.code == "wrong_cluster"
    node.close()


def test_a_welcome_that_contradicts_the_certificate(pki: Path) -> None:
    node = FakeNode(node_id="n2", context=context_of(pki / "n1" / "tls"))
    refused(f"raftdb://{node.address}/", "its certificate says n1", **client_files(pki))
    node.close()


def put(directory: Path, pki: Path, uris: list[str], days_ago: float = 0) -> ssl.SSLContext:
    """The TLS of a node with whatever certificate, valid for a month."""
    authority = load_authority(str(pki / "ca"))
    since = datetime.now(UTC) - timedelta(days=days_ago)
    issued = authority.issue(uris, "x", [ExtendedKeyUsageOID.SERVER_AUTH], since, 30)
    for name, data in (("node.crt", issued.certificate), ("node.key", issued.key)):
        path = directory / name
        path.touch(0o600)
        path.write_bytes(data)
    (directory / "ca.crt").write_bytes(authority.certificate_pem)
    return context_of(directory)


def test_a_clients_certificate_serves_nobody(pki: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = client_files(pki)
    context.load_cert_chain(files["cert"], files["key"])
    node = FakeNode(context=context)
    refused(f"raftdb://{node.address}/", "cannot be trusted", **files)
    node.close()


@pytest.mark.parametrize(
    ("uris", "pattern"),
    [
        ([f"raftdb://{CLUSTER}/client/app"], "not of a node"),
        ([f"raftdb://{OTHER}/node/n1"], "belongs to cluster"),
        (["https://example.org/"], "no raftdb identity"),
        ([f"raftdb://{CLUSTER}/node/n1", f"raftdb://{CLUSTER}/node/n2"], "2 URI names"),
        ([], "0 URI names"),
    ],
)
def test_a_certificate_that_may_serve_and_names_no_node_of_the_cluster(
    pki: Path, tmp_path: Path, uris: list[str], pattern: str
) -> None:
    node = FakeNode(context=put(tmp_path, pki, uris))
    refused(f"raftdb://{node.address}/", pattern, **client_files(pki))
    node.close()


def test_a_clients_certificate_that_the_node_refuses(pki: Path, secure: FakeNode) -> None:
    files = client_files(pki / "other") | {"ca": str(pki / "client" / "ca.crt")}
    refused(f"raftdb://{secure.address}/", "refuses this client's certificate", **files)


def test_an_expired_node(pki: Path, tmp_path: Path) -> None:
    node = FakeNode(context=put(tmp_path, pki, [f"raftdb://{CLUSTER}/node/n1"], days_ago=900))
    refused(f"raftdb://{node.address}/", "expired", **client_files(pki))
    node.close()


def test_plain_text_at_a_tls_port_and_tls_at_a_plain_one(
    pki: Path, secure: FakeNode, node: FakeNode
) -> None:
    db = raftdb.connect(f"raftdb://{secure.address}/?insecure=1&timeout=0.3")
    with db, pytest.raises(raftdb.DeadlineError):
        db.ping()
    db = raftdb.connect(f"raftdb://{node.address}/?timeout=0.3", **client_files(pki))
    with db, pytest.raises(raftdb.DeadlineError, match=r"TLS|closed"):
        db.ping()


def test_the_url_and_the_certificate_name_different_clusters(pki: Path) -> None:
    with pytest.raises(raftdb.ConfigError, match=OTHER):
        raftdb.connect(f"raftdb://h:1/?cluster={OTHER}", **client_files(pki))


def test_no_key_in_any_message(pki: Path, tmp_path: Path) -> None:
    """A key in place of the certificate, a damaged key: the error quotes neither."""
    files = client_files(pki)
    secret = Path(files["key"]).read_text()
    damaged = tmp_path / "damaged.key"
    damaged.touch(0o600)
    damaged.write_text(secret.replace("M", "N", 3))
    for wrong in ({"cert": files["key"]}, {"key": str(damaged)}, {"key": files["cert"]}):
        with pytest.raises(raftdb.ConfigError) as caught:
            raftdb.connect("raftdb://h:1/", **files | wrong)
        for line in secret.splitlines()[1:-1]:
            assert line not in str(caught.value)
            assert line not in repr(caught.value)


# ---- the node in this process


class LocalNode:
    """An InProcessLink to a fake node, without a socket."""

    def __init__(self, node: FakeNode) -> None:
        from tests.client.server import Conversation

        self.talk = Conversation(node, socket.socket())
        self.local = 0
        self.closed = 0
        self.history = HISTORY

    def call(self, message: Any) -> Any:
        with self.talk.node.database.lock:
            return self.talk.handle(message)

    def local_query(self, statements: Any, timeout_s: float) -> Any:
        self.local += 1
        with self.talk.node.database.lock:
            return self.talk.node.database.query(statements), 7

    def local_rows(self, sql: str, parameters: Any, timeout_s: float) -> Any:
        results, index = self.local_query((Statement(sql, (parameters,)),), timeout_s)
        return results.statements[0].columns, list(results.statements[0].rows), index

    def close(self) -> None:
        self.closed += 1
        self.talk.sock.close()


def test_the_node_in_this_process(node: FakeNode) -> None:
    link = LocalNode(node)
    with raftdb.connect(link=link) as db:
        db.execute("CREATE TABLE t (a)")
        assert db.execute("INSERT INTO t VALUES (1)").rowcount == 1
        assert db.execute("SELECT a FROM t").fetchall() == [(1,)]
        assert link.local == 0
        assert db.execute("SELECT a FROM t", read="local").fetchall() == [(1,)]
        assert (link.local, db.last_index) == (1, 7)
        assert db.execute("SELECT a FROM t WHERE a = ?", (True,), read="local").fetchone() == (1,)
        assert db.execute("PRAGMA user_version", read="local").fetchall() == [(0,)]
        with pytest.raises(raftdb.ProgrammingError):
            db.execute("SELECT nonsense", read="local")
        assert node.accepted == 0, "no socket is needed"
    assert link.closed == 1


def test_what_looks_like_a_read_and_writes_is_executed_by_the_node_in_this_process(
    node: FakeNode,
) -> None:
    link = LocalNode(node)

    def refuse(*_arguments: Any) -> Any:
        raise raftdb.ProgrammingError("it writes", code="not_a_query")

    link.local_query = link.local_rows = refuse  # type: ignore[method-assign]
    with raftdb.connect(link=link, read="local") as db:
        assert db.execute("SELECT 1").fetchall() == [(1,)]
        assert db.batch(["SELECT 1"])[0].rows == ((1,),)


@pytest.mark.parametrize("value", [2**63, float("nan"), "\ud800", object(), [1]])
def test_parameters_of_a_read_in_this_process_are_checked_as_any(
    node: FakeNode, value: object
) -> None:
    link = LocalNode(node)
    with raftdb.connect(link=link, read="local") as db:
        for parameters in ((value,), [value], (1, value), {"a": value}):
            with pytest.raises(raftdb.DataError) as here:
                db.execute("SELECT ?", parameters)
            with pytest.raises(raftdb.DataError) as there:
                db.execute("SELECT ?", parameters, read="linearizable")
            assert str(here.value) == str(there.value)
    assert link.local == 0


def test_the_node_in_this_process_follows_another() -> None:
    here = FakeNode()
    leader = FakeNode(here.database, "n2")
    here.database.leader = leader
    here.members = leader.members = [here, leader]
    link = LocalNode(here)
    with raftdb.connect(link=link, insecure=True) as db:
        db.execute("CREATE TABLE t (a)")
        assert db.execute("SELECT a FROM t", read="local").fetchall() == []
        assert (here.accepted, leader.accepted) == (0, 1)
    here.close()
    leader.close()


def test_the_node_in_this_process_without_certificates_for_the_others() -> None:
    here = FakeNode()
    leader = FakeNode(here.database, "n2")
    here.database.leader = leader
    db = raftdb.connect(link=LocalNode(here), timeout=0.3)
    with db, pytest.raises(raftdb.DeadlineError, match="no certificates"):
        db.execute("CREATE TABLE t (a)")
    here.close()
    leader.close()


def test_importing_raftdb_is_cheap() -> None:
    """No sockets, no TLS, no node until one is asked for."""
    code = (
        "import sys, raftdb; raftdb.Error;"
        " late = {'ssl', 'socket', 'asyncio', 'msgpack', 'apsw', 'cryptography', 'pysyncobj'};"
        " print(sorted(late & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_pings_count_as_questions_to_the_given_node(
    node: FakeNode, connect: Callable[..., raftdb.Connection]
) -> None:
    db = connect(pin=True)
    assert db.ping() == "n1"
    assert any(isinstance(message, Ping) for message in node.requests)
    assert not any(isinstance(message, Query) for message in node.requests)


@pytest.mark.parametrize("sql", ["SELECT 1", "INSERT INTO t VALUES (1)"])
def test_another_thread_cancels(
    node: FakeNode, connect: Callable[..., raftdb.Connection], sql: str
) -> None:
    db = connect(timeout=20.0)
    db.cancel()
    db.execute("CREATE TABLE t (a)")
    arrived = threading.Event()

    def before(message: Message) -> str:
        if isinstance(message, Query | Execute):
            arrived.set()
            return "silent"
        return ""

    node.before = before

    def cancel() -> None:
        arrived.wait(10)
        db.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(raftdb.OperationalError) as caught:
        db.execute(sql)
    thread.join()
    writes = sql.startswith("INSERT")
    assert (caught.value.code, caught.value.outcome) == (
        "cancelled",
        "unknown" if writes else "not_applied",
    )
    assert db.unsettled == writes
    node.before = lambda message: ""
    if writes:
        db.resume()
    assert db.execute("SELECT count(*) FROM t").fetchone() == (int(writes),)
