"""Traffic: the workloads shared with the simulator, by the real client library on real sockets."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from raftdb.base.errors import Error
from raftdb.base.ports import Clock
from raftdb.client.core import Core
from raftdb.client.driver import BlockingDriver
from raftdb.client.link import Dialler
from raftdb.client.options import make_options
from raftdb.command import Results, Statement
from raftdb.ops.target import Target
from raftdb.runtime.random import RealRandom
from tests.workloads import (
    OK,
    UNKNOWN,
    History,
    Operation,
    Outcome,
    Workload,
)
from tests.workloads.asking import ask, outcome_of

TIMEOUT_S = 5.0
FINAL_S = 60.0
RESUMES_MAX = 6


class Setup(Workload):
    """What the runner itself asks of the cluster, in no history."""

    name = "setup"

    def value(self, operation: Operation, results: Results) -> Any:
        return None


class Client:
    """One client: the library's core and its blocking driver."""

    def __init__(self, number: int, target: Target, clock: Clock, history: History) -> None:
        options = make_options(
            target.url, {**target.options, "timeout": TIMEOUT_S, "name": f"chaos-{number}"}
        )
        self.number = number
        self._clock = clock
        self._history = history
        self._core = Core(options, clock, RealRandom())
        self._driver = BlockingDriver(Dialler(options, clock), clock)

    def execute(
        self, workload: Workload, operation: Operation, lock: threading.Lock, *, record: bool = True
    ) -> Outcome:
        """One operation, and what became of it; noted in the history."""
        noted = None
        with lock:
            if record:
                noted = self._history.invoke(self.number, operation, self._clock.monotonic_s())
        outcome = self._run(workload, operation)
        for _ in range(RESUMES_MAX):
            if not (outcome.status == UNKNOWN and operation.resume and self._core.unsettled):
                break
            outcome = self._ended(workload, operation, self._core.resume(timeout_s=TIMEOUT_S))
        with lock:
            if noted is not None:
                self._history.end(noted, outcome, self._clock.monotonic_s())
            workload.took(self.number, operation, outcome)
        return outcome

    def _run(self, workload: Workload, operation: Operation) -> Outcome:
        return self._ended(workload, operation, ask(self._core, operation, TIMEOUT_S))

    def _ended(self, workload: Workload, operation: Operation, steps: Any) -> Outcome:
        try:
            reply = self._driver.run(steps)
        except Error as error:
            return outcome_of(workload, operation, None, error)
        return outcome_of(workload, operation, reply, None)

    def close(self) -> None:
        """Give the session back, if that is quick."""
        try:
            self._driver.run(self._core.close())
        except Error:
            return


class Traffic:
    """Clients of one workload, each in a thread of its own."""

    def __init__(
        self,
        target: Target,
        clock: Clock,
        workload: Workload,
        seed: str,
        *,
        clients: int,
        pause_s: float,
        first: int = 0,
    ) -> None:
        """`first`: the number of the first client, where others have their own from 0 on."""
        self.history = History()
        self._target = target
        self._clock = clock
        self._workload = workload
        self._pause_s = pause_s
        self._lock = threading.Lock()
        """Workloads and the history are used by one thread at a time."""
        self._stop = threading.Event()
        self.acknowledged_s: list[float] = []
        """When each write was acknowledged."""
        self.crashes: list[str] = []
        self._operator = Client(first + clients, target, clock, self.history)
        self._threads = [
            threading.Thread(target=self._guarded, args=(number, seed), daemon=True)
            for number in range(first, first + clients)
        ]

    def setup(self) -> None:
        """Remove what an earlier round left, and make the workload's tables."""
        setup = Setup()
        for kind, name in self._leftovers():
            drop = Statement(f'DROP {kind} IF EXISTS "{name}"')
            self._until_done(setup, Operation(setup.name, "drop", {}, (drop,)), record=False)
        for statement in self._workload.setup():
            create = Operation(setup.name, "create", {}, (statement,))
            self._until_done(setup, create, record=False)

    def _leftovers(self) -> list[tuple[str, str]]:
        names: list[tuple[str, str]] = []

        class Look(Setup):
            def value(self, operation: Operation, results: Results) -> Any:
                names.extend((str(kind), str(name)) for kind, name in results.statements[0].rows)
                return None

        sql = (
            "SELECT type, name FROM sqlite_schema WHERE name LIKE 'w\\_%' ESCAPE '\\'"
            " AND type IN ('table', 'view') ORDER BY type = 'table', rowid DESC"
        )
        look = Operation("setup", "look", {}, (Statement(sql),), is_read=True)
        self._until_done(Look(), look, record=False)
        return names

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[str]:
        """Begin nothing new, wait for what is open; returns clients that hang."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S * (RESUMES_MAX + 2))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def final(self) -> None:
        """The workload's last reads, each until it answers."""
        for operation in self._workload.final():
            self._until_done(self._workload, operation, record=True)
        self._operator.close()

    def judge(self) -> None:
        """Raises Violation."""
        self._workload.check(self.history.records)

    def probe(self) -> Outcome:
        """A read that is ordered with everything: does the cluster answer?"""
        setup = Setup()
        operation = Operation(setup.name, "probe", {}, (Statement(PROBE),))
        return self._operator.execute(setup, operation, self._lock, record=False)

    def _until_done(self, workload: Workload, operation: Operation, *, record: bool) -> None:
        deadline_s = self._clock.monotonic_s() + FINAL_S
        while True:
            outcome = self._operator.execute(workload, operation, self._lock, record=record)
            # A committed failure counts: an attempt before did it (CREATE).
            if outcome.status == OK:
                return
            if self._clock.monotonic_s() > deadline_s:
                raise TimeoutError(f"{operation.name} did not succeed within {FINAL_S:g} s")

    def _guarded(self, number: int, seed: str) -> None:
        try:
            self._client(number, seed)
        except Exception as error:
            self.crashes.append(f"client {number}: {type(error).__name__}: {error}")

    def _client(self, number: int, seed: str) -> None:
        draw = random.Random(f"{seed} client {number}")
        client = Client(number, self._target, self._clock, self.history)
        while not self._stop.wait(draw.expovariate(1 / self._pause_s)):
            with self._lock:
                operation = of_round(self._workload.next(number, draw), seed)
            outcome = client.execute(self._workload, operation, self._lock)
            if outcome.status == OK and not operation.is_read:
                self.acknowledged_s.append(self._clock.monotonic_s())
        client.close()


def of_round(operation: Operation, seed: str) -> Operation:
    """The cluster lives on from round to round, and remembers idempotency keys: a key of an
    earlier round would be answered with the earlier reply."""
    return replace(operation, key=f"{seed} {operation.key}") if operation.key else operation


PROBE = "CREATE TABLE IF NOT EXISTS chaos_probe (number INTEGER)"


def silence_s(moments: Sequence[float], first_s: float, last_s: float) -> float:
    """The longest span without an acknowledged write."""
    inside = sorted(moment for moment in moments if first_s <= moment <= last_s)
    edges = [first_s, *inside, last_s]
    return max(after - before for before, after in itertools.pairwise(edges))
