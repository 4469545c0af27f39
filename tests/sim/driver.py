"""Clients: the real core of the client library, driven in virtual time.

A client is a process of its own on a machine of its own. It runs one workload, one request at a
time, and tells checkers what it began and what came of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftdb.base.errors import DataError, Error
from raftdb.base.limits import Limits
from raftdb.base.ports import Connection, ExpectedPeer, Timer
from raftdb.client.actions import Await, Dial, Drop, Link, LinkError, Pause, Steps, Transmit
from raftdb.client.core import Core, Outcome
from raftdb.client.options import Options
from raftdb.wire import ClientSide, LocalProtocolError, Message, RemoteProtocolError
from tests.sim.hosts import CLUSTER, Cluster
from tests.sim.network import SILENCE, SimNetwork
from tests.sim.ports import SimClock, SimRandom, SimTimer
from tests.sim.words import answered
from tests.sim.world import Life
from tests.workloads import (
    OK,
    REFUSED,
    UNKNOWN,
    Dialogue,
    History,
    Operation,
    Record,
    Workload,
)
from tests.workloads import Outcome as Ended
from tests.workloads.asking import Committed, Flown, ask, outcome_of

OPERATIONS_ENOUGH = 1500
"""Of a run. Where clients sit beside the leader they go on more slowly from here: one more write of
the same kind, beside thousands, shows less than another seed does in the same time."""


class SimLink(Link):
    """One connection of a client: a Handler of the Network port, and a Link of the core."""

    def __init__(self, driver: Driver, limits: Limits) -> None:
        self._driver = driver
        self._core = ClientSide(limits)
        self._connection: Connection | None = None
        self.arrived: list[Message] = []
        self.broken = ""
        self.node_id, self.cluster_id = "", CLUSTER

    def connection_made(self, connection: Connection) -> None:
        self._connection = connection
        # Whoever the certificate is of.
        self.node_id = connection.peer.name
        self._driver.dialled(self, "")

    def data_received(self, data: bytes) -> None:
        try:
            self.arrived.extend(self._core.receive(data))
        except RemoteProtocolError as error:
            self.arrived.extend(error.messages)
            self.broken = f"does not speak the protocol: {error.message}"
        if self.arrived or self.broken:
            self._driver.stirred(self)

    def connection_lost(self, reason: str) -> None:
        self.broken = self.broken or reason
        self._driver.stirred(self)

    def failed(self, reason: str) -> None:
        """The dial failed."""
        self._driver.dialled(self, reason)

    def transmit(self, action: Transmit) -> None:
        """Send all. Raises LinkError, DataError."""
        if self.broken or self._connection is None:
            raise LinkError(self.broken, unsent=True)
        try:
            data = b"".join([self._core.send(message) for message in action.messages])
        except LocalProtocolError as error:
            raise LinkError(f"is of no use: {error.message}", unsent=True) from error
        self._connection.write(data)
        if self._driver.breaks_off:
            self._driver.breaks_off = False
            raise LinkError("broke while it was written to")

    def close(self) -> None:
        """Never fails."""
        if self._connection is not None:
            self._connection.close()
        self.broken = self.broken or "closed"


class Driver:
    """Runs one generator of the core's at a time."""

    def __init__(self, life: Life, network: SimNetwork, limits: Limits) -> None:
        self._life = life
        self._network = network
        self._limits = limits
        self._steps: Steps[Any] | None = None
        self._done: Callable[[Any, BaseException | None], None] | None = None
        self._awaited: SimLink | None = None
        self._dialling: SimLink | None = None
        self._timer: Timer | None = None
        self.breaks_off = False
        """The next write to a connection takes its bytes, and fails."""
        self.heard: set[str] = set()
        """Nodes that said anything during this request."""
        self.is_misled: Callable[[], bool] = _never
        """Whether one of those may say what is not so, and is excused."""

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return self._steps is not None

    def run(self, steps: Steps[Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """To the end; then `done(value, None)`, or `done(None, what it raised)`."""
        self._steps, self._done = steps, done
        self.heard.clear()
        self._go_on(None, None)

    def _go_on(self, value: Any, error: BaseException | None) -> None:
        steps = self._steps
        assert steps is not None
        while True:
            try:
                action = steps.throw(error) if error is not None else steps.send(value)
            except StopIteration as stop:
                self._finish(stop.value, None)
                return
            except Error as raised:
                self._finish(None, raised)
                return
            except Exception:
                if not self.is_misled():
                    raise
                # A client that computes with what it was told.
                self._finish(None, DataError("makes no sense of an answer", code="misled"))
                return
            value, error = None, None
            if isinstance(action, Await):
                link: Any = action.link
                if link.arrived or link.broken:
                    value, error = self._take(link)
                    continue
                self._awaited = link
                self._wait_until(action.until_s, self._waited_in_vain)
                return
            if isinstance(action, Transmit):
                try:
                    action.link.transmit(action)  # type: ignore[attr-defined]
                except (LinkError, Error) as raised:
                    error = raised
            elif isinstance(action, Drop):
                action.link.close()  # type: ignore[attr-defined]
            elif isinstance(action, Dial):
                self._dial(action)
                return
            else:
                assert isinstance(action, Pause)
                self._wait_until(action.until_s, self._rested)
                return

    def _finish(self, value: Any, error: BaseException | None) -> None:
        done, self._done, self._steps = self._done, None, None
        assert done is not None
        done(value, error)

    def _take(self, link: SimLink) -> tuple[Any, BaseException | None]:
        if link.arrived:
            self.heard.add(link.node_id)
            arrived, link.arrived = link.arrived, []
            return arrived, None
        return None, LinkError(link.broken)

    def _wait_until(self, until_s: float, call: Callable[[], None]) -> None:
        delay_s = max(until_s - self._life.world.now_s, 0.0)
        self._timer = timer = SimTimer(self._life, call, ())
        self._life.world.at(delay_s, timer.due)

    def _waited_in_vain(self) -> None:
        self._awaited = self._timer = None
        self._go_on((), None)

    def _rested(self) -> None:
        self._timer = None
        self._go_on(None, None)

    def stirred(self, link: SimLink) -> None:
        """Something came over a link, or its end."""
        if link is self._awaited:
            self._awaited = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._go_on(*self._take(link))

    def _dial(self, action: Dial) -> None:
        link = self._dialling = SimLink(self, self._limits)
        timeout_s = max(action.until_s - self._life.world.now_s, 0.001)
        self._network.connect(
            "client", action.address, ExpectedPeer(None), link, timeout_s, link.failed
        )

    def dialled(self, link: SimLink, reason: str) -> None:
        """A dial has ended: in a connection, or in a reason why not."""
        if link is not self._dialling:
            link.close()
            return
        self._dialling = None
        if reason:
            self._go_on(None, LinkError(reason, silent=reason == SILENCE))
        else:
            self._go_on(link, None)


class Client:
    """One client's process: a workload's operations, one after the other."""

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        workload: Workload,
        history: History,
        *,
        pause_s: float,
        place: str,
        durability: str = "",
    ) -> None:
        self._durability = durability
        self.number = number
        self.name = f"c{number}"
        self.workload = workload
        self._cluster = cluster
        self._world = cluster.world
        self._history = history
        self._pause_s = pause_s
        self._draw = random.Random(f"{cluster.world.seed} client {number}")
        self._running = self._hasty = self._stopping = False
        self.rests_until_s = 0.0
        """It begins nothing before."""
        self._open: tuple[Record, Operation, Workload] | None = None
        self.lives = 0
        cluster.fabric.places[self.name] = place
        self._begin_life()

    def _begin_life(self) -> None:
        self.lives += 1
        world = self._world
        self.life = Life(world, self.name, self.lives)
        self._network = SimNetwork(self.life, self._cluster.fabric, "client", CLUSTER)
        limits = self._cluster.sizes.limits
        self._driver = Driver(self.life, self._network, limits)
        self._driver.is_misled = self._is_misled
        addresses = self._cluster.client_addresses()
        self._draw.shuffle(addresses)
        options = Options(
            # A majority of them, so that one is a machine that was not lost for good.
            addresses=tuple(
                addresses[: self._draw.randint(len(addresses) // 2 + 1, len(addresses))]
            ),
            insecure=True,
            name=self.name,
            durability=self._durability,
            hedge=self._cluster.sizes.patience_s,
            dial_timeout=2 * self._cluster.sizes.patience_s,
        )
        tag = f"{world.seed} {self.name} {self.lives}"
        self._core = Core(options, SimClock(world), SimRandom(tag), limits)

    # -- life ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Go on with the workload until `stop`."""
        self._running = True
        self.life.later(self._draw.uniform(0, 0.1), self._next)

    def stop(self) -> None:
        """Begin nothing new."""
        self._running, self._stopping = False, True

    def restart(self) -> None:
        """The process is killed; the next one knows nothing of it. What was open stays unknown."""
        self.life.end()
        self._network.die(silently=False)
        self._begin_life()
        if self._open is not None:
            self._ended(*self._open, Ended(UNKNOWN, error="killed"))
        if self._running:
            self.begin()

    @property
    def busy(self) -> bool:
        """Whether an operation is open."""
        return self._driver.busy

    def until_done(
        self,
        operation: Operation,
        done: Callable[[], None],
        workload: Callable[[Operation], Workload] | None = None,
    ) -> None:
        """One operation, again and again until it is known to be done; beside no other of this
        client. A failure of the statement counts: it was done by an attempt before (CREATE)."""
        of = workload(operation) if workload is not None else self.workload

        def again(outcome: Ended) -> None:
            if outcome.status == OK:
                done()
            else:
                self.life.later(0.05, self.execute, operation, again, of)

        self.life.run(self.execute, operation, again, of)

    # -- operations ------------------------------------------------------------------------------

    def _next(self) -> None:
        rest_s = self.rests_until_s - self._world.now_s
        if self._running and rest_s > 0:
            self.life.later(rest_s, self._next)
        elif self._running:
            operation = self.workload.next(self.number, self._draw)
            self._hasty = operation.hasty
            self.execute(operation, self._answered)

    def _answered(self, _outcome: Ended) -> None:
        pause_s = self._draw.expovariate(1 / self._pause_s)
        if len(self._history.records) > OPERATIONS_ENOUGH:
            pause_s *= 10
        self.life.later(0.0 if self._hasty else pause_s, self._next)

    def execute(
        self, operation: Operation, done: Callable[[Ended], None], workload: Workload | None = None
    ) -> None:
        """One operation, told to the checkers and to the history."""
        of = workload or self.workload
        record = self._history.invoke(self.number, operation, self._world.now_s, self.lives)
        for checker in self._cluster.checkers:
            checker.on_invoke(record)
        self._open = (record, operation, of)
        timeout_s = self._cluster.sizes.timeout_s
        asked, written = _noting_writes(operation)

        def ended(reply: Outcome | Committed | Flown | None, error: BaseException | None) -> None:
            if self._is_misled() and not written:
                # It was read where something had written into a file; what was written is judged.
                outcome = Ended(REFUSED, error="misled")
            else:
                outcome = outcome_of(of, operation, reply, error)
            if outcome.status == UNKNOWN and operation.resume and self._may_resume():
                self._driver.run(self._core.resume(timeout_s=timeout_s), ended)
                return
            self._ended(record, operation, of, outcome)
            done(outcome)

        self._driver.run(ask(self._core, asked, timeout_s), ended)

    def _is_misled(self) -> bool:
        """Whether a node that this operation heard of had strays in its log (`Host.strays`) since
        the operation began."""
        if self._open is None:
            return False
        begun_s = self._open[0].invoke_ns / 1e9
        hosts = self._cluster.hosts
        return any(
            name in hosts and (hosts[name].strays or hosts[name].strayed_until_s >= begun_s)
            for name in self._driver.heard
        )

    def _may_resume(self) -> bool:
        """Whether asking again can bring an answer. Where a region is lost for good, more regions
        than are left cannot be had any more: who is to stop, and wants so many, leaves it open."""
        return bool(self._core.unsettled) and not (self._stopping and self._durability)

    def _ended(
        self, record: Record, operation: Operation, workload: Workload, outcome: Ended
    ) -> None:
        self._open = None
        self._history.end(record, outcome, self._world.now_s)
        self._world.mark(f"{record}")
        self._world.answer(record, answered)
        for checker in self._cluster.checkers:
            checker.on_return(record)
        workload.took(self.number, operation, outcome)


def _noting_writes(operation: Operation) -> tuple[Operation, list[bool]]:
    """The same operation, and a list that is not empty when it may have written something."""
    dialogue = operation.dialogue
    if dialogue is None:
        return operation, [] if operation.is_read else [True]
    written: list[bool] = []

    def noting() -> Dialogue:
        steps = dialogue()
        answer: Any = None
        while True:
            try:
                statement = steps.send(answer)
            except StopIteration as said:
                return said.value
            if not statement.sql.startswith("SELECT"):
                written.append(True)
            answer = yield statement

    return replace(operation, dialogue=noting), written


def _never() -> bool:
    return False
