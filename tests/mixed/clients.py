"""All clients of the story: of both releases, and some that write under idempotency keys."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.traffic import Traffic
from raftdb.base.errors import OperationalError
from raftdb.drill.cluster import DrillCluster, own_environ
from raftdb.drill.load import SCHEMA, Load
from raftdb.drill.previous import Release
from raftdb.ops.target import read_client_file
from raftdb.runtime.clock import RealClock
from tests.workloads import WORKLOADS, Mix, Record, read_history

SCRIPT = Path(__file__).with_name("other_clients.py")
CLIENTS = 3
"""Of each release."""
KEYED = 2
PAUSE_S = 0.06
FIRST_OF_THIS = 100
"""Number of the first client of this release; those of the other one count from 0."""
STOP_S = 120.0
TABLE = "mixed_keys"
AGAIN = f"INSERT INTO {TABLE}(luck) VALUES (random()) RETURNING id, luck"


class OtherClients:
    """Clients of another release, in a process of their own."""

    def __init__(self, release: Release, client_file: Path, home: Path, seed: str) -> None:
        assert release.sources is not None, "its workloads are needed too"
        self._history = home / "other.jsonl"
        with (home / "other-clients.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(release.python, "-P", str(SCRIPT), str(client_file), str(self._history)),
                    *(seed, str(CLIENTS), str(PAUSE_S)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=release.environ({**own_environ(), "PYTHONPATH": ""}),
            )
        self._log = home / "other-clients.log"
        self.workloads: list[str] = json.loads(self._line())
        """That they know."""

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace")[-2000:]
            raise OperationalError(f"the other release's clients ended: {said}")
        return line.strip()

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def again(self, key: str) -> Any:
        """The rows of a statement under an idempotency key, or the error."""
        return self._ask(f"again {key} {AGAIN}")

    def stop(self) -> list[str]:
        """They begin nothing new; returns what went wrong."""
        return [f"of the other release: {text}" for text in self._ask("stop")]

    def final(self) -> list[Record]:
        """Their last reads; returns all that they did."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(STOP_S) != 0:
            self._line()
        return list(read_history(self._history))

    def kill(self) -> None:
        """Whatever happens."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Clients:
    """Everybody who asks the cluster for something."""

    def __init__(self, cluster: DrillCluster, release: Release, home: Path, seed: str) -> None:
        client_file = cluster.directory / "client" / "client.toml"
        clock = RealClock()
        self.workload = Mix([(kind(), 1.0) for kind in WORKLOADS])
        self._connect: Callable[..., Any] = cluster.connect
        self.traffic = Traffic(
            read_client_file(client_file),
            clock,
            self.workload,
            f"{seed} this",
            clients=CLIENTS,
            pause_s=PAUSE_S,
            first=FIRST_OF_THIS,
        )
        with cluster.connect(timeout=30.0) as connection:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"CREATE TABLE {TABLE}(id INTEGER PRIMARY KEY, luck INTEGER)")
        self.traffic.setup()
        self.keyed = Load(lambda: cluster.connect(timeout=20.0), clock, clients=KEYED)
        self.others = OtherClients(release, client_file, home, f"{seed} other")
        self._answers: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.records: list[Record] = []

    def start(self) -> None:
        """Those of this release; the others have begun."""
        self.traffic.start()
        self.keyed.start()

    def again(self, new_key: str) -> None:
        """A key that is new, and all that were used before, by clients of both releases: whoever
        was first, everybody gets the first one's answer."""
        with self._connect(timeout=20.0) as connection:

            def ours(key: str) -> Any:
                rows = connection.execute(AGAIN, idempotency_key=key).fetchall()
                return [list(row) for row in rows]

            for number, key in enumerate([*self._answers, new_key]):
                sides = [("this", ours), ("the other", self.others.again)]
                for name, ask in sides if number % 2 else reversed(sides):
                    got = ask(key)
                    first = self._answers.setdefault(key, got)
                    if got != first or not isinstance(got, list):
                        self.wrong.append(
                            f"the key {key}, by a client of {name} release: {got}; the first"
                            f" answer was {first}"
                        )

    @property
    def keys(self) -> int:
        """Idempotency keys that were used, each several times."""
        return len(self._answers)

    def stop(self) -> None:
        """All of them; then the last reads, which each release does of what its clients know."""
        self.keyed.stop()
        hanging = [f"{name} hangs" for name in (*self.traffic.stop(), *self.keyed.hanging)]
        self.wrong += [*hanging, *self.traffic.crashes, *self.others.stop()]
        others = self.others.final()
        self.traffic.final()
        everything = [*others, *self.traffic.history.records]
        self.records = sorted(everything, key=lambda record: record.invoke_ns)

    def kill(self) -> None:
        """Leave nothing running."""
        self.others.kill()
        self.keyed.stop(timeout_s=0.0)
        self.traffic.stop()
