"""Bits flipped, blocks zeroed, ends cut off and files removed under a node, stopped and running:
healed, or a clear error; never a wrong answer, and everything acknowledged is there.

python -m tests.e2e.flips                          each kind of file, in each way, once
python -m tests.e2e.flips --offsets 30 --seed 7    30 places in each kind of file, ways drawn
python -m tests.e2e.flips --kind mark --how zeros --way stopped

Each change is judged: no wrong answer at any level of read (of the write-ahead log: from the time
on when a node that runs has looked at it), no acknowledged row lost, contents equal, and the damage
named in the log, or without any effect. How the last is known: all rows were read and equal the
acknowledged ones, and `raftdb inspect` of the stopped node finds nothing (`harmless`), or names
what it finds (`latent`: nobody has read it yet, so the scrub will find it). Exit code 4 if anything
is wrong; --json prints every change.

Not touched: raftdb.toml, in which another digit is another setting.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from raftdb.base.errors import Error
from raftdb.node.housekeeping import LOOK_EVERY_S
from raftdb.ops.check import check_nodes
from tests.e2e.catching_up import SETTINGS
from tests.e2e.cluster import Cluster, raftdb

ROWS = 600
WAIT_S = 60.0
LOG_LINES = 100_000
EXITS = (2, 4)
"""Configuration, or a promise that cannot be kept: both with the reason in the log."""
BROKEN = 4
PLANS = 5
"""For one cluster: a node that is harmed more often in an hour waits ever longer before it heals.
"""
BLOCK_BYTES = 4096
LEVELS = ("local", "session", "bounded(60)", "linearizable")

KINDS = {
    "page": "data/database/generation-*/database.sqlite",
    "header": "data/database/generation-*/database.sqlite",
    "write-ahead log": "data/database/generation-*/database.sqlite-wal",
    "shared memory": "data/database/generation-*/database.sqlite-shm",
    "CURRENT": "data/database/CURRENT",
    "checkpoint.note": "data/database/generation-*/checkpoint.note",
    "old segment": "data/journal/*.segment",
    "last segment": "data/journal/*.segment",
    "mark": "data/journal/mark",
    "node.json": "data/node.json",
    "node.json.copy": "data/node.json.copy",
    "damage.json": "data/damage.json",
    "amnesia.json": "data/amnesia.json",
    "quarantine.json": "data/quarantine.json",
    "reserve": "data/reserve",
    "lock": "data/journal/lock",
    "hashes": "data/archive/hashes/*.hashes",
    "certificate": "tls/node.crt",
    "key": "tls/node.key",
    "authority": "tls/ca.crt",
}
"""Each by its path below the node's directory; of several the last, of old segments the first."""
FIXED = ("certificate", "key", "authority")
"""Nobody heals these; they do not change by themselves either."""
WAYS = ("stopped", "running", "live")
"""`stopped`: then it is started; `running`: then it is asked, killed and started; `live`: then it
is asked, told to read its certificates again, and goes on."""
HOWS = ("bit", "zeros", "cut", "gone")
LATE = "write-ahead log"
"""What is not in the file yet is looked at now and then: until that time an answer can be wrong."""
HEALED = (
    *("damage_found", "log_begins_behind_damage", "identity_healed", "member_without_memory"),
    *("log_founded_anew", "copy_installed", "write_ahead_log_damaged", "certificate"),
)
"""Words of the log that name damage, or say what was done about it."""


class Plan(NamedTuple):
    """What is to be done to one file of one member."""

    kind: str
    way: str = "stopped"
    how: str = "bit"


QUICK = (Plan("page", "running"), Plan("CURRENT"), Plan("write-ahead log", "live", "zeros"))


@dataclass(frozen=True, slots=True)
class Trial:
    """One change, and what came of it."""

    plan: Plan
    offset: int
    outcome: str
    """`healed`, `stopped, exit code N`, `harmless`, `latent`, or what is wrong."""
    seconds: float = 0.0
    """From the start of the process until that was known; on a busy machine, of no worth."""
    named: tuple[str, ...] = ()
    """Words in the node's log that speak of it; `status` if its status was seen to."""
    wrong: bool = False


class Flips:
    """A cluster in which members lose bits, one at a time."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._draw = random.Random(seed)
        self._directory = directory
        self.cluster = Cluster(directory / "c")
        self._pause = threading.Event()
        self._rows = 0

    def begin(self) -> None:
        """Some hundred pages, and several segments."""
        self.cluster.start_and_wait()
        with self.cluster.connect() as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text)")
        self._write(ROWS)

    def _write(self, count: int) -> None:
        """Acknowledged rows; each says its own number many times."""
        with self.cluster.connect() as connection:
            for start in range(0, count, 100):
                numbers = range(self._rows, self._rows + min(100, count - start))
                connection.executemany(
                    "INSERT INTO t VALUES (?, ?)", [(n, f"{n} " * 60) for n in numbers]
                )
                self._rows = numbers.stop

    def trial(self, plan: Plan) -> Trial:
        """Change something in one member's file, and see."""
        leader = self.cluster.wait_for_leader()
        name = self._draw.choice([one for one in self.cluster.node_ids if one != leader])
        place = self._directory / "c" / name
        kept = self._directory / "kept"
        stopped = plan.way == "stopped"
        if stopped:
            self.cluster.kill(name)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place, kept)
        else:
            self.cluster.wait_for_node(name)
        path = self._path(place, plan.kind)
        if path is None:
            if stopped:
                self.cluster.start(name)
            return Trial(plan, -1, "there is no such file now")
        before = path.read_bytes() if plan.kind in FIXED else b""
        offset = self._change(path, plan)
        self._said: set[str] = set()
        log_from = len(self.cluster.node(name).log_tail(LOG_LINES))
        if not stopped:
            if plan.kind == LATE:
                self._pause.wait(2 * LOOK_EVERY_S)
            self._use(name)
        if plan.way == "running":
            self.cluster.kill(name)
        begun_s = self.cluster._clock.monotonic_s()
        if plan.way == "live":
            self._reload(name)
        else:
            self.cluster.start(name)
        self._write(20)
        outcome = self._outcome(name, log_from)
        took_s = self.cluster._clock.monotonic_s() - begun_s
        if before:
            path.write_bytes(before)
            path.chmod(0o600)
        if outcome.startswith("stopped"):
            self._restore(name, place, kept, plan)
        self._check(name)
        if outcome == "unharmed":
            outcome = self._words(name, log_from) or self._look_into(name, log_from)
        if plan.way == "live":
            # What it did not look at is found now, before another member is harmed too.
            self.cluster.kill(name)
            self.cluster.start(name)
            outcome += f"; started again: {self._outcome(name, log_from)}"
            self._check(name)
        return Trial(plan, offset, outcome, took_s, tuple(sorted(self._said)))

    def _words(self, name: str, log_from: int) -> str:
        """`healed` once the log speaks of it."""
        said = self.cluster.node(name).log_tail(LOG_LINES)[log_from:]
        self._said |= {one for one in HEALED if one in said}
        return "healed" if self._said else ""

    def _look_into(self, name: str, log_from: int) -> str:
        """Whether what was changed is there still."""
        self.cluster.kill(name)
        found = raftdb("inspect", self._directory / "c" / name, "--json")
        assert found.code in (0, BROKEN), found
        self.cluster.start(name)
        again = self._outcome(name, log_from)
        self._check(name)
        what = "harmless" if found.code == 0 else "latent"
        return what if again == "unharmed" else f"{what}; started again: {again}"

    def _path(self, place: Path, kind: str) -> Path | None:
        found = [one for one in sorted(place.glob(KINDS[kind])) if one.stat().st_size]
        if not found:
            return None
        return found[0] if kind == "old segment" else found[-1]

    def _change(self, path: Path, plan: Plan) -> int:
        """Returns where."""
        size = path.stat().st_size
        if plan.kind == "page" and size > 8192:
            offset = self._draw.randrange(4096, size)
        else:
            offset = self._draw.randrange(min(size, 100) if plan.kind == "header" else size)
        if plan.how == "gone":
            path.unlink()
            return 0
        with path.open("r+b") as file:
            if plan.how == "cut":
                file.truncate(offset)
                return offset
            if plan.how == "zeros":
                offset -= offset % BLOCK_BYTES
                file.seek(offset)
                file.write(bytes(min(BLOCK_BYTES, size - offset)))
                return offset
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ (1 << self._draw.randrange(8))]))
        return offset

    def _reload(self, name: str) -> None:
        """As after `raftdb cert renew`: what does not read must not take the place of what does."""
        pid = self.cluster.node(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGHUP)

    def _use(self, name: str) -> None:
        """Whatever it answers is right; it may refuse."""
        for level in LEVELS:
            try:
                with self.cluster.connect_to(name, timeout=5.0, read=level) as connection:
                    found = connection.execute("SELECT id, text FROM t ORDER BY id").fetchall()
            except Error:
                continue
            self._compare([(row[0], row[1]) for row in found])

    def _compare(self, rows: list[tuple[int, str]]) -> None:
        for place, (number, text) in enumerate(rows):
            assert (number, text) == (place, f"{place} " * 60), f"a wrong answer: row {place}"

    def _outcome(self, name: str, log_from: int) -> str:
        node = self.cluster.node(name)
        clock = self.cluster._clock
        end_s = clock.monotonic_s() + WAIT_S
        while clock.monotonic_s() < end_s:
            if not node.running:
                code = node.process.returncode if node.process is not None else None
                assert code in EXITS, f"exit code {code}\n{node.log_tail(30)}"
                assert "hint" in node.log_tail(30), f"no hint\n{node.log_tail(30)}"
                return f"stopped, exit code {code}"
            try:
                status = self.cluster.status(name)
                if status["damage"] is not None or status.get("log_end"):
                    self._said.add("status")
                elif status["applied_index"] >= status["commit_index"]:
                    return self._words(name, log_from) or "unharmed"
            except Error:
                pass
            self._pause.wait(0.1)
        raise AssertionError(f"{name} neither healed nor stopped\n{node.log_tail(60)}")

    def _restore(self, name: str, place: Path, kept: Path, plan: Plan) -> None:
        """As an operator would who has the disk's image of right before; else from the change on
        nothing can be undone, and the member is out. What nobody heals has been put back."""
        said = self.cluster.node(name).log_tail(30)
        assert plan.way == "stopped" or plan.kind in FIXED, f"{name} stopped for good\n{said}"
        self.cluster.kill(name)
        if plan.kind not in FIXED:
            shutil.rmtree(place)
            shutil.copytree(kept, place)
        self.cluster.start(name)

    def _check(self, name: str) -> None:
        """All that was acknowledged, everywhere."""
        with self.cluster.connect(read="linearizable") as connection:
            count = connection.execute("SELECT count(*) FROM t").fetchall()[0][0]
            assert count == self._rows
        index = self.cluster.status(self.cluster.wait_for_leader())["commit_index"]
        self.cluster.wait_for_index(index)
        # What is read for the first time now may be damaged: an error, and then it is healed.
        rows = self.cluster.wait_for(f"all rows from {name}", lambda: self._read(name), WAIT_S)
        assert len(rows) == self._rows
        self.cluster.wait_for("the archive to have it all", lambda: self._archived(index), WAIT_S)
        nodes = {one: one for one in self.cluster.node_ids}
        report = check_nodes(nodes, lambda one: self.cluster.connect_to(one), 10.0)
        assert not report.diverged, f"contents differ: {report}"

    def _archived(self, index: int) -> bool:
        """Or it says that it has not, and why."""
        found = [
            one for name in self.cluster.node_ids for one in self.cluster.status(name)["archive"]
        ]
        return any(one["archived_index"] >= index or one["error"] for one in found)

    def _read(self, name: str) -> list[tuple[int, str]]:
        with self.cluster.connect_to(name) as connection:
            found = connection.execute("SELECT id, text FROM t ORDER BY id").fetchall()
        rows = [(row[0], row[1]) for row in found]
        self._compare(rows)
        return rows if len(rows) == self._rows else []


def run(directory: Path, plans: Sequence[Plan], seed: int) -> Iterator[Trial]:
    """These, one after the other, on one cluster."""
    archive = {"RAFTDB_ARCHIVE__DESTINATIONS": (directory / "a").as_uri()}
    before = {name: os.environ.get(name) for name in archive}
    os.environ |= archive
    flips = Flips(directory, seed)
    try:
        flips.begin()
        for plan in plans:
            try:
                yield flips.trial(plan)
            except AssertionError as error:
                # What comes after it would be judged by a cluster that is broken already.
                yield Trial(plan, -1, f"WRONG: {error}", wrong=True)
                return
    finally:
        flips.cluster.kill()
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, help="each with a cluster of its own")
    parser.add_argument("--offsets", type=int, help="so many of each kind; else all hows and ways")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--how", choices=HOWS, action="append")
    parser.add_argument("--json", action="store_true", help="at the end, besides the lines")
    options = parser.parse_args()
    os.environ |= SETTINGS
    kinds, hows, ways = options.kind or KINDS, options.how or HOWS, options.way or WAYS
    every = [(how, way) for how in hows for way in ways]
    trials: list[Trial] = []
    for number in range(options.rounds):
        seed = options.seed + number
        draw = random.Random(seed)
        plans = [Plan(kind, way, how) for kind in kinds for how, way in every]
        if options.offsets:
            drawn = [(kind, *draw.choice(every)) for kind in kinds for _ in range(options.offsets)]
            plans = [Plan(kind, way, how) for kind, how, way in drawn]
        for start in range(0, len(plans), PLANS):
            with tempfile.TemporaryDirectory() as directory:
                for trial in run(Path(directory), plans[start : start + PLANS], seed + start):
                    trials.append(trial)
                    _say(_line(trial))
    _say(_table(trials))
    if options.json:
        _say(json.dumps([asdict(one) for one in trials], indent=1))
    return BROKEN if any(one.wrong for one in trials) else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _line(one: Trial) -> str:
    plan, named = one.plan, f" ({', '.join(one.named)})" if one.named else ""
    return (
        f"{plan.kind:16} {plan.way:8} {plan.how:6} byte {one.offset:8} {one.outcome}{named}, "
        f"{one.seconds:.1f} s"
    )


def _table(trials: Sequence[Trial]) -> str:
    """By kind of file: what came of how many changes, and the longest time."""
    lines = [""]
    for kind in dict.fromkeys(one.plan.kind for one in trials):
        found = [one for one in trials if one.plan.kind == kind]
        counts = Counter(one.outcome for one in found)
        told = ", ".join(f"{outcome}: {count}" for outcome, count in counts.most_common())
        longest_s = max(one.seconds for one in found)
        lines.append(f"{kind:16} {len(found):4}  {told}; {longest_s:.1f} s at most")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
