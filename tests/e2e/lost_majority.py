"""A majority is lost, and the logs of those that are left have bad ends: `raftdb recover`, as
docs/operations.md says, on real processes.

python -m tests.e2e.lost_majority                   every end, with one and two survivors of three
python -m tests.e2e.lost_majority --end corrupt --archive yes --survivors 1 --seed 7

Under a client that writes one row after the other all nodes are killed; disks are lost, and the
log of the first survivor is damaged. Then: the plan, the recovery, the start, all rows, a node that
comes back by `raftdb rejoin`. Judged: rows without a hole, from the first one on; all that were
acknowledged, where the plan says that nothing is lost; all that any survivor's database had applied
or the archive had; writes again, and equal contents. Exit code 4 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raftdb.base.errors import Error
from raftdb.ops.check import check_nodes
from tests.e2e.catching_up import SETTINGS
from tests.e2e.cluster import Cluster, Finished, raftdb

ROWS = 150
"""Some segments of log."""
BROKEN = 4
REFUSED = ("nothing_to_recover",)
"""Where there is nothing to go on from, the archive alone has to do."""


def _segments(data: Path) -> list[Path]:
    return sorted((data / "journal").glob("*.segment"))


def _sound(_data: Path, _draw: random.Random) -> None:
    pass


def _torn(data: Path, draw: random.Random) -> None:
    last = _segments(data)[-1]
    os.truncate(last, last.stat().st_size - draw.randint(1, 60))


def _short(data: Path, draw: random.Random) -> None:
    last = _segments(data)[-1]
    os.truncate(last, draw.randint(0, last.stat().st_size - 1))


def _corrupt(data: Path, draw: random.Random) -> None:
    last = _segments(data)[-1]
    place = draw.randrange(last.stat().st_size)
    with last.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ (1 << draw.randrange(8))]))


def _zeros(data: Path, draw: random.Random) -> None:
    last = _segments(data)[-1]
    size = last.stat().st_size
    place = draw.randrange(size)
    with last.open("r+b") as file:
        file.seek(place)
        file.write(bytes(min(4096, size - place)))


def _last_missing(data: Path, _draw: random.Random) -> None:
    _segments(data)[-1].unlink()


def _old_missing(data: Path, draw: random.Random) -> None:
    draw.choice(_segments(data)[:-1]).unlink()


def _mark(data: Path, _draw: random.Random) -> None:
    os.truncate(data / "journal" / "mark", 10)


def _no_journal(data: Path, _draw: random.Random) -> None:
    for path in (data / "journal").iterdir():
        path.unlink()


ENDS: dict[str, Callable[[Path, random.Random], None]] = {
    "sound": _sound,
    "torn": _torn,
    "short": _short,
    "corrupt": _corrupt,
    "zeros": _zeros,
    "last-missing": _last_missing,
    "old-missing": _old_missing,
    "mark": _mark,
    "no-journal": _no_journal,
}


class Case(NamedTuple):
    """What is left of three nodes."""

    end: str
    survivors: int = 1
    archived: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    case: Case
    acknowledged: int
    kept: int
    may_be_lost: bool
    text: str
    wrong: str = ""


class Loss:
    """One cluster that loses its majority."""

    def __init__(self, directory: Path, case: Case, seed: int) -> None:
        self._case = case
        self._draw = random.Random(f"{seed} {case}")
        self._home = directory
        self._archive = (directory / "archive").as_uri()
        self.cluster = Cluster(directory / "c", 3)
        self._acknowledged = 0

    def run(self) -> Outcome:
        """Raises AssertionError when anything is wrong."""
        self.cluster.start_and_wait()
        with self.cluster.connect() as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text)")
            for number in range(ROWS):
                connection.execute("INSERT INTO t VALUES (?, ?)", (number, f"{number} " * 300))
                self._acknowledged += 1
                if number == ROWS // 2 and self._case.archived:
                    self.cluster.wait_for("the archive", self._has_archived, 60.0)
        before = self._applied()
        self.cluster.kill()
        alive = [f"n{number + 1}" for number in range(self._case.survivors)]
        for name in self.cluster.node_ids:
            if name not in alive:
                shutil.rmtree(self._place(name) / "data")
        ENDS[self._case.end](self._place("n1") / "data", self._draw)
        places = [self._place(name) for name in alive]
        plan = self._command("recover", *places, "--json")
        if plan.code != 0:
            assert plan.code == 2, plan
            assert any(code in plan.err for code in REFUSED), plan
            assert "hint" in plan.err, plan
            return self._outcome(0, True, f"refused: {plan.err.strip().splitlines()[0]}")
        facts = plan.json()
        self._recover(places, facts)
        kept = self._count("n1")
        floor = max(count for name, count in before.items() if name in alive)
        assert kept >= floor, f"{kept} rows, and a survivor had applied {floor}"
        if not facts["may_be_lost"]:
            assert kept == self._acknowledged, f"{kept} rows of {self._acknowledged}"
        self._go_on(kept, alive)
        return self._outcome(kept, facts["may_be_lost"], f"log of {facts['log_of']}")

    def _outcome(self, kept: int, may_be_lost: bool, text: str) -> Outcome:
        return Outcome(self._case, self._acknowledged, kept, may_be_lost, text)

    def _place(self, name: str) -> Path:
        return self.cluster.directory / name

    def _command(self, *arguments: str | Path) -> Finished:
        archive = {"RAFTDB_ARCHIVE__DESTINATIONS": self._archive} if self._case.archived else {}
        return raftdb(*arguments, env=archive)

    def _has_archived(self) -> bool:
        found = [self.cluster.status(name) for name in self.cluster.node_ids]
        return any(
            one["archived_index"] >= status["commit_index"] > 0
            for status in found
            for one in status["archive"]
        )

    def _applied(self) -> dict[str, int]:
        """How many rows each node's database has."""
        return {name: self._count(name, wait=False) for name in self.cluster.node_ids}

    def _count(self, name: str, *, wait: bool = True) -> int:
        def rows() -> list[tuple[int, str]]:
            with self.cluster.connect_to(name) as connection:
                found = connection.execute("SELECT id, text FROM t ORDER BY id").fetchall()
            return [(row[0], row[1]) for row in found]

        found = self.cluster.wait_for(f"rows of {name}", rows, 60.0) if wait else rows()
        expected = [(number, f"{number} " * 300) for number in range(len(found))]
        assert found == expected, f"{name} has a hole, or another row"
        return len(found)

    def _recover(self, places: list[Path], facts: dict[str, object]) -> None:
        keep = ("--keep", "n3")
        bundle = self._home / "bundle"
        done = self._command("recover", *places, *keep, "--bundle", bundle, "--yes", "--json")
        assert done.code == 0, done
        again = done.json()
        for name in ("last_index", "may_be_lost", "log_of", "from_archive"):
            assert again[name] == facts[name], f"the plan said otherwise: {facts} {again}"
        place = self._place("n3")
        lost = ("--lost-disk",)
        rejoined = self._command("rejoin", bundle, place, *lost, "--json")
        assert rejoined.code == 0, rejoined
        alive = [path.name for path in places]
        self.cluster.start(*alive, "n3")

    def _go_on(self, kept: int, alive: list[str]) -> None:
        names = [*alive, "n3"]
        with self.cluster.connect(timeout=60.0) as connection:
            for number in range(kept, kept + 20):
                connection.execute("INSERT INTO t VALUES (?, ?)", (number, f"{number} " * 300))

        def equal() -> bool:
            report = check_nodes(
                {one: one for one in names}, lambda one: self.cluster.connect_to(one), 10.0
            )
            assert not report.diverged, f"contents differ: {report}"
            return report.equal and report.complete

        self.cluster.wait_for("equal contents", equal, 60.0)
        assert self._count("n3") == kept + 20


def run(directory: Path, cases: list[Case], seed: int) -> Iterator[Outcome]:
    """Each on a cluster of its own."""
    for number, case in enumerate(cases):
        place = directory / str(number)
        place.mkdir()
        if case.archived:
            os.environ["RAFTDB_ARCHIVE__DESTINATIONS"] = (place / "archive").as_uri()
        loss = Loss(place, case, seed)
        try:
            yield loss.run()
        except (AssertionError, Error) as error:
            yield Outcome(case, loss._acknowledged, 0, False, "", f"{error}\n{loss.cluster.logs()}")
        finally:
            loss.cluster.kill()
            os.environ.pop("RAFTDB_ARCHIVE__DESTINATIONS", None)
            shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--end", choices=ENDS, action="append")
    parser.add_argument("--survivors", type=int, choices=(1, 2), action="append")
    parser.add_argument("--archive", choices=("yes", "no"), action="append")
    options = parser.parse_args()
    os.environ |= SETTINGS
    cases = [
        Case(end, survivors, archive == "yes")
        for end in options.end or ENDS
        for survivors in options.survivors or (1, 2)
        for archive in options.archive or ("no", "yes")
    ]
    bad = False
    with tempfile.TemporaryDirectory() as directory:
        for one in run(Path(directory), cases, options.seed):
            case, bad = one.case, bad or bool(one.wrong)
            lost = "may be lost" if one.may_be_lost else "nothing is lost"
            archive = "yes" if case.archived else "no"
            sys.stdout.write(
                f"{case.end:13} {case.survivors} of 3, archive {archive:3} "
                f"{one.kept} of {one.acknowledged} rows, said: {lost}; {one.text}"
                f"{'  WRONG: ' + one.wrong if one.wrong else ''}\n"
            )
            sys.stdout.flush()
    return BROKEN if bad else 0


if __name__ == "__main__":
    sys.exit(main())
