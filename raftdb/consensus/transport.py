"""The members' connections: who dials, who is who, one live connection per peer (rows 14, 15, 19).

Of two members the one whose name sorts first dials. The other one dials too when it has waited for
long: the first may not know of it yet, or not where it is now. Whoever proves to be a node of this
cluster may connect, a member by this node's own log or not (thesis 4.2: a member may be behind, and
its leader one that it never heard of); what it says counts by the rules of the wall. Only who was
removed is turned away, and told so. A peer speaks only after a hello that matches
its certificate, the cluster and this node's versions; then it has a number, its epoch, and what an
older connection still delivers is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from raftdb.base.errors import ConfigError, ProtocolError
from raftdb.base.ids import Address, NodeId
from raftdb.base.limits import Limits
from raftdb.base.ports import ExpectedPeer, Listener, Ports, Timer
from raftdb.consensus.hellos import check_hello
from raftdb.consensus.link import Link
from raftdb.consensus.messages import (
    CopyHello,
    Hello,
    Message,
    Note,
    Ping,
    Removed,
    Superseded,
    encode,
)
from raftdb.consensus.port import Greeting, Member, Timing
from raftdb.consensus.wall import Wall

PENDING_MAX = 64
"""Connections that have not said hello yet."""
STEADY_S = 2.0
"""A connection that lived this long is redialled without a longer pause."""
COPY_LINKS_MAX = 16
STRANGERS_MAX = 16
"""Connections of nodes that are no members by this node's own log."""
LATE_FACTOR = 4
"""The second of two members dials after this many maximum election time-outs."""
BACKOFF_MAX = 8
"""The pause between dials grows to this many times Timing.reconnect_s."""
PATIENCE_MAX = 4
"""A dial is given up to so many times the connect time-out, after as many failures."""


class TransportEvents(Protocol):
    """On the loop. `on_message` may raise ProtocolError: the connection is closed then."""

    def on_connected(self, peer: str) -> None: ...

    def on_disconnected(self, peer: str) -> None: ...

    def on_message(self, peer: str, message: Message) -> None: ...

    def on_superseded(self, peer: str, history: str) -> None:
        """`peer` is a node of this cluster, and follows a history that continues this node's."""

    def on_bulk(self, peer: str) -> None: ...

    def on_copy_open(self, link: Link) -> None:
        """A connection for a copy: we dialled it and it is ready, or a peer did."""

    def on_copy_message(self, link: Link, message: Message) -> None: ...

    def on_copy_lost(self, link: Link, reason: str) -> None: ...


class _Slot:
    """One other member, or another node that speaks like one."""

    __slots__ = ("dialling", "epoch", "failures", "link", "member", "name", "reported", "timer")

    def __init__(self, name: str, member: Member | None) -> None:
        self.name = name
        self.member = member
        """None: no member by what this node knows."""
        self.link: Link | None = None
        self.epoch = 0
        self.dialling: Link | None = None
        self.failures = 0
        self.reported = ""
        """The last trouble that was logged, so that it is logged once."""
        self.timer: Timer | None = None


class Transport:
    """Connections to all other members."""

    def __init__(
        self,
        *,
        me: Member,
        peers: Sequence[Member],
        hello: Hello,
        wall: Wall,
        ports: Ports,
        timing: Timing,
        limits: Limits,
        events: TransportEvents,
        greeting: Greeting | None = None,
        former: Collection[str] = (),
    ) -> None:
        """`former`: the histories that this node's own continues."""
        self._me = me
        self._hello = hello
        self._greeting = greeting
        self._former = frozenset(former)
        self._wall = wall
        self._ports = ports
        self._timing = timing
        self._limits = limits
        self._events = events
        self._slots = {str(one.node_id): _Slot(str(one.node_id), one) for one in peers}
        self._heard_of: dict[str, Address] = {}
        self._removed: frozenset[str] = frozenset()
        self._removed_index = 0
        self._superseded = False
        self._started = False
        self._pending: list[Link] = []
        self._copy_links: list[Link] = []
        self._far: frozenset[str] = frozenset()
        """Peers behind long lines."""
        self._encoded: tuple[Message | None, bytes] = (None, b"")
        self._listener: Listener | None = None
        self._stopped = False
        self._watch_timer: Timer | None = None

    # -- life ------------------------------------------------------------------------------------

    def start(self, ready: Callable[[BaseException | None], None]) -> None:
        """Listen and dial. `ready` says whether the port could be opened."""

        def listening(listener: Listener | None, error: BaseException | None) -> None:
            if self._stopped:
                if listener is not None:
                    listener.close()
                return
            self._listener = listener
            ready(error)

        self._ports.network.listen("peer", self._me.peer_address, self._accept, listening)
        self._started = True
        for slot in self._slots.values():
            self._begin(slot)
        self._watch()

    def stop(self) -> None:
        """Close everything."""
        self._stopped = True
        if self._listener is not None:
            self._listener.close()
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        for slot in self._slots.values():
            if slot.timer is not None:
                slot.timer.cancel()
            if slot.link is not None:
                slot.link.abort()
        for link in [*self._pending, *self._copy_links]:
            link.abort()

    def set_members(self, others: Sequence[Member]) -> None:
        """Who the other members are, and where, from now on."""
        wanted = {str(member.node_id): member for member in others}
        for name, slot in list(self._slots.items()):
            if name not in wanted:
                slot.member = None
                self._forget_stranger(slot)
        for name, member in wanted.items():
            found = self._slots.get(name)
            if found is None:
                found = self._slots[name] = _Slot(name, None)
            before, found.member = found.member, member
            if before is None or before.peer_address != member.peer_address:
                found.failures = 0
                if self._started and found.link is None:
                    self._begin(found)

    def learn(self, members: Sequence[Member]) -> None:
        """Where members are by another's word, for whoever is no member by this node's own log."""
        self._heard_of = {str(one.node_id): one.peer_address for one in members}

    def refuse_removed(self, removed: Sequence[str], index: int) -> None:
        """Ids that will never be members again, by the entry of that index: they are told, and
        turned away."""
        self._removed = frozenset(removed)
        self._removed_index = index
        for name in removed:
            slot = self._slots.get(name)
            if slot is not None and slot.link is not None:
                slot.link.close(Removed(index))

    def dial_copy(self, peer: str) -> Link:
        """Connect to a member to fetch a copy: `on_copy_open` or `on_copy_lost` follows."""
        link = Link(self, peer, self._ports.clock, self._limits, for_copy=True)
        slot = self._slots.get(peer)
        known = None if slot is None or slot.member is None else slot.member.peer_address
        address = known or self._heard_of.get(peer)
        if address is None:
            reason = f"{peer} is no member that this node knows of yet"
            self._ports.executor.call_soon(self._copy_failed, link, reason)
            return link

        self._ports.network.connect(
            "peer",
            address,
            ExpectedPeer(NodeId(peer)),
            link,
            self._timing.connect_timeout_s,
            lambda reason: self._copy_failed(link, reason),
        )
        return link

    def _copy_failed(self, link: Link, reason: str) -> None:
        if not self._stopped:
            self._events.on_copy_lost(link, reason)

    def disconnect(self, peer: str, reason: str) -> None:
        """Close that peer's connection."""
        slot = self._slots.get(peer)
        if slot is not None and slot.link is not None:
            slot.reported = reason
            slot.failures = max(slot.failures, BACKOFF_MAX)
            slot.link.abort()

    @property
    def _silence_s_max(self) -> float:
        return max(2 * self._timing.election_max_s, self._timing.connect_timeout_s)

    def set_far(self, far: Sequence[str]) -> None:
        """Who is behind a long line, from now on."""
        self._far = frozenset(far)
        for name, slot in self._slots.items():
            if slot.link is not None:
                slot.link.far = name in self._far

    # -- Links -----------------------------------------------------------------------------------

    def connected(self, peer: str) -> bool:
        """Whether `send` reaches a live connection."""
        slot = self._slots.get(peer)
        return slot is not None and slot.link is not None

    def epoch(self, peer: str) -> int:
        """Number of the newest connection of this peer."""
        slot = self._slots.get(peer)
        return 0 if slot is None else slot.epoch

    def send(self, peer: str, message: Message) -> None:
        """Dropped when there is no connection."""
        slot = self._slots.get(peer)
        link = None if slot is None else slot.link
        if link is None:
            return
        # The same message to several peers (heartbeats, appends) is encoded once.
        if message is not self._encoded[0]:
            self._encoded = (message, encode(message))
        link.send(message, self._encoded[1])

    def everybody(self) -> list[str]:
        """Whoever is connected, a member by this node's own log or not."""
        return [name for name, slot in self._slots.items() if slot.link is not None]

    def hang_up(self, peer: str) -> None:
        """A reset overtakes all that the line still holds; dialling goes on as ever."""
        slot = self._slots.get(peer)
        if slot is not None and slot.link is not None:
            slot.link.abort()

    # -- LinkOwner -------------------------------------------------------------------------------

    def link_made(self, link: Link) -> None:
        """Connected: say hello, and wait for theirs."""
        if self._stopped or (link.dialled is None and len(self._pending) >= PENDING_MAX):
            link.abort()
            return
        self._pending.append(link)
        link.send(CopyHello(*self._hello) if link.for_copy else self._hello)
        if link.dialled is not None:
            self._greet(link)

    def _greet(self, link: Link) -> None:
        if self._greeting is not None and not link.for_copy:
            link.send(Note(self._greeting.data()))

    def link_hello(self, link: Link, hello: Hello | CopyHello, second: Message | None) -> bool:
        """Check who is there, and by its greeting whether it may be; raises ProtocolError."""
        if hello.history_id != self._hello.history_id:
            return self._other_history(link, hello, second)
        greeting = None if link.for_copy else self._greeting
        if second is None:
            check_hello(self._hello, link, hello)
            if hello.node_id in self._removed:
                self._ports.log.info("removed_member_turned_away", peer=hello.node_id)
                link.refused = True
                link.close(Removed(self._removed_index))
                return True
            if link.dialled is None:
                # Only now it is known that no copy is asked for.
                self._greet(link)
            if greeting is not None and greeting.demanded():
                return False
        elif greeting is not None:
            self._check_greeting(greeting, hello.node_id, second)
        self._accept_peer(link, hello)
        if second is not None:
            self._events.on_message(hello.node_id, second)
        return True

    def _accept_peer(self, link: Link, hello: Hello | CopyHello) -> None:
        if link.for_copy and len(self._copy_links) >= COPY_LINKS_MAX:
            raise ProtocolError("too many connections for copies")
        self._pending.remove(link)
        link.peer = hello.node_id
        if link.for_copy:
            self._copy_links.append(link)
            self._events.on_copy_open(link)
            return
        slot = self._slot_of(hello.node_id)
        slot.epoch += 1
        link.epoch = slot.epoch
        link.far = hello.node_id in self._far
        old, slot.link = slot.link, link
        slot.reported = ""
        if slot.dialling is link:
            slot.dialling = None
        if old is not None and not self._wall.connection_counts(old.epoch, slot.epoch):
            old.abort()
        self._ports.log.info("peer_connected", peer=hello.node_id, epoch=slot.epoch)
        if self._greeting is not None:
            self._greeting.met(hello.node_id)
        self._events.on_connected(hello.node_id)

    def _other_history(self, link: Link, hello: Hello | CopyHello, second: Message | None) -> bool:
        """Refused. Who follows one that this node's own continues is told so; another may be
        ahead, and gets the time of a handshake to tell this node."""
        name, mine, theirs = hello.node_id, self._hello.history_id, hello.history_id
        if isinstance(second, Superseded) and second == (theirs, mine):
            # What a node of this cluster says, by its certificate, of this node's history.
            link.abort()
            self.superseded(name, second)
            return True
        if second is not None:
            # A greeting may be on its way already.
            if type(second) is not Note:
                raise ProtocolError(f"{name} goes on after a hello of another history")
            return False
        check_hello(self._hello, link, hello)
        error = ProtocolError(
            f"{name} follows history {theirs}, this node {mine}",
            hint="one of them was restored or recovered: bring the other one back by "
            "`raftdb rejoin`, or as a new member",
        )
        if link.for_copy and theirs not in self._former:
            raise error
        self.link_failed(link, error, name)
        link.refused = True
        if theirs in self._former:
            link.close(Superseded(mine, theirs))
        return False

    def superseded(self, peer: str, message: Superseded) -> None:
        """This node learns, by whomever, that its history was left; it passes that on to those who
        may reach nobody else that knows."""
        if message.former != self._hello.history_id or message.history in self._former:
            return
        if self._superseded:
            return
        self._superseded = True
        for slot in self._slots.values():
            if slot.link is not None and slot.name != peer and self._greeted(slot.name):
                slot.link.send(message)
        self._events.on_superseded(peer, message.history)

    def link_message(self, link: Link, message: Message) -> None:
        """Row 14: only the newest connection speaks for its peer."""
        assert link.peer is not None
        if link.for_copy:
            self._events.on_copy_message(link, message)
        elif self._counts(link, link.peer):
            self._events.on_message(link.peer, message)

    def link_bulk(self, link: Link) -> None:
        """A piece of a long message moved."""
        assert link.peer is not None
        if self._counts(link, link.peer):
            self._events.on_bulk(link.peer)

    def _counts(self, link: Link, peer: str) -> bool:
        slot = self._slots.get(peer)
        return slot is not None and self._wall.connection_counts(link.epoch, slot.epoch)

    def link_failed(self, link: Link, error: ProtocolError, name: str = "") -> None:
        """Row 15: log, close this connection, go on serving the others."""
        remote = "" if link.connection is None else link.connection.peer.remote
        name = name or link.peer or link.dialled or ""
        slot = self._slots.get(name)
        if slot is None or slot.reported != error.message:
            self._ports.log.warning(
                "peer_refused", peer=name, remote=remote, error=error.message, hint=error.hint
            )
        if slot is not None and not link.for_copy:
            slot.reported = error.message
            slot.failures = max(slot.failures, BACKOFF_MAX)

    def link_lost(self, link: Link, reason: str) -> None:
        """Gone, for whatever reason."""
        if link in self._pending:
            self._pending.remove(link)
        if link.for_copy:
            if link in self._copy_links:
                self._copy_links.remove(link)
            if not self._stopped:
                self._events.on_copy_lost(link, reason)
            return
        slot = self._slots.get(link.peer or link.dialled or "")
        if slot is None:
            return
        if slot.dialling is link:
            slot.dialling = None
        if link.peer is None and not link.refused and not self._stopped:
            self._report(slot, reason)
        if slot.link is link:
            slot.link = None
            if self._ports.clock.monotonic_s() - link.made_at_s > STEADY_S:
                slot.failures = 0
            self._ports.log.warning("peer_lost", peer=slot.name, reason=reason)
            if not self._stopped:
                self._events.on_disconnected(slot.name)
        if slot.member is None:
            self._forget_stranger(slot)
        elif slot.link is None:
            if link.dialled is not None:
                self._dial_later(slot)
            else:
                self._begin(slot)

    def _forget_stranger(self, slot: _Slot) -> None:
        """No dialling; and no trace once there is no connection."""
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        if slot.link is None and slot.dialling is None:
            self._slots.pop(slot.name, None)

    # -- dialling --------------------------------------------------------------------------------

    def _dials(self, name: str) -> bool:
        return self._me.node_id < name

    def _accept(self) -> Link:
        return Link(self, None, self._ports.clock, self._limits)

    def _begin(self, slot: _Slot) -> None:
        """See to it that there will be a connection to this member."""
        if self._stopped or self._slots.get(slot.name) is not slot:
            return
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        if self._dials(slot.name):
            self._dial(slot)
            return
        late_s = self._timing.election_max_s * LATE_FACTOR
        delay_s = late_s * (1.0 + 0.5 * self._ports.random.random())
        slot.timer = self._ports.executor.call_later(delay_s, self._dial, slot)

    def _dial(self, slot: _Slot) -> None:
        slot.timer = None
        if self._stopped or slot.link is not None or slot.dialling is not None:
            return
        if slot.member is None:
            return
        name = slot.member.node_id
        link = slot.dialling = Link(self, name, self._ports.clock, self._limits)

        def failed(reason: str) -> None:
            if slot.dialling is link:
                slot.dialling = None
            if slot.member is None:
                self._forget_stranger(slot)
            elif not self._stopped:
                self._report(slot, reason)
                self._dial_later(slot)

        self._ports.network.connect(
            "peer",
            slot.member.peer_address,
            ExpectedPeer(name),
            link,
            # Longer each time: nobody knows how far it is before the first connection.
            self._timing.connect_timeout_s * min(1 + slot.failures, PATIENCE_MAX),
            failed,
        )

    def _dial_later(self, slot: _Slot) -> None:
        if self._stopped or slot.timer is not None or slot.member is None:
            return
        if not self._dials(slot.name):
            self._begin(slot)
            return
        factor = min(1 << min(slot.failures, 8), BACKOFF_MAX)
        slot.failures += 1
        delay_s = self._timing.reconnect_s * factor * (0.75 + 0.5 * self._ports.random.random())
        slot.timer = self._ports.executor.call_later(delay_s, self._dial, slot)

    def _report(self, slot: _Slot, reason: str) -> None:
        if slot.reported != reason and slot.member is not None:
            slot.reported = reason
            self._ports.log.warning(
                "peer_unreachable",
                peer=slot.name,
                address=str(slot.member.peer_address),
                reason=reason,
            )

    def _watch(self) -> None:
        """A silent connection is a dead one: a black hole gives no sign by itself (row 14)."""
        now_s = self._ports.clock.monotonic_s()
        for link in list(self._pending):
            if now_s - link.made_at_s > self._limits.handshake_timeout_ms / 1000:
                link.abort()
        for slot in list(self._slots.values()):
            link_now = slot.link
            if link_now is None:
                continue
            if now_s - link_now.heard_at_s > self._silence_s_max:
                link_now.abort()
            elif now_s - link_now.sent_at_s >= self._timing.election_min_s:
                link_now.send(Ping())
        for link in list(self._copy_links):
            if now_s - link.heard_at_s > 2 * self._silence_s_max:
                link.abort()
            elif now_s - link.sent_at_s >= self._timing.election_min_s:
                link.send(Ping())
        self._watch_timer = self._ports.executor.call_later(
            self._timing.election_min_s, self._watch
        )

    # -- who is who ------------------------------------------------------------------------------

    def _slot_of(self, name: str) -> _Slot:
        """Of a peer that said hello; raises ProtocolError."""
        slot = self._slots.get(name)
        if slot is not None:
            return slot
        strangers = sum(1 for one in self._slots.values() if one.member is None)
        if strangers >= STRANGERS_MAX:
            raise ProtocolError(f"{name!r} is not another member of this cluster")
        self._ports.log.info("peer_not_known", peer=name)
        slot = self._slots[name] = _Slot(name, None)
        return slot

    def _greeted(self, name: str) -> bool:
        return self._greeting is None or self._greeting.greeted(name)

    def _check_greeting(self, greeting: Greeting, name: str, message: Message) -> None:
        if isinstance(message, Note):
            refused = greeting.refusal(name, message.data)
        else:
            refused = greeting.missing(name)
        if refused:
            raise ProtocolError(refused)


def check_members(me: Member, members: Sequence[Member]) -> list[Member]:
    """The others; raises ConfigError when the list is not usable."""
    names = [member.node_id for member in members]
    if len(set(names)) != len(names):
        raise ConfigError("a node id appears twice in the list of members")
    if me.node_id not in names:
        raise ConfigError(
            f"{me.node_id} is not in the list of members",
            hint="each node's configuration lists all members, itself included",
        )
    return [member for member in members if member.node_id != me.node_id]


def own_member(node_id: NodeId, members: Sequence[Member]) -> Member:
    """This node among the members. Raises ConfigError."""
    for member in members:
        if member.node_id == node_id:
            return member
    raise ConfigError(
        f"{node_id} is not in the list of members",
        hint="each node's configuration lists all members, itself included",
    )
