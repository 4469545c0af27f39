"""Drills on docker-compose: the half inside on real nodes, the half outside by the lines it hears.

With containers: `raftdb drill region-loss --compose`, and `python -m tests.compose`.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.errors import ConfigError, OperationalError
from raftdb.drill import compose as composed
from raftdb.drill.cluster import DrillCluster
from raftdb.drill.compose import Compose, converse, rehearse_composed
from raftdb.drill.elsewhere import ComposeCluster, Hands, rehearse
from raftdb.drill.load import TABLE
from raftdb.drill.objectives import Objective
from raftdb.drill.result import Bucket, Check, Phase, Result
from raftdb.runtime.clock import RealClock


def test_a_drill_from_where_the_clients_are(tmp_path: Path) -> None:
    """Twice on the same cluster: neither is in the other's way, and nothing is left of them."""
    clock = RealClock()
    there = DrillCluster.found(tmp_path / "c", clock, 3)
    told: list[dict[str, Any]] = []

    class OwnHands(Hands):
        def tell(self, **word: Any) -> None:
            told.append(word)

        def ask(self, what: str, nodes: list[str]) -> dict[str, Any]:
            if what == "start":
                there.start(*nodes)
                return {}
            there.kill(*nodes)
            ended_ms = clock.wall_ms()
            # As if docker took so long to say so.
            threading.Event().wait(0.4)
            return {"ended_ms": [ended_ms, ended_ms]}

    hands = OwnHands(io.StringIO(), io.StringIO())
    try:
        there.start()
        there.wait_for_leader()
        for name in ("region-loss", "node-loss"):
            told.clear()
            rehearse(
                name, 0.3, lambda: ComposeCluster(tmp_path / "c" / "client", hands, clock), hands
            )
            found = Result.from_dict(told[-1]["result"])
            assert not found.broken, found.broken
            assert (found.scenario, found.nodes, found.rpo_writes) == (name, 3, 0)
            assert found.acknowledged > 0
            assert found.rto_s is not None
            assert found.facts["kill_command_s"] >= 0.4
            first = next(one.at_s for one in found.phases if "committed" in one.name)
            assert found.disaster_at_s is not None
            assert found.rto_s <= first - found.disaster_at_s
            begun = next(
                one.at_s for one in found.phases if "lost" in one.name or "kill" in one.name
            )
            assert found.disaster_at_s >= begun - 0.05, "the clocks' granularity"
            with there.connect() as connection:
                tables = connection.execute("SELECT name FROM sqlite_schema").fetchall()
            assert TABLE not in {one for (one,) in tables}
    finally:
        there.kill()


def test_a_result_travels_as_json() -> None:
    found = Result("region-loss", "2026-01-01T00:00:00Z", 3, acknowledged=7, rto_s=1.25)
    found.phases.append(Phase(1.0, "a load"))
    found.checks.append(Check("it holds", False, "it does not"))
    found.timeline.append(Bucket(0.1, 3, 2.5))
    found.disaster_at_s, found.error = 0.5, "an error"
    again = Result.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again == found


def _heard(*words: object) -> io.BytesIO:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in words]
    return io.BytesIO("".join(f"{line}\n" for line in lines).encode())


def test_what_the_drill_asks_for_is_done_and_answered() -> None:
    done: list[tuple[str, Sequence[str]]] = []
    said: list[str] = []

    def do(ask: str, nodes: Sequence[str]) -> dict[str, Any]:
        if ask == "burn":
            raise ConfigError("no")
        done.append((ask, nodes))
        return {"ended_ms": [1, 2]}

    back = io.BytesIO()
    heard = _heard(
        {"say": "begun"},
        "a warning of the interpreter",
        {"ask": "kill", "nodes": ["n1", "n2"]},
        {"ask": "burn", "nodes": ["n3"]},
        {"result": {"scenario": "x"}},
        {"say": "unheard"},
    )
    assert converse(heard, back, do, said.append) == {"scenario": "x"}
    assert done == [("kill", ["n1", "n2"])]
    assert said == ["begun", "a warning of the interpreter"]
    answers = [json.loads(line) for line in back.getvalue().splitlines()]
    assert answers == [{"done": True, "ended_ms": [1, 2]}, {"problem": "no"}]
    assert converse(_heard({"say": "and then it was gone"}), back, do, said.append) is None


def test_hands_wait_for_the_answer() -> None:
    out = io.StringIO()
    Hands(out, io.StringIO('{"done": true}\n')).ask("kill", ["n1"])
    assert json.loads(out.getvalue()) == {"ask": "kill", "nodes": ["n1"]}
    for answer, why in (
        ('{"problem": "no such container"}\n', "no such"),
        ("", "unheard"),
        ("?", "unheard"),
    ):
        with pytest.raises(OperationalError, match=why):
            Hands(io.StringIO(), io.StringIO(answer)).ask("kill", ["n1"])


class FakeCompose(Compose):
    """Docker by what it was told."""

    said: list[tuple[str, ...]] = []
    up = True

    def __call__(self, *arguments: str, timeout_s: float = 0.0) -> str:
        self.said.append(arguments)
        return "aaa\nbbb\nccc\n" if arguments == ("ps", "-q") else ""

    def docker(self, *arguments: str) -> str:
        self.said.append(("docker", *arguments))
        if "{{.State.FinishedAt}}" in arguments:
            return "2026-01-01T00:00:02.123456789Z\n2026-01-01T00:00:01Z\n"
        return "n1 aaa\nn4 bbb\nclient ccc\n" if arguments[0] == "inspect" else ""

    def client(self) -> str:
        return "abc" if self.up else ""


def test_only_nodes_are_killed_and_started_and_compose_is_asked_before(tmp_path: Path) -> None:
    compose = FakeCompose(tmp_path / "docker-compose.yml", ("docker", "compose"))
    compose.said = []
    compose.look_up()
    compose.said.clear()
    new_year_ms = 1_767_225_600_000
    told = compose.do("kill", ["n1", "n4"])
    assert told == {"ended_ms": [new_year_ms + 1000, new_year_ms + 2123.456]}
    assert compose.do("start", ["n4"]) == {}
    assert [one[1:] for one in compose.said if one[1] != "inspect"] == [
        ("kill", "aaa", "bbb"),
        ("start", "bbb"),
    ]
    for ask, nodes in (
        ("down", ["n1"]),
        ("kill", []),
        ("kill", ["--signal"]),
        ("start", ["n1;"]),
        ("kill", ["n2"]),
    ):
        with pytest.raises(ConfigError, match="asks for"):
            compose.do(ask, nodes)
    with pytest.raises(ConfigError, match="there is no nonesuch here"):
        Compose(tmp_path / "f", ("nonesuch",))("ps")


def test_a_cluster_that_is_up_needs_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composed, "Compose", FakeCompose)
    monkeypatch.setattr(composed, "find_compose", lambda: ("docker", "compose"))
    file = tmp_path / "docker-compose.yml"
    options: dict[str, Any] = {"seconds": 1.0, "repeat": 1, "consent": False}
    bounds = {"region-loss": Objective(), "disk-loss": Objective()}
    with pytest.raises(ConfigError, match="is no file"):
        rehearse_composed(("region-loss",), file, bounds, print, **options)
    file.touch()
    with pytest.raises(ConfigError, match="not among"):
        rehearse_composed(("disk-loss",), file, bounds, print, **options)
    FakeCompose.said = []
    with pytest.raises(ConfigError, match="is up already"):
        rehearse_composed(("region-loss",), file, bounds, print, **options)
    # It was not touched.
    assert FakeCompose.said == []
