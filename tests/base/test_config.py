"""The configuration: where values come from, what is refused, and that it survives writing."""

from __future__ import annotations

import contextlib
import os
import re
import string
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.config import (
    REQUIRED,
    RESERVED_VARIABLES,
    SETTINGS,
    NodeConfig,
    TimingConfig,
    TlsConfig,
    load_config,
)
from raftdb.base.config_text import render_toml
from raftdb.base.errors import ConfigError
from raftdb.base.ids import Address
from raftdb.base.limits import Limits
from raftdb.base.settings import MEMBER_KEYS, MemberConfig, toml_text
from raftdb.consensus.port import Timing

CLUSTER, HISTORY = "ab" * 16, "cd" * 16
DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"

HEAD = f"""
cluster_id = "{CLUSTER}"
history = "{HISTORY}"
node_id = "n1"
"""
MEMBERS = """
[[members]]
node_id = "n1"
location = "eu/madrid"
peer_address = "10.0.0.1:7101"
client_address = "10.0.0.1:7001"

[[members]]
node_id = "n2"
location = "eu/paris"
peer_address = "10.0.0.2:7101"
client_address = "10.0.0.2:7001"
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_it(body: str = "", *, head: str = HEAD, members: str = MEMBERS) -> str:
        path = tmp_path / "raftdb.toml"
        path.write_text(head + body + members)
        return str(path)

    return write_it


def refused(call: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        call()
    return caught.value


def test_defaults(write: Any, tmp_path: Path) -> None:
    config = load_config(write())
    assert config.peer_listen == Address("10.0.0.1", 7101)
    assert config.client_listen == Address("10.0.0.1", 7001)
    assert config.location == "eu/madrid"
    assert config.data_dir == str(tmp_path / "data")
    assert config.tls == TlsConfig(
        *(
            str(tmp_path / "tls" / name)
            for name in ("ca.crt", "node.crt", "node.key", "revoked.json")
        )
    )
    assert config.timing == TimingConfig()
    assert config.limits == Limits()
    assert (config.log.level, config.log.format, config.insecure) == ("info", "text", False)


def test_timing_has_the_engines_defaults() -> None:
    ours, engine = TimingConfig(), Timing()
    names = [field.name.removesuffix("_s") for field in fields(Timing)]
    assert names == [
        field.name.removesuffix("_ms") for field in fields(TimingConfig) if field.name != "measured"
    ]
    for name in names:
        assert getattr(ours, f"{name}_ms") == pytest.approx(getattr(engine, f"{name}_s") * 1000)


def test_flags_win_over_environment_over_file_over_defaults(write: Any) -> None:
    path = write("[limits]\ncursors_max = 1\nreaders_max = 1\n[log]\nlevel = 'warning'\n")
    environ = {"RAFTDB_LIMITS__CURSORS_MAX": "2", "RAFTDB_LOG__LEVEL": "error", "HOME": "/"}
    config = load_config(path, environ, {"log.level": "debug", "node_id": None})
    assert (config.limits.readers_max, config.limits.cursors_max) == (1, 2)
    assert config.log.level == "debug"
    assert config.limits.append_bytes_max == Limits().append_bytes_max


def test_everything_from_the_environment() -> None:
    environ = {
        "RAFTDB_CLUSTER_ID": CLUSTER,
        "RAFTDB_HISTORY_ID": HISTORY,
        "RAFTDB_NODE_ID": "n2",
        "RAFTDB_MEMBERS": "n1,eu,a:1,a:2; n2,us/east,b:1,[::1]:2",
        "RAFTDB_CLIENT_LISTEN": "0.0.0.0:7001",
        "RAFTDB_INSECURE": "TRUE",
        "RAFTDB_TIMING__HEARTBEAT_MS": "12.5",
        "RAFTDB_DATA_DIR": "/var/lib/raftdb",
        "RAFTDB_LOG__FORMAT": "",
    }
    config = load_config(None, environ)
    assert config.members[1] == MemberConfig(
        config.node_id, "us/east", Address("b", 1), Address("::1", 2)
    )
    assert config.client_listen == Address("0.0.0.0", 7001)
    assert (config.insecure, config.tls) == (True, None)
    assert config.timing.heartbeat_ms == 12.5
    assert config.data_dir == "/var/lib/raftdb"
    assert config.log.format == "text"


def test_relative_paths_belong_to_the_file(write: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = write("data_dir = '../elsewhere'\n[tls]\nkey = '/run/secrets/key'\n")
    monkeypatch.chdir("/")
    config = load_config(os.path.relpath(path, "/"))
    assert config.data_dir == str(tmp_path.parent / "elsewhere")
    assert config.tls is not None
    assert config.tls.key == "/run/secrets/key"


@pytest.mark.parametrize(
    ("body", "named", "nearest"),
    [
        ("clinet_listen = 'x:1'\n", "'clinet_listen'", "client_listen"),
        ("cursors_max = 5\n", "'cursors_max'", "limits.cursors_max"),
        ("[limits]\ncursor_max = 5\n", "'limits.cursor_max'", "limits.cursors_max"),
        ("[limit]\nx = 5\n", "'limit'", ""),
        ("[tls]\ncert = 'x'\n", "'tls.cert'", ""),
        ('"limits.cursors_max" = 5\n', "'limits.cursors_max'", ""),
    ],
)
def test_unknown_keys_in_the_file(write: Any, body: str, named: str, nearest: str) -> None:
    path = write(body)
    error = refused(lambda: load_config(path))
    assert path in error.message
    assert named in error.message
    assert nearest in error.hint


def test_unknown_keys_of_a_member(write: Any) -> None:
    path = write(members=MEMBERS.replace("peer_address", "peer_adress", 1))
    error = refused(lambda: load_config(path))
    assert path in error.message
    assert "'peer_adress'" in error.message
    assert "peer_address" in error.hint


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("RAFTDB_CLIENT_LISTENS", "RAFTDB_CLIENT_LISTEN"),
        ("RAFTDB_CURSORS_MAX", "RAFTDB_LIMITS__CURSORS_MAX"),
        ("RAFTDB_", ""),
        ("RAFTDB_client_listen", ""),
    ],
)
def test_unknown_environment_variables(write: Any, variable: str, nearest: str) -> None:
    path = write()
    error = refused(lambda: load_config(path, {variable: "1"}))
    assert variable in error.message
    assert nearest in error.hint


@pytest.mark.parametrize(
    "variable",
    [
        *sorted(RESERVED_VARIABLES),
        "RAFTDB_SERVICE_HOST",
        "RAFTDB_SERVICE_PORT_CLIENT",
        "RAFTDB_PORT",
        "RAFTDB_PORT_7001_TCP",
        "RAFTDB_PORT_7001_TCP_ADDR",
        "RAFTDB_N1_SERVICE_HOST",
        "RAFTDB_N1_PORT_7001_TCP_PROTO",
        "_RAFTDB_COMPLETE",
        "XRAFTDB_X",
    ],
)
def test_variables_that_are_not_meant_for_a_node(write: Any, variable: str) -> None:
    assert load_config(write(), {variable: "tcp://10.0.0.9:7001"}).node_id == "n1"


def test_unknown_flags(write: Any) -> None:
    path = write()
    error = refused(lambda: load_config(path, {}, {"limits.cursor_max": 3}))
    assert "command line" in error.message
    assert "limits.cursors_max" in error.hint


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("[limits]\ncursors_max = '5'\n", "a whole number"),
        ("[limits]\ncursors_max = 5.0\n", "a whole number"),
        ("[limits]\ncursors_max = true\n", "a whole number"),
        ("[limits]\ncursors_max = 9223372036854775808\n", ""),
        ("[timing]\nheartbeat_ms = '50'\n", "a number"),
        ("[timing]\nheartbeat_ms = nan\n", "a number"),
        ("[timing]\nheartbeat_ms = inf\n", "a number"),
        ("insecure = 1\n", "true or false"),
        ("insecure = 'yes'\n", "true or false"),
        ("data_dir = ''\n", "a path"),
        ("data_dir = ['a']\n", "a path"),
        ("client_listen = 7001\n", "host:port"),
        ("client_listen = 'nowhere'\n", ""),
        ("client_listen = 'x:99999'\n", ""),
        ("[log]\nlevel = 'loud'\n", "one of debug, info"),
        ("[log]\nlevel = 3\n", "one of debug, info"),
        ("limits = 5\n", ""),
        ("[node_id]\nx = 1\n", ""),
    ],
)
def test_wrong_types_in_the_file(write: Any, body: str, wanted: str) -> None:
    head = HEAD.replace('node_id = "n1"\n', "") if "[node_id]" in body else HEAD
    path = write(body, head=head)
    error = refused(lambda: load_config(path))
    assert path in error.message
    assert wanted in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RAFTDB_LIMITS__CURSORS_MAX", "many"),
        ("RAFTDB_LIMITS__CURSORS_MAX", "1e3"),
        ("RAFTDB_LIMITS__CURSORS_MAX", "0x10"),
        ("RAFTDB_LIMITS__CURSORS_MAX", "1" * 5000),
        ("RAFTDB_TIMING__HEARTBEAT_MS", "nan"),
        ("RAFTDB_INSECURE", "yes"),
        ("RAFTDB_MEMBERS", "n1,eu,a:1"),
        ("RAFTDB_MEMBERS", "n1,eu,a:1,b:2;"),
        ("RAFTDB_NODE_ID", "N1"),
        ("RAFTDB_CLUSTER_ID", "xyz"),
        ("RAFTDB_HISTORY_ID", "xyz"),
    ],
)
def test_wrong_values_in_the_environment(write: Any, variable: str, value: str) -> None:
    path = write()
    error = refused(lambda: load_config(path, {variable: value}))
    assert variable in error.message
    assert len(error.message) < 400
    assert error.hint


@pytest.mark.parametrize("missing", ["cluster_id", "history", "node_id"])
def test_missing_keys(write: Any, missing: str) -> None:
    path = write(head=re.sub(f"{missing} = .*\n", "", HEAD))
    error = refused(lambda: load_config(path))
    assert missing in error.message
    assert path in error.message
    assert SETTINGS[missing].variable in error.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_id": "n9"}, "node_id is n9"),
        ({"peer_listen": "x:1", "client_listen": "x:1"}, "both x:1"),
        ({"timing.election_min_ms": 600.0}, "too close"),
        ({"timing.heartbeat_ms": 200.0}, "heartbeat_ms"),
        ({"timing.leader_timeout_ms": 100.0}, "leader_timeout_ms"),
        ({"timing.reconnect_ms": 0.0}, "reconnect_ms"),
        ({"timing.connect_timeout_ms": 1e9}, "connect_timeout_ms"),
        ({"limits.cursors_max": 0}, "cursors_max"),
        ({"checkpoint.wal_bytes": 0}, "wal_bytes"),
        ({"routes": ["n2=a:1", "n2=b:1"]}, "two routes to n2"),
        ({"members": []}, "0 members"),
        ({"members": "n1,eu,a:1,a:1"}, "a:1 is used twice"),
        ({"members": "n1,eu,a:1,a:2;n1,eu,b:1,b:2"}, "n1 is used twice"),
        ({"members": "n1,eu,a:1,a:2;n2,eu,b:1,a:2"}, "a:2 is used twice"),
        ({"members": ";".join(f"n{i},eu,a:{i + 1},b:{i + 1}" for i in range(65))}, "65 members"),
    ],
)
def test_values_that_do_not_fit_together(write: Any, changes: dict[str, Any], message: str) -> None:
    path = write()
    error = refused(lambda: load_config(path, {}, changes))
    assert message in error.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read" in refused(lambda: load_config(str(tmp_path / "missing"))).message
    assert "cannot read" in refused(lambda: load_config(str(tmp_path))).message
    path = tmp_path / "x.toml"
    for content in (b"node_id = ", b"\xff\xfe", b"a = 1\na = 2\n", b"[" * 100_000):
        path.write_bytes(content)
        assert "is not TOML" in refused(lambda: load_config(str(path))).message
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert "more than" in refused(lambda: load_config(str(path))).message


def test_the_configuration_cannot_be_changed(write: Any) -> None:
    config = load_config(write())
    with pytest.raises(AttributeError):
        config.node_id = "x"  # type: ignore[misc,assignment]
    with pytest.raises(ConfigError, match="either"):
        replace(config, insecure=True)


# Writing.


@pytest.mark.parametrize("only_changed", [False, True])
@pytest.mark.parametrize("insecure", [False, True])
def test_round_trip(write: Any, tmp_path: Path, only_changed: bool, insecure: bool) -> None:
    changes = {
        "limits.cursors_max": 77,
        "timing.heartbeat_ms": 33.25,
        "log.format": "json",
        "client_listen": "[::]:7001",
        "data_dir": 'we"ird \\ dir\u00e4\t\x7f',
        "insecure": insecure,
        "routes": "n2=127.0.0.1:2002 n3=[::1]:2003",
    }
    config = load_config(write(), {}, changes)
    assert config.routes[0] == ("n2", Address("127.0.0.1", 2002))
    text = render_toml(config, relative_to=str(tmp_path), only_changed=only_changed)
    target = tmp_path / "again.toml"
    target.write_text(text)
    assert load_config(str(target)) == config
    assert str(tmp_path) not in text
    assert ("# cursors_max" not in text) == ("cursors_max = 77" in text)
    assert ("\n# readers_max = 8\n" in text) == only_changed
    assert ("[tls]" in text) == (not insecure)


def test_every_key_is_written_with_its_sentence(write: Any) -> None:
    text = render_toml(load_config(write()))
    tree = tomllib.loads(text)
    for setting in SETTINGS.values():
        assert setting.doc.endswith("."), setting.key
        assert f"# {setting.doc}" in text, setting.key
        section, _, name = setting.key.rpartition(".")
        assert name in (tree[section] if section else tree), setting.key
    assert all(len(line) <= 110 for line in text.splitlines())


def test_every_key_is_documented() -> None:
    text = DOCUMENT.read_text("utf-8")
    for setting in SETTINGS.values():
        row = re.search(rf"^\| `{re.escape(setting.key)}` \|(.*)\|(.*)\|$", text, re.M)
        assert row, f"docs/configuration.md has no row for {setting.key}"
        assert setting.doc in row[1], f"docs/configuration.md says something else of {setting.key}"
        if setting.default not in (REQUIRED, None):
            shown = setting.kind.to_toml(setting.default)
            assert row[2].strip() == f"`{shown}`", f"the default of {setting.key} is {shown}"
    for key in MEMBER_KEYS:
        assert f"`{key}`" in text


def test_every_documented_key_exists() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \|", DOCUMENT.read_text("utf-8"), re.M)
    assert sorted(rows) == sorted([*SETTINGS, *MEMBER_KEYS])


# Properties.

NAME = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
PORT = st.integers(1, 65535)


@given(st.text())
def test_toml_text_round_trips(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert tomllib.loads(f"x = {toml_text(text)}") == {"x": text}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(SETTINGS)), ANYTHING)
def test_whatever_is_given_is_taken_or_refused_with_its_key(key: str, value: Any) -> None:
    environ = {
        "RAFTDB_CLUSTER_ID": CLUSTER,
        "RAFTDB_HISTORY_ID": HISTORY,
        "RAFTDB_NODE_ID": "n1",
        "RAFTDB_MEMBERS": "n1,eu,a:1,a:2",
    }
    try:
        config = load_config(None, environ, {key: value})
    except ConfigError:
        return
    assert isinstance(config, NodeConfig)
    assert load_config(None, environ, {key: value}) == config


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=40))
def test_whatever_a_variable_holds_is_taken_or_refused(key: str, value: str) -> None:
    environ = {
        "RAFTDB_CLUSTER_ID": CLUSTER,
        "RAFTDB_HISTORY_ID": HISTORY,
        "RAFTDB_NODE_ID": "n1",
        "RAFTDB_MEMBERS": "n1,eu,a:1,a:2",
        SETTINGS[key].variable: value,
    }
    with contextlib.suppress(ConfigError):
        load_config(None, environ)


@given(NAME, NAME, PORT, PORT)
def test_members_as_text(node_id: str, host: str, one: int, two: int) -> None:
    if one == two:
        return
    environ = {
        "RAFTDB_CLUSTER_ID": CLUSTER,
        "RAFTDB_HISTORY_ID": HISTORY,
        "RAFTDB_NODE_ID": node_id,
        "RAFTDB_MEMBERS": f"{node_id},eu,{host}:{one},{host}:{two}",
    }
    config = load_config(None, environ)
    assert config.member == MemberConfig(
        config.node_id, "eu", Address(host, one), Address(host, two)
    )
