"""Founding a cluster, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from raftdb.base.config import load_config
from raftdb.base.errors import ConfigError, FatalError
from raftdb.node.membership import change_of
from raftdb.ops import found
from raftdb.ops.found import check_members, local_members, parse_member, warnings_about
from tests.cli.conftest import Command

NODES = [
    f"n{n},location=eu/madrid/rack{n},peer=10.0.{n}.5:7001,client=10.0.{n}.5:7002"
    for n in (1, 2, 3)
]


def test_a_local_cluster(raftdb: Command, tmp_path: Path) -> None:
    directory = tmp_path / "a" / "cluster"
    done = raftdb("init", directory, "--local", 3, "--base-port", 25000, "--json")
    assert done.code == 0, done
    facts = done.json()
    assert [node["client"] for node in facts["nodes"]] == [
        f"127.0.0.1:{port}" for port in (25001, 25003, 25005)
    ]
    assert facts["warnings"] == []
    for number, node in enumerate(facts["nodes"], start=1):
        config = load_config(node["config"])
        assert config.node_id == f"n{number}"
        assert config.cluster_id == facts["cluster_id"]
        assert config.data_dir == str(directory / f"n{number}" / "data")
        assert config.tls is not None
        assert Path(config.tls.key).is_file()
    for path in directory.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "ca").stat().st_mode) & 0o077 == 0


def test_what_to_do_next_is_said(raftdb: Command, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    done = raftdb("init", directory, *(part for node in NODES for part in ("--node", node)))
    assert done.code == 0, done
    assert f"scp -r {directory}/n2 10.0.2.5:raftdb" in done.out
    assert "ssh 10.0.2.5 raftdb start --config raftdb/raftdb.toml" in done.out
    assert f"raftdb sql --dir {directory}" in done.out
    assert "keep it off the nodes" in done.out


def test_nothing_is_overwritten(raftdb: Command, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = raftdb("init", tmp_path, "--local", 3)
    assert done.code == 2
    assert "is not empty: it holds 'precious'" in done.err
    assert os.listdir(tmp_path) == ["precious"]
    assert raftdb("init", tmp_path / "precious", "--local", 3).code == 2


def test_a_failure_half_way_leaves_nothing(
    raftdb: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FatalError("no space left")

    monkeypatch.setattr(found.Machine, "create", fail)
    directory = tmp_path / "c"
    assert raftdb("init", directory, "--local", 3).code == 4
    assert not directory.exists()
    directory.mkdir()
    assert raftdb("init", directory, "--local", 3).code == 4
    assert os.listdir(directory) == []


def test_insecure_warns(raftdb: Command, tmp_path: Path) -> None:
    done = raftdb("init", tmp_path / "c", "--local", 1, "--insecure")
    assert done.code == 0
    assert "no TLS" in done.err
    assert not (tmp_path / "c" / "ca").exists()
    assert load_config(str(tmp_path / "c" / "n1" / "raftdb.toml")).tls is None


def test_usage(raftdb: Command, tmp_path: Path) -> None:
    assert raftdb("init", tmp_path / "c").code == 2
    assert raftdb("init", tmp_path / "c", "--local", 3, "--node", NODES[0]).code == 2
    assert raftdb("init", tmp_path / "c", "--node", NODES[0], "--base-port", 5000).code == 2
    assert raftdb("init", tmp_path / "c", "--local", 0).code == 2
    assert raftdb("init", tmp_path / "c", "--local", 3, "--base-port", 65535).code == 2
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n1", "has no location"),
        ("n1,location=eu,peer=h:1", "has no client"),
        ("n1,location=eu,peer=h:1,client=h:2,x=1", "'x=1' .* not understood"),
        ("n1,location=eu,location=us,peer=h:1,client=h:2", "not understood"),
        ("N1,location=eu,peer=h:1,client=h:2", "not a node id"),
        ("n1,location=EU,peer=h:1,client=h:2", "not a location"),
        ("n1,location=eu,peer=h,client=h:2", "not an address"),
        ("n1,location=eu,peer=0.0.0.0:1,client=h:2", "nobody can be reached"),
        ("n1,location=eu,peer=h:1,client=[::]:2", "nobody can be reached"),
    ],
)
def test_bad_nodes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_member(text)


@pytest.mark.parametrize(
    ("kind", "where"),
    [("add", {"peer": "0.0.0.0:1", "client": "h:2"}), ("move", {"peer": "[::]:1"})],
)
def test_nobody_is_a_member_where_nobody_is_found(kind: str, where: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="nobody can be reached there"):
        change_of(kind, {"node": "n4", "location": "eu", **where}, force=False)


def test_members_that_make_no_cluster() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        check_members([parse_member(NODES[0]), parse_member(NODES[0])])
    twice = parse_member("n9,location=eu,peer=10.0.1.5:7001,client=h:2")
    with pytest.raises(ConfigError, match=r"10\.0\.1\.5:7001 is given twice"):
        check_members([parse_member(NODES[0]), twice])
    with pytest.raises(ConfigError, match="cannot be called client"):
        check_members([parse_member("client,location=eu,peer=h:1,client=h:2")])
    with pytest.raises(ConfigError, match="without nodes"):
        check_members([])


def test_warnings() -> None:
    def members(*locations: str) -> list[found.MemberConfig]:
        return [
            parse_member(f"n{n},location={place},peer=h{n}:1,client=h{n}:2")
            for n, place in enumerate(locations)
        ]

    assert warnings_about(members("eu/a", "us/b", "ap/c")) == []
    assert "cannot lose any" in warnings_about(members("eu/a"))[0]
    assert "survive the loss of 1, as 3" in warnings_about(members("a", "b", "c", "d"))[0]
    assert warnings_about(members("eu/a", "eu/b", "us/c")) == [
        "the loss of the region eu (2 of 3 nodes) stops all"
    ]


def test_local_members_take_neighbouring_ports() -> None:
    ports = [(one.peer_address.port, one.client_address.port) for one in local_members(3, 100)]
    assert ports == [(100, 101), (102, 103), (104, 105)]
