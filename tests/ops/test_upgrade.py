"""Upgrading node by node: the order, the commands, what is pending, and what is in the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raftdb._version import __version__
from raftdb.base.errors import ConfigError, OperationalError
from raftdb.ops.status import ClusterState, NodeState
from raftdb.ops.upgrade import (
    in_order,
    level_of_version,
    make_plan,
    pending,
    plan_dict,
    previous_of,
    releases_dict,
    releases_of,
    returned,
    wanted_level,
)
from raftdb.ops.upgrade_check import FREE_BYTES_MIN, check_rollback, check_upgrade

OLD, NEW = "0.1.0", "0.2.0"


def node(name: str, location: str, version: str = NEW, level: int = 1, **more: Any) -> NodeState:
    facts: dict[str, Any] = {"disk_free_bytes": FREE_BYTES_MIN}
    if version != OLD:
        facts |= {"feature_level": level, "feature_level_min": 1, "feature_level_max": 2}
    return NodeState(
        name,
        f"{name}.example:7002",
        location,
        role="follower",
        leader="n1",
        term=3,
        version=version,
        lag_entries=0,
        facts={**facts, **more},
    )


def cluster(*nodes: NodeState, leader: str | None = "n1") -> ClusterState:
    found = [replace(one, role="leader") if one.node_id == leader else one for one in nodes]
    return ClusterState("c" * 32, found, leader, sum(one.voter for one in found))


def three(*versions: str, level: int = 1) -> ClusterState:
    places = ("eu/a", "eu/b", "us/c")
    return cluster(
        *(
            node(f"n{number}", place, version, level)
            for number, (place, version) in enumerate(zip(places, versions, strict=True), 1)
        )
    )


def test_the_leader_and_its_place_come_last() -> None:
    state = cluster(
        node("n1", "eu/a/r1"),
        node("n2", "us/c"),
        node("n3", "eu/b"),
        node("n4", "asia/d"),
        node("n5", "eu/a/r2"),
        node("n6", "us/b"),
        node("n7", "us/c"),
    )
    order = [one.node_id for one in in_order(releases_of(state))]
    assert order == ["n4", "n6", "n2", "n7", "n3", "n5", "n1"]


def test_a_plan_has_who_does_not_run_it_yet() -> None:
    plan = make_plan(releases_of(three(OLD, NEW, OLD)), NEW, cluster=" --dir c")
    assert [one.node_id for one in plan.steps] == ["n3", "n1"]
    step = plan.steps[0]
    assert step.command == (
        "ln -sfn /opt/raftdb/0.2.0 /opt/raftdb/current && systemctl restart raftdb@n3.service"
    )
    assert step.then == "raftdb upgrade status --wait n3=0.2.0 --dir c"
    assert plan_dict(plan)["steps"][1]["role"] == "leader"
    assert plan.remarks == []
    assert make_plan(releases_of(three(NEW, NEW, NEW)), NEW).steps == []


@pytest.mark.parametrize("text", ["", "abc", "0", "0.2.0; reboot", "../0.2.0", "v0.2.0", "0.2.0 "])
def test_what_goes_into_commands_is_a_release(text: str) -> None:
    with pytest.raises(ConfigError, match="is no release"):
        make_plan(releases_of(three(OLD, OLD, OLD)), text)


def test_releases_are_called_as_they_are_tagged() -> None:
    for text in ("0.1.0", "1.10", "0.3.0rc1", "0.3.0.dev4", "0.2.0+local.7", "0.2.0-beta"):
        assert make_plan(releases_of(three(OLD, OLD, OLD)), text).to == text


def test_the_command_is_the_users_own() -> None:
    releases = releases_of(three(OLD, OLD, OLD))
    plan = make_plan(releases, NEW, "ssh {host} use {version} for {node} in {location}")
    assert plan.steps[0].command == "ssh n3.example use 0.2.0 for n3 in us/c"
    for wrong in ("{nodes}", "{", "{0}", "{node.x}"):
        with pytest.raises(ConfigError, match="field that is not known") as caught:
            make_plan(releases, NEW, wrong)
        assert "{node}, {version}" in caught.value.hint


def test_what_cannot_be_asked_and_what_stops_writes_is_said() -> None:
    state = cluster(node("n1", "eu"), NodeState("n2", "n2:1", "us", problem="no answer"))
    plan = make_plan(releases_of(state), NEW)
    assert [one.node_id for one in plan.steps] == ["n2"]
    assert "n2 does not answer" in plan.remarks[0]
    assert "with 2 voters nothing can be written" in plan.remarks[1]


def test_back_until_it_is_finalized() -> None:
    half = releases_of(three(OLD, NEW, NEW))
    assert previous_of(half) == OLD
    assert [one.node_id for one in make_plan(half, OLD).steps] == ["n3", "n2"]
    assert previous_of(releases_of(three(NEW, NEW, NEW))) == OLD
    with pytest.raises(ConfigError, match="does not run feature level 2") as caught:
        make_plan(releases_of(three(NEW, NEW, NEW, level=2)), OLD)
    assert caught.value.code == "finalized"
    with pytest.raises(ConfigError, match=r"no release before 0\.1\.0"):
        previous_of(releases_of(three(OLD, OLD, OLD)))


@pytest.mark.parametrize(
    ("version", "level"), [("0.1.0", 1), ("0.1.9", 1), ("0.2.0", 2), ("0.10.0", 2), ("0.2.0rc1", 1)]
)
def test_the_level_of_a_release(version: str, level: int) -> None:
    assert level_of_version(version) == level


def test_what_is_pending() -> None:
    assert pending(releases_of(three(OLD, OLD, OLD))) == []
    [half] = pending(releases_of(three(OLD, NEW, NEW)))
    assert "n1 runs 0.1.0, the others 0.2.0" in half
    [done] = pending(releases_of(three(NEW, NEW, NEW)))
    assert "raftdb upgrade finalize" in done
    assert pending(releases_of(three(NEW, NEW, NEW, level=2))) == []
    behind = three(NEW, NEW, NEW, level=2)
    behind.nodes[2].facts["feature_level"] = 1
    assert pending(releases_of(behind)) == ["some nodes have not applied feature level 2 yet"]
    away = cluster(node("n1", "eu", level=2), NodeState("n2", "n2:1", problem="no answer"))
    assert pending(releases_of(away)) == ["n2 does not answer"]
    told = releases_dict(releases_of(three(OLD, NEW, NEW)))
    assert [one["feature_level_max"] for one in told["nodes"]] == [1, 2, 2]
    assert (told["feature_level"], told["versions"]) == (1, [OLD, NEW])


def test_the_level_that_is_wanted() -> None:
    releases = releases_of(three(NEW, NEW, OLD))
    assert wanted_level(releases, None) == 2
    assert releases.without(2) == ["n3 runs 0.1.0"]
    assert releases_of(three(NEW, NEW, NEW)).without(2) == []
    with pytest.raises(ConfigError, match="never lowered"):
        wanted_level(releases_of(three(NEW, NEW, NEW, level=2)), 1)
    with pytest.raises(ConfigError, match="no member knows feature level 3"):
        wanted_level(releases, 3)


def test_the_next_node_waits_for_this_one() -> None:
    state = three(NEW, NEW, OLD)
    assert returned(state, "n2", NEW) == ""
    assert returned(state, "n3", NEW) == "n3 runs 0.1.0"
    state.nodes[1].lag_entries = 7
    assert returned(state, "n2", NEW) == "n2 lacks 7 entries"
    state.nodes[1].leader = None
    assert returned(state, "n2", NEW) == "n2 does not follow the leader"
    state.with_leader = 2
    assert returned(state, "n1", NEW) == "2 of 3 voters follow the leader"
    state.nodes[0].problem = "no answer"
    assert returned(state, "n1", NEW) == "n1 does not answer"
    with pytest.raises(ConfigError, match="n9 is no member"):
        returned(state, "n9", NEW)


COMPUTES: dict[str, Any] = {"sqlite_version": "3", "sqlite_source_id": "s"}
COMPUTES |= {"compile_options": "c", "arithmetic": "a", "pysyncobj": "p", "journal_format": 1}


class Node:
    """What one node answers."""

    def __init__(self, total: str = "t", **computes: Any) -> None:
        self.total = total
        self.computes = {**COMPUTES, **computes}

    def ask(self, what: str, *, anywhere: bool, timeout: float) -> dict[str, Any]:
        assert (what, anywhere) == ("compatibility", True)
        return self.computes

    def content_hash(self, index: int, *, timeout: float, exact: bool) -> dict[str, Any]:
        return {"index": 5, "total": self.total, "tables": {}}

    def close(self) -> None: ...


def problems(state: ClusterState, to: str = NEW, **special: Node) -> dict[str, str]:
    """The checks that failed, by name."""

    def connect(address: str) -> Node:
        return special.get(address.partition(".")[0], Node())

    found = check_upgrade(state, connect, COMPUTES, to)
    assert [one.name for one in found] == [
        *("reachable", "healthy", "spare", "serving", "equal", "versions", "build", "room"),
        "archive",
    ]
    return {one.name: one.detail for one in found if not one.ok}


def test_a_cluster_that_is_fit() -> None:
    assert __version__ == NEW
    for versions in ((OLD, OLD, OLD), (OLD, NEW, NEW), (NEW, NEW, NEW)):
        assert problems(three(*versions)) == {}
    assert problems(three(NEW, NEW, NEW), OLD) == {}
    assert problems(three(NEW, NEW, NEW, level=2), "0.2.1") == {}


def test_what_is_in_the_way() -> None:
    state = three(OLD, OLD, OLD)
    state.nodes[2] = NodeState("n3", "n3.example:7002", problem="connection refused")
    state.with_leader = 2
    assert problems(state) == {
        "reachable": "n3: connection refused",
        "healthy": "2 of 3 voters follow n1",
    }
    assert problems(cluster(node("n1", "eu")))["spare"].startswith("with 1 voters")
    wrong = three(OLD, OLD, OLD)
    wrong.nodes[0].facts["survival"] = {"problem": "survive=region is not kept"}
    wrong.nodes[1].facts |= {"disk_full": True, "disk_free_bytes": 5 << 20, "stopping": True}
    wrong.nodes[1].facts["copy"] = {"fetching": "waiting"}
    wrong.nodes[2].facts |= {"comparison_reason": "it differs", "damage": {"reason": "page 7"}}
    wrong.nodes[2].facts["disk_stalled"] = True
    wrong.nodes[2].lag_entries = 99_999
    assert problems(wrong) == {
        "healthy": "n3 lacks 99999 entries",
        "spare": "survive=region is not kept",
        "serving": "n2 has a full disk; n2 is being stopped; n2 fetches a copy of the database; "
        "n3 does not serve: it differs; n3 is damaged: page 7; n3 has a disk that does not answer",
        "room": "n2 has 5 MiB",
    }


def test_releases_that_do_not_go_together() -> None:
    assert "finish that change first" in problems(three(OLD, NEW, NEW), "0.3.0")["versions"]
    assert (
        "0.1.0 does not run feature level 2"
        in (problems(three(NEW, NEW, NEW, level=2), OLD)["versions"])
    )
    beyond = three(NEW, NEW, NEW, level=3)
    assert f"{NEW} runs feature level 1-2, and not 3" in problems(beyond)["versions"]


def test_going_back_looks_at_what_is_written_and_puts_who_is_down_first() -> None:
    def connect(address: str) -> Node:
        return Node(journal_format=2) if address.startswith("n2") else Node()

    def found(state: ClusterState, to: str) -> dict[str, str]:
        checks = check_rollback(state, connect, to)
        assert "formats" in [one.name for one in checks]
        return {one.name: one.detail for one in checks if not one.ok}

    assert found(three(NEW, NEW, NEW), OLD) == {
        "formats": "n2 writes journal_format 2, and 0.1.0 reads 1"
    }
    assert (
        "0.1.0 does not run feature level 2"
        in found(three(NEW, NEW, NEW, level=2), OLD)["versions"]
    )
    # n1 leads, n2 crashes with the new release: whoever else was restarted first would stop all.
    down = three(NEW, NEW, OLD)
    down.nodes[1] = NodeState("n2", "n2:7002", "eu/b", problem="refused")
    down.with_leader = 2
    assert set(found(down, OLD)) == {"reachable", "healthy"}
    plan = make_plan(releases_of(down), OLD)
    assert [one.node_id for one in plan.steps] == ["n2", "n1"]
    assert "n2 first: with 2 of 3 voters up" in plan.remarks[1]


def test_nodes_that_differ() -> None:
    state = three(OLD, OLD, OLD)
    assert problems(state, n2=Node("u")) == {"equal": "content differs on n2"}
    found = problems(state, n3=Node(sqlite_source_id="other"))
    assert found == {
        "build": "sqlite_source_id differs: s on n1, s on n2, other on n3, s on this machine"
    }

    class Old(Node):
        def ask(self, what: str, *, anywhere: bool, timeout: float) -> dict[str, Any]:
            raise OperationalError("it does not say")

    assert problems(state, n1=Old()) == {"build": "n1: it does not say"}


def test_an_archive_that_lags() -> None:
    state = three(OLD, OLD, OLD)
    one = {"url": "s3://b", "archived_index": 1, "lag_s": 90.0, "alarm": True}
    state.nodes[0].facts["archive"] = [one]
    assert problems(state) == {"archive": "s3://b is 90 s behind"}
    one |= {"alarm": False, "verify_alarm": True}
    assert problems(state) == {"archive": "s3://b was not restored on trial for too long"}
