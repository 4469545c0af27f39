"""Bring docker-compose.yml up, use it, take regions away, restore from its archive, take it down.

    python -m tests.compose                  three regions
    python -m tests.compose --five           five nodes in four regions
    python -m tests.compose --replica        three regions, and a read replica in a fourth one
    python -m tests.compose --keep           leave it running
    python -m tests.compose --with docker-compose      1.29, where v2 is there too
    python -m tests.compose --v2             v2, which is built with Go where there is none

Needs docker with compose v2, or docker-compose 1.29. Exit code 0 when everything held, else 1 with
what did not, and the containers' last lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.compose.v2 import compose_v2

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "raftdb-try"
ARCHIVE = "s3://raftdb/cluster?endpoint=http://store:8333&region=us-east-1"
REPLICA = "r1"
REGIONS = {"n1": "virginia", "n2": "ireland", "n3": "frankfurt", "n4": "oregon", "n5": "oregon"}
REPLICA_URL = (
    "raftdb://r1:7052/?pin=1&prefer=r1"
    "&ca=/client/ca.crt&cert=/client/client.crt&key=/client/client.key"
)
"""It alone, so that nobody else answers."""
LEVELS = ("linearizable", "session", "bounded(30)", "local")
HEALTHY_S = 300.0

ARCHIVED_S = 120.0
_PAUSE_S = 0.5


class Failed(Exception):
    """Something that compose should show is not so."""


class Compose:
    """One project of docker compose."""

    def __init__(self, profiles: Sequence[str], command: Sequence[str]) -> None:
        chosen = {"COMPOSE_PROFILES": ",".join(profiles), "DOCKER_BUILDKIT": "0"}
        self._environment = {**os.environ, **chosen}
        self._command = [*command, "-p", PROJECT]
        self._containers: dict[str, str] = {}

    def __call__(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Run a command of compose; its output. Raises Failed when it fails."""
        return _run([*self._command, *arguments], self._environment, timeout_s)

    def docker(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Run docker itself, which takes less time than compose; its output. Raises Failed."""
        return _run(["docker", *arguments], self._environment, timeout_s)

    def container(self, service: str) -> str:
        """The id of a service's container. Raises Failed when there is none."""
        if service not in self._containers:
            found = self("ps", "-q", service).split()
            if not found:
                raise Failed(f"{service} has no container")
            self._containers[service] = found[0]
        return self._containers[service]

    def kill(self, *services: str) -> None:
        """SIGKILL."""
        self.docker("kill", *map(self.container, services))

    def start(self, *services: str) -> None:
        """Again."""
        self.docker("start", *map(self.container, services))

    def client(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """A command in the client's container."""
        return self.docker("exec", self.container("client"), *arguments, timeout_s=timeout_s)

    def sql(self, text: str) -> str:
        """The rows of a statement, as CSV without a header."""
        said = self.client("raftdb", "sql", "--format", "csv", "--no-headers", "-c", text)
        return said.strip()

    def health(self, service: str) -> str:
        """What docker says of a container's health."""
        form = "{{.State.Health.Status}}"
        return self.docker("inspect", "-f", form, self.container(service)).strip()


def _run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def find_compose(given: str) -> list[str]:
    """The command that was given, or the first that works; says which. Raises Failed."""
    for command in [given.split()] if given else (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run(
                [*command, "version"], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            say(f"{' '.join(command)}: {done.stdout.splitlines()[0]}")
            return command
    raise Failed(f"{given or 'neither docker compose nor docker-compose'} works here")


def until(what: str, limit_s: float, look: Callable[[], bool]) -> None:
    """Look until it is so. Raises Failed after `limit_s`."""
    give_up = time.monotonic() + limit_s
    while True:
        try:
            if look():
                return
            last = ""
        except Failed as error:
            last = f": {error}"
        if time.monotonic() > give_up:
            raise Failed(f"not so after {limit_s:g} s: {what}{last}")
        threading.Event().wait(_PAUSE_S)


def say(text: str) -> None:
    """One line of progress, with the time."""
    print(f"{time.strftime('%T')}  {text}", flush=True)


def try_it(compose: Compose, nodes: Sequence[str]) -> None:
    """Everything that the file's own first lines promise. Raises Failed."""
    say("docker compose up: builds the image the first time")
    compose("up", "-d", "--build", timeout_s=600.0)
    for node in nodes:
        until(f"{node} is healthy", HEALTHY_S, lambda node=node: compose.health(node) == "healthy")
    until("the lines have their latency", HEALTHY_S, lambda: _has_latency(compose))
    say("every node is healthy; every path between regions has its latency")
    compose.sql("CREATE TABLE place (id INTEGER PRIMARY KEY, name TEXT)")
    rows = 0
    for loss in (kill_a_region, cut_a_region):
        rows = _write(compose, rows)
        rows = loss(compose, rows, nodes)
    if REPLICA in nodes:
        rows = replica(compose, rows)
    until("all nodes hold the same", HEALTHY_S, lambda: _equal(compose))
    _restored(compose, rows)


def kill_a_region(compose: Compose, rows: int, nodes: Sequence[str]) -> int:
    """SIGKILL for all of the leader's region; writes go on; it comes back."""
    leader = compose.client("raftdb", "leader", "show").strip()
    gone = [node for node in nodes if REGIONS.get(node) == REGIONS[leader]]
    compose.kill(*gone)
    began = time.monotonic()
    rows = _write(compose, rows)
    say(f"{', '.join(gone)} killed (with the leader): {time.monotonic() - began:.1f} s to write on")
    compose.start(*gone)
    return rows


def cut_a_region(compose: Compose, rows: int, _nodes: Sequence[str]) -> int:
    """All lines of the leader's region cut; writes go on elsewhere; they heal."""
    leader = compose.client("raftdb", "leader", "show").strip()
    place = REGIONS[leader]
    compose.client("raftdb", "chaos", "wan", "--cut", place)
    began = time.monotonic()
    rows = _write(compose, rows)
    say(f"{place} cut off (with the leader): {time.monotonic() - began:.1f} s to write on")
    compose.client("raftdb", "chaos", "wan", "--heal")
    return rows


def replica(compose: Compose, rows: int) -> int:
    """It is a learner; answers at every read level; nobody waits for it; and it answers from its
    own copy when there is no majority."""
    told = json.loads(compose.client("raftdb", "member", "list", "--json"))["members"]
    roles = {one["node_id"]: one["role"] for one in told}
    if roles[REPLICA] != "learner" or sorted(roles.values())[1:] != ["voter"] * (len(roles) - 1):
        raise Failed(f"{REPLICA} is to be the only learner: {roles}")
    compose.client("raftdb", "chaos", "wan", "--cut", "oregon")
    rows = _write(compose, rows)
    compose.client("raftdb", "chaos", "wan", "--heal")
    for level in LEVELS:
        until(
            f"{REPLICA} answers {level} with {rows} rows",
            HEALTHY_S,
            lambda level=level: _replica_has(compose, level) == rows,
        )
    until("the shell reads from r1 by a directory", HEALTHY_S, lambda: _near(compose))
    compose.kill("n1", "n2")
    until(
        f"without a majority {REPLICA} answers from its own copy",
        HEALTHY_S,
        lambda: _replica_has(compose, "local") == rows,
    )
    compose.start("n1", "n2")
    say(f"{REPLICA} answers at every read level, and without a majority from its own copy")
    return rows


def _near(compose: Compose) -> bool:
    shell = ("raftdb", "sql", "--dir", "/client/r1")
    return "near" in compose.client(*shell, "-c", "SELECT 'near'")


def _replica_has(compose: Compose, level: str) -> int:
    asked = ("--read", level, "--format", "csv", "--no-headers", "--timeout", "20")
    count = ("-c", "SELECT count(*) FROM place")
    return int(compose.client("raftdb", "sql", REPLICA_URL, *asked, *count))


def _write(compose: Compose, rows: int) -> int:
    compose.sql(f"INSERT INTO place VALUES ({rows + 1}, 'row {rows + 1}')")
    found = compose.sql("SELECT count(*) FROM place")
    if found != str(rows + 1):
        raise Failed(f"{rows + 1} rows were acknowledged, {found} are there")
    return rows + 1


def _has_latency(compose: Compose) -> bool:
    lines = json.loads(compose.client("raftdb", "chaos", "wan", "--json"))["lines"]
    return all(line["rtt_ms"] > 0 and line["up"] for line in lines)


def _equal(compose: Compose) -> bool:
    return "equal" in compose.client("raftdb", "check")


def _restored(compose: Compose, rows: int) -> None:
    """The archive alone gives all of it back."""
    count = "import sqlite3; print(sqlite3.connect('/tmp/copy').execute(%r).fetchone()[0])"

    def whole() -> bool:
        compose.client("rm", "-f", "/tmp/copy")
        keys = ("--key-file", "/client/archive.keys")
        compose.client("raftdb", "restore", "--from", ARCHIVE, *keys, "--to", "/tmp/copy")
        said = compose.client("python", "-c", count % "SELECT count(*) FROM place")
        return said.strip() == str(rows)

    until(f"a restore from the archive has all {rows} rows", ARCHIVED_S, whole)
    say(f"restored from the archive: all {rows} rows")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--five", action="store_true", help="five nodes in four regions")
    parser.add_argument("--replica", action="store_true", help="with a read replica")
    parser.add_argument("--with", dest="command", default="", help="such as docker-compose")
    parser.add_argument("--v2", action="store_true", help="build compose v2, and use it")
    parser.add_argument("--keep", action="store_true", help="leave it running")
    options = parser.parse_args()
    nodes = list(REGIONS) if options.five else list(REGIONS)[:3]
    profiles = ["five"] if options.five else []
    if options.replica:
        nodes.append(REPLICA)
        profiles.append("replica")
    compose = None
    try:
        command = str(compose_v2()) if options.v2 else options.command
        began = time.monotonic()
        compose = Compose(profiles, find_compose(command))
        compose("down", "--volumes", timeout_s=120.0)
        try_it(compose, nodes)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        if compose is not None:
            print(compose("ps"), compose("logs", "--tail", "15"), file=sys.stderr)
        return 1
    finally:
        if compose is not None and not options.keep:
            compose("down", "--volumes", timeout_s=120.0)
    say(f"all of it held, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
