"""`raftdb demo`: makes the cluster, tells the story, checks, reports."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console

from raftdb.base.errors import Error
from raftdb.base.exits import ExitCode
from raftdb.client import Connection, connect
from raftdb.demo.check import broken_promises, check_nodes
from raftdb.demo.data import load_airports
from raftdb.demo.ledger import Ledger
from raftdb.demo.processes import ProcessCluster
from raftdb.demo.report import Outcome, as_dict, show
from raftdb.demo.screen import NodeView, Screen, View
from raftdb.demo.story import Story
from raftdb.demo.workload import DEADLINE_S, SCHEMA, LoadClient
from raftdb.ops.found import LocalCluster, found_local

CLIENTS = 6
SECONDS = 24
LOCATIONS = (
    "eu/madrid",
    "us/virginia",
    "ap/tokyo",
    "eu/dublin",
    "us/oregon",
    "ap/sydney",
    "sa/lima",
)


class Demo:
    """One run of the demo in one directory."""

    def __init__(self, directory: Path, nodes: int, seconds: int, quiet: bool) -> None:
        self.directory = directory
        self._seconds = seconds
        self._quiet = quiet
        self._founded: LocalCluster = found_local(directory, locations=LOCATIONS[:nodes])
        self.cluster = ProcessCluster(directory)
        self.ledger = Ledger(CLIENTS)
        self.outcome = Outcome(nodes=nodes, clients=CLIENTS)
        self._view = View(
            nodes=[NodeView(member.node_id, member.location) for member in self._founded.members]
        )

    @property
    def url(self) -> str:
        """How clients connect to the whole cluster."""
        return self._founded.url

    def run(self) -> None:
        """From the first start to the verdict. Raises Error when the cluster can't be used."""
        with Screen(self._view, self._quiet) as screen:
            story = Story(
                self.cluster, self._connect_to, self.ledger, self._view, screen, self.outcome
            )
            self._view.phase = "starting"
            screen.event(f"{len(self.cluster.nodes)} nodes in {self.directory}, mutual TLS")
            self.cluster.start()
            with story:
                story.until_led()
                leader = story.leader()
                assert leader is not None
                screen.event(f"{leader.node_id} ({leader.location}) leads")
                airports = self._load(screen)
                self._tell(story, screen, airports)
            self._view.phase = "checking"
            self._check(screen)

    def _load(self, screen: Screen) -> list[str]:
        self._view.phase = "loading the world's airports"
        begin_s = time.monotonic()
        with connect(self.url, timeout=30.0) as connection:
            airports = load_airports(connection)
            for statement in SCHEMA:
                connection.execute(statement)
        self.outcome.rows_loaded = len(airports)
        self.outcome.load_s = time.monotonic() - begin_s
        screen.event(f"{len(airports):,} airports loaded in {self.outcome.load_s:.1f} s")
        return airports

    def _tell(self, story: Story, screen: Screen, airports: list[str]) -> None:
        stop = threading.Event()
        clients = [
            LoadClient(record, self.ledger, self._connect_load, airports, stop)
            for record in self.ledger.records
        ]
        begin_s = time.monotonic()
        for client in clients:
            client.start()
        part_s = self._seconds / 6
        try:
            self._view.phase = "a steady load"
            screen.event(f"{len(clients)} clients write and read")
            story.run_load(part_s)
            for _ in range(2):
                self._view.phase = "the leader is killed"
                victim = story.kill_leader(part_s)
                self._view.phase = "the killed node comes back"
                story.bring_back(victim)
                story.run_load(part_s)
        finally:
            stop.set()
            for client in clients:
                client.join(DEADLINE_S + 5)
        self.outcome.loaded_s = time.monotonic() - begin_s
        for client in clients:
            if client.is_alive():
                self.ledger.records[0].failures.append(f"{client.name} hangs")

    def _check(self, screen: Screen) -> None:
        screen.event("checking every acknowledged row on every node")
        self.outcome.verdicts = check_nodes(
            self.ledger, [node.node_id for node in self._view.nodes], self._connect_to
        )
        self.outcome.broken = broken_promises(self.ledger, self.outcome.verdicts)

    def _connect_load(self) -> Connection:
        return connect(self.url, timeout=DEADLINE_S)

    def _connect_to(self, node_id: str) -> Connection:
        """A connection to that node and no other; its reads are local."""
        return connect(self._founded.node_url(node_id), timeout=DEADLINE_S, read="local", pin=True)


def run(
    *,
    keep: bool = False,
    seconds: int | None = None,
    nodes: int = 3,
    directory: Path | None = None,
    as_json: bool = False,
) -> int:
    """Run the demo. Returns an exit code: 0, or 4 when a promise was broken."""
    given = directory is not None
    home = directory or Path(tempfile.mkdtemp(prefix="raftdb-demo-"))
    console = Console(stderr=as_json)
    demo: Demo | None = None
    try:
        demo = Demo(home, nodes, seconds or SECONDS, quiet=as_json)
        demo.run()
        found = as_dict(demo.outcome, demo.ledger)
        if as_json:
            sys.stdout.write(json.dumps(found) + "\n")
        else:
            show(console, found)
        broken = bool(demo.outcome.broken)
    except Error:
        if demo is not None:
            for node in demo.cluster.nodes.values():
                console.print(f"[bold]{node.node_id}[/], the end of its log:", highlight=False)
                console.print(node.log_tail(), markup=False, highlight=False)
        raise
    finally:
        if demo is not None and not keep:
            demo.cluster.stop()
        if not keep and not given:
            shutil.rmtree(home, ignore_errors=True)
    if keep:
        _say_how_to_go_on(console, demo)
    return int(ExitCode.BROKEN if broken else ExitCode.OK)


def _say_how_to_go_on(console: Console, demo: Demo) -> None:
    first = next(iter(demo.cluster.nodes.values()))
    raftdb = Path(sys.argv[0]) if sys.argv[0].endswith("raftdb") else Path("raftdb")
    lines = [
        "",
        "The cluster is still running. To go on:",
        f"  a shell        {raftdb} sql --dir {demo.directory}",
        f"  its state      {raftdb} status --dir {demo.directory}",
        f"  from Python    raftdb.connect({demo.url!r})",
        f"  kill a node    kill -9 {first.pid}    # {first.node_id}",
        f"  start it again {raftdb} start --config {first.directory / 'raftdb.toml'}",
        "  stop it all    kill "
        + " ".join(str(node.pid) for node in demo.cluster.nodes.values() if node.pid),
        f"  remove it      rm -r {demo.directory}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
