"""Bits flipped, blocks zeroed, ends cut off and files removed under a node, stopped and running:
healed, or a clear error; never a wrong answer, and everything acknowledged is there.

python -m tests.e2e.flips                     each kind of file, in each way, once
python -m tests.e2e.flips --rounds 20 --seed 7  more of it, in other places
python -m tests.e2e.flips --kind mark --how zeros --way stopped

Not touched: `-shm`, which is memory and no storage (a start makes it anew), and raftdb.toml, in
which another digit is another setting. Of the write-ahead log a node that runs reads frames without
a look at their checksums (machine/DESIGN.md says what that means): it is harmed while the node is
stopped only.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raftdb.base.errors import Error
from raftdb.node.housekeeping import LOOK_EVERY_S
from tests.e2e.catching_up import SETTINGS
from tests.e2e.cluster import Cluster

ROWS = 600
WAIT_S = 60.0
LOG_LINES = 100_000
EXITS = (2, 4)
"""Configuration, or a promise that cannot be kept: both with the reason in the log."""
BLOCK_BYTES = 512

KINDS = {
    "page": "data/database/generation-*/database.sqlite",
    "header": "data/database/generation-*/database.sqlite",
    "write-ahead log": "data/database/generation-*/database.sqlite-wal",
    "CURRENT": "data/database/CURRENT",
    "checkpoint.note": "data/database/generation-*/checkpoint.note",
    "old segment": "data/journal/*.segment",
    "last segment": "data/journal/*.segment",
    "mark": "data/journal/mark",
    "node.json": "data/node.json",
    "node.json.copy": "data/node.json.copy",
    "damage.json": "data/damage.json",
    "reserve": "data/reserve",
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
HEALED = ("damage_found", "copy_installed", "identity_healed", "log_founded_anew")


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
    """`unharmed`, `healed`, or `stopped, exit code N`."""
    seconds: float = 0.0
    """From the start of the process until that was known; on a busy machine, of no worth."""


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
        if plan.way == "live":
            # What it did not look at is found now, before another member is harmed too.
            self.cluster.kill(name)
            self.cluster.start(name)
            outcome += f"; started again: {self._outcome(name, log_from)}"
            self._check(name)
        return Trial(plan, offset, outcome, took_s)

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
        try:
            with self.cluster.connect_to(name, timeout=5.0) as connection:
                found = connection.execute("SELECT id, text FROM t ORDER BY id").fetchall()
        except Error:
            return
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
                return f"stopped, exit code {code}"
            try:
                status = self.cluster.status(name)
                if status["damage"] is None and status["applied_index"] >= status["commit_index"]:
                    said = node.log_tail(LOG_LINES)[log_from:]
                    healed = any(one in said for one in HEALED)
                    return "healed" if healed else "unharmed"
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
            yield flips.trial(plan)
    finally:
        flips.cluster.kill()
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--how", choices=HOWS, action="append")
    options = parser.parse_args()
    os.environ |= SETTINGS
    plans = [
        Plan(kind, way, how)
        for kind in options.kind or KINDS
        for how in options.how or HOWS
        for way in options.way or WAYS
    ]
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            for trial in run(Path(directory), plans, options.seed + number):
                what = f"{trial.outcome}, {trial.seconds:.1f} s"
                plan = trial.plan
                sys.stdout.write(
                    f"{plan.kind:16} {plan.way:8} {plan.how:6} byte {trial.offset:8} {what}\n"
                )
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
