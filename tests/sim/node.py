"""One whole node: the real assembly on simulated ports, and what checkers see of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.config import NodeConfig
from raftdb.base.ids import Index
from raftdb.base.ports import Ports
from raftdb.consensus import Engine
from raftdb.consensus.membership import Configurations
from raftdb.consensus.messages import Ack, Message
from raftdb.consensus.port import ReadReady
from raftdb.consensus.wall import Wall
from raftdb.embedded.assembly import Assembly
from raftdb.machine import Machine
from tests.sim.checkers import Checker, told, told_of
from tests.sim.ports import CpuClock, SplitClock, Threads
from tests.sim.watched import Watched, WatchedJournal


class WatchedMachine(Watched, Machine):
    """The real machine; checkers are told what it has committed."""

    KINDS = ("on_applied", "on_progress", "on_replies", "on_looked")
    begun: Any = None
    """How far it was when its process began."""

    def watch(self, node: Any, checkers: Sequence[Checker]) -> None:
        super().watch(node, checkers)
        if not self.absent:
            self.begun = self._applier.progress

    def apply(self, entries: Sequence[Any]) -> list[list[bytes]]:
        replies = super().apply(entries)
        self._tell_of(entries, replies)
        return replies

    def apply_briefly(self, entries: Sequence[Any]) -> list[list[bytes]] | None:
        replies = super().apply_briefly(entries)
        if replies is not None:
            self._tell_of(entries, replies)
        return replies

    def look_at_log(self) -> None:
        super().look_at_log()
        self._tell_looked()

    def checkpoint(self) -> Index:
        durable = super().checkpoint()
        self._tell_looked()
        return durable

    def _tell_looked(self) -> None:
        if not (self._checkpointer.held or self._checkpointer._closed):
            for on_looked in self._tell("on_looked"):
                on_looked(self.node)

    def _tell_of(self, entries: Sequence[Any], replies: list[list[bytes]]) -> None:
        for on_replies in self._tell("on_replies"):
            on_replies(self.node, entries, replies)
        progress = self._applier.progress
        for on_applied in self._tell("on_applied"):
            for entry in entries:
                on_applied(self.node.name, entry)
        if progress.position:
            # In the midst of an entry: the others need not stop there too.
            return
        for on_progress in self._tell("on_progress"):
            on_progress(self.node, int(progress.index), progress.results)


class SimAssembly(Assembly):
    """The real node, with the parts that are watched, and a clock of its own for the machine."""

    journal_class = WatchedJournal
    machine_class = WatchedMachine

    def __init__(
        self,
        config: NodeConfig,
        ports: Ports,
        stopped: Callable[[BaseException | None], None],
        *,
        wall: Wall,
        vfs_base: str,
        cpu_clock: CpuClock,
    ) -> None:
        self.engine_class = functools.partial(Engine, wall=wall)
        self.cpu_clock = cpu_clock
        super().__init__(config, ports, stopped, vfs_base=vfs_base)
        self.machine._clock = cpu_clock
        if cpu_clock.everywhere:
            # Queries and transactions that are executed in passing are given up by the clock too.
            self.replica.transactions.clock = SplitClock(cpu_clock, ports.clock)
            if not self.machine.absent:
                self.machine._readers._now_s = cpu_clock.monotonic_s


class WholeNode:
    """One process's node, as hosts, checkers and faults use it."""

    def __init__(
        self,
        config: NodeConfig,
        ports: Ports,
        stopped: Callable[[BaseException | None], None],
        *,
        wall: Wall,
        vfs_base: str,
        cpu_clock: CpuClock,
        checkers: Sequence[Checker],
    ) -> None:
        self.name = str(config.node_id)
        self._checkers = checkers
        self.assembly = assembly = SimAssembly(
            config, ports, stopped, wall=wall, vfs_base=vfs_base, cpu_clock=cpu_clock
        )
        self.machine = assembly.machine
        self.journal = assembly.journal
        for part in (self.machine, self.journal):
            if isinstance(part, Watched):
                part.watch(self, checkers)
        self.engine = assembly.engine
        self._library = self.engine._core.library
        self.pins: list[contextlib.ExitStack] = []
        """Snapshots that are held open by somebody who reads slowly."""
        self.threads: Threads | None = None
        """Jobs that stop in their midst, if the run has any."""
        self._watch_sends()
        self._watch_reads()
        self._watch_answers()
        self._watch_sessions()
        self._watch_removals(ports)

    def _watch_removals(self, ports: Ports) -> None:
        """Of files, by this process and none after it."""
        files: Any = ports.files
        watching = told(self._checkers, "on_removed")

        def removed(path: str) -> None:
            for on_removed in watching:
                on_removed(self, path)

        files.on_remove = removed

    def _watch_sessions(self) -> None:
        """Those that end by time."""
        applier = getattr(self.machine, "_applier", None)
        if applier is None:
            return
        end, watching = applier.sessions._end, told(self._checkers, "on_session_ended")

        def watched(session: Any) -> None:
            for on_session_ended in watching:
                on_session_ended(self, session.number)
            end(session)

        applier.sessions._end = watched

    def _watch_answers(self) -> None:
        """Those that wait for more than the quorum."""
        replica = self.assembly.replica
        propose, watching = replica.propose_durably, told(self._checkers, "on_durable_answer")

        def watched(
            payload: bytes, timeout_s: float, done: Any, durability: str, refuse: bool = True
        ) -> None:
            def answered(answer: Any, error: Any) -> None:
                if answer is not None:
                    for on_durable_answer in watching:
                        on_durable_answer(self, durability, answer)
                done(answer, error)

            propose(payload, timeout_s, answered if durability else done, durability, refuse)

        replica.propose_durably = watched  # type: ignore[method-assign]

    def _watch_reads(self) -> None:
        """All that are linearizable; and those that wait for a round, if this node leads."""
        engine = self.engine
        reading, freshened = self.assembly.replica._reading, told(self._checkers, "on_fresh")
        read_index, add = engine.read_index, engine._reads.add
        asking, answering = told(self._checkers, "on_asked"), told(self._checkers, "on_answer")
        waiting, confirmed = (
            told(self._checkers, "on_round_asked"),
            told(self._checkers, "on_round"),
        )

        def watched(
            ask: Callable[[Any], None],
            before: list[Callable[..., Any]],
            after: list[Callable[..., None]],
        ) -> Callable[[Any], None]:
            def asked(done: Callable[[Any], None]) -> None:
                noted = [one(self) for one in before]

                def answered(outcome: Any) -> None:
                    if isinstance(outcome, ReadReady):
                        for one, note in zip(after, noted, strict=True):
                            one(self, note, int(outcome.index))
                    done(outcome)
                    fresh_s = reading._fresh_s
                    if fresh_s is not None and isinstance(outcome, ReadReady):
                        for on_fresh in freshened:
                            on_fresh(self, fresh_s)

                ask(answered)

            return asked

        engine.read_index = watched(read_index, asking, answering)  # type: ignore[method-assign]
        engine._reads.add = watched(add, waiting, confirmed)  # type: ignore[method-assign]

    def _watch_sends(self) -> None:
        transport = self.engine._transport
        send = transport.send
        # Most messages are heartbeats, and most checkers look at others.
        watching: dict[type, tuple[list[Callable[..., None]], list[Callable[..., None]]]] = {}

        def watched_send(peer: str, message: Message) -> None:
            kind = type(message)
            known = watching.get(kind)
            if known is None:
                known = watching[kind] = (
                    told_of(self._checkers, "on_send", kind),
                    told_of(self._checkers, "on_send_to", kind),
                )
            for on_send in known[0]:
                on_send(self, message)
            for on_send_to in known[1]:
                on_send_to(self, peer, message)
            send(peer, message)

        core = self.engine._core
        make_ack, acknowledging = core._make_ack, told(self._checkers, "on_ack_made")

        def watched_ack(message: dict[str, Any]) -> Ack:
            ack = make_ack(message)
            for on_ack_made in acknowledging:
                on_ack_made(self, ack)
            return ack

        core._make_ack = watched_ack  # type: ignore[method-assign]
        transport.send = watched_send  # type: ignore[method-assign]
        core.replicator._send = watched_send

    def now_s(self) -> float:
        """Of the clock that all nodes share here."""
        return self.assembly._ports.clock.monotonic_s()

    @property
    def forgotten(self) -> bool:
        """What it had promised is lost."""
        return self.assembly.forgotten

    @property
    def role(self) -> str:
        return self._library.role

    @property
    def term(self) -> int:
        return self._library.term

    @property
    def commit_index(self) -> int:
        return self._library.commit_index

    @property
    def configurations(self) -> Configurations:
        """Of members, in its log."""
        return self.engine._core.electorate.configurations

    @property
    def applied_index(self) -> int:
        return int(self.machine.applied()[0])

    def may_run(self, lane: str, work: Callable[[], Any]) -> bool:
        """Whether work on that lane could go on now, whoever else is in the midst of something."""
        machine = self.machine
        if work == machine.close:
            # It waits for all others.
            return False
        if machine.absent:
            return True
        if lane == "apply":
            return not machine._writer_lock.locked()
        if lane == "checkpoint":
            # A copy begins with the writer held back.
            return not (machine._checkpointer.lock.locked() or machine._writer_lock.locked())
        readers = machine._readers
        return lane.startswith("read-") and (
            bool(readers._idle) or len(readers._all) < readers._readers_max
        )

    def pin(self) -> None:
        """Hold a snapshot open until `unpin`: a reader that takes its time."""
        if self.machine.absent:
            return
        stack = contextlib.ExitStack()
        connection = stack.enter_context(self.machine._readers.snapshot())
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        self.pins.append(stack)

    def unpin(self) -> None:
        """End all those readers."""
        while self.pins:
            with contextlib.suppress(Exception):
                self.pins.pop().close()

    def abandon(self) -> None:
        """The process is gone: give back what it had open in *this* process. The simulated disk
        must have ended the process's files before, so that nothing is written any more."""
        if self.threads is not None:
            self.threads.kill()
        self.unpin()
        with contextlib.suppress(Exception):
            self.machine.close()
