"""One seed, one run: real nodes and clients, drawn faults, checkers that watch, then all heals."""

from __future__ import annotations

import contextlib
import random
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from raftdb.base.errors import FatalError
from raftdb.command import Results, Statement
from raftdb.consensus.wall import Wall
from raftdb.machine.determinism import use_utc
from raftdb.node.housekeeping import LOOK_EVERY_S
from tests.sim import steps, threads
from tests.sim.checkers import Broken, Checker, blamed, whole_checkers
from tests.sim.driver import Client
from tests.sim.faults import Nemesis
from tests.sim.hosts import Cluster
from tests.sim.ports import Quiet
from tests.sim.settings import Settings, draw_durability, draw_settings
from tests.sim.vfs import seed_sqlite
from tests.sim.world import World
from tests.workloads import (
    WORKLOADS,
    History,
    Mix,
    Operation,
    Violation,
    Workload,
    draw_mix,
)

RECOVERY_TIMEOUTS = 10
"""After healing, a write is acknowledged within this many election timeouts."""
SETTLE_TIMEOUTS = 40
"""And all nodes are equal within this many."""
COPIES_TAKE = 3
"""So much slower time passes while somebody fetches a copy over a slow line (seed 178)."""
FOUND_WITHIN_S = 3 * LOOK_EVERY_S
"""So long a node at rest may take to see that something wrote into its write-ahead log."""
ANSWERS = 12
"""Of clients, in the story of a run that broke: the last ones."""


@dataclass(frozen=True)
class Bug:
    """A planted bug: a rule of the wall replaced, or something patched while the run lasts."""

    name: str
    wall: type[Wall] = Wall
    patch: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


NO_BUG = Bug("none")


@dataclass
class Result:
    """What one run did and found."""

    seed: int
    digest: str
    broken: str = ""
    invariant: str = ""
    nodes: int = 0
    profile: str = ""
    events: int = 0
    simulated_s: float = 0.0
    operations: int = 0
    acknowledged: int = 0
    unknown: int = 0
    terms: int = 0
    copies: int = 0
    """Copies of the database that members fetched and installed."""
    settled_s: float = 0.0
    recovered: float = 0.0
    """Election timeouts from the end of all faults to the first write after."""
    cpu_s: float = 0.0
    undecided: tuple[str, ...] = ()
    """Workloads for which the search for an order of all operations came to its bound."""
    faults: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    """Of members, that were done."""
    notes: list[str] = field(default_factory=list)
    """The story; its last lines when something broke. Empty when nothing did."""
    traceback: str = ""
    """Of an exception that no invariant foresaw."""


class Setup(Workload):
    """What the run itself asks of the cluster: the workloads' tables, and a sign of life."""

    name = "setup"

    def setup(self) -> Sequence[Statement]:
        return (Statement("CREATE TABLE w_probe(number INTEGER)"),)

    def value(self, operation: Operation, results: Results) -> Any:
        return None

    def operation(self, statement: Statement, name: str = "create") -> Operation:
        """One statement as an operation."""
        return Operation(self.name, name, {"sql": statement.sql}, (statement,))

    def probe(self) -> Operation:
        """A write that harms nobody."""
        return self.operation(Statement("INSERT INTO w_probe VALUES (1)"), "probe")


class Simulation:
    """One seed."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int | None = None,
        profile: str | None = None,
        bug: Bug = NO_BUG,
        without: Collection[int] = (),
        checkers: Sequence[Checker] | None = None,
        workload: Workload | None = None,
        settings: Settings | None = None,
    ) -> None:
        use_utc(Quiet())
        seed_sqlite(random.Random(f"sqlite {seed}").randbytes(44))
        self.settings = settings = settings or draw_settings(seed, nodes, profile)
        self.bug = bug
        self.world = World(seed)
        self.checkers = list(checkers if checkers is not None else whole_checkers())
        self.history = History()
        self.workload = workload or draw_mix(random.Random(f"{seed} workloads"))
        self._setup = Setup()
        self.cluster = Cluster(self.world, settings.sizes, wall=bug.wall(), checkers=self.checkers)
        draw = random.Random(f"{seed} clients")
        places = settings.sizes.places
        self.clients = [
            self._client(
                number,
                self.workload,
                draw.choice(places),
                draw_durability(seed, number, places),
            )
            for number in range(settings.clients)
        ]
        self.operator = self._client(settings.clients, self._setup, places[0])
        events = settings.plan.schedule(seed, settings.duration_s)
        if settings.lull_s:
            half_s, lull_s = settings.duration_s / 2, settings.lull_s
            events = [
                replace(event, at_s=event.at_s + (lull_s if event.at_s > half_s else 0.0))
                for event in events
            ]
        self.nemesis = Nemesis(
            self.world, self.cluster, self.clients, settings.plan, events, without
        )
        self._has_jobs = settings.sizes.job_chance > 0
        self.recovered_s = self.settled_s = 0.0
        self._is_set_up = False
        self._begun_cpu_s = time.process_time()

    def _client(self, number: int, workload: Workload, place: str, durability: str = "") -> Client:
        return Client(
            self.cluster,
            number,
            workload,
            self.history,
            pause_s=self.settings.pause_s,
            place=place,
            durability=durability,
        )

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> Result:
        """Everything; never raises for a broken invariant."""
        broken = invariant = trace = ""
        try:
            with (
                self.bug.patch(),
                threads.locks() if self._has_jobs else contextlib.nullcontext(),
                steps.looking(self.settings.sizes.look_steps),
            ):
                self._run()
        except (Broken, Violation) as error:
            broken, invariant = str(error), error.invariant
        except Exception as error:
            found = blamed(error)
            broken = str(found) if found else f"{type(error).__name__}: {error}"
            invariant = found.invariant if found else type(error).__name__
            trace = traceback.format_exc()
        finally:
            terms = max((node.term for node in self.cluster.live()), default=0)
            self.cluster.close()
        records = self.history.records
        return Result(
            seed=self.world.seed,
            digest=self.world.digest(),
            broken=broken,
            invariant=invariant,
            nodes=len(self.cluster.hosts),
            profile=self.settings.profile,
            events=self.world.events,
            simulated_s=self.world.now_s - 1000.0,
            operations=len(records),
            acknowledged=sum(record.is_ok for record in records),
            unknown=sum(record.is_unknown for record in records),
            terms=terms,
            copies=self.cluster.copies_installed,
            settled_s=self.settled_s,
            recovered=self.recovered_s / self.settings.election_timeout_s,
            cpu_s=time.process_time() - self._begun_cpu_s,
            undecided=self.workload.undecided,
            faults=self.nemesis.counts,
            changes=self.nemesis.changes,
            notes=self.world.story(ANSWERS) if broken else [],
            traceback=trace,
        )

    def _run(self) -> None:
        for name in self.cluster.hosts:
            self.cluster.start(name)
        self._execute(
            [self._setup.operation(one) for one in self._setup.setup()]
            + [self._setup.operation(one) for one in self.workload.setup()],
            self._begin,
        )
        self.nemesis.start()
        if self.settings.lull_s:
            self.world.run_for(self.settings.duration_s / 2)
            for client in self.clients:
                client.rests_until_s = self.world.now_s + self.settings.lull_s
            self.world.run_for(self.settings.lull_s + self.settings.duration_s / 2)
        else:
            self.world.run_for(self.settings.duration_s)
        self.world.note("all faults end")
        self.nemesis.stop()
        self._recover()
        self._until(lambda: self._is_set_up)
        for client in self.clients:
            client.stop()
        self._settle()
        self._judge()

    def _begin(self) -> None:
        self._is_set_up = True
        for client in self.clients:
            client.begin()

    def _execute(self, operations: list[Operation], done: Callable[[], None]) -> None:
        """One after the other, by the operator."""
        if not operations:
            done()
            return
        self.operator.until_done(
            operations[0], lambda: self._execute(operations[1:], done), self._workload_of
        )

    def _workload_of(self, operation: Operation) -> Workload:
        return self._setup if operation.workload == self._setup.name else self.workload

    def _recover(self) -> None:
        """After healing, writes go on again within some election timeouts. The time in which no
        majority can be had without a member that fetches a copy does not count: it is as long as
        the copy is."""
        written: list[bool] = []
        spent_s, last_s = 0.0, self.world.now_s
        begun_s = self.world.now_s
        limit_s = RECOVERY_TIMEOUTS * self.settings.election_timeout_s
        whole_s = SETTLE_TIMEOUTS * self.settings.election_timeout_s
        probe = self._client(self.settings.clients + 1, self._setup, self.settings.sizes.places[0])
        probe.until_done(self._setup.probe(), lambda: written.append(True))
        while not written:
            self.world.step()
            now_s = self.world.now_s
            if not self._waits_for_a_copy():
                spent_s += now_s - last_s
            last_s = now_s
            if spent_s > limit_s or now_s - begun_s > whole_s:
                raise Broken("liveness", f"no write within {limit_s:g} s after healing")
        self.recovered_s = spent_s

    def _waits_for_a_copy(self) -> bool:
        """Members were lost for good, and of those that are left one has been outrun by the log."""
        ready = copying = 0
        members = self.cluster.members_now()
        voters = self.cluster.configuration().voters if self.cluster.changes else ()
        for leader in self.cluster.leaders():
            # A change that waits for a majority is counted by already (seed 100748).
            voters = leader.configurations.latest.voters
        for host in members:
            node = host.node
            if host.damaged or (voters and host.name not in voters):
                continue
            if node is not None and node.engine.copies is not None:
                if node.engine.copies.fetcher.state == "idle":
                    ready += 1
                else:
                    copying += 1
        return copying > 0 and ready <= len(voters or members) // 2

    def _settle(self) -> None:
        """What is open ends, the last reads are done, and all nodes become equal."""
        done: list[bool] = []
        begun_s = self.world.now_s
        if self.cluster.changes:
            self._settle_members()
        self._until(lambda: not any(client.busy for client in (*self.clients, self.operator)))
        self._execute(list(self.workload.final()), lambda: done.append(True))
        self._until(lambda: bool(done) and self._equal())
        self.settled_s = self.world.now_s - begun_s
        self._find_strays()

    def _find_strays(self) -> None:
        """Whoever's write-ahead log was written into has noticed, or has ended in time."""
        begun_s = self.world.now_s
        while any(host.strays for host in self.cluster.hosts.values()):
            if self.world.now_s - begun_s > FOUND_WITHIN_S:
                names = [name for name, host in self.cluster.hosts.items() if host.strays]
                raise Broken("rot is found", f"{names} go on with a log that something wrote into")
            self.world.run_for(0.1)

    def _settle_members(self) -> None:
        """All agree upon who the members are, and who is none any more knows it; machines that
        never became members are taken away."""
        self._until(self._agreed)
        known = self.cluster.configuration()
        for name in self.cluster.hosts:
            if known.member(name) is None and name not in known.removed:
                self.cluster.retire(name)
        gone = [self.cluster.hosts[str(name)] for name in known.removed]
        self._until(lambda: all(host.retired or host.damaged for host in gone))
        # Its addresses may be of machines that are gone.
        self.operator.restart()

    def _agreed(self) -> bool:
        known = [
            host.node.configurations
            for host in self._sound()
            if host.node and not host.node.machine.absent
        ]
        return (
            bool(known)
            and len({one.latest for one in known}) == 1
            and not any(one.next_index for one in known)
        )

    def _until(self, reached: Callable[[], bool]) -> None:
        limit_s = SETTLE_TIMEOUTS * self.settings.election_timeout_s
        spent_s = 0.0
        while not reached():
            self.world.run_for(0.1)
            spent_s += 0.1 / (COPIES_TAKE if self._copying() else 1)
            if spent_s > limit_s:
                raise Broken("convergence", f"not within {limit_s:g} s: {self._states()}")

    def _copying(self) -> bool:
        nodes = [host.node for host in self._sound()]
        copies = [node.engine.copies for node in nodes if node is not None]
        return any(one is not None and one.fetcher.state != "idle" for one in copies)

    def _sound(self) -> list[Any]:
        """Hosts of members that lost nothing."""
        return [host for host in self.cluster.members_now() if not host.damaged]

    def _equal(self) -> bool:
        nodes = [host.node for host in self._sound()]
        if any(node is None for node in nodes):
            return False
        last = {node.journal.last_index for node in nodes}
        return len(last) == 1 and {node.applied_index for node in nodes} == last

    def _states(self) -> str:
        found = []
        for host in self._sound():
            node = host.node
            found.append(
                f"{host.name} down"
                if node is None
                else f"{host.name} {node.role} term {node.term} log {node.journal.last_index} "
                f"commit {node.commit_index} applied {node.applied_index}"
            )
        busy = [client.name for client in self.clients if client.busy]
        return f"{found}, open at {busy}"

    def _judge(self) -> None:
        for node in self.cluster.live():
            index = node.applied_index
            if node.machine.absent:
                # Its database is damaged, and it waits for a copy.
                continue
            try:
                shown, found = node.machine.content_hash(), node.machine.recompute_content_hash()
            except FatalError:
                if self.cluster.hosts[node.name].damaged:
                    # It reads what rotted for the first time, and says so.
                    continue
                raise
            if found.total != shown.total:
                raise Broken("content hash", f"{node.name} does not hold the rows of its hash")
            for checker in self.checkers:
                checker.on_hash(node.name, index, shown.total.hex())
        for checker in self.checkers:
            checker.finish(self)
        own = {kind.name for kind in WORKLOADS}
        self.workload.check([one for one in self.history.records if one.workload in own])


def run_seed(seed: int, *, trace: Callable[[str], None] | None = None, **options: Any) -> Result:
    """Run one seed."""
    simulation = Simulation(seed, **options)
    simulation.world.trace = trace
    return simulation.run()


__all__ = ["NO_BUG", "Bug", "Mix", "Result", "Simulation", "run_seed"]
