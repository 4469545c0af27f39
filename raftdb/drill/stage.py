"""What every scenario has: a cluster, a load, a clock, and the moments that are measured."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from raftdb.base.errors import ConfigError, OperationalError, UnavailableError
from raftdb.base.ports import Clock
from raftdb.drill.check import check_cluster, measure_loss, missing
from raftdb.drill.cluster import DrillCluster, command
from raftdb.drill.load import CLIENTS, SCHEMA, Load, longest_silence_s
from raftdb.drill.previous import Release
from raftdb.drill.result import Phase, Result, timeline

Say = Callable[[str], None]
ARCHIVED_S = 60.0
COMMIT_S = 600.0
"""A cluster that commits nothing for so long is given up."""


class Stage:
    """One drill, from the founding to the verdict."""

    def __init__(
        self,
        home: Path,
        result: Result,
        clock: Clock,
        say: Say,
        *,
        seconds: float,
        points: int = 0,
        archive: str | None = None,
        previous: Release | None = None,
        cluster: DrillCluster | None = None,
    ) -> None:
        """`cluster`: that is there already; else one is founded."""
        self.home = home
        self.result = result
        self.clock = clock
        self.seconds = seconds
        """Of load, before the disaster and after the recovery."""
        self.points = points
        """Moments of the past to restore, of point-in-time."""
        self._say = say
        self._given_archive = archive
        self._previous = previous
        self._cluster = cluster
        self._load: Load | None = None
        self._begin_s = clock.monotonic_s()
        self.disaster_s = self.gone_s = 0.0
        self._pause = threading.Event()

    # ---- what there is

    @property
    def cluster(self) -> DrillCluster:
        """The cluster that there is now."""
        assert self._cluster is not None, "the drill has not begun"
        return self._cluster

    @property
    def load(self) -> Load:
        """The clients."""
        assert self._load is not None, "the drill has not begun"
        return self._load

    def previous(self) -> Release:
        """The release before this one."""
        assert self._previous is not None, "the scenario says that it needs it"
        self.result.facts["previous"] = str(self._previous)
        if self._previous.note:
            self.result.facts["previous_note"] = self._previous.note
        return self._previous

    @property
    def archive_directory(self) -> Path:
        """Where the archive is, unless one was given."""
        return self.home / "archive"

    @property
    def archive_url(self) -> str:
        """The same as a URL, or the one that was given."""
        return self._given_archive or self.archive_directory.as_uri()

    @property
    def key_file(self) -> Path:
        """The archive's key."""
        return self.home / "archive.keys"

    @property
    def archive_flags(self) -> tuple[str, ...]:
        """`--from` and `--key-file` of commands."""
        return "--from", self.archive_url, "--key-file", str(self.key_file)

    # ---- the steps

    def begin(
        self,
        *,
        archived: bool = False,
        settings: Sequence[str] = (),
        clients: int = CLIENTS,
        release: Release | None = None,
        **options: Any,
    ) -> None:
        """Found the cluster, wait for it, and let the load run. `release`: that founds it and that
        its nodes run, when not this one; `options`: of the clients' connections."""
        every = list(settings)
        if archived:
            command("archive", "keygen", self.key_file)
            every += [
                f"archive.destinations={self.archive_url}",
                f"archive.key_file={self.key_file}",
            ]
        if self._cluster is None:
            self._cluster = DrillCluster.found(
                self.home / "cluster",
                self.clock,
                self.result.nodes,
                settings=every,
                release=release,
            )
            self.cluster.start()
        self.cluster.wait_for_leader()
        self.cluster.wait_for("an answer of every node", self.cluster.whole)
        with self.cluster.connect(timeout=30.0) as connection:
            for statement in SCHEMA:
                connection.execute(statement)
        if archived:
            self.cluster.wait_for("a first copy in the archive", self._archives, ARCHIVED_S)
        self._load = Load(
            lambda: self.cluster.connect(**options),
            self.clock,
            clients=clients,
            keys=f"drill {self.result.started}",
        )
        self._begin_s = self.clock.monotonic_s()
        self.load.start()
        self.phase(f"a load on {self.result.nodes} nodes")
        self.run_for(self.seconds)

    def _archives(self) -> bool:
        return int(self.archive_state()["archived_index"]) > 0

    def archive_state(self) -> dict[str, Any]:
        """What is known of the archive, by the node that knows it to be furthest."""
        known = [
            one for status in self.cluster.statuses().values() for one in status.get("archive", ())
        ]
        if not known:
            raise UnavailableError("no node knows of the archive")
        best: dict[str, Any] = max(known, key=lambda one: int(one["archived_index"]))
        return best

    def until_archived(self, index: int, timeout_s: float = ARCHIVED_S) -> None:
        """Wait until the archive holds an entry."""

        def holds() -> bool:
            return int(self.archive_state()["archived_index"]) >= index

        self.cluster.wait_for(f"entry {index} in the archive", holds, timeout_s)

    def commit_index(self) -> int:
        """What the leader has committed."""
        return max(int(one["commit_index"]) for one in self.cluster.statuses().values())

    def phase(self, name: str) -> float:
        """Something happens now; returns when."""
        now_s = self.clock.monotonic_s()
        self.result.phases.append(Phase(now_s - self._begin_s, name))
        self._say(f"{now_s - self._begin_s:6.2f} s  {name}")
        return now_s

    def run_for(self, seconds: float) -> None:
        """Let the load run."""
        self._pause.wait(seconds)
        self.cluster.processes.require_running()

    @contextmanager
    def disaster(self, name: str) -> Iterator[None]:
        """What happens within is the disaster: its beginning and its end count."""
        self.disaster_s = self.phase(name)
        self.result.disaster_at_s = self.disaster_s - self._begin_s
        yield
        self.gone_s = self.clock.monotonic_s()
        if self.cluster.died_s is not None:
            self.result.facts["kill_command_s"] = round(self.gone_s - self.disaster_s, 2)
            self.disaster_s, self.gone_s = self.cluster.died_s
            self.result.disaster_at_s = self.disaster_s - self._begin_s

    def until_committed(self) -> None:
        """Wait for the first write that was begun after the disaster: the recovery time (RTO)."""
        first = self.cluster.wait_for(
            "a committed write", lambda: self.load.first_commit_after(self.gone_s), COMMIT_S
        )
        assert first.acknowledged_s is not None
        self.result.rto_s = first.acknowledged_s - self.disaster_s
        self.phase(f"a write is committed, {self.result.rto_s:.2f} s after the disaster")

    def until_full(self, since_s: float | None = None) -> None:
        """Wait until every node is there and has caught up."""
        self.cluster.wait_for("full redundancy", self.cluster.whole, COMMIT_S)
        begun_s = self.disaster_s if since_s is None else since_s
        self.result.full_s = self.clock.monotonic_s() - begun_s
        self.phase(f"every node has caught up, after {self.result.full_s:.2f} s")

    def moved(self, cluster: DrillCluster) -> None:
        """The recovered cluster takes the place of the lost one; clients are told."""
        self._cluster = cluster
        self.load.redirect()

    def end(self) -> None:
        """Stop the load, and check and measure everything."""
        self.run_for(self.seconds)
        end_s = self.phase("the load ends; every acknowledged row is looked for on every node")
        self.load.stop()
        result, acknowledged = self.result, self.load.acknowledged()
        result.check("no client hangs", not self.load.hanging, ", ".join(self.load.hanging))
        held = check_cluster(result, self.cluster, self.load.writes())
        measure_loss(result, missing(held, acknowledged), self.disaster_s)
        self._figures(end_s)

    def _figures(self, end_s: float) -> None:
        result, acknowledged = self.result, self.load.acknowledged()
        result.acknowledged = len(acknowledged)
        result.failed_tries = len(self.load.failures())
        result.silence_s = longest_silence_s(acknowledged, self.disaster_s - 0.5, end_s)
        result.timeline = timeline(acknowledged, self._begin_s, end_s)
        if result.failed_tries:
            result.facts["first_failed_try"] = self.load.failures()[0]
            result.facts["last_failed_try"] = self.load.failures()[-1]

    def close(self) -> None:
        """Leave nothing running."""
        if self._load is not None:
            self._load.stop(timeout_s=0.0)
        if self._cluster is not None:
            self._cluster.abandon()
        if self._load is not None:
            self._load.stop()

    def logs(self) -> str:
        """The ends of the nodes' logs, for whoever looks for the reason of a failure."""
        return "" if self._cluster is None else self._cluster.logs()

    def require_empty_archive(self) -> None:
        """A drill never touches an archive that holds anything. Raises ConfigError."""
        if self._given_archive is None:
            os.makedirs(self.archive_directory)
            return
        command("archive", "keygen", self.key_file)
        try:
            command("archive", "status", *self.archive_flags)
            problem = "there is an archive"
        except OperationalError as error:
            if error.code == "archive_missing" or self._is_missing_directory():
                self.key_file.unlink()
                return
            problem = error.message
        raise ConfigError(
            f"{self._given_archive} is no empty place: {problem}",
            hint="give a drill a place of its own, such as a prefix that nothing uses",
        )

    def _is_missing_directory(self) -> bool:
        """A node makes it."""
        url = urlsplit(self.archive_url)
        return url.scheme == "file" and not os.path.exists(unquote(url.path))
