"""A member's new address is asked who is there; changes are asked for until they are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.config import load_config
from raftdb.base.errors import (
    NOT_APPLIED,
    UNKNOWN,
    ConfigError,
    DeadlineError,
    Error,
    UnavailableError,
)
from raftdb.base.ids import Address, NodeId
from raftdb.base.settings import MemberConfig
from raftdb.cli.member import with_learner
from raftdb.ops.found import LocalCluster, found_local
from raftdb.ops.member import (
    change_member,
    check_address,
    member_config,
    prepare_member,
    replace_member,
)
from raftdb.runtime import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom


class Node:
    """Says who it is."""

    closed = 0

    def status(self) -> dict[str, Any]:
        return {"node_id": "n2"}

    def close(self) -> None:
        Node.closed += 1


def connect_to(address: str) -> Node:
    if address != "h:1":
        raise UnavailableError(f"{address}: refused the connection")
    return Node()


def test_the_node_itself_has_to_answer_there() -> None:
    check_address("n2", "h:1", connect_to)
    with pytest.raises(ConfigError, match="who answers at h:1 is n2, and not n3") as taken:
        check_address("n3", "h:1", connect_to)
    assert taken.value.code == "address_taken"
    with pytest.raises(ConfigError, match=r"n2 does not answer at h:2: .* refused") as nobody:
        check_address("n2", "h:2", connect_to)
    assert nobody.value.code == "address_unreachable"
    assert "--force" in nobody.value.hint
    assert Node.closed == 2


class Steps:
    """A clock by which each look costs a second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 1.0
        return self.now_s


class Leader:
    """Answers orders and questions with what was put there for it, in order."""

    def __init__(self, orders: list[Any], questions: list[Any] | None = None) -> None:
        self.orders, self.questions = orders, questions or []
        self.asked: list[str] = []

    def ask(self, what: str, /, *, timeout: float | None = None, **more: Any) -> dict[str, Any]:
        assert what == "members"
        change = more.get("change", "")
        self.asked.append(change)
        answers = self.orders if change else self.questions
        answer = answers.pop(0) if answers else {}
        if isinstance(answer, Error):
            raise answer
        return dict(answer)


def late(outcome: str) -> DeadlineError:
    return DeadlineError("no reply", outcome=outcome)


def change(leader: Leader, timeout_s: float = 60.0) -> dict[str, Any]:
    return change_member(leader, "promote", "n4", timeout_s=timeout_s, clock=Steps())


def test_an_order_that_may_be_done_is_given_again_until_that_is_known() -> None:
    leader = Leader([late(UNKNOWN), late(NOT_APPLIED), {"index": 7}], [late(NOT_APPLIED)])
    assert change(leader) == {"index": 7}
    assert leader.asked == ["promote", "", "promote", "", "promote"]


@pytest.mark.parametrize(
    ("then", "question"),
    [
        (ConfigError("n4 is no member", code="no_member"), {}),
        (late(NOT_APPLIED), {}),
        ({}, UnavailableError("refused")),
    ],
)
def test_what_may_be_done_is_never_told_as_not_done(then: Any, question: Any) -> None:
    leader = Leader([late(UNKNOWN), *(3 * [then])], [question])
    with pytest.raises(Error) as caught:
        change(leader, timeout_s=3.0)
    assert caught.value.outcome == UNKNOWN
    assert "ask again" in caught.value.hint


def test_an_order_that_was_not_sent_is_told_so_at_once() -> None:
    leader = Leader([late(NOT_APPLIED)])
    with pytest.raises(DeadlineError) as caught:
        change(leader)
    assert caught.value.outcome == NOT_APPLIED
    assert leader.asked == ["promote"]


def listed(node_id: str, role: str, port: int) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "role": role,
        "location": "eu",
        "peer_address": f"h:{port}",
        "client_address": f"h:{port + 1}",
    }


def replace_again(told: list[dict[str, Any]]) -> dict[str, Any]:
    leader = Leader([], [{"members": told, "removed": ("n3",)}])
    new = member_config(listed("n4", "", 7))
    found = replace_member(leader, "n3", new, timeout_s=9.0, clock=Steps())
    assert leader.asked == [""]
    return found


def test_a_replacement_that_was_done_is_answered_as_done() -> None:
    told = [listed("n1", "voter", 1), listed("n4", "voter", 7)]
    assert replace_again(told)["members"] == told


@pytest.mark.parametrize(
    ("there", "said", "hint"),
    [
        ([], "n3 was removed before, and n4 is no member", "raftdb member add n4, and promote it"),
        ([listed("n4", "learner", 7)], r"and n4 is a learner \(", "raftdb member promote n4;"),
        ([listed("n4", "voter", 9)], "n4 is a voter at h:9", "members are n1, n4"),
    ],
)
def test_half_a_replacement_says_what_is_left(
    there: list[dict[str, Any]], said: str, hint: str
) -> None:
    """Where both have the same address the old one goes first, and a kill may come between."""
    with pytest.raises(ConfigError, match=said) as caught:
        replace_again([listed("n1", "voter", 1), *there])
    assert hint in caught.value.hint


# ---- a directory for a new node


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> LocalCluster:
    return found_local(tmp_path_factory.mktemp("prepare") / "c")


def prepared(founded: LocalCluster, name: str, cluster_id: str = "", **more: Any) -> Path:
    member = MemberConfig(NodeId(name), "eu/rome", Address("127.0.0.1", 9), Address("127.0.0.1", 8))
    return prepare_member(
        founded.directory,
        member,
        {"cluster_id": cluster_id or founded.cluster_id, "history": founded.history},
        [
            {
                "node_id": one.node_id,
                "location": one.location,
                "peer_address": str(one.peer_address),
                "client_address": str(one.client_address),
            }
            for one in founded.members
        ],
        RealFiles(),
        RealRandom(),
        RealClock(),
        with_learner,
        **{"insecure": False, **more},
    )


def test_a_directory_is_prepared_by_the_cluster_s_own_authority(founded: LocalCluster) -> None:
    made = prepared(founded, "n4")
    config = load_config(str(made))
    assert not config.insecure
    assert config.tls is not None
    assert Path(config.tls.certificate).is_file()
    with pytest.raises(ConfigError, match="has the authority of cluster") as caught:
        prepared(founded, "n5", "f" * 32)
    assert caught.value.code == "wrong_authority"
    assert not (founded.directory / "n5").exists()


def test_without_the_authority_no_open_node_is_made(founded: LocalCluster, tmp_path: Path) -> None:
    """A copy of the client directory names the cluster, too."""
    apart = replace(founded, directory=tmp_path)
    with pytest.raises(ConfigError, match="no certificate authority"):
        prepared(apart, "n4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["found_data", "note_members", "issue_node", "write_config"])
def test_a_node_that_is_half_prepared_does_not_start(
    founded: LocalCluster, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes it a member comes last; interrupted before any step, nothing stays."""

    def interrupted(*_: Any, **__: Any) -> None:
        assert not (founded.directory / "n6" / "raftdb.toml").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(f"raftdb.ops.member.{step}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(founded, "n6")
    assert not (founded.directory / "n6").exists()
