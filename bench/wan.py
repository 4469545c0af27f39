"""Commits across long lines: what a commit takes beyond the round trip to the nearest majority.

Three nodes; every way between two of them runs through toxiproxy and takes the same time, and the
client stands beside the leader. The proxy adds some time of its own, so the round trip is measured
through a proxy of the same kind, and what a commit takes beyond that is raftdb's.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.figures import latency
from bench.lab import Lab, Say, begin
from chaos.cluster import ChaosCluster
from chaos.links import Links, both_ways
from chaos.links import latency as delay
from chaos.server import ToxiproxyServer
from raftdb.ops.ports import free_ports
from raftdb.runtime.clock import RealClock

SETTLE_S = 6.0
"""Time-outs follow the measured distances after some of their measurements."""
WARMUP = 3
ECHOES = 20
ECHO = ("probe", "echo")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured."""

    round_trips_ms: tuple[int, ...] = (0, 20, 100, 250)
    seconds: float = 12.0


QUICK = Settings(round_trips_ms=(20,), seconds=0.6)


@contextmanager
def behind_proxies(
    place: Path, links_settings: tuple[str, ...] = ()
) -> Iterator[tuple[Lab, ChaosCluster]]:
    """A running cluster, every path of which runs through toxiproxy."""
    place.mkdir(parents=True, exist_ok=True)
    with ToxiproxyServer(place / "toxiproxy.log") as server:
        cluster = ChaosCluster(
            place, RealClock(), 3, Links(server.api), settings=links_settings, archived=False
        )
        try:
            cluster.start()
            begin(cluster)
            yield Lab(cluster, place), cluster
        finally:
            cluster.close()


class Echo:
    """Says what it hears, behind a proxy."""

    def __init__(self, links: Links) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._port = free_ports(1)
        links.make(*ECHO, f"127.0.0.1:{self._port}", f"127.0.0.1:{self._server.getsockname()[1]}")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                with client:
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    while data := client.recv(4096):
                        client.sendall(data)
            except OSError:
                return

    def round_trip_ms(self) -> float:
        """Of 200 bytes, through the proxy: the median."""
        with socket.create_connection(("127.0.0.1", self._port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            spent = []
            for _ in range(ECHOES):
                start_s = time.perf_counter()
                client.sendall(bytes(200))
                left = 200
                while left:
                    left -= len(client.recv(left))
                spent.append((time.perf_counter() - start_s) * 1000)
        return statistics.median(spent)

    def close(self) -> None:
        """No more."""
        self._server.close()


def _commits(one: Lab, seconds: float, pause_s: float = 0.0) -> list[int]:
    """Latencies of commits, one after the other, in microseconds; with a pause between them."""
    cluster = one.cluster
    with cluster.connect_to(cluster.wait_for_leader(), timeout=30.0) as connection:
        samples: list[int] = []
        insert = "INSERT INTO far (v) VALUES (?)"
        connection.execute("CREATE TABLE IF NOT EXISTS far (id INTEGER PRIMARY KEY, v TEXT)")
        for _ in range(WARMUP):
            connection.execute(insert, ("x" * 100,))
        end_ns = time.perf_counter_ns() + int(seconds * 1e9)
        while (start_ns := time.perf_counter_ns()) < end_ns:
            if pause_s:
                one.rest(pause_s)
                start_ns = time.perf_counter_ns()
            connection.execute(insert, ("x" * 100,))
            samples.append((time.perf_counter_ns() - start_ns) // 1000)
    return samples


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """Each distance once."""
    found: list[dict[str, Any]] = []
    with behind_proxies(place) as (one, cluster):
        names = cluster.node_ids
        pairs = both_ways([(a, b) for a in names for b in names if a < b])
        echo = Echo(cluster.links)
        for round_trip_ms in settings.round_trips_ms:
            cluster.links.heal()
            one.rest(min(SETTLE_S, settings.seconds) if found else 0.0)
            # What the machine takes to do anything at all after so long a pause is not the line's.
            idle = latency(_commits(one, settings.seconds, round_trip_ms / 1000))
            if round_trip_ms:
                for pair in (*pairs, *both_ways([ECHO])):
                    cluster.links.put(*pair, delay(round_trip_ms // 2))
                one.rest(min(SETTLE_S, settings.seconds))
            proxied_ms = echo.round_trip_ms()
            spent = latency(_commits(one, settings.seconds))
            found.append(
                {
                    "round_trip_ms": round_trip_ms,
                    "proxied_ms": round(proxied_ms, 3),
                    "commits": spent.count,
                    "p50_ms": spent.p50_ms,
                    "p90_ms": spent.p90_ms,
                    "over_ms": round(spent.p50_ms - proxied_ms, 3),
                    "without_line_ms": round(idle.p50_ms, 3),
                    "line_ms": round(spent.p50_ms - proxied_ms - idle.p50_ms, 3),
                }
            )
            say(f"{round_trip_ms} ms: {found[-1]}")
        echo.close()
        return {"distances": found, "rss_mb": round(one.look(), 1)}


@click.command("wan")
@click.option("--round-trips-ms", "far", default="0,20,100,250", show_default=True)
@click.option("--seconds", default=12.0, type=click.FloatRange(0.5, 600), help="At each.")
@command.outputs("wan")
def wan(far: str, seconds: float, **outputs: Any) -> None:
    """Commits at long round trips between all nodes: what is beyond the round trip.

    \b
      python -m bench wan
    """
    settings = Settings(tuple(int(one) for one in far.split(",")), seconds)
    if outputs["quick"]:
        settings = QUICK
    command.measure(
        "wan",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
