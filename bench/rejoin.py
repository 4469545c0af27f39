"""A node comes back: with entries that the others never had, or without many that they have.

Each request gets a log entry of its own here (`limits.entry_requests_max=1`), so that entries are
what is counted. Divergent ones are made by a leader that is cut off from the others and still takes
writes, because its time-outs are an hour; nobody is told that they succeeded.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.errors import BenchError
from bench.lab import Lab, Say, lab
from bench.processes import die_with_parent
from bench.targets.raftdb import REPOSITORY
from bench.wan import behind_proxies
from chaos.cluster import ChaosCluster
from chaos.links import both_ways
from raftdb.base.ports import Clock
from raftdb.runtime.clock import RealClock

ONE_EACH = "limits.entry_requests_max=1"
STUBBORN = (
    ONE_EACH,
    "timing.leader_timeout_ms=600000",
    "limits.queue_age_ms_max=600000",
    "limits.proposals_waiting_max=1000000",
)
"""A leader that does not notice that it is alone."""
EACH = 1_000
"""Requests of one connection that nobody answers: fewer than limits.requests_per_connection_max."""
CONNECTIONS = 64
LOAD_S = 4.0
WAIT_S = 300.0
MAJORITY_ROWS = 50


@dataclass(frozen=True, slots=True)
class Settings:
    """How many entries, and how often."""

    missing: int = 100_000
    divergent: int = 10_000
    times: int = 3


QUICK = Settings(missing=1_000, divergent=1_000, times=1)


def _equal(one: Lab) -> None:
    """Raise BenchError unless all nodes hold the same."""
    cluster = one.cluster
    statuses = cluster.wait_for("an answer of any node", cluster.statuses, WAIT_S)
    index = max(int(status["commit_index"]) for status in statuses.values())
    found = set()
    for name in cluster.node_ids:
        with cluster.connect_to(name, timeout=60.0) as connection:
            found.add(str(connection.content_hash(index=index, timeout=60.0)["total"]))
    if len(found) != 1:
        raise BenchError("the nodes' content differs after the rejoin")


def _follower(one: Lab) -> str:
    leader = one.cluster.wait_for_leader()
    return next(name for name in one.cluster.node_ids if name != leader)


def _caught_up(one: Lab, node_id: str) -> bool:
    """It follows, and has applied what the leader had committed just before."""
    found = one.cluster.statuses()
    goals = [int(each["commit_index"]) for name, each in found.items() if name != node_id]
    if not goals or node_id not in found or found[node_id]["role"] != "follower":
        return False
    return int(one.cluster.status(node_id)["applied_index"]) >= max(goals)


def _highest_term(one: Lab) -> int:
    found = one.cluster.wait_for("an answer of any node", one.cluster.statuses, WAIT_S)
    return max(int(status["term"]) for status in found.values())


def missing(place: Path, settings: Settings, clock: Clock, say: Say) -> dict[str, Any]:
    """A follower is down while the others go on."""
    found = []
    with lab(place, settings=(ONE_EACH,)) as one:
        for _ in range(settings.times):
            away, term = _follower(one), _highest_term(one)
            before = int(one.cluster.status(away)["last_index"])
            one.kill(away)
            while (lacks := _last(one) - before) < settings.missing:
                left = settings.missing - lacks
                one.load(CONNECTIONS, min(LOAD_S, max(0.3, left / 5_000)), warmup_s=0.0)
            begin_s = clock.monotonic_s()
            one.cluster.start(away)
            one.cluster.wait_for("its return", partial(_caught_up, one, away), WAIT_S)
            seconds = clock.monotonic_s() - begin_s
            _equal(one)
            found.append(
                {
                    "entries": lacks,
                    "seconds": round(seconds, 2),
                    "terms": _highest_term(one) - term,
                }
            )
            say(f"missing: {found[-1]}")
        return {"times": found, "rss_mb": round(one.look(), 1)}


def _last(one: Lab) -> int:
    found = one.cluster.wait_for("an answer of any node", one.cluster.statuses, WAIT_S)
    return max(int(status["last_index"]) for status in found.values())


class Divergent:
    """Writes to a leader that is alone."""

    def __init__(self, one: Lab, cluster: ChaosCluster, entries: int) -> None:
        self._lab = one
        self._cluster = cluster
        self._entries = entries

    def make(self) -> tuple[str, int]:
        """Cut the leader off, have it log so many entries, and let the others elect another.
        Returns who it is, and how many entries it has that nobody else does."""
        cluster = self._cluster
        leader = cluster.wait_for_leader()
        others = [name for name in cluster.node_ids if name != leader]
        with self._poured(leader) as pour:
            before = int(cluster.status(leader)["last_index"])
            cluster.links.cut(both_ways([(leader, other) for other in others]))
            pour.send_signal(signal.SIGUSR1)
            cluster.wait_for(
                "entries that nobody else has",
                lambda: int(cluster.status(leader)["durable_index"]) >= before + self._entries,
                WAIT_S,
            )
        cluster.wait_for("another leader", lambda: self._leads(others), WAIT_S)
        self._write(others)
        return leader, int(cluster.status(leader)["last_index"]) - before

    @contextmanager
    def _poured(self, leader: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process with sessions, that will send when it is told to; killed at the end."""
        client = self._cluster.directory / "client"
        specification = {
            "workload": "pour",
            "addresses": [str(self._cluster.address(leader))],
            "connections": -(-self._entries // EACH),
            "each": EACH,
            "ca": str(client / "ca.crt"),
            "certificate": str(client / "client.crt"),
            "key": str(client / "client.key"),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.pour"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            preexec_fn=die_with_parent,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(specification).encode())
            process.stdin.close()
            if b"ready" not in process.stdout.readline():
                raise BenchError(f"the clients of {leader} did not connect")
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _leads(self, others: list[str]) -> bool:
        return any(self._cluster.status(name)["role"] == "leader" for name in others)

    def _write(self, others: list[str]) -> None:
        for name in others:
            with self._cluster.connect_to(name, timeout=10.0) as connection:
                if connection.status()["role"] != "leader":
                    continue
                for _ in range(MAJORITY_ROWS):
                    connection.execute("INSERT INTO far (v) VALUES ('after')")


def divergent(place: Path, settings: Settings, clock: Clock, say: Say) -> dict[str, Any]:
    """A leader was alone and logged what nobody else has."""
    found = []
    with behind_proxies(place, STUBBORN) as (one, cluster):
        with cluster.connect(timeout=30.0) as connection:
            connection.execute("CREATE TABLE far (id INTEGER PRIMARY KEY, v TEXT)")
        for _ in range(settings.times):
            name, entries = Divergent(one, cluster, settings.divergent).make()
            term = _highest_term(one)
            begin_s = clock.monotonic_s()
            cluster.links.heal()
            cluster.wait_for("its return", partial(_caught_up, one, name), WAIT_S)
            seconds = clock.monotonic_s() - begin_s
            _equal(one)
            with cluster.connect(timeout=30.0) as connection:
                [[never]] = connection.execute("SELECT count(*) FROM far WHERE v = 'never'")
            found.append(
                {
                    "entries": entries,
                    "seconds": round(seconds, 2),
                    "terms": _highest_term(one) - term,
                    "written_again": never,
                }
            )
            say(f"divergent: {found[-1]}")
        return {"times": found, "rss_mb": round(one.look(), 1)}


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """Both."""
    clock = RealClock()
    found = {
        "divergent": divergent(place / "divergent", settings, clock, say),
        "missing": missing(place / "missing", settings, clock, say),
    }
    return {**found, "rss_mb": max(one["rss_mb"] for one in found.values())}


@click.command("rejoin")
@click.option("--missing", "lacking", default=100_000, type=click.IntRange(1), show_default=True)
@click.option("--divergent", "wrong", default=10_000, type=click.IntRange(1), show_default=True)
@click.option("--times", default=3, type=click.IntRange(1, 100), show_default=True)
@command.outputs("rejoin")
def rejoin(lacking: int, wrong: int, times: int, **outputs: Any) -> None:
    """How long a node takes to come back that lacks entries, or has others than the majority.

    \b
      python -m bench rejoin
    """
    settings = QUICK if outputs["quick"] else Settings(lacking, wrong, times)
    command.measure(
        "rejoin",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
