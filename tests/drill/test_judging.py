"""What a drill measures can be wrong in every way, and each is seen and named."""

from __future__ import annotations

import itertools
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.errors import APPLIED, ConfigError, OperationalError
from raftdb.drill import SCENARIOS, History, Objective, last_drills, load_objectives
from raftdb.drill.against import _moments, rehearse
from raftdb.drill.check import check_cluster, measure_loss, missing
from raftdb.drill.load import Load, Write, longest_silence_s
from raftdb.drill.page import WIDTH, picture, render
from raftdb.drill.report import distribution, summary
from raftdb.drill.result import Phase, Result, timeline
from raftdb.drill.run import Options, run
from raftdb.drill.schedule import schedule
from raftdb.runtime.clock import RealClock

WRITES = [Write(0, n, n / 10, n / 10 + 0.05) for n in range(1, 11)]


class FakeNode:
    def __init__(self, rows: dict[tuple[int, int], int], total: str) -> None:
        self._rows, self._total = rows, total

    def __enter__(self) -> FakeNode:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def content_hash(self, **_: Any) -> dict[str, Any]:
        return {"index": 7, "total": self._total}

    def execute(self, _sql: str) -> FakeNode:
        return self

    def fetchall(self) -> list[tuple[int, int, int]]:
        return [(client, n, count) for (client, n), count in self._rows.items()]


class FakeCluster:
    """Nodes by what they hold."""

    def __init__(self, *nodes: FakeNode) -> None:
        self._nodes = {f"n{number}": node for number, node in enumerate(nodes, 1)}
        self.node_ids = list(self._nodes)

    def statuses(self) -> dict[str, dict[str, Any]]:
        return {name: {"commit_index": 7} for name in self._nodes}

    def connect_to(self, name: str, **_: Any) -> FakeNode:
        return self._nodes[name]


def result(**facts: Any) -> Result:
    return Result("leader-kill", "2026-11-23T05:00:00Z", 3, **facts)


def judged(*nodes: tuple[dict[tuple[int, int], int], str]) -> Result:
    found = result()
    check_cluster(found, FakeCluster(*(FakeNode(*one) for one in nodes)), WRITES)  # type: ignore[arg-type]
    return found


ALL = {write.key: 1 for write in WRITES}


def test_equal_nodes_that_hold_every_row_once_are_good() -> None:
    assert judged((ALL, "a"), (ALL, "a"), (ALL, "a")).broken == []


def test_what_is_wrong_is_named() -> None:
    assert "same content" in judged((ALL, "a"), (ALL, "b")).broken[0]
    assert "twice on n2" in judged((ALL, "a"), ({**ALL, (0, 3): 2}, "a")).broken[0]
    assert "nobody wrote" in judged((ALL, "a"), ({**ALL, (9, 9): 1}, "a")).broken[0]


def test_the_recovery_point_is_counted_from_the_oldest_missing_acknowledgement() -> None:
    found = result()
    lost = missing({key: 1 for key in ALL if key[1] <= 7}, WRITES)
    assert [write.n for write in lost] == [8, 9, 10]
    measure_loss(found, lost, disaster_s=1.1)
    assert found.rpo_writes == 3
    assert found.rpo_s == pytest.approx(0.25)
    measure_loss(found, [], disaster_s=1.1)
    assert (found.rpo_writes, found.rpo_s) == (0, 0.0)


def test_only_a_write_begun_after_the_disaster_counts_for_the_recovery_time() -> None:
    load = Load(lambda: None, None)  # type: ignore[arg-type,return-value]
    load._writes = [Write(0, 1, 0.9, 1.01), Write(1, 1, 1.2, None), Write(2, 1, 1.1, 1.5)]
    first = load.first_commit_after(1.0)
    assert first is not None
    assert first.client == 2
    assert load.first_commit_after(1.15) is None


def test_the_longest_silence_counts_the_edges() -> None:
    assert longest_silence_s(WRITES, 0.0, 3.0) == pytest.approx(3.0 - 1.05)
    assert longest_silence_s([], 0.0, 3.0) == 3.0


def test_verdicts() -> None:
    objective = Objective(rpo_writes=0, rto_s=2.0, full_s=9.0)
    good = result(rto_s=1.9, full_s=8.0, objective=objective)
    assert (good.verdict, good.missed) == ("met", [])
    late = result(rto_s=2.1, full_s=None, rpo_writes=1, objective=objective)
    assert late.verdict == "missed"
    assert [text.partition(":")[0] for text in late.missed] == ["rpo_writes", "rto_s", "full_s"]
    broken = result(rto_s=1.0, full_s=1.0, objective=objective)
    broken.check("something", False, "wrong")
    assert (broken.verdict, broken.broken) == ("broken", ["something: wrong"])
    assert result(error="did not end").verdict == "broken"


def test_objectives_of_the_package_and_of_a_file(tmp_path: Path) -> None:
    names = tuple(SCENARIOS)
    shipped = load_objectives(None, names)
    assert set(shipped) == set(names)
    assert all(one.as_dict() for one in shipped.values()), "every drill has an objective"
    path = tmp_path / "own.toml"
    path.write_text("[total-loss]\nrpo_s = 0.5\n")
    assert load_objectives(path, names)["total-loss"] == Objective(rpo_s=0.5)
    assert load_objectives(path, names)["leader-kill"] == Objective()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[total-los]\n", "total-los"),
        ("[total-loss]\nrpo = 1\n", "'rpo'"),
        ("[total-loss]\nrpo_s = -1\n", "-1"),
        ("[total-loss]\nrpo_s = true\n", "True"),
        ("[total-loss]\nrpo_s = nan\n", "nan"),
        ("total-loss = 3\n", "no table"),
        ("= 3\n", "not TOML"),
    ],
)
def test_objectives_that_are_wrong(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_objectives(path, tuple(SCENARIOS))
    assert named in caught.value.message
    with pytest.raises(ConfigError, match="cannot read"):
        load_objectives(tmp_path / "missing.toml", tuple(SCENARIOS))


def test_history_keeps_the_last_of_each_kind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "drills.jsonl"
    history = History(path)
    assert history.read() == []
    first, second = result(rto_s=1.0), result(rto_s=2.0)
    second.started = "2026-11-24T05:00:00Z"
    history.add([first])
    with path.open("a") as file:
        file.write('{"torn": \n[1]\n')
    history.add([second])
    assert [one["rto_s"] for one in history.read()] == [1.0, 2.0]
    [last] = last_drills({"RAFTDB_DRILLS": str(path)})
    assert last["rto_s"] == 2.0
    assert summary(last).startswith("leader-kill met at 2026-11-24T05:00:00Z: RPO 0, RTO 2.00 s")
    assert last_drills({"HOME": str(tmp_path)}) == []


def test_the_spread_of_repeated_drills() -> None:
    [row] = distribution([result(rto_s=n / 100) for n in range(1, 101)])
    assert (row["drills"], row["met"]) == (100, 100)
    assert (row["rto_p50_s"], row["rto_p99_s"], row["rto_max_s"]) == (0.51, 1.0, 1.0)


def test_the_page_is_whole_and_marks_what_happened() -> None:
    found = result(rto_s=0.4, disaster_at_s=0.3, phases=[Phase(0.3, "kill <n1> & co")])
    found.check("a & b", False, "<c>")
    found.timeline = timeline(WRITES, 0.0, 1.2)
    assert sum(one.commits for one in found.timeline) == 10
    text = render([found])
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org", "")
    body = ElementTree.fromstring(text.partition("\n")[2])
    shapes = [one.tag for one in body.iter("svg") for one in one.iter()]
    assert shapes.count("rect") == 1 + 2 * 10
    assert "kill <n1> & co" in "".join(body.itertext())
    json.dumps(found.as_dict())


@pytest.mark.parametrize(
    "moments",
    [[], [0.3], [0.3, 0.31, 0.32, 1.1, 1.1, 1.19], [n * 0.03 for n in range(40)]],
)
def test_the_numbers_of_phases_do_not_cover_each_other(moments: list[float]) -> None:
    found = result(phases=[Phase(at_s, "something") for at_s in moments])
    found.timeline = timeline(WRITES, 0.0, 1.2)
    body = ElementTree.fromstring(picture(found))
    places = [float(one.attrib["x"]) for one in body.iter("text") if one.attrib["y"] == "12"]
    assert len(places) == len(moments)
    assert all(after - before >= 14.9 for before, after in itertools.pairwise(places))
    assert all(0 < one <= WIDTH - 7 for one in places)


def test_schedules() -> None:
    found = schedule(["raftdb", "drill", "all"], "weekly", "4:05", [("RAFTDB_DRILLS", "/a b")])
    assert "OnCalendar=Mon *-*-* 04:05:00" in found["timer"]
    assert found["cron"] == "5 4 * * 1 RAFTDB_DRILLS='/a b' raftdb drill all\n"
    assert "ExecStart=raftdb drill all" in found["service"]
    assert 'Environment="RAFTDB_DRILLS=/a b"\n' in found["service"]
    odd = schedule(["/a b/raftdb", "x%20$y"], "daily", "4:05", [("A", 'c"d')])
    assert 'ExecStart="/a b/raftdb" x%%20$$y\n' in odd["service"]
    assert 'Environment="A=c\\"d"\n' in odd["service"]
    assert odd["cron"] == "5 4 * * * A='c\"d' '/a b/raftdb' 'x\\%20$y'\n"
    with pytest.raises(ConfigError):
        schedule(["raftdb"], "daily", "25:00")


def test_a_drill_that_cannot_begin_does_not_lose_what_those_before_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = SimpleNamespace(summary="", needs_previous=False, run=lambda _stage: None)
    module = sys.modules[run.__module__]
    monkeypatch.setattr(module, "SCENARIOS", {"a": fine, "b": fine})
    objectives = {"a": Objective(), "b": Objective()}
    options = Options(directory=tmp_path)
    (tmp_path / "b-1").mkdir()
    first, second = run(["a", "b"], options, objectives)
    assert first.error == ""
    assert "did not begin" in second.error
    assert second.verdict == "broken"
    with pytest.raises(ConfigError, match="there already"):
        run(["b"], options, objectives)


class Pending:
    """A connection whose writes are committed, and not yet where they were to be as well."""

    def execute(self, *_: Any, **__: Any) -> None:
        raise OperationalError("not archived", code="durability_pending", outcome=APPLIED)


def test_committed_and_not_archived_is_no_acknowledgement() -> None:
    load = Load(lambda: None, RealClock())  # type: ignore[arg-type,return-value]
    write = Write(0, 1, 0.0)
    assert not load._try(Pending(), write)  # type: ignore[arg-type]
    assert write.acknowledged_s is None
    assert len(load.failures()) == 1


def test_with_the_archive_of_a_real_cluster_nothing_is_broken() -> None:
    with pytest.raises(ConfigError, match="breaks a cluster"):
        rehearse("node-loss", Path("raftdb.toml"), 3, Objective(), print)
    one = {"first_index": 7, "last_index": 9}
    drawn = _moments({"destinations": [one]}, 50, 1)
    assert set(drawn) == {7, 8, 9}
    with pytest.raises(ConfigError, match="no base"):
        _moments({"destinations": [{"first_index": None, "last_index": 3}]}, 5, 1)
    found = result(rpo_writes=None, rpo_s=None, rto_s=1.0, objective=Objective(rto_s=2.0))
    assert found.verdict == "met"
    assert "RPO -" in summary(found.as_dict())
    assert "<td>-</td>" in render([found])
    assert distribution([found])[0]["rpo_writes_max"] == 0
