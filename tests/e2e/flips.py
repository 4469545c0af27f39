"""Bits flipped in the files of a node, stopped and running: healed, or a clear error; never a wrong
answer, and everything acknowledged is there.

python -m tests.e2e.flips                     each kind of file, stopped and running, once
python -m tests.e2e.flips --rounds 20 --seed 7  more of it, other bits

Not flipped: `-shm`, which is memory and no storage (a start makes it anew), and raftdb.toml, in
which another digit is another setting.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raftdb.base.errors import Error
from tests.e2e.catching_up import SETTINGS
from tests.e2e.cluster import Cluster

ROWS = 600
WAIT_S = 40.0
LOG_LINES = 100_000
EXITS = (2, 4)
"""Configuration, or a promise that cannot be kept: both with the reason in the log."""

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
    "certificate": "tls/node.crt",
    "key": "tls/node.key",
}
"""Each by its path below the node's directory; of several the last, of old segments the first."""
HEALED = ("damage_found", "copy_installed", "identity_healed")
QUICK = (("page", True), ("CURRENT", False))


@dataclass(frozen=True)
class Trial:
    """One bit, and what came of it."""

    kind: str
    running: bool
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

    def trial(self, kind: str, running: bool) -> Trial:
        """Flip one bit of one member's file, and see."""
        leader = self.cluster.wait_for_leader()
        name = self._draw.choice([one for one in self.cluster.node_ids if one != leader])
        place = self._directory / "c" / name
        kept = self._directory / "kept"
        if running:
            self.cluster.wait_for_node(name)
        else:
            self.cluster.kill(name)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place, kept)
        offset = self._flip(place, kind)
        if offset < 0:
            if not running:
                self.cluster.start(name)
            return Trial(kind, running, offset, "there is no such file now")
        log_from = len(self.cluster.node(name).log_tail(LOG_LINES))
        if running:
            self._use(name)
            self.cluster.kill(name)
        begun_s = self.cluster._clock.monotonic_s()
        self.cluster.start(name)
        self._write(20)
        outcome = self._outcome(name, log_from)
        took_s = self.cluster._clock.monotonic_s() - begun_s
        if outcome.startswith("stopped"):
            self._restore(name, place, kept, running=running)
        self._check(name)
        return Trial(kind, running, offset, outcome, took_s)

    def _flip(self, place: Path, kind: str) -> int:
        found = [one for one in sorted(place.glob(KINDS[kind])) if one.stat().st_size]
        if not found:
            return -1
        path = found[0] if kind == "old segment" else found[-1]
        size = path.stat().st_size
        if kind == "page" and size > 8192:
            offset = self._draw.randrange(4096, size)
        else:
            offset = self._draw.randrange(min(size, 100) if kind == "header" else max(size, 1))
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ (1 << self._draw.randrange(8))]) if byte else b"")
        return offset

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

    def _restore(self, name: str, place: Path, kept: Path, *, running: bool) -> None:
        """As an operator would who has the disk's image of right before; else from the flip on
        nothing can be undone, and the member is out."""
        assert not running, f"{name} stopped for good\n{self.cluster.node(name).log_tail(30)}"
        self.cluster.kill(name)
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

    def _read(self, name: str) -> list[tuple[int, str]]:
        with self.cluster.connect_to(name) as connection:
            found = connection.execute("SELECT id, text FROM t ORDER BY id").fetchall()
        rows = [(row[0], row[1]) for row in found]
        self._compare(rows)
        return rows if len(rows) == self._rows else []


def run(directory: Path, trials: Sequence[tuple[str, bool]], seed: int) -> Iterator[Trial]:
    """These, one after the other, on one cluster."""
    flips = Flips(directory, seed)
    try:
        flips.begin()
        for kind, running in trials:
            yield flips.trial(kind, running)
    finally:
        flips.cluster.kill()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    options = parser.parse_args()
    os.environ |= SETTINGS
    kinds = options.kind or list(KINDS)
    # What stops a running node for good has no image to go back to.
    final = ("certificate", "key")
    trials = [(kind, way) for kind in kinds for way in (False, True) if not (way and kind in final)]
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            for trial in run(Path(directory), trials, options.seed + number):
                how = "running" if trial.running else "stopped"
                what = f"{trial.outcome}, {trial.seconds:.1f} s"
                sys.stdout.write(f"{trial.kind:16} {how}  byte {trial.offset:8} {what}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
