"""Scripts: a cluster of whole nodes without drawn faults, and somebody who does things to it.

A script uses only what an operator, a network or a disk can do; what happens then is the nodes' own
doing. It ends as every run does: all is healed, must converge, and is judged.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from raftdb.base.limits import Limits
from raftdb.command import Statement
from tests.sim.checkers import Broken
from tests.sim.faults import Plan
from tests.sim.hosts import Host
from tests.sim.run import Simulation
from tests.sim.settings import Settings, draw_settings
from tests.workloads import Operation, Outcome
from tests.workloads.mix import Mix
from tests.workloads.registers import SWAP, WRITE, Registers


class Script(Simulation):
    """One scripted run. `play` gets the script itself, once the cluster works."""

    def __init__(
        self,
        play: Callable[[Script], None],
        *,
        nodes: int = 3,
        seed: int = 1,
        limits: dict[str, Any] | None = None,
        wal_bytes: int = 8 << 20,
        keep_bytes: int = 1 << 20,
        slow_apply_chance: float = 0.0,
        job_chance: float = 0.0,
        stop_chance: float = 0.0,
        places: tuple[str, ...] | None = None,
        environment: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
        **options: Any,
    ) -> None:
        self._play = play
        self._environment = environment
        self._value = 0
        super().__init__(
            seed,
            settings=_settings(
                seed,
                nodes,
                limits=Limits(**limits or {}),
                wal_bytes=wal_bytes,
                keep_bytes=keep_bytes,
                slow_apply_chance=slow_apply_chance,
                job_chance=job_chance,
                stop_chance=stop_chance,
                places=places or tuple(f"region{number}/a/r1" for number in range(nodes)),
            ),
            workload=Mix([(Registers(), 1.0)]),
            **options,
        )

    def _run(self) -> None:
        with self._environment():
            self._run_all()

    def _run_all(self) -> None:
        for name in self.cluster.hosts:
            self.cluster.start(name)
        done: list[bool] = []
        self._execute(
            [self._setup.operation(one) for one in self._setup.setup()]
            + [self._setup.operation(one) for one in self.workload.setup()],
            lambda: done.append(True),
        )
        self.until(lambda: bool(done))
        self.run_for(0.5)
        self._play(self)
        self.world.note("the script ends")
        self.nemesis.stop()
        self._recover()
        self._settle()
        self._judge()

    # -- time ------------------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        self.world.run_for(seconds)

    def until(self, true: Callable[[], bool], within_s: float = 20.0) -> None:
        """Event by event, until it holds: the next line happens at that very moment."""
        end_s = self.world.now_s + within_s
        while not true():
            if self.world.now_s > end_s:
                raise AssertionError("the script waits for what never comes")
            self.world.step()

    def within(self, seconds: float, true: Callable[[], bool], invariant: str, what: str) -> None:
        """Broken unless it holds within so many seconds."""
        end_s = self.world.now_s + seconds
        while not true():
            if self.world.now_s > end_s:
                raise Broken(invariant, what)
            self.run_for(0.01)

    # -- the cluster -----------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        return self.cluster.hosts[name]

    def node(self, name: str) -> Any:
        node = self.cluster.hosts[name].node
        assert node is not None, f"{name} is down"
        return node

    def leader(self) -> str:
        """The one leader that all follow, once there is one."""

        def agreed() -> bool:
            found = {node._library.leader for node in self.cluster.live()}
            return len(found) == 1 and None not in found and len(self.cluster.leaders()) == 1

        self.until(agreed)
        return self.cluster.leaders()[0].name

    def make_leader(self, name: str) -> None:
        """By asking for it."""
        for _ in range(10):
            current = self.leader()
            if current == name:
                self.run_for(0.3)
                return
            self.cluster.call(
                current,
                self.node(current).engine.transfer_leadership,
                name,
                lambda _reason: None,
            )
            self.run_for(0.5)
        raise AssertionError(f"{name} never leads")

    def others(self, *names: str) -> list[str]:
        return [name for name in self.cluster.hosts if name not in names]

    def down(self, name: str, *, power: bool = True) -> None:
        """Off, until `up`."""
        self.host(name).held_down = True
        self.cluster.kill(name, power=power)

    def up(self, *names: str) -> None:
        for name in names:
            self.host(name).held_down = False
            self.cluster.start(name)

    def only(self, *groups: Iterable[str], besides: tuple[str, str] | None = None) -> None:
        """Members of a group reach each other, and nobody else; `besides` not that way either."""
        sets = [set(group) for group in groups]
        names = [*self.cluster.hosts, *self.cluster.fabric.places]
        self.cluster.fabric.block(
            {
                (a, b)
                for a in names
                for b in names
                if a != b and ((a, b) == besides or not any(a in one and b in one for one in sets))
            }
        )

    def reset(self, one: str, other: str) -> None:
        """Their connections are reset, with all that was under way."""
        for stream in self.cluster.fabric.streams_between({one, other}):
            stream.forget_held()
            if stream.receiver is not None:
                stream.receiver.arrive("rst", b"")

    def heal(self) -> None:
        self.cluster.fabric.block(set())

    def slow_disk(self, seconds: float, *names: str) -> None:
        for name in names:
            self.host(name).disk_slow_s = seconds

    # -- clients ---------------------------------------------------------------------------------

    def write(self, key: int = 0, client: Any = None, name: str = "") -> list[Outcome]:
        """A client writes a value of its own, under an idempotency key if it has a name; the list
        that its outcome is put into."""
        self._value += 1
        value = self._value
        return self.execute(
            Operation(
                "register",
                "write",
                {"key": key, "value": value},
                (Statement(WRITE, ((key, value),)),),
                key=name,
            ),
            client,
        )

    def swap(
        self, key: int, old: int, new: int, client: Any, *, resume: bool = False
    ) -> list[Outcome]:
        """A client's compare-and-set."""
        arguments = {"key": key, "old": old, "new": new}
        statement = Statement(SWAP, ((new, key, old),))
        return self.execute(
            Operation("register", "cas", arguments, (statement,), resume=resume), client
        )

    def create(self, table: str, client: Any) -> list[Outcome]:
        """A client makes a table."""
        operation = self._setup.operation(Statement(f"CREATE TABLE {table}(a INTEGER)"))
        found: list[Outcome] = []
        client.life.run(client.execute, operation, found.append, self._setup)
        return found

    def execute(self, operation: Operation, client: Any = None) -> list[Outcome]:
        found: list[Outcome] = []
        who = client or self.new_client()
        who.life.run(who.execute, operation, found.append)
        return found

    def written(self, count: int = 1, key: int = 0) -> None:
        """Writes, one after the other, each until it is acknowledged."""
        client = self.new_client()
        for _ in range(count):
            found = self.write(key, client)
            self.until(lambda found=found: bool(found))
            assert found[0].status == "ok", found

    def read(self, key: int = 0, client: Any = None) -> list[Outcome]:
        return self.execute(Registers()._read(key), client)

    def new_client(self) -> Any:
        number = 100 + len(self.clients)
        client = self._client(number, self.workload, self.settings.sizes.places[0])
        self.clients.append(client)
        return client


def _settings(seed: int, nodes: int, **sizes: Any) -> Settings:
    drawn = draw_settings(seed, nodes, "rack")
    weather = dataclasses.replace(drawn.sizes.weather, jitter=0.1, slow_chance=0.0, bytes_per_s=0.0)
    made = dataclasses.replace(
        drawn.sizes,
        weather=weather,
        timeout_s=5.0,
        **sizes,
    )
    return dataclasses.replace(drawn, sizes=made, clients=0, plan=Plan(weights={}), duration_s=1.0)
