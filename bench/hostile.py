"""What is meant to bring a cluster down, and what others notice of it: `python -m bench hostile`.

One client after the other sends something hostile, as a read and as a write, while two others do
small writes and small reads all the time. For each: the answer, how long it took, the others'
latency beside that of a calm time right before, elections, and the memory of the largest node.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.errors import BenchError
from bench.figures import percentile
from bench.processes import die_with_parent
from bench.targets.raftdb import REPOSITORY

MIB = 1 << 20
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
BILLION = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000)"
PAUSE_S = 0.005
"""Between two requests of the others."""
START_S = 30.0
READ_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 30.0
RSS_MB_MAX = 1_000.0
TIMES_MAX = 2.0
"""The others' p99 beside that of a calm time."""
LOOKS = 20
FLOOR_MS = 25.0
"""Below this a p99 is the machine's own noise."""


def values(count: int) -> str:
    """A query with so many parameters."""
    return f"SELECT count(*) FROM (VALUES {','.join(['(?)'] * count)})"


def cases() -> dict[str, tuple[str, Any]]:
    """Name to query and parameters. As a write, its result is inserted. A list of parameters is
    an executemany, which is a write alone."""
    many = ",".join(["1"] * 1_000_000)
    return {
        "endless recursion": (f"{ENDLESS} SELECT max(i) FROM n", ()),
        "endless rows": (f"{ENDLESS} SELECT i FROM n", ()),
        "cross join of millions": ("SELECT count(*) FROM big a, big b, big c", ()),
        "GROUP BY of a billion": (f"{BILLION} SELECT count(*) FROM n GROUP BY i", ()),
        "blob of 100 MB": ("SELECT ?", (b"x" * (100 * MIB),)),
        "32,766 parameters": (values(32_766), tuple(range(32_766))),
        "32,767 parameters": (values(32_767), tuple(range(32_767))),
        "32,768 parameters": (values(32_768), tuple(range(32_768))),
        "statement of 1 MiB + 1": (f"SELECT 7 --{'x' * (MIB - 10)}", ()),
        "row of 40 MB": ("SELECT zeroblob(40000000)", ()),
        "100,000 parentheses": (f"SELECT {'(' * 100_000}1{')' * 100_000}", ()),
        "LIKE of 200 KB": ("SELECT 'x' LIKE ?", ("%a" * 100_000,)),
        "GLOB of 200 KB": ("SELECT 'x' GLOB ?", ("*a" * 100_000,)),
        "LIKE, 40 KB on 500 KB": ("SELECT ? LIKE ?", ("a" * 500_000, "%" + "a" * 40_000 + "b")),
        "zeroblob(2^31)": ("SELECT zeroblob(2147483648)", ()),
        "printf('%*d') of 2 GB": ("SELECT printf('%*d', 2147483647, 1)", ()),
        "printf('%*d') of 60 MB": ("SELECT length(printf('%*d', 60000000, 1))", ()),
        "JSON of a million": ("SELECT sum(value) FROM json_each(?)", (f"[{many}]",)),
        "100,000 rows at once": ("VALUES (?)", [(number,) for number in range(100_000)]),
        "20 rows of 1 MB at once": ("VALUES (?)", [(b"x" * 1_000_000,)] * 20),
    }


@dataclass(frozen=True)
class Case:
    """What one hostile request did. Times in ms, memory in 10^6 bytes."""

    name: str
    kind: str
    answer: str
    took_ms: float
    calm_p99_ms: float
    others_p99_ms: float
    others: int
    elections: int
    rss_mb: float
    late_ms: int
    """A timer of some node was late by this and more, at most by twice as much: its loop was kept
    from heartbeats and everybody's answers, or the machine was."""


class Load:
    """Small writes and reads, one after the other on a connection each. In a process of its own:
    a hostile client that builds a hundred megabytes must not hold these up itself."""

    def __init__(self, url: str) -> None:
        self.samples_ms: list[float] = []
        self.failed: list[str] = []
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(kind,)) for kind in (0, 1)]

    def run(self) -> None:
        """Tell p99, count and failures since the last time, for each line that comes in."""
        for thread in self._threads:
            thread.start()
        for _line in sys.stdin:
            samples, self.samples_ms = sorted(self.samples_ms), []
            failed, self.failed = self.failed, []
            p99_ms = percentile(samples, 99) if samples else None
            print(json.dumps([p99_ms, len(samples), failed]), flush=True)
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, kind: int) -> None:
        import raftdb

        number = 0
        with raftdb.connect(self._url, timeout=60) as db:
            while not self._stopping.wait(PAUSE_S):
                number += 1
                before = time.perf_counter()
                try:
                    if kind:
                        db.execute("INSERT INTO others VALUES (?)", (number,))
                    else:
                        db.execute("SELECT a FROM others WHERE rowid = 1").fetchone()
                except raftdb.Error as error:
                    self.failed.append(str(error))
                    continue
                self.samples_ms.append((time.perf_counter() - before) * 1000)


class Others:
    """The process that does it."""

    def __init__(self, url: str) -> None:
        self.failed: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.hostile", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def __enter__(self) -> Others:
        """Ready when they are served."""
        end_s = time.monotonic() + START_S
        while not self.p99_ms()[1]:
            if time.monotonic() > end_s:
                raise BenchError(f"the other clients were not served within {START_S:g} s")
            time.sleep(0.1)
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def p99_ms(self) -> tuple[float, int]:
        """Of all requests since the last call, and how many."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the process of the other clients has ended")
        p99_ms, count, failed = json.loads(line)
        self.failed += failed
        return (float("inf") if p99_ms is None else p99_ms), count


def _memory_mb(pids: list[int]) -> float:
    peaks = []
    for pid in pids:
        text = Path(f"/proc/{pid}/status").read_text()
        peaks.append(int(text.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6)
        with suppress(OSError):
            # Begin the peak anew (proc(5)).
            Path(f"/proc/{pid}/clear_refs").write_text("5")
    return max(peaks)


def run(
    directory: Path, calm_s: float, only: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """All cases on one cluster of three processes, with TLS."""
    import raftdb
    from raftdb.demo.processes import ProcessCluster
    from raftdb.ops.found import found_local

    founded = found_local(directory / "cluster")
    cluster = ProcessCluster(directory / "cluster")
    found: list[Case] = []
    try:
        cluster.start()
        pids = [node.pid for node in cluster.nodes.values() if node.pid is not None]
        with raftdb.connect(founded.url, timeout=30) as db:
            for sql in ("CREATE TABLE t (a)", "CREATE TABLE others (a)", "CREATE TABLE big (a)"):
                db.execute(sql)
            db.executemany("INSERT INTO big VALUES (?)", [(n,) for n in range(3_000)])
            with ExitStack() as stack:
                others = stack.enter_context(Others(founded.url))
                nodes = [
                    stack.enter_context(raftdb.connect(founded.url, prefer=str(one.node_id)))
                    for one in founded.members
                ]
                for name, (sql, parameters) in cases().items():
                    for kind in ("read", "write"):
                        if only in name and (kind == "write" or type(parameters) is tuple):
                            case = _one(
                                db, nodes, others, pids, calm_s, name, kind, sql, parameters
                            )
                            found.append(case)
                            progress(f"{name}, {kind}: {case.answer}, {case.took_ms:,.0f} ms")
                failed = others.failed
            equal = _equal(db, founded)
        cluster.require_running()
    finally:
        cluster.kill()
    return {
        "cases": [asdict(case) for case in found],
        "others_failed": failed,
        "nodes_equal": equal,
    }


def _equal(db: Any, founded: Any) -> bool:
    """Whether all nodes have the same content. What the others wrote last may still be on its way:
    only hashes of one index are compared."""
    import raftdb

    for _ in range(LOOKS):
        index, found = db.content_hash()["index"], []
        for one in founded.members:
            with raftdb.connect(founded.url, prefer=str(one.node_id), timeout=60) as node:
                found.append(node.content_hash(index=index))
        if len({one["index"] for one in found}) == 1:
            return len({one["total"] for one in found}) == 1
    return False


def _late(nodes: list[Any]) -> list[dict[str, int]]:
    return [node.status(timeout=30)["loop"]["later_than_ms"] for node in nodes]


def lateness(before: list[dict[str, int]], after: list[dict[str, int]]) -> int:
    """By how many ms a timer of some node was late in between; 0: by less than is counted."""
    steps = [
        int(step)
        for old, new in zip(before, after, strict=True)
        for step, count in new.items()
        if count > old[step]
    ]
    return max(steps, default=0)


def _one(
    db: Any,
    nodes: list[Any],
    others: Others,
    pids: list[int],
    calm_s: float,
    name: str,
    kind: str,
    sql: str,
    parameters: Any,
) -> Case:
    import raftdb

    others.p99_ms()
    _memory_mb(pids)
    time.sleep(calm_s)
    calm_ms, count = others.p99_ms()
    if not count:
        raise BenchError("the others were not served in a calm time")
    term, late = db.status()["term"], _late(nodes)
    before = time.perf_counter()
    try:
        if kind == "read":
            rows = db.execute(sql, parameters, timeout=READ_TIMEOUT_S).fetchmany(1)
            answer = f"ok: {str(rows)[:30]}"
        elif type(parameters) is list:
            db.executemany(f"INSERT INTO t {sql}", parameters, timeout=WRITE_TIMEOUT_S)
            answer = "ok"
        else:
            db.execute(f"INSERT INTO t {sql}", parameters, timeout=WRITE_TIMEOUT_S)
            answer = "ok"
    except raftdb.Error as error:
        answer = f"{error.code}, {error.outcome}"
    took_ms = (time.perf_counter() - before) * 1000
    # What it left behind counts as its own: a lane that is busy still, a reply that is thrown away.
    time.sleep(max(0.0, calm_s - took_ms / 1000))
    others_ms, count = others.p99_ms()
    return Case(
        name,
        kind,
        answer,
        took_ms,
        calm_ms,
        others_ms,
        count,
        int(db.status()["term"]) - int(term),
        _memory_mb(pids),
        lateness(late, _late(nodes)),
    )


def verdict(found: dict[str, Any]) -> dict[str, Any]:
    """What was promised, and what did not hold."""
    slow = [
        f"{case['name']}, {case['kind']}"
        for case in found["cases"]
        if case["others_p99_ms"] > max(TIMES_MAX * case["calm_p99_ms"], FLOOR_MS)
    ]
    elections = sum(case["elections"] for case in found["cases"])
    rss_mb = max(case["rss_mb"] for case in found["cases"])
    sound = found["nodes_equal"] and not found["others_failed"] and not elections
    return {
        "others_slowed_by": slow,
        "elections": elections,
        "rss_mb": rss_mb,
        "nodes_equal": found["nodes_equal"],
        "others_failed": len(found["others_failed"]),
        "met": sound and not slow and rss_mb <= RSS_MB_MAX,
    }


def show(results: dict[str, Any], console: Console) -> None:
    """Print the figures."""
    drawn = Table(title="Hostile requests, and what other clients notice of them")
    drawn.add_column("what")
    drawn.add_column("answer")
    for title in ("took ms", "others p99 ms", "calm p99 ms", "late ms", "elections", "RSS MB"):
        drawn.add_column(title, justify="right")
    for case in results["cases"]:
        drawn.add_row(
            f"{case['name']}, {case['kind']}",
            case["answer"],
            f"{case['took_ms']:,.0f}",
            f"{case['others_p99_ms']:,.1f}",
            f"{case['calm_p99_ms']:,.1f}",
            str(case["late_ms"]),
            str(case["elections"]),
            f"{case['rss_mb']:,.0f}",
        )
    console.print(drawn)
    said = results["verdict"]
    slow = "; ".join(said["others_slowed_by"]) or "none"
    console.print(
        f"elections: {said['elections']}; nodes equal: {said['nodes_equal']}; requests of others"
        f" that failed: {said['others_failed']}; largest node: {said['rss_mb']:,.0f} MB; others'"
        f" p99 more than doubled by: {slow}",
        highlight=False,
    )


if __name__ == "__main__":
    Load(sys.argv[1]).run()
