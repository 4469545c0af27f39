"""Joining by a token against a cluster that only answers: what is refused, and what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftdb.base.config import load_config
from raftdb.base.errors import (
    ConfigError,
    DeadlineError,
    Error,
    NotSupportedError,
    UnavailableError,
)
from raftdb.base.ids import Address, HistoryId, NodeId
from raftdb.base.release import SAMPLE
from raftdb.cli.join import open_joining
from raftdb.cli.member import with_learner
from raftdb.embedded import compatibility, computes
from raftdb.ops.certificates import renew_certificates
from raftdb.ops.found import LocalCluster, found_local
from raftdb.ops.join import (
    Joining,
    check_compatible,
    join_cluster,
    make_token,
    prepare_directory,
    token_target,
)
from raftdb.runtime import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom
from raftdb.security import JoinToken, read_token

PLACE = ("eu/rome", Address("127.0.0.1", 9), Address("127.0.0.1", 10))


class Cluster:
    """What a leader would answer."""

    def __init__(self, founded: LocalCluster) -> None:
        self.members = [
            {
                "node_id": str(one.node_id),
                "role": "voter",
                "location": one.location,
                "peer_address": str(one.peer_address),
                "client_address": str(one.client_address),
            }
            for one in founded.members
        ]
        self.removed: tuple[str, ...] = ()
        self.computes = compatibility()
        self.problem: Error | None = None
        self.added: list[dict[str, Any]] = []

    def ask(
        self, what: str, /, *, timeout: float | None = None, **arguments: Any
    ) -> dict[str, Any]:
        if what == "compatibility":
            if not self.computes:
                raise NotSupportedError("cannot be asked of this node", code="unknown_question")
            return dict(self.computes)
        assert what == "members"
        if arguments:
            self.added.append(arguments)
            if self.problem is not None:
                raise self.problem
        return {"members": self.members, "removed": self.removed, "index": 1}


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> LocalCluster:
    return found_local(tmp_path_factory.mktemp("join") / "c")


@pytest.fixture
def cluster(founded: LocalCluster) -> Cluster:
    return Cluster(founded)


def new_token(founded: LocalCluster, cluster: Cluster, name: str = "n4") -> JoinToken:
    status = {"cluster_id": founded.cluster_id, "history": founded.history}
    told = cluster.ask("members")
    text, token = make_token(founded.directory, NodeId(name), status, told, minutes=5.0, days=1.0)
    assert read_token(text) == token
    return token


@pytest.fixture(scope="module")
def token(founded: LocalCluster) -> JoinToken:
    return new_token(founded, Cluster(founded))


def join(joining: Joining, cluster: Cluster) -> dict[str, Any]:
    return join_cluster(
        joining,
        cluster,
        compatibility(),
        PLACE,
        RealFiles(),
        RealRandom(),
        RealClock(),
        with_learner,
        timeout_s=1.0,
    )


def test_the_directory_is_whole(token: JoinToken, cluster: Cluster, tmp_path: Path) -> None:
    joining = prepare_directory(token, tmp_path / "here")
    join(joining, cluster)
    (asked,) = cluster.added
    assert (asked["change"], asked["node"], asked["peer"]) == ("add", "n4", "127.0.0.1:9")
    config = load_config(str(joining.config_file))
    assert (config.node_id, config.cluster_id) == ("n4", token.cluster_id)
    assert config.history == HistoryId(token.history)
    assert config.data_dir == str(tmp_path / "here" / "data")
    assert [one.node_id for one in config.members] == ["n1", "n2", "n3", "n4"]
    assert config.tls is not None
    assert Path(config.tls.key).read_bytes() == token.key


@pytest.mark.parametrize("name", ["sqlite_source_id", "arithmetic", "journal_format"])
def test_what_computes_differently_is_refused(
    token: JoinToken, cluster: Cluster, tmp_path: Path, name: str
) -> None:
    cluster.computes[name] = "other"
    joining = prepare_directory(token, tmp_path / "here")
    with pytest.raises(ConfigError, match=f"{name} is other there") as caught:
        join(joining, cluster)
    assert caught.value.code == "incompatible"
    assert "one release" in caught.value.hint
    assert cluster.added == []
    assert not (tmp_path / "here").exists()


def test_a_sample_of_arithmetic_is_compared_with_who_tells_one(
    token: JoinToken, cluster: Cluster, tmp_path: Path
) -> None:
    """0.1.0 tells none, and what it computes it computes alike or not."""
    here, there = computes(), dict(cluster.computes)
    check_compatible(here, there)
    check_compatible(there, here)
    check_compatible(here, {**there, SAMPLE: here[SAMPLE]})
    for sample in ("other", None):
        with pytest.raises(ConfigError, match=f"{SAMPLE} is {sample} there"):
            check_compatible(here, {**there, SAMPLE: sample})


def test_an_older_release_is_refused(token: JoinToken, cluster: Cluster, tmp_path: Path) -> None:
    cluster.computes = {}
    with pytest.raises(ConfigError, match="older release"):
        join(prepare_directory(token, tmp_path / "here"), cluster)
    assert not (tmp_path / "here").exists()


def test_a_token_is_for_one_node(
    founded: LocalCluster, token: JoinToken, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.members.append({**cluster.members[0], "node_id": "n4"})
    with pytest.raises(ConfigError, match="n4 is a member") as caught:
        join(prepare_directory(token, tmp_path / "here"), cluster)
    assert caught.value.code == "token_used"
    assert not (tmp_path / "here").exists()
    with pytest.raises(ConfigError, match="cannot be called n4"):
        new_token(founded, cluster)

    cluster.members.pop()
    cluster.removed = ("n4",)
    with pytest.raises(ConfigError, match="was a member once"):
        join(prepare_directory(token, tmp_path / "here"), cluster)
    assert cluster.added == []
    for name in ("n4", "n1", "client"):
        with pytest.raises(ConfigError, match="cannot be called"):
            new_token(founded, cluster, name)


def test_a_refusal_behind_a_lost_answer_leaves_what_the_node_needs(
    token: JoinToken, cluster: Cluster, tmp_path: Path
) -> None:
    """The first try may have added it: without its directory that member never comes."""
    here = tmp_path / "here"
    cluster.problem = ConfigError("n4 is a member", code="member_exists", outcome="unknown")
    with pytest.raises(ConfigError):
        join(prepare_directory(token, here), cluster)
    cluster.problem = None
    joining = prepare_directory(token, here)
    assert joining.again
    join(joining, cluster)
    assert len(cluster.added) == 2


def test_refused_leaves_nothing_and_unknown_goes_on(
    founded: LocalCluster, token: JoinToken, cluster: Cluster, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    cluster.problem = ConfigError("it is the address of n1", code="address_taken")
    with pytest.raises(ConfigError):
        join(prepare_directory(token, here), cluster)
    assert not here.exists()

    cluster.problem = DeadlineError("no answer", outcome="unknown")
    with pytest.raises(DeadlineError):
        join(prepare_directory(token, here), cluster)
    # It was added after all, and the same command finds that out.
    cluster.members.append({**cluster.members[0], "node_id": "n4"})
    cluster.problem = None
    joining = prepare_directory(token, here)
    assert joining.again
    assert join(joining, cluster)["members"] == cluster.members
    assert len(cluster.added) == 2
    # Not by another token, and not into something else.
    cluster.members.pop()
    with pytest.raises(ConfigError, match="not to this token"):
        prepare_directory(new_token(founded, cluster), here)
    with pytest.raises(ConfigError, match="is not empty"):
        prepare_directory(token, here / "data")
    assert (here / "raftdb.toml").is_file()


def test_its_certificate_is_renewed_from_its_public_part(
    founded: LocalCluster, token: JoinToken
) -> None:
    place = founded.directory / "n4" / "tls"
    place.mkdir(parents=True)
    (place / "node.crt").write_bytes(token.certificate)
    ((path, issued),) = renew_certificates(founded.directory, ["n4"], 10.0)
    assert path == str(place)
    assert issued.uri == f"raftdb://{founded.cluster_id}/node/n4"
    assert issued.key == (place / "node.key").read_bytes() != token.key


def test_a_cluster_that_does_not_answer_leaves_nothing(token: JoinToken, tmp_path: Path) -> None:
    joining = prepare_directory(token, tmp_path / "here")
    with pytest.raises(UnavailableError, match="lets this node in") as caught:
        open_joining(joining, token_target(joining), 0.3)
    assert "revoked" in caught.value.hint
    assert not (tmp_path / "here").exists()
