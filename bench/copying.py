"""Writes while a copy of the database is taken and sent to a new member.

A load at a steady pace runs in windows, first without a copy, then while a learner, whose log is
empty, fetches one. A request's latency counts from the moment when it was due, so that a pause
shows in every request that it held up.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.errors import BenchError
from bench.figures import latency
from bench.lab import Lab, Say, lab
from bench.load import read_samples
from raftdb.base.errors import Error
from raftdb.base.ports import Clock
from raftdb.drill.cluster import command as raftdb
from raftdb.ops.ports import free_ports
from raftdb.runtime.clock import RealClock

CONNECTIONS = 4
COPIED_S = 900.0
SENT_MB = 16
LOG = ("journal.keep_bytes=4194304", "limits.journal_segment_bytes=1048576")
"""The log is short, so that a new member needs a copy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured."""

    megabytes: int = 1_000
    copies: int = 2
    rate_per_s: float = 200.0
    seconds: float = 5.0
    """Of one window."""


QUICK = Settings(megabytes=20, copies=1, rate_per_s=50.0, seconds=0.5)


@dataclass(slots=True)
class Windows:
    """Latencies of several windows, in microseconds, and how long the windows were together."""

    samples: list[int] = field(default_factory=list)
    count: int = 0

    def add(self, path: Path) -> None:
        """One more."""
        self.samples += read_samples(path)
        self.count += 1

    def as_dict(self) -> dict[str, Any]:
        """Figures."""
        found = latency(self.samples)
        return {
            "windows": self.count,
            "requests": found.count,
            "p50_ms": found.p50_ms,
            "p99_ms": found.p99_ms,
            "max_ms": found.max_ms,
        }


class Copying:
    """One cluster, and learners that come and go."""

    def __init__(self, one: Lab, settings: Settings, clock: Clock) -> None:
        self._lab = one
        self._settings = settings
        self._clock = clock
        self._copied = threading.Event()
        self.without, self.during = Windows(), Windows()
        self.copy_s: list[float] = []

    def window(self, into: Windows) -> Path:
        """One window of load."""
        _, path = self._lab.load(
            CONNECTIONS, self._settings.seconds, grow=True, rate_per_s=self._settings.rate_per_s
        )
        into.add(path)
        return path

    def calm(self, count: int) -> None:
        """So many windows without a copy."""
        for _ in range(count):
            self.window(self.without)

    def copy(self, name: str) -> int:
        """A learner joins; windows until it has its copy. Returns how many counted."""
        cluster, port = self._lab.cluster, free_ports(2 * (len(self._lab.cluster.node_ids) + 1))
        spec = f"{name},location=eu/rome,peer=127.0.0.1:{port},client=127.0.0.1:{port + 1}"
        raftdb("member", "prepare", spec, "--dir", cluster.directory)
        cluster.adopt(name)
        cluster.start(name)
        begin_s = self._clock.monotonic_s()
        raftdb("member", "add", spec, "--dir", cluster.directory)
        self._copied.clear()
        watcher = threading.Thread(target=self._watch, args=(name,), daemon=True)
        watcher.start()
        whole, last = 0, Windows()
        while not self._copied.is_set():
            last = Windows()
            path = self.window(last)
            if not self._copied.is_set():
                self.during.add(path)
                whole += 1
        watcher.join()
        self.copy_s.append(round(self._clock.monotonic_s() - begin_s, 1))
        if not whole:
            # A copy that was quicker than one window: that window saw all of it.
            self.during.samples += last.samples
            self.during.count += 1
        cluster.wait_for("the learner has caught up", cluster.whole, COPIED_S)
        raftdb("member", "remove", name, "--dir", cluster.directory)
        self._lab.look()
        log = (cluster.node(name).directory / "node.log").read_text(errors="replace")
        cluster.lose(name)
        if "copy_installed" not in log:
            raise BenchError(f"{name} caught up without a copy: the log was too long")
        return max(whole, 1)

    def _watch(self, name: str) -> None:
        """Until the copy is installed: the node has begun again, and holds the table."""
        cluster, end_s = self._lab.cluster, self._clock.monotonic_s() + COPIED_S
        while self._clock.monotonic_s() < end_s:
            try:
                if int(cluster.status(name)["applied_index"]) > 1:
                    break
            except Error:
                pass
            self._lab.rest(0.05)
        self._copied.set()


def run(place: Path, settings: Settings, say: Say) -> dict[str, Any]:
    """All of it."""
    clock = RealClock()
    with lab(place, settings=LOG) as one:
        one.create()
        begin_s = clock.monotonic_s()
        one.fill(settings.megabytes, sent_megabytes=SENT_MB)
        say(f"{settings.megabytes} MB: filled in {clock.monotonic_s() - begin_s:.0f} s")
        term = _term(one)
        copying = Copying(one, settings, clock)
        for number in range(settings.copies):
            copying.calm(2)
            count = copying.copy(f"n{number + 4}")
            copying.calm(max(1, count - 2))
            say(f"copied in {copying.copy_s[-1]} s; {count} windows meanwhile")
        return {
            "database_bytes": one.database_bytes(),
            "copy_s": copying.copy_s,
            "without": copying.without.as_dict(),
            "during": copying.during.as_dict(),
            "leader_changes": _term(one) - term,
            "rss_mb": round(one.look(), 1),
        }


def _term(one: Lab) -> int:
    return max(int(status["term"]) for status in one.cluster.statuses().values())


@click.command("copying")
@click.option("--megabytes", default=1_000, type=click.IntRange(20), show_default=True)
@click.option("--copies", default=2, type=click.IntRange(1, 20), show_default=True)
@click.option("--rate", default=200.0, type=click.FloatRange(1), help="Writes per second.")
@click.option("--seconds", default=5.0, type=click.FloatRange(0.5, 600), help="Of one window.")
@command.outputs("copying")
def copying(megabytes: int, copies: int, rate: float, seconds: float, **outputs: Any) -> None:
    """Writes at a steady pace while the database is copied to a new member, and without.

    \b
      python -m bench copying
    """
    settings = QUICK if outputs["quick"] else Settings(megabytes, copies, rate, seconds)
    command.measure(
        "copying",
        command.as_settings(settings),
        lambda place, say: run(place, settings, say),
        **outputs,
    )
