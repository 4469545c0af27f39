"""Rounds: traffic and faults on a cluster that lives on from one to the next, each judged."""

from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.cluster import ChaosCluster
from chaos.faults import FAULTS, IN_NAMESPACES, DiskFull, Nemesis
from chaos.links import Links
from chaos.namespaces import Namespaces
from chaos.server import ToxiproxyServer
from chaos.traffic import Traffic, silence_s
from chaos.watch import Watch
from raftdb.base.errors import ConfigError, Error
from raftdb.drill.check import CONVERGE_S
from raftdb.drill.previous import Release
from raftdb.ops.target import read_client_file
from raftdb.runtime.clock import RealClock
from tests.sim.checkers import Broken, HashEqual
from tests.workloads import OK, WORKLOADS, Mix, Record, Violation, Workload, draw_mix

CLIENTS = 5
PAUSE_S = 0.02
AGAIN_S = 20.0
"""After all healed, a write is committed within this; much more than a quiet machine needs."""
WHOLE_S = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One round."""

    seed: str
    workload: str | None
    """None: a mix drawn from the seed."""
    faults: tuple[str, ...]
    seconds: float
    mixed: bool = False
    """On a cluster of two releases."""

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.workload or 'mix'} x {'+'.join(self.faults)}"


@dataclass(slots=True)
class Round:
    """What one round found."""

    plan: Plan
    nodes: int
    operations: int = 0
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    silence_s: float = 0.0
    again_s: float | None = None
    """From the end of all faults to the next committed write."""
    leader_changes: int = 0
    rss_mb: int = 0
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    history: list[Record] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "seed": self.plan.seed,
            "workload": self.plan.workload or "mix",
            "nodes": self.nodes,
            "seconds": self.plan.seconds,
            "operations": self.operations,
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "refused": self.refused,
            "faults": self.faults,
            "longest_silence_s": round(self.silence_s, 3),
            "again_s": None if self.again_s is None else round(self.again_s, 3),
            "leader_changes": self.leader_changes,
            "rss_mb": self.rss_mb,
            "broken": self.broken,
            "notes": self.notes,
        }


def make_workload(plan: Plan) -> Workload:
    """By name, or a mix by the seed."""
    if plan.workload is None:
        return draw_mix(random.Random(f"{plan.seed} workloads"))
    kinds = {kind.name: kind for kind in WORKLOADS}
    return Mix([(kinds[plan.workload](), 1.0)])


class Runner:
    """A cluster, and rounds on it."""

    def __init__(
        self, cluster: ChaosCluster, clock: RealClock, watch: Watch, say: Callable[[str], None]
    ) -> None:
        self.cluster = cluster
        self._clock = clock
        self._watch = watch
        self._say = say

    def run(self, plan: Plan) -> Round:
        """Everything; never raises for what it finds."""
        done = Round(plan, len(self.cluster.node_ids))
        begin_s = self._clock.monotonic_s()

        def note(text: str) -> None:
            line = f"{self._clock.monotonic_s() - begin_s:6.2f} s  {text}"
            done.notes.append(line)
            self._say(f"  {line}")

        workload = make_workload(plan)
        target = read_client_file(self.cluster.directory / "client" / "client.toml")
        traffic = Traffic(
            target, self._clock, workload, plan.seed, clients=CLIENTS, pause_s=PAUSE_S
        )
        try:
            self._go(plan, traffic, done, note)
        except (Broken, Violation) as error:
            done.broken.append(str(error))
        except (Error, TimeoutError) as error:
            done.broken.append(f"liveness: {error}")
        except Exception:
            done.broken.append(f"the runner failed: {traceback.format_exc(limit=4)}")
        finally:
            traffic.stop()
            self.cluster.heal()
        self._count(traffic, done, begin_s)
        done.broken += traffic.crashes + self._watch.broken + self.cluster.ended()
        return done

    def _go(self, plan: Plan, traffic: Traffic, done: Round, note: Callable[[str], None]) -> None:
        traffic.setup()
        traffic.start()
        nemesis = Nemesis(
            self.cluster, list(plan.faults), random.Random(f"{plan.seed} faults"), note
        )
        done.faults = nemesis.counts
        nemesis.run(plan.seconds, self._clock.monotonic_s)
        healed_s = self._clock.monotonic_s()
        note("all faults end")
        self.cluster.bring_up(*self.cluster.node_ids)
        self._until_written(traffic, healed_s, done)
        hanging = traffic.stop()
        if hanging:
            raise Violation("liveness", f"clients that hang: {', '.join(hanging)}")
        traffic.final()
        self.cluster.wait_for("a whole cluster", self.cluster.whole, WHOLE_S)
        self._compare()
        note("every node has caught up; judging")
        traffic.judge()

    def _until_written(self, traffic: Traffic, healed_s: float, done: Round) -> None:
        while self._clock.monotonic_s() - healed_s < AGAIN_S:
            if traffic.probe().status == OK:
                done.again_s = self._clock.monotonic_s() - healed_s
                return
        raise Violation("liveness", f"no write within {AGAIN_S:g} s after all faults ended")

    def _compare(self) -> None:
        """Equal content at an equal index."""
        checker = HashEqual()
        index = max(int(one["commit_index"]) for one in self.cluster.statuses().values())
        for name in self.cluster.node_ids:
            with self.cluster.connect_to(name, timeout=CONVERGE_S) as connection:
                content = connection.content_hash(index=index, timeout=CONVERGE_S)
            checker.on_hash(name, int(content["index"]), str(content["total"]))

    def _count(self, traffic: Traffic, done: Round, begin_s: float) -> None:
        records = traffic.history.records
        now_s = self._clock.monotonic_s()
        done.history = records
        done.operations = len(records)
        done.acknowledged = sum(record.is_ok for record in records)
        done.unknown = sum(record.is_unknown for record in records)
        done.refused = done.operations - done.acknowledged - done.unknown
        if traffic.acknowledged_s:
            done.silence_s = silence_s(
                traffic.acknowledged_s, traffic.acknowledged_s[0], max(traffic.acknowledged_s)
            )
        done.leader_changes = self._watch.leader_changes(begin_s, now_s)
        done.rss_mb = self._watch.rss_bytes_max >> 20


@contextmanager
def runner(
    nodes: int,
    say: Callable[[str], None],
    directory: Path | None,
    *,
    wanted: Collection[str],
    previous: Release | None = None,
) -> Iterator[tuple[Runner, dict[str, str]]]:
    """A running cluster behind toxiproxy, made for these faults; and those of them that this
    machine does not allow, with why."""
    clock = RealClock()
    home = directory or Path(tempfile.mkdtemp(prefix="raftdb-chaos-"))
    home.mkdir(parents=True, exist_ok=True)
    cluster: ChaosCluster | None = None
    missing: dict[str, str] = {}
    namespaces = _namespaces(nodes, wanted, missing)
    try:
        with ToxiproxyServer(home / "toxiproxy.log") as server:
            cluster = ChaosCluster(
                home, clock, nodes, Links(server.api), previous=previous, namespaces=namespaces
            )
            if DiskFull.name in wanted and (problem := cluster.small_disk(cluster.node_ids[0])):
                missing[DiskFull.name] = problem
            cluster.start()
            cluster.wait_for("a whole cluster", cluster.whole, WHOLE_S)
            with Watch(cluster, clock) as watch:
                yield Runner(cluster, clock, watch, say), missing
            cluster.close()
    finally:
        if cluster is not None:
            cluster.close()
        if namespaces is not None:
            namespaces.close()
        if directory is None:
            shutil.rmtree(home, ignore_errors=True)


def _namespaces(nodes: int, wanted: Collection[str], missing: dict[str, str]) -> Namespaces | None:
    """For faults that need them; why there are none goes into `missing`."""
    named = [name for name in IN_NAMESPACES if name in wanted]
    if not named:
        return None
    try:
        return Namespaces([f"n{number + 1}" for number in range(nodes)])
    except ConfigError as error:
        missing |= dict.fromkeys(named, error.message)
        return None


def run_rounds(
    plans: Sequence[Plan],
    nodes: int,
    say: Callable[[str], None],
    *,
    directory: Path | None = None,
    late: Callable[[], bool] = lambda: False,
    previous: Release | None = None,
) -> tuple[list[Round], list[str]]:
    """Run rounds on one cluster, until one breaks something (what comes after would be built on
    it), or `late` says that no other may begin. Returns them, and the faults that could not be
    had. `previous`: of a mixed cluster, the other release."""
    wanted = {name for plan in plans for name in plan.faults}
    rounds: list[Round] = []
    with runner(nodes, say, directory, wanted=wanted, previous=previous) as (one, missing):
        for plan in plans:
            possible = tuple(name for name in plan.faults if name not in missing)
            if not possible:
                continue
            plan = replace(plan, faults=possible)
            if late():
                break
            say(f"{nodes} nodes, {plan.name}, seed {plan.seed}, {plan.seconds:g} s")
            rounds.append(one.run(plan))
            for text in rounds[-1].broken:
                say(f"  BROKEN {text}")
            if rounds[-1].broken:
                say(one.cluster.logs())
                break
    return rounds, [f"{name}: {why}" for name, why in sorted(missing.items())]


__all__ = ["FAULTS", "Plan", "Round", "make_workload", "run_rounds"]
