"""What is done: from the release before to this one, back, and forth again, node by node.

1 of 3, then 2 of 3 nodes run this release. In each of these mixtures
- a node of either release leads, by an orderly transfer;
- the node that is alone with its release is away for longer than the log reaches back, and gets a
  copy of the database from nodes of the other one;
- the leader, of the other one, is killed, and started again;
- idempotency keys that were used before are used again, by clients of both releases.
Then all run this one, are rolled back, and forth again, and the feature level is raised
(finalizing.py). All the while clients of both releases do
all workloads. Except in the moments after a kill no request may fail; at the end the histories of
all clients are judged as one.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.watch import Watch
from raftdb.base.release import LEVEL_MAX
from raftdb.drill.check import CONVERGE_S, check_cluster, missing
from raftdb.drill.cluster import DrillCluster
from raftdb.drill.previous import Release
from raftdb.drill.result import Result
from raftdb.ops.leader import move_leader
from raftdb.ops.target import read_client_file
from raftdb.runtime.clock import RealClock
from tests.mixed.clients import FIRST_OF_THIS, Clients
from tests.mixed.finalizing import (
    LEVEL_LATER,
    TRIES,
    later_release,
    level_of,
    raise_level,
    require_ended_beyond,
    require_fenced,
    require_refused,
    unheard,
)
from tests.mixed.judge import failed_writes, judge_requests
from tests.workloads import Record

NODES = 3
SETTINGS = (
    "limits.journal_segment_bytes=65536",
    "journal.keep_bytes=131072",
    "journal.pinned_bytes_max=131072",
    "checkpoint.wal_bytes=262144",
)
"""A log that is outrun in seconds."""
REST_S = 0.5
"""Of load in each state."""
BLOB_BYTES = 60_000
MOVE_S = 20.0


@dataclass(slots=True)
class Report:
    """What came of it."""

    previous: str
    this: str
    seed: str
    steps: list[tuple[float, str]] = field(default_factory=list)
    led: dict[str, int] = field(default_factory=dict)
    """How often a node of each version was seen to lead a mixture."""
    copies: list[str] = field(default_factory=list)
    keys: int = 0
    keyed: int = 0
    operations: dict[str, int] = field(default_factory=dict)
    """Of the clients of each version."""
    disturbed: int = 0
    """Operations that failed or whose outcome is unknown, in the moments after a kill."""
    anew: int = 0
    """Interactive transactions that had to be begun anew."""
    undecided: tuple[str, ...] = ()
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "verdict": "broken" if self.broken else "kept",
            "previous": self.previous,
            "this": self.this,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "operations": self.operations,
            "keyed_writes": self.keyed,
            "idempotency_keys": self.keys,
            "leaders": self.led,
            "copies": self.copies,
            "disturbed_by_kills": self.disturbed,
            "transactions_to_begin_anew": self.anew,
            "undecided": list(self.undecided),
            "broken": self.broken,
            "steps": [{"at_s": round(at_s, 2), "step": text} for at_s, text in self.steps],
        }


class Story:
    """One run."""

    def __init__(
        self, previous: Release, this: Release, home: Path, seed: str, say: Callable[[str], None]
    ) -> None:
        self.previous, self.this = previous, this
        self.report = Report(str(previous), str(this), seed)
        self._clock = RealClock()
        self._begin_s = self._clock.monotonic_s()
        self._home = home
        self._say = say
        self._draw = random.Random(seed)
        self._pause = threading.Event()
        self._kills: list[tuple[float, float]] = []
        """From a kill until every node was there again: on the clock of the histories."""
        self.cluster = DrillCluster.found(
            home / "cluster", self._clock, NODES, settings=SETTINGS, release=previous
        )
        self._runs = dict.fromkeys(self.cluster.node_ids, previous)
        self._clients: Clients | None = None
        self.watch = Watch(self.cluster, self._clock)
        """One leader per term, and no node that finds its content to differ."""

    @property
    def clients(self) -> Clients:
        """Once they have begun."""
        assert self._clients is not None
        return self._clients

    def run(self) -> None:
        """Everything but the judgement. Raises Error when something does not come to its end."""
        self.cluster.start()
        self.cluster.wait_for_leader()
        self.cluster.wait_for("an answer of every node", self.cluster.whole)
        with self.cluster.connect(timeout=30.0) as connection:
            connection.execute("CREATE TABLE ballast(number INTEGER PRIMARY KEY, data BLOB)")
        self._clients = Clients(self.cluster, self.previous, self._home, self.report.seed)
        self.clients.start()
        self.step(f"three nodes of {self.previous.version}, with clients of both releases")
        with self.watch:
            self._through_it_all()

    def _through_it_all(self) -> None:
        self.clients.again("at-the-beginning")
        order = self.cluster.node_ids
        self._draw.shuffle(order)
        for name in order:
            self.roll(name, self.this)
            if name != order[-1]:
                self.mixture()
        self.clients.again("all-new")
        for way, release in (("back", self.previous), ("forth-again", self.this)):
            self._draw.shuffle(order)
            for name in order:
                self.roll(name, release)
                self.rest()
            self.clients.again(way)
        self.finalize()

    def mixture(self) -> None:
        """Both releases are there: what has to work then."""
        count = {one: list(self._runs.values()).count(one) for one in (self.previous, self.this)}
        alone = next(name for name, one in self._runs.items() if count[one] == 1)
        other = next(name for name in self.cluster.node_ids if name != alone)
        for name in (alone, other):
            self.lead(name)
            if self._runs[name] is self.this:
                self.step(f"it is too early to finalize: {require_refused(self.cluster)}")
            self.clients.again(f"{name}-leads-{len(self.report.steps)}")
        self.outrun(alone)
        self.kill(other)

    def finalize(self) -> None:
        """The new feature level, and nobody goes back any more."""
        if level_of(self.cluster) == LEVEL_MAX:
            self.step(f"feature level {LEVEL_MAX} is that of {self.previous.version}, too")
            return
        leader = self.cluster.wait_for_leader()
        late, other = [name for name in self.cluster.node_ids if name != leader]
        with self._disturbance():
            self.step(f"feature level {LEVEL_MAX} is to be finalized; {late} is paused")
            if raise_level(self.cluster, late):
                index = int(self.cluster.status(leader)["applied_index"])
                self.step(f"finalized; {late} is killed, and comes back as {self.previous.version}")
                unheard(self.cluster, late, self.previous, index)
                self.cluster.restart_as(late, self.this)
            else:
                self.step(f"the leader has noticed that {late} is away")
                self.cluster.wait_for("every node", self.cluster.whole)
                with self.cluster.connect() as connection:
                    connection.ask("release", raise_to=LEVEL_MAX)
            self.whole()
        self.clients.again("finalized")
        said = require_fenced(self.cluster, other, self.previous)
        self.step(f"{other} is not to be had as {self.previous.version} any more: {said}")
        self.cluster.become(other, self.this)
        self.cluster.start(other)
        self.whole()
        self.go_beyond(late, [other, leader])

    def go_beyond(self, late: str, others: list[str]) -> None:
        """All run a release that is made up, and go on to a level that this one does not know while
        one is away; it comes back with this one."""
        later = later_release(self._home)
        for name in (*others, late):
            self.roll(name, later)
        self.lead(others[0])
        with self._disturbance():
            self.step(f"feature level {LEVEL_LATER} is to be finalized; {late} is paused")
            for _ in range(TRIES):
                if raise_level(self.cluster, late, LEVEL_LATER):
                    said = require_ended_beyond(self.cluster, late, self.this)
                    self.step(f"{late} is not to be had as {self.this.version} any more: {said}")
                    self.cluster.become(late, later)
                    self.cluster.start(late)
                    break
                self.step(f"the leader has noticed that {late} is away")
                self.whole()
            self.whole()

    # ---- the steps

    def step(self, text: str) -> None:
        """Say what is done now."""
        at_s = self._clock.monotonic_s() - self._begin_s
        self.report.steps.append((at_s, text))
        self._say(f"{at_s:6.2f} s  {text}")

    def rest(self) -> None:
        """Some load."""
        self.cluster.processes.require_running()
        self._pause.wait(REST_S)

    def whole(self) -> None:
        """Wait until every node is there; they run what they should."""
        self.cluster.wait_for("every node", self.cluster.whole)
        should = {name: release.version for name, release in self._runs.items()}
        if (versions := self.cluster.versions()) != should:
            raise AssertionError(f"the nodes say that they run {versions}, and should {should}")

    def roll(self, name: str, release: Release) -> None:
        """Drain, stop, start with the other release."""
        led = self.cluster.leader() == name
        self.step(f"{name}{', the leader,' if led else ''} becomes {release.version}")
        self.cluster.restart_as(name, release)
        self._runs[name] = release
        self.whole()

    def lead(self, name: str) -> None:
        """An orderly transfer to that node; then some load under it."""
        version = self._runs[name].version
        self.step(f"{name}, {version}, is to lead")
        target = read_client_file(self.cluster.directory / "client" / "client.toml")
        with self.cluster.connect(timeout=MOVE_S) as connection:
            move_leader(connection, target, name, MOVE_S, self._clock)
        self.rest()
        led = self.cluster.leader()
        assert led is not None
        version = self._runs[led].version
        self.report.led[version] = self.report.led.get(version, 0) + 1

    def outrun(self, away: str) -> None:
        """The node is away until the others' logs begin behind its end: it needs a copy, which
        nodes of the other release have."""
        version = self._runs[away].version
        self.step(f"{away}, {version}, is stopped and outrun")
        last = int(self.cluster.status(away)["last_index"])
        self.cluster.stop(away)
        others = [name for name in self.cluster.node_ids if name != away]

        def beyond() -> bool:
            with self.cluster.connect(timeout=20.0) as connection:
                for _ in range(5):
                    connection.execute(
                        "INSERT OR REPLACE INTO ballast VALUES (1, ?)", (bytes(BLOB_BYTES),)
                    )
            firsts = [int(self.cluster.status(name)["first_index"]) for name in others]
            return min(firsts) > last + 1

        self.cluster.wait_for("a log that begins behind the node's end", beyond)
        self.cluster.start(away)
        self.whole()
        first = int(self.cluster.status(away)["first_index"])
        sent = {name: int(self.cluster.status(name)["copy"]["sent_bytes"]) for name in others}
        source = max(sent, key=lambda name: sent[name])
        if first <= last + 1 or not sent[source]:
            raise AssertionError(f"{away} was to need a copy: {first=}, {last=}, {sent=}")
        found = f"{away}, {version}, had a copy from {source}, {self._runs[source].version}"
        self.report.copies.append(found)
        self.step(found)

    def kill(self, name: str) -> None:
        """SIGKILL of that node, as the leader."""
        self.lead(name)
        with self._disturbance():
            leader = self.cluster.wait_for_leader()
            self.step(f"kill -9 {leader}, {self._runs[leader].version}, the leader")
            self.cluster.kill(leader)
            self.cluster.wait_for_leader()
            self.cluster.start(leader)
            self.whole()

    @contextmanager
    def _disturbance(self) -> Iterator[None]:
        begin_s = self._clock.monotonic_s()
        yield
        self._kills.append((begin_s, self._clock.monotonic_s()))

    # ---- the judgement

    def judge(self) -> None:
        """All clients end; what they were told is compared with what there is. Raises Violation."""
        self.step("all clients end; their histories are judged as one")
        self.clients.stop()
        report, records = self.report, self.clients.records
        report.keys = self.clients.keys
        report.broken += [*self.clients.wrong, *self.watch.broken]
        self._count(records)
        self._compare()
        self.clients.workload.check(records)
        report.undecided = self.clients.workload.undecided

    def _count(self, records: list[Record]) -> None:
        versions = (self.previous.version, self.this.version)
        theirs, ours = self.clients.others.workloads, sorted(self.clients.workload.parts)
        known = dict(zip(versions, (theirs, ours), strict=True))
        found = judge_requests(
            records, lambda client: versions[client >= FIRST_OF_THIS], known, self._kills
        )
        report = self.report
        report.operations, report.anew = found.operations, found.anew
        report.disturbed = found.disturbed
        report.broken += found.broken

    def _compare(self) -> None:
        """The keyed rows on every node, and equal content at an equal index."""
        report, keyed = self.report, self.clients.keyed
        self.cluster.wait_for("a whole cluster", self.cluster.whole, CONVERGE_S)
        result = Result("mixed", "", NODES)
        held = check_cluster(result, self.cluster, keyed.writes())
        acknowledged = keyed.acknowledged()
        report.keyed = len(acknowledged)
        report.broken += result.broken
        report.broken += [
            f"an acknowledged row is gone: {one}" for one in missing(held, acknowledged)
        ]
        report.broken += failed_writes(keyed.writes(), self._kills)

    def close(self) -> None:
        """Leave nothing running."""
        if self._clients is not None:
            self._clients.kill()
        self.cluster.kill()
