"""Carries one request to the node that can answer it, and the reply back, before the deadline.

Owns the connections of one client: dialling, hello, who leads, silence, retry. It knows nothing of
sessions and SQL; what may be sent twice is decided by its caller, who learns from `Call.unsure`
whether an earlier attempt may have taken effect.

The rules of routing:
- A request for the leader goes to whoever is said to lead by the newest term. A node that knows no
  leader, and one that cannot be reached, rest for a moment (20 to 50 ms; longer each time for the
  unreachable), then all are asked in turn: an election takes about half a second.
- A connection is lost: redial. The request goes out again, with the same session and sequence.
- No answer within `hedge` seconds: another node is asked who leads, and again each half of that.
  Leadership has moved: the silent connection is dropped and the request goes to the new leader.
  It has not: the request is just slow, and we wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.errors import (
    APPLIED,
    UNKNOWN,
    AuthError,
    Error,
    NotLeaderError,
    OverloadedError,
    UnavailableError,
)
from raftdb.base.ids import Address
from raftdb.base.limits import DEFAULT_LIMITS, Limits
from raftdb.base.ports import Clock, Random
from raftdb.client.actions import Await, Dial, Drop, Link, LinkError, Pause, Steps, Transmit
from raftdb.client.calls import Answered, Call, Make, Peer, answer_of, permanent, too_large
from raftdb.client.options import Options
from raftdb.client.routing import Routes
from raftdb.wire import (
    VERSIONS,
    CursorRows,
    ErrorMessage,
    Goodbye,
    Hello,
    Info,
    Message,
    Ping,
    Request,
    Rows,
    Status,
    Welcome,
)

BACKOFF_MIN_S = 0.02
BACKOFF_MAX_S = 0.05
PEERS_MAX = 4
FAREWELL_S = 0.2
STALL_S = 1.0
"""A node that takes nothing of what we send for so long has stopped."""
QUARANTINE_REST_S = 5.0
UNMET = ("too_few_locations", "archive_unreachable", "disk_full")
"""Codes of a write that is refused while what it needs is not there: tried until the deadline, and
then it is the error."""


class Courier:
    """The connections of one client."""

    def __init__(
        self, options: Options, clock: Clock, random: Random, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.options = options
        self.routes = Routes(options.addresses, options.pin)
        self.cluster_id = options.cluster
        self.history = ""
        self._clock = clock
        self._random = random
        self._limits = limits
        self._peers: dict[Address, Peer] = {}
        self.latest: Call | None = None
        """The call that was begun last."""
        self._choose_leader = self.leader
        self._uses = 0

    def now_s(self) -> float:
        """Seconds of the clock."""
        return self._clock.monotonic_s()

    def call(self, timeout_s: float, *, writes: bool = False) -> Call:
        """Start a call's deadline."""
        self.latest = Call(self._clock.monotonic_s() + timeout_s, timeout_s, writes)
        return self.latest

    # ---- one request

    def ask_leader(self, make: Make, call: Call) -> Steps[Answered]:
        """Bring the request to the leader. Errors that the leader answers are in the Answered;
        raises DeadlineError, or what makes every node unreachable for good."""
        return (yield from self._ask(make, call, self._choose_leader))

    def ask_any(self, make: Make, call: Call) -> Steps[Answered]:
        """Bring the request to the preferred node, else the first that was given and answers."""
        return (yield from self._ask(make, call, self._any))

    def ask_near(self, make: Make, call: Call) -> Steps[Answered]:
        """Bring a read that any node may answer to the preferred node, else to the nearest."""
        choose = self._any if self.options.prefer else self._near
        return (yield from self._ask(make, call, choose))

    def ask_peer(
        self, peer: Peer, make: Make, call: Call, *, leading: bool = True
    ) -> Steps[Answered]:
        """Bring the request to that connection and no other, once. Raises LinkError when it is
        gone, DeadlineError when it does not answer; errors that it answers are in the Answered."""
        left_s = call.deadline_s - self._clock.monotonic_s()
        if self._peers.get(peer.address) is not peer:
            raise LinkError("was closed", unsent=True)
        self._uses += 1
        peer.used = self._uses
        call.attempts += 1
        was_unsure = call.unsure
        try:
            messages = make(peer, max(1, int(left_s * 1000)))
            answered = yield from self._attempt(peer, messages, call, leading)
        except LinkError as lost:
            yield from self.lost(peer, lost)
            raise
        except BaseException as stopped:
            peer.draining = True
            if not isinstance(stopped, GeneratorExit):
                yield from self.drop(peer)
            raise
        error = answered.error
        if error is not None and error.outcome not in (UNKNOWN, APPLIED):
            call.unsure = was_unsure
        return answered

    def _ask(
        self, make: Make, call: Call, choose: Callable[[Call], Steps[Peer]]
    ) -> Steps[Answered]:
        while True:
            peer = yield from choose(call)
            left_s = call.deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise self.nobody(call)
            messages = make(peer, max(1, int(left_s * 1000)))
            call.attempts += 1
            was_unsure = call.unsure
            try:
                leading = choose is self._choose_leader
                answered = yield from self._attempt(peer, messages, call, leading)
            except LinkError as lost:
                yield from self.lost(peer, lost)
                if call.attempts > 1:
                    yield from self.pause(call)
                continue
            except BaseException as stopped:
                # A reply may still come, for a request that nobody waits for any more; the node
                # stops a read when its client is gone.
                peer.draining = True
                if not isinstance(stopped, GeneratorExit):
                    yield from self.drop(peer)
                raise
            answered.unsure = was_unsure
            error = answered.error
            if error is None:
                return answered
            if error.outcome not in (UNKNOWN, APPLIED):
                call.unsure = was_unsure
            if not self._try_again(peer, error):
                return answered
            call.refused = error if error.code in UNMET else None
            if choose is not self._choose_leader and isinstance(
                error, NotLeaderError | UnavailableError
            ):
                # It could have been answered by any node: let another one try.
                until_s = self._clock.monotonic_s() + self._backoff_s()
                self.routes.rest(peer.address, until_s, error.message)
            elif not isinstance(error, NotLeaderError) and not (yield from self.pause(call, error)):
                return answered

    def lost(self, peer: Peer, lost: LinkError) -> Steps[None]:
        """A connection is of no use any more."""
        yield from self.drop(peer)
        self.routes.rest(peer.address, 0.0, lost.reason)
        if lost.silent:
            now_s = self._clock.monotonic_s()
            self.routes.failed(peer.address, now_s, lost.reason, silent=True)

    def _try_again(self, peer: Peer, error: Error) -> bool:
        """Whether the same request may be answered better elsewhere or later."""
        if isinstance(error, NotLeaderError):
            self.not_leader(peer, error)
            return True
        if error.outcome == APPLIED:
            return False
        if error.code == "quarantined":
            # It serves nobody; others hold what it should.
            self.routes.rest(
                peer.address, self._clock.monotonic_s() + QUARANTINE_REST_S, str(error)
            )
            peer.leads = False
        return error.retryable or isinstance(error, OverloadedError | UnavailableError)

    def not_leader(self, peer: Peer, error: NotLeaderError) -> None:
        """Note who leads, as the refusal tells."""
        led, peer.leads = peer.leads, False
        term = error.detail.get("term", 0)
        term = term if isinstance(term, int) else 0
        self.routes.does_not_lead(peer.address, term)
        leader, address = error.detail.get("leader"), error.detail.get("address")
        if isinstance(leader, str) and isinstance(address, str) and leader != peer.node_id:
            self.routes.leads(self.routes.heard_of(leader, address), term)
        elif led:
            # It hands over: by its status it leads still, and would be asked again and again.
            until_s = self._clock.monotonic_s() + self._backoff_s()
            self.routes.rest(peer.address, until_s, error.message)

    def _attempt(
        self, peer: Peer, messages: Sequence[Request], call: Call, leading: bool
    ) -> Steps[Answered]:
        """Send, and wait for the reply to the last message. From the first byte on, and until a
        reply says otherwise, the outcome is unsure."""
        was_unsure, call.unsure = call.unsure, True
        try:
            yield Transmit(peer.link, messages, call.deadline_s, STALL_S)
        except Error:
            # Refused by our own side (too large): nothing was sent.
            call.unsure = was_unsure
            raise
        except LinkError as lost:
            if lost.unsent:
                call.unsure = was_unsure
            raise
        wanted = messages[-1].request_id
        companions = tuple(message.request_id for message in messages[:-1])
        refused: Error | None = None
        chunks: list[bytes] = []
        size = 0
        now_s = self._clock.monotonic_s()
        probe_s = now_s + self.options.hedge
        pinged = call.alive = False
        while True:
            arrived: Sequence[Message] = yield Await(peer.link, min(call.deadline_s, probe_s))
            for message in arrived:
                request_id = getattr(message, "request_id", None)
                if request_id == wanted:
                    if type(message) is Rows or type(message) is CursorRows:
                        size += len(message.chunk)
                        chunks.append(message.chunk)
                        # Encoded, a result takes somewhat more than its values.
                        if size > 2 * self._limits.result_bytes_max:
                            yield from self.drop(peer)
                            raise too_large(size)
                        if not message.last:
                            continue
                    self._after(peer, arrived, message)
                    return answer_of(peer, message, refused, chunks)
                if request_id in companions and call.beside is not None:
                    call.beside[request_id] = message
                elif request_id in companions and type(message) is ErrorMessage:
                    refused = message.exception()
                else:
                    self.notice(peer, message)
            now_s = self._clock.monotonic_s()
            if arrived:
                call.alive = True
                probe_s, pinged = now_s + self.options.hedge, False
            elif now_s >= call.deadline_s:
                yield from self.drop(peer)
                raise call.unanswered(peer.address)
            elif now_s >= probe_s and not leading:
                # Any node may answer, so it does not matter who leads: is this one alive?
                if pinged:
                    raise LinkError("is silent", silent=True)
                ping = Ping(peer.request_id())
                yield Transmit(peer.link, (ping,), call.deadline_s, STALL_S)
                probe_s, pinged = now_s + self.options.hedge, True
            elif now_s >= probe_s:
                if (yield from self.has_moved(peer, call)):
                    raise LinkError("is silent, and leadership moved", silent=True)
                probe_s = self._clock.monotonic_s() + self.options.hedge / 2

    def _after(self, peer: Peer, arrived: Sequence[Message], reply: Message) -> None:
        """What came in the same piece behind the reply must not be overlooked."""
        if arrived[-1] is not reply:
            for message in arrived:
                if type(message) is Goodbye:
                    peer.draining = True

    def notice(self, peer: Peer, message: Message) -> None:
        """A message that is no reply to what we wait for. (Late replies to requests that were given
        up are overlooked.)"""
        if type(message) is Goodbye:
            peer.draining = True
        elif type(message) is ErrorMessage and message.request_id == 0:
            error = message.exception()
            raise LinkError(error.message, permanent(error))

    # ---- whom to ask

    def leader(self, call: Call) -> Steps[Peer]:
        """A connection to a node that says it leads."""
        asked: set[Address] = set()
        while True:
            now_s = self._clock.monotonic_s()
            if now_s >= call.deadline_s:
                raise self.nobody(call)
            address = self.routes.next(now_s)
            if address is None:
                asked.clear()
                yield from self._pause_until_awake(call, now_s)
                continue
            peer = self._open_peer(address)
            if peer is None:
                peer = yield from self._connect(address, call)
                if peer is None:
                    continue
            elif not peer.leads and not (yield from self._ask_status(peer, call)):
                continue
            if peer.leads:
                return peer
            leader = self.routes.leader
            # Nodes may name each other: who was asked already has a rest too.
            if leader in (None, address, *asked) or not self.routes.is_awake(leader, now_s):
                until_s = self._clock.monotonic_s() + self._backoff_s()
                self.routes.rest(address, until_s, "knows no leader that can be reached")
            asked.add(address)

    def _any(self, call: Call) -> Steps[Peer]:
        """A connection to the preferred node, or to the first that answers."""
        while True:
            now_s = self._clock.monotonic_s()
            if now_s >= call.deadline_s:
                raise self.nobody(call)
            address = self.routes.next_given(now_s, self.options.prefer)
            if address is None:
                yield from self._pause_until_awake(call, now_s)
                continue
            peer = self._open_peer(address) or (yield from self._connect(address, call))
            if peer is not None and (
                not self.options.prefer
                or self.routes.next_given(now_s, self.options.prefer) == address
            ):
                return peer

    def _near(self, call: Call) -> Steps[Peer]:
        """A connection to the nearest node that answers."""
        while True:
            now_s = self._clock.monotonic_s()
            if now_s >= call.deadline_s:
                raise self.nobody(call)
            address = self.routes.next_near(now_s, self.options.location)
            if address is None:
                yield from self._pause_until_awake(call, now_s)
                continue
            open_peer = self._open_peer(address)
            if open_peer is not None:
                return open_peer
            peer = yield from self._connect(address, call)
            # Its distance is known now, and who is there: perhaps another one is nearer.
            now_s = self._clock.monotonic_s()
            nearest = self.routes.next_near(now_s, self.options.location)
            if peer is not None and nearest in (address, None):
                return peer

    def _open_peer(self, address: Address) -> Peer | None:
        peer = self._peers.get(address)
        if peer is None or peer.draining:
            return None
        self._uses += 1
        peer.used = self._uses
        return peer

    def _connect(self, address: Address, call: Call) -> Steps[Peer | None]:
        """Dial and say hello. None, and the address rests, when that does not work."""
        old = self._peers.get(address)
        if old is not None:
            yield from self.drop(old)
        begun_s = self._clock.monotonic_s()
        try:
            peer = yield from self._greet(address, call.deadline_s)
        except LinkError as error:
            now_s = self._clock.monotonic_s()
            silent = error.silent and self._had_its_time(begun_s)
            self.routes.failed(address, now_s, error.reason, error.cause, silent=silent)
            hopeless = self.routes.hopeless()
            if hopeless is not None and not call.unsure:
                raise hopeless from None
            if error.refused and not (self.options.wait or call.unsure) and self.routes.all_fail():
                why = self.routes.problems()
                raise UnavailableError(why, hint="is the node running?") from None
            return None
        if len(self._peers) >= PEERS_MAX:
            oldest = min(self._peers.values(), key=lambda one: one.used)
            yield from self.drop(oldest)
        self._uses += 1
        peer.used = self._uses
        self._peers[address] = peer
        return peer

    def _greet(self, address: Address, deadline_s: float) -> Steps[Peer]:
        until_s = min(deadline_s, self._clock.monotonic_s() + self.options.dial_timeout)
        link: Link = yield Dial(address, until_s)
        try:
            name = self.options.name[:128]
            hello = Hello(VERSIONS, name, self.cluster_id or None, None)
            asked_s = self._clock.monotonic_s()
            yield Transmit(link, (hello,), until_s, STALL_S)
            arrived: Sequence[Message] = yield Await(link, until_s)
            if not arrived:
                raise LinkError("does not answer the hello", silent=True)
            welcome = arrived[0]
            if type(welcome) is ErrorMessage:
                error = welcome.exception()
                raise LinkError(error.message, permanent(error))
            if type(welcome) is not Welcome:
                raise LinkError(f"answers the hello with {type(welcome).__name__}")
            self._check_identity(link, welcome)
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                yield Drop(link)
            raise
        peer = Peer(address, link, welcome)
        round_trip_s = self._clock.monotonic_s() - asked_s
        for message in arrived[1:]:
            self.notice(peer, message)
        self._learn(address, welcome)
        self.routes.measured(address, round_trip_s)
        return peer

    def _check_identity(self, link: Link, welcome: Welcome) -> None:
        """The welcome must agree with the certificate, and with the cluster we know."""
        if link.node_id and link.node_id != welcome.node_id:
            reason = f"says that it is {welcome.node_id}, its certificate says {link.node_id}"
            raise LinkError(reason, AuthError(f"the node {reason}"))
        for found in (link.cluster_id, welcome.cluster_id):
            if found and self.cluster_id and found != self.cluster_id:
                reason = f"belongs to cluster {found}, not to {self.cluster_id}"
                raise LinkError(
                    reason,
                    AuthError(
                        f"the node {reason}",
                        code="wrong_cluster",
                        hint="an address or a certificate belongs to another cluster",
                    ),
                )

    def _learn(self, address: Address, welcome: Welcome) -> None:
        routes = self.routes
        self.cluster_id = welcome.cluster_id
        if welcome.history != self.history:
            routes.forget_terms()
            self.history = welcome.history
        routes.found(welcome.node_id, address)
        for member in welcome.members:
            if member.node_id != welcome.node_id:
                other = routes.heard_of(member.node_id, member.address)
                if other is not None:
                    routes.located(other, member.location)
            else:
                routes.located(address, member.location)
        if welcome.role == "leader":
            routes.leads(address, welcome.term, itself=True)
            return
        routes.does_not_lead(address, welcome.term)
        leader = welcome.leader
        if leader is not None and leader.node_id != welcome.node_id:
            routes.leads(routes.heard_of(leader.node_id, leader.address), welcome.term)

    def _ask_status(self, peer: Peer, call: Call) -> Steps[bool]:
        """Ask an open connection who leads now. False when it is gone."""
        asked_s = self._clock.monotonic_s()
        until_s = min(call.deadline_s, asked_s + self.options.dial_timeout)
        request_id = peer.request_id()
        try:
            yield Transmit(peer.link, (Status(request_id),), until_s, STALL_S)
            while True:
                arrived: Sequence[Message] = yield Await(peer.link, until_s)
                for message in arrived:
                    if type(message) is Info and message.request_id == request_id:
                        self._learn_status(peer, message.info)
                        self._after(peer, arrived, message)
                        return True
                    self.notice(peer, message)
                if not arrived:
                    raise LinkError("does not answer", silent=True)
        except LinkError as error:
            yield from self.drop(peer)
            now_s = self._clock.monotonic_s()
            silent = error.silent and self._had_its_time(asked_s)
            self.routes.failed(peer.address, now_s, error.reason, error.cause, silent=silent)
            return False

    def _had_its_time(self, since_s: float) -> bool:
        """Silence says something about a node only if the call's own deadline did not cut it
        short: else a node that is always tried last would rest in every next call too."""
        return self._clock.monotonic_s() - since_s >= 0.9 * self.options.dial_timeout

    def _learn_status(self, peer: Peer, info: dict[str, Any]) -> None:
        term, role, leader = info.get("term"), info.get("role"), info.get("leader")
        if not isinstance(term, int):
            return
        peer.leads = role == "leader"
        if peer.leads:
            self.routes.leads(peer.address, term, itself=True)
            return
        self.routes.does_not_lead(peer.address, term)
        members = info.get("members")
        for member in members if isinstance(members, tuple | list) else ():
            if isinstance(member, dict) and isinstance(member.get("node_id"), str):
                address = member.get("client_address")
                if member["node_id"] == leader != peer.node_id and isinstance(address, str):
                    self.routes.leads(self.routes.heard_of(member["node_id"], address), term)

    def has_moved(self, peer: Peer, call: Call) -> Steps[bool]:
        """Ask a node other than the silent one, by a connection of its own, who leads."""
        address = self.routes.next(self._clock.monotonic_s(), avoid=peer.address)
        if address is None:
            return False
        # Asking many others must not close the one connection whose answer is waited for.
        self._uses += 1
        peer.used = self._uses
        other = yield from self._connect(address, call)
        if other is None:
            return False
        leader = self.routes.leader
        if leader is None:
            return False
        call.alive = leader == peer.address or self.routes.is_of(leader, peer.node_id)
        return not call.alive

    # ---- waiting

    def _backoff_s(self) -> float:
        return BACKOFF_MIN_S + (BACKOFF_MAX_S - BACKOFF_MIN_S) * self._random.random()

    def pause(self, call: Call, error: Error | None = None) -> Steps[bool]:
        """Wait a moment before the next attempt, as long as the error asks for: about, so that
        not all come again at the same time. False at once when the deadline is sooner than a node
        that is busy asks to be spared."""
        wait_s = self._backoff_s()
        asked_ms = error.detail.get("retry_after_ms") if error is not None else None
        if isinstance(asked_ms, int) and asked_ms > 0:
            wait_s = max(wait_s, min(asked_ms, 1_000) / 1000 * (0.5 + self._random.random()))
        until_s = self._clock.monotonic_s() + wait_s
        if isinstance(error, OverloadedError) and until_s >= call.deadline_s:
            return False
        yield Pause(min(until_s, call.deadline_s))
        return True

    def _pause_until_awake(self, call: Call, now_s: float) -> Steps[None]:
        yield Pause(min(max(self.routes.awake_at_s(), now_s + 0.001), call.deadline_s))

    def nobody(self, call: Call) -> Error:
        """The error when the deadline came before a node was found."""
        hopeless = self.routes.hopeless()
        if hopeless is not None and not call.unsure:
            return hopeless
        if call.refused is not None and not call.unsure:
            return call.refused
        return call.too_late(self.routes.problems())

    # ---- closing

    def drop(self, peer: Peer) -> Steps[None]:
        """Close a connection."""
        if self._peers.get(peer.address) is peer:
            del self._peers[peer.address]
        peer.draining = True
        yield Drop(peer.link)

    def abandon(self) -> None:
        """In the child of a fork: close its copies, so that a connection ends with the parent."""
        for peer in self._peers.values():
            peer.draining = True
            peer.link.abandon()
        self._peers.clear()

    def attached_peer(self, session_id: bytes) -> Peer | None:
        """An open connection that this session is attached to."""
        for peer in self._peers.values():
            if peer.attached == session_id and not peer.draining:
                return peer
        return None

    def close(self, farewell: tuple[Peer, Request] | None = None) -> Steps[None]:
        """Send a last message, whose reply nobody waits for, and drop all connections."""
        if farewell is not None:
            peer, message = farewell
            try:
                until_s = self._clock.monotonic_s() + FAREWELL_S
                yield Transmit(peer.link, (message,), until_s, FAREWELL_S)
            except LinkError:
                pass
        for peer in list(self._peers.values()):
            yield from self.drop(peer)
