"""The feature level of a whole cluster: told, raised once, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import raftdb
from raftdb.base import release
from raftdb.base.errors import ConfigError, OperationalError
from tests.embedded.conftest import Members

WAIT_S = 30.0


def wait_until(check: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(WAIT_S / 0.05)):
        if check():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen in time")


def levels(members: Members) -> set[int]:
    return {node.status()["feature_level"] for node in members.running()}


def known(members: Members) -> bool:
    """Every node knows which release each other one runs."""
    told = [node.status()["members"] for node in members.running()]
    return all(one.get("version") == raftdb.__version__ for facts in told for one in facts)


def test_a_level_is_raised_once_all_run_it_and_then_it_holds(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    members.leader()
    wait_until(lambda: known(members))
    status = members.nodes["n1"].status()
    assert (status["version"], status["feature_level"]) == (raftdb.__version__, 1)
    assert (status["feature_level_min"], status["feature_level_max"]) == (1, 2)

    # A learner or voter that is away may run anything.
    leader = members.leader()
    away = next(name for name, node in members.nodes.items() if node is not leader)
    members.nodes[away].stop()
    with leader.connect(timeout=WAIT_S) as connection:
        wait_until(lambda: connection.ask("release")["pending"] == (f"{away} is not connected",))
        with pytest.raises(OperationalError, match=f"{away} is not connected") as caught:
            connection.ask("release", raise_to=2)
        assert caught.value.code == "upgrade_incomplete"
    members.restart(away)
    wait_until(lambda: known(members))
    assert levels(members) == {1}

    with members.leader().connect(timeout=WAIT_S) as connection:
        told = connection.ask("release", raise_to=2)
        assert (told["feature_level"], told["pending"]) == (2, ())
        assert connection.ask("release", raise_to=2)["feature_level"] == 2
        with pytest.raises(ConfigError, match="never lowered"):
            connection.ask("release", raise_to=1)
        listed = connection.ask("members")["members"]
        assert [one["version"] for one in listed] == [raftdb.__version__] * 3
    wait_until(lambda: levels(members) == {2})

    # From now on members meet only with a greeting; and who runs level 1 only does not start.
    stopped = next(name for name, node in members.nodes.items() if node is not members.leader())
    members.nodes[stopped].stop()
    with monkeypatch.context() as patch:
        patch.setattr(release, "LEVEL_MAX", 1)
        with pytest.raises(ConfigError, match="has feature level 2, and this release runs 1"):
            members.restart(stopped)
    node = members.restart(stopped)
    with node.connect(timeout=WAIT_S) as connection:
        connection.execute("CREATE TABLE after (a)")
    assert levels(members) == {2}
    wait_until(lambda: known(members))
