"""A drill inside the client's container of docker-compose: `python -m raftdb.drill.elsewhere NAME`.

Only from there are the nodes seen as any client sees them: by their names, along the same lines.
What it cannot do there, killing and starting their containers, it asks of whoever started it: a
line of JSON on the standard output, `{"ask": "kill", "nodes": ["n1"]}`, and one back on the
standard input, `{"done": true}` (after a kill also `"ended_ms": [first, last]`, since 1970: docker
itself takes time to kill, which is none of raftdb's). So go `{"say": text}` and, at the end,
`{"result": {…}}`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from raftdb.base.errors import Error, OperationalError
from raftdb.base.ids import Address, parse_address
from raftdb.base.ports import Clock
from raftdb.base.startup import time_text
from raftdb.client import Connection, connect
from raftdb.drill.cluster import DrillCluster
from raftdb.drill.load import TABLE
from raftdb.drill.result import Result
from raftdb.drill.scenarios import COMPOSED, SCENARIOS
from raftdb.drill.stage import Stage
from raftdb.ops.target import read_client_file
from raftdb.runtime.clock import RealClock

ASK_S = 5.0
"""A node may be far away."""
CLEAN_S = 60.0


@dataclass(frozen=True, slots=True)
class Hands:
    """Whoever can reach the containers."""

    out: TextIO
    back: TextIO

    def tell(self, **word: Any) -> None:
        """Say something."""
        self.out.write(json.dumps(word) + "\n")
        self.out.flush()

    def ask(self, what: str, nodes: list[str]) -> dict[str, Any]:
        """Have it done; returns the answer when it is. Raises OperationalError."""
        self.tell(ask=what, nodes=nodes)
        try:
            answer = json.loads(self.back.readline() or "{}")
        except ValueError:
            answer = {}
        if answer.get("done") is not True:
            raise OperationalError(f"{what} {', '.join(nodes)}: {answer.get('problem', 'unheard')}")
        return dict(answer)


class _NoProcesses:
    """The nodes are no processes of this one: their ends are seen by asking them."""

    nodes: dict[str, Any] = {}

    def require_running(self) -> None:
        """Nothing to be seen from here."""


class ComposeCluster(DrillCluster):
    """The nodes of docker-compose.yml, as their clients see them."""

    ask_s = ASK_S

    def __init__(self, client_directory: Path, hands: Hands, clock: Clock) -> None:
        self.directory = client_directory
        self._clock = clock
        self._hands = hands
        self.processes = _NoProcesses()  # type: ignore[assignment]
        self._target = read_client_file(client_directory / "client.toml")
        self._down: set[str] = set()
        with self.connect(timeout=CLEAN_S) as connection:
            members = connection.status()["members"]
        self._members = {one["node_id"]: one for one in members}

    @property
    def node_ids(self) -> list[str]:
        """Its members."""
        return sorted(self._members)

    def running(self) -> list[str]:
        """Those that were not killed here."""
        return [name for name in self.node_ids if name not in self._down]

    def location(self, node_id: str) -> str:
        """Where a node stands."""
        return str(self._members[node_id]["location"])

    def start(self, *node_ids: str) -> None:
        """Start their containers again."""
        self._hands.ask("start", list(node_ids))
        self._down -= set(node_ids)

    def kill(self, *node_ids: str) -> None:
        """SIGKILL, for the containers of these nodes."""
        self._down |= set(node_ids)
        told = self._hands.ask("kill", list(node_ids))
        if "ended_ms" in told:
            # The clock of the containers is that of docker's machine.
            since_s = self._clock.monotonic_s() - self._clock.wall_ms() / 1000
            first, last = (float(one) / 1000 + since_s for one in told["ended_ms"])
            self.died_s = first, last

    def abandon(self) -> None:
        """What is down is started again, and the drill's table goes."""
        if self._down:
            self.start(*sorted(self._down))
        self.clean()

    def clean(self) -> None:
        """Remove the drill's table, if there is one."""
        with self.connect(timeout=CLEAN_S) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {TABLE}")

    def connect(self, **options: Any) -> Connection:
        """To the cluster."""
        return connect(self._target.url, **{**self._target.options, "timeout": ASK_S, **options})

    def connect_to(self, node_id: str, **options: Any) -> Connection:
        """To one node and no other; reads are local."""
        settings = {"pin": True, "read": "local", "timeout": ASK_S, **options}
        address = self._address(node_id)
        return connect(f"raftdb://{address}/", **{**self._target.options, **settings})

    def _address(self, node_id: str) -> Address:
        return parse_address(str(self._members[node_id]["client_address"]))

    def logs(self) -> str:
        """The containers have them."""
        return ""


def rehearse(name: str, seconds: float, cluster: Callable[[], DrillCluster], hands: Hands) -> None:
    """Run the scenario and tell its result."""
    clock = RealClock()
    result = Result(name, time_text(clock.wall_ms()), nodes=0)
    stage = None
    try:
        there = cluster()
        result.nodes = len(there.node_ids)
        stage = Stage(
            Path(os.devnull),
            result,
            clock,
            lambda text: hands.tell(say=text),
            seconds=seconds,
            cluster=there,
        )
        SCENARIOS[name].run(stage)
    except Error as error:
        result.error = f"the drill did not come to its end: {error}"
    except Exception:
        result.error = f"the drill failed: {traceback.format_exc(limit=3)}"
    finally:
        try:
            if stage is not None:
                stage.close()
        except Error as error:
            result.check("the cluster is left as it was found", False, str(error))
        hands.tell(result=result.as_dict())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m raftdb.drill.elsewhere", description=__doc__)
    parser.add_argument("name", choices=COMPOSED)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    hands, directory = Hands(sys.stdout, sys.stdin), Path(os.environ["RAFTDB_DIR"])

    def cluster() -> ComposeCluster:
        found = ComposeCluster(directory, hands, RealClock())
        # Of a drill that was cut short.
        found.clean()
        return found

    rehearse(options.name, options.seconds, cluster, hands)


if __name__ == "__main__":
    main()
