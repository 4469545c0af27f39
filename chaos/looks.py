"""what each command that looks at a cluster says while a part of it is cut off, and how soon"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from chaos.cluster import ChaosCluster
from chaos.links import CLIENTS, Links, both_ways
from chaos.server import ToxiproxyServer
from raftdb.drill.cluster import own_environ
from raftdb.runtime.clock import RealClock

TIMEOUT_S = 5.0
"""Given to each command."""
START_S = 10.0
"""What else a command may take on a busy machine, its start included."""
SETTLE_S = 60.0
ASKS = 2
"""Who answers is asked first, then those that it names: each may take its time."""

Pairs = list[tuple[str, str]]


class Cut(NamedTuple):
    """A part that is cut off; `of` and the leader as they are when it begins."""

    name: str
    pairs: Callable[[str, str, list[str]], Pairs]
    """From (a follower, the leader, all)."""
    hides: str = ""
    """Whom clients do not see: `follower`, `leader`."""


def _to(node: str, names: list[str]) -> Pairs:
    return [(other, node) for other in names if other != node]


def _from(node: str, names: list[str]) -> Pairs:
    return [(node, other) for other in names if other != node]


CUTS = (
    Cut("nothing", lambda follower, leader, names: []),
    Cut("a follower, from clients", lambda f, _l, _n: both_ways([(CLIENTS, f)]), "follower"),
    Cut("a follower does not hear clients", lambda f, _l, _n: [(CLIENTS, f)], "follower"),
    Cut("clients do not hear a follower", lambda f, _l, _n: [(f, CLIENTS)], "follower"),
    Cut(
        "the leader, from clients", lambda _f, leader, _n: both_ways([(CLIENTS, leader)]), "leader"
    ),
    Cut("the leader does not hear clients", lambda _f, leader, _n: [(CLIENTS, leader)], "leader"),
    Cut("clients do not hear the leader", lambda _f, leader, _n: [(leader, CLIENTS)], "leader"),
    Cut("a follower, from the others", lambda f, _l, names: both_ways(_to(f, names))),
    Cut("a follower does not hear the others", lambda f, _l, names: _to(f, names)),
    Cut("the others do not hear a follower", lambda f, _l, names: _from(f, names)),
    Cut("the leader, from the others", lambda _f, leader, names: both_ways(_to(leader, names))),
    Cut("the leader does not hear the others", lambda _f, leader, names: _to(leader, names)),
    Cut("the others do not hear the leader", lambda _f, leader, names: _from(leader, names)),
    Cut(
        "a follower, from all",
        lambda f, _l, names: both_ways([*_to(f, names), (CLIENTS, f)]),
        "follower",
    ),
    Cut(
        "the leader, from all",
        lambda _f, leader, names: both_ways([*_to(leader, names), (CLIENTS, leader)]),
        "leader",
    ),
    Cut("all, from each other", lambda _f, _l, names: [p for n in names for p in _to(n, names)]),
    Cut("all, from clients", lambda _f, _l, names: both_ways([(CLIENTS, n) for n in names]), "all"),
)

COMMANDS = (
    ("status",),
    ("topology",),
    ("member", "list"),
    ("leader", "show"),
    ("check",),
    ("upgrade", "plan"),
    ("upgrade", "status"),
    ("upgrade", "check"),
)
OK, FAILED, UNREACHABLE = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Look:
    """One command, while something was cut."""

    cut: str
    command: str
    code: int
    seconds: float
    wrong: str = ""


def expected(cut: Cut, command: str, led: bool) -> tuple[int, ...]:
    """Exit codes that tell the truth. `led`: a majority has a leader that clients can reach."""
    if cut.hides == "all":
        return (UNREACHABLE,)
    whole = not cut.hides and not cut.pairs("f", "l", ["f", "l", "o"])
    if command in ("status", "topology", "leader show"):
        return (OK,) if led else (UNREACHABLE,)
    if command == "member list":
        return (OK,) if led else (UNREACHABLE,)
    if command == "check" and not whole:
        # Who is cut off may lag by entries that it does not get: then it cannot be compared.
        return (UNREACHABLE,) if cut.hides else (OK, UNREACHABLE)
    if command == "upgrade check":
        return (OK, FAILED) if whole else (FAILED,)
    return (OK,)


class Looks:
    """One cluster, and those who look at it."""

    def __init__(self, cluster: ChaosCluster) -> None:
        self._cluster = cluster
        self._clock = RealClock()

    def run(self, cuts: Sequence[Cut], commands: Sequence[tuple[str, ...]]) -> Iterator[Look]:
        """Each command in each cut."""
        for cut in cuts:
            self._settle()
            leader = self._cluster.wait_for_leader(SETTLE_S)
            names = self._cluster.node_ids
            follower = next(name for name in names if name != leader)
            self._cluster.links.cut(cut.pairs(follower, leader, names))
            hidden = {"follower": [follower], "leader": [leader], "all": names}.get(cut.hides, [])
            try:
                led = self._until_known(cut, hidden)
                for command in commands:
                    yield self._look(cut, command, led, hidden)
            finally:
                self._cluster.heal()

    def _settle(self) -> None:
        self._cluster.wait_for("all nodes", self._cluster.whole, SETTLE_S)

    def _until_known(self, cut: Cut, hidden: list[str]) -> bool:
        """Until the nodes have seen the cut: whether there is a leader that clients reach."""
        if cut.name == "all, from each other":
            self._cluster.wait_for("the end of all leaders", lambda: not self._cluster.leader())
            return False
        return self._cluster.wait_for_leader(SETTLE_S) not in hidden

    def _look(self, cut: Cut, command: tuple[str, ...], led: bool, hidden: list[str]) -> Look:
        more = ("--to", "0.2.0") if command == ("upgrade", "plan") else ()
        where = ("--dir", str(self._cluster.directory), "--timeout", f"{TIMEOUT_S:g}")
        bound_s = (ASKS + (command == ("upgrade", "check"))) * TIMEOUT_S + START_S
        begun_s = self._clock.monotonic_s()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "raftdb.cli", *command, *more, *where],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=own_environ(),
                timeout=4 * bound_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Look(cut.name, " ".join(command), -1, 4 * bound_s, "it hangs")
        took_s = self._clock.monotonic_s() - begun_s
        wrong = self._judge(cut, " ".join(command), done, led, hidden)
        if took_s > bound_s:
            wrong.append(f"it took {took_s:.1f} s")
        if wrong:
            wrong.append(f"said: {(done.stdout + done.stderr)[-600:]}")
        return Look(cut.name, " ".join(command), done.returncode, took_s, "; ".join(wrong))

    def _judge(
        self,
        cut: Cut,
        command: str,
        done: subprocess.CompletedProcess[str],
        led: bool,
        hidden: list[str],
    ) -> list[str]:
        wrong = []
        codes = expected(cut, command, led)
        if done.returncode not in codes:
            wrong.append(f"exit code {done.returncode}, not {' or '.join(map(str, codes))}")
        said = done.stdout + done.stderr
        if "Traceback" in said:
            wrong.append("a traceback")
        if cut.hides != "all" and command not in ("member list", "leader show"):
            # Who does not answer is named together with that.
            named = [line for line in said.splitlines() if any(name in line for name in hidden)]
            words = ("answer", "unreachable", "no reply", "closed", "refused", "silent")
            if hidden and not any(word in line for line in named for word in words):
                wrong.append(f"does not say that {', '.join(hidden)} cannot be seen")
        return wrong


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own."""
    parser.add_argument("--cut", action="append", help="part of a cut's name (default: all)")
    parser.add_argument("--look", action="append", help="part of a command (default: all)")
    parser.add_argument("--dir", type=Path, help="work there, and leave everything behind")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Returns the exit code: 4 if anything is wrong."""
    cuts = [one for one in CUTS if _chosen(one.name, options.cut)]
    commands = [one for one in COMMANDS if _chosen(" ".join(one), options.look)]
    home = options.dir or Path(tempfile.mkdtemp(prefix="raftdb-looks-"))
    home.mkdir(parents=True, exist_ok=True)
    found: list[Look] = []
    try:
        with ExitStack() as stack:
            server = stack.enter_context(ToxiproxyServer(home / "toxiproxy.log"))
            cluster = ChaosCluster(home, RealClock(), 3, Links(server.api), archived=False)
            stack.callback(cluster.close)
            cluster.start()
            for one in Looks(cluster).run(cuts, commands):
                found.append(one)
                if not options.json:
                    print(_line(one), flush=True)
    finally:
        if options.dir is None:
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    return 4 if any(one.wrong for one in found) else 0


def _chosen(name: str, parts: Sequence[str] | None) -> bool:
    return not parts or any(part in name for part in parts)


def _line(one: Look) -> str:
    end = f"  WRONG: {one.wrong}" if one.wrong else ""
    return f"{one.cut:36} {one.command:16} exit {one.code}  {one.seconds:4.1f} s{end}"
