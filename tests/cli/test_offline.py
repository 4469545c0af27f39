"""Commands that need no running node: inspect, cert, start --print-config."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest

from raftdb.base.config import load_config
from raftdb.base.ids import Index, Term
from raftdb.command import (
    CloseSession,
    Commit,
    Configure,
    Execute,
    Key,
    OpenSession,
    Outcome,
    Recorded,
    Request,
    Statement,
    Tick,
    Verdict,
    encode_request,
)
from raftdb.command.requests import Stamp
from raftdb.journal import LogEntry
from raftdb.journal.recovery import LOCK_NAME
from raftdb.ops.found import found_local
from raftdb.ops.inspect import entry_facts
from raftdb.runtime.files import RealFiles
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster that was never started."""
    directory = tmp_path_factory.mktemp("offline") / "cluster"
    found_local(directory, base_port=26000)
    return directory


def test_inspect_a_fresh_node(raftdb: Command, founded: Path) -> None:
    done = raftdb("inspect", founded / "n1", "--json")
    assert done.code == 0, done
    facts = done.json()
    assert facts["node_id"] == "n1"
    assert facts["journal"]["last_index"] == 1
    assert facts["damage"] == []
    assert "sound" in raftdb("inspect", founded / "n1").out
    assert raftdb("inspect", founded / "n1" / "data", "--journal").code == 0
    entries = raftdb("inspect", founded / "n1", "--entries", "1:").out
    assert json.loads(entries) == {"index": 1, "term": 0, "bytes": 0, "requests": []}


def test_inspect_names_damage(raftdb: Command, tmp_path: Path) -> None:
    found_local(tmp_path / "c", base_port=26100)
    [segment] = (tmp_path / "c" / "n1" / "data" / "journal").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[20] ^= 0xFF
    segment.write_bytes(data)
    done = raftdb("inspect", tmp_path / "c" / "n1")
    assert done.code == 4, done
    assert f"DAMAGE {segment}" in done.out


def test_inspect_shows_what_is_left_of_a_node(raftdb: Command, tmp_path: Path) -> None:
    found_local(tmp_path / "c", base_port=26300)
    data = tmp_path / "c" / "n1" / "data"
    text = (data / "node.json").read_text()
    for broken in (text.replace("{", "[", 1), text.replace('"n1"', '"n3"')):
        (data / "node.json").write_text(broken)
        done = raftdb("inspect", tmp_path / "c" / "n1", "--json")
        assert done.code == 4, done
        facts = done.json()
        assert "node.json is damaged" in facts["damage"][0]
        # By the copy, which verifies.
        assert facts["node_id"] == "n1"
        assert facts["journal"]["last_index"] == 1
        assert facts["database"]["damage"] == []
        # Whoever is to be recovered is not refused for it, either.
        assert raftdb("recover", tmp_path / "c" / "n1", "--json").code == 0
    (data / "node.json.copy").write_text("x")
    (data / "node.json").write_text(text.replace("{", "[", 1))
    facts = raftdb("inspect", tmp_path / "c" / "n1", "--json").json()
    assert len(facts["damage"]) == 2
    assert facts["node_id"] == "n1"
    assert "n1 of cluster" in raftdb("inspect", tmp_path / "c" / "n1").out
    # Nothing tells any more whose it is; and neither CURRENT nor a segment reads.
    (tmp_path / "c" / "n1" / "raftdb.toml").write_text("node_id = ")
    (data / "database" / "CURRENT").write_text("generation\n")
    (data / "damage.json").write_text('{"format": 1}')
    for one in (data / "journal").glob("*.segment"):
        one.unlink()
    done = raftdb("inspect", tmp_path / "c" / "n1")
    assert done.code == 4, done
    for said in ("raftdb.toml", "node.json", "does not name a generation", "no journal"):
        assert any(said in line for line in done.out.splitlines() if "DAMAGE" in line), said
    assert 'damage.json  {"format": 1}' in done.out
    assert raftdb("inspect", data, "--json").json()["node_id"] is None


def test_inspect_decodes_every_kind_of_request() -> None:
    stamp = Stamp(1, bytes(8))
    statement = Statement("SELECT 1", ((b"x",),))
    requests: list[Request] = [
        OpenSession(stamp, bytes(16), "app"),
        CloseSession(stamp, 7),
        Execute(stamp, 7, 1, 0, (statement,)),
        Commit(stamp, 7, 2, 0, (Recorded(1, statement, bytes(16)),)),
        Outcome(stamp, 0, 0, Key("order", 5)),
        Tick(stamp),
        Verdict(stamp, 9, 1, keep=True),
        Configure(stamp, {"survive": "zone"}),
    ]
    assert {type(one) for one in requests} == set(get_args(Request))
    data = [encode_request(one) for one in requests]
    facts = entry_facts(LogEntry(Index(2), Term(1), b"x"), lambda _data: data)
    assert "problem" not in facts
    found = json.loads(json.dumps(facts["requests"]))
    assert [one["kind"] for one in found] == [type(one).__name__ for one in requests]
    assert found[3]["statements"] == found[2]["statements"]
    assert found[3]["statements"][0]["first_parameters"] == ["<1 bytes>"]
    assert found[4]["key"] == {"name": "order", "horizon": 5}
    assert found[7]["changes"] == {"survive": "zone"}


def test_inspect_refuses_a_running_node_and_no_node(
    raftdb: Command, founded: Path, tmp_path: Path
) -> None:
    lock = founded / "n2" / "data" / "journal" / LOCK_NAME
    release = RealFiles().lock(str(lock))
    done = raftdb("inspect", founded / "n2")
    release()
    assert done.code == 2
    assert "is running" in done.err
    done = raftdb("inspect", tmp_path)
    assert done.code == 2
    assert "no directory of a node" in done.err
    assert raftdb("inspect", founded / "n1", "--entries", "x:y").code == 2


def test_cert_show(raftdb: Command, founded: Path) -> None:
    done = raftdb("cert", "show", "--dir", founded, "--json")
    assert done.code == 0, done
    names = [one["name"].rsplit("/", 2)[-1] for one in done.json()]
    assert sorted(names) == ["CA", "client", "n1", "n2", "n3"]
    assert all(one["days_left"] > 360 for one in done.json())
    assert raftdb("cert", "show", "--dir", founded / "n1").code == 0


def test_cert_renew_issue_revoke(raftdb: Command, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    found_local(directory, base_port=26200)
    before = (directory / "n1" / "tls" / "node.crt").read_bytes()
    done = raftdb("cert", "renew", "n1", "--dir", directory, "--days", "10", "--json")
    assert done.code == 0, done
    assert (directory / "n1" / "tls" / "node.crt").read_bytes() != before
    shown = raftdb("cert", "show", "--dir", directory)
    assert shown.code == 1
    assert shown.out.splitlines()[0].endswith("RENEW IT")

    extra = tmp_path / "reporting"
    done = raftdb("cert", "issue", "reporting", "--dir", directory, "--to", extra)
    assert done.code == 0, done
    assert {"client.toml", "client.key", "client.crt", "ca.crt"} <= set(os.listdir(extra))
    assert raftdb("cert", "issue", "x", "--dir", directory, "--to", extra).code == 2

    done = raftdb("cert", "revoke", "reporting", "--dir", directory, "--json")
    assert done.code == 0, done
    [revoked] = done.json()["revoked"]
    for node in ("n1", "n2", "n3"):
        text = (directory / node / "tls" / "revoked.json").read_text()
        assert revoked["serial"] in text
    assert raftdb("cert", "revoke", "nobody", "--dir", directory).code == 2
    assert "REVOKED" not in raftdb("cert", "show", "--dir", directory).out
    raftdb("cert", "revoke", "client", "--dir", directory)
    assert "REVOKED" in raftdb("cert", "show", "--dir", directory).out


def test_cert_needs_an_authority(raftdb: Command, founded: Path, tmp_path: Path) -> None:
    done = raftdb("cert", "renew", "--dir", founded / "n1")
    assert done.code == 2
    assert "no certificate authority" in done.err
    assert raftdb("cert", "renew", "n9", "--dir", founded).code == 2
    assert raftdb("cert", "show", "--dir", tmp_path).code == 2


def test_print_config_goes_by_flags_then_environment_then_file(
    raftdb: Command, founded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAFTDB_LOG__LEVEL", "warning")
    monkeypatch.setenv("RAFTDB_LOG__FORMAT", "json")
    config = founded / "n1" / "raftdb.toml"
    arguments = ("--log-level", "debug", "--set", "limits.cursors_max=77", "--print-config")
    done = raftdb("start", "--config", config, *arguments)
    assert done.code == 0, done
    path = tmp_path / "printed.toml"
    path.write_text(done.out)
    monkeypatch.delenv("RAFTDB_LOG__LEVEL")
    monkeypatch.delenv("RAFTDB_LOG__FORMAT")
    printed = load_config(str(path))
    assert (printed.log.level, printed.log.format) == ("debug", "json")
    assert printed.limits.cursors_max == 77
    assert printed.data_dir == str(founded / "n1" / "data")
    assert raftdb("start", "--config", config, "--print-config", "--json").json()["node_id"] == "n1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which node?"),
        (("--config", "none.toml"), "cannot read the configuration"),
        (("--set", "x"), "KEY=VALUE"),
        (("--config", "CONFIG", "--set", "limits.sesions_max=1"), "did you mean"),
        (("--config", "CONFIG", "--peer-listen", "nonsense"), "not an address"),
    ],
)
def test_start_says_what_is_wrong_with_its_configuration(
    raftdb: Command, founded: Path, arguments: tuple[str, ...], message: str
) -> None:
    config = str(founded / "n1" / "raftdb.toml")
    done = raftdb("start", *(config if one == "CONFIG" else one for one in arguments))
    assert done.code == 2, done
    assert message in done.err
