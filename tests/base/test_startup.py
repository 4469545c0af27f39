"""What a node makes sure of before it takes part."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.config import NodeConfig, load_config
from raftdb.base.errors import ConfigError
from raftdb.base.ids import ClusterId, HistoryId, NodeId
from raftdb.base.layout import removed_path
from raftdb.base.startup import (
    COPY_FILE,
    IDENTITY_FILE,
    RELEASED,
    NodeIdentity,
    check_clock,
    check_identity,
    parse_identity,
    render_identity,
    time_text,
    write_identity,
)
from raftdb.runtime.files import RealFiles
from tests.consensus.bench import ListLog

CLUSTER, HISTORY = ClusterId("ab" * 16), HistoryId("cd" * 16)
OWN = NodeIdentity(CLUSTER, HISTORY, NodeId("n1"), "2026-06-01T12:00:00Z")
FILES = RealFiles()


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    environ = {
        "RAFTDB_CLUSTER_ID": CLUSTER,
        "RAFTDB_HISTORY_ID": HISTORY,
        "RAFTDB_NODE_ID": "n1",
        "RAFTDB_MEMBERS": "n1,eu,a:1,a:2",
        "RAFTDB_DATA_DIR": str(tmp_path / "data"),
    }
    return load_config(None, environ)


def test_a_founded_directory_is_recognised(config: NodeConfig) -> None:
    write_identity(FILES, config.data_dir, OWN)
    assert check_identity(FILES, config) == OWN
    path = Path(config.data_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert json.loads((path / IDENTITY_FILE).read_text())["format"] == 1


def test_an_empty_directory_is_not_a_member(config: NodeConfig) -> None:
    for make in (False, True):
        if make:
            Path(config.data_dir).mkdir()
        with pytest.raises(ConfigError) as caught:
            check_identity(FILES, config)
        assert config.data_dir in caught.value.message
        assert "is empty" in caught.value.message or "does not exist" in caught.value.message
        assert "raftdb init" in caught.value.hint
        assert "new member" in caught.value.hint
        assert not (Path(config.data_dir) / IDENTITY_FILE).exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR])
def test_a_directory_that_cannot_be_read_is_no_lost_disk(config: NodeConfig, number: int) -> None:
    """Who takes it for one gives a node up that has all its data."""

    class Closed(RealFiles):
        def exists(self, path: str) -> bool:
            return False

        def list_directory(self, path: str) -> list[str]:
            raise OSError(number, os.strerror(number), path)

    with pytest.raises(ConfigError, match=os.strerror(number)) as caught:
        check_identity(Closed(), config)
    assert "replace" not in caught.value.hint


def test_a_removed_node_stays_removed(config: NodeConfig) -> None:
    write_identity(FILES, config.data_dir, OWN)
    Path(removed_path(config.data_dir)).write_text('{"node_id": "n1", "index": 17}')
    with pytest.raises(ConfigError, match="removed from the cluster, by entry 17") as caught:
        check_identity(FILES, config)
    assert caught.value.code == "removed"
    Path(removed_path(config.data_dir)).write_text("half a f")
    with pytest.raises(ConfigError, match="removed from the cluster"):
        check_identity(FILES, config)


def test_some_other_directory(config: NodeConfig) -> None:
    Path(config.data_dir).mkdir()
    (Path(config.data_dir) / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not the data directory"):
        check_identity(FILES, config)
    with pytest.raises(ConfigError, match="not empty"):
        write_identity(FILES, config.data_dir, OWN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_id": NodeId("n2")}, "of node n2, and this is node n1"),
        ({"cluster_id": ClusterId("ef" * 16)}, "of cluster efef"),
        ({"history": HistoryId("01" * 16)}, "of history 0101"),
    ],
)
def test_another_nodes_data(config: NodeConfig, change: dict[str, Any], message: str) -> None:
    write_identity(FILES, config.data_dir, replace(OWN, **change))
    with pytest.raises(ConfigError) as caught:
        check_identity(FILES, config)
    assert message in caught.value.message
    assert config.data_dir in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": 2}', b'{"format": 1}'],
)
def test_a_damaged_identity_is_named(config: NodeConfig, content: bytes) -> None:
    path = Path(config.data_dir) / IDENTITY_FILE
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        check_identity(FILES, config)
    assert str(path) in caught.value.message
    assert "raftdb member replace n1 " in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', None, "other"])
def test_a_damaged_identity_heals_from_its_copy(
    config: NodeConfig, content: bytes | str | None
) -> None:
    write_identity(FILES, config.data_dir, OWN)
    path = Path(config.data_dir) / IDENTITY_FILE
    whole = path.read_bytes()
    if content is None:
        path.unlink()
    elif content == "other":
        path.write_bytes(render_identity(replace(OWN, node_id=NodeId("n2"))))
    else:
        path.write_bytes(bytes(content, "ascii") if isinstance(content, str) else content)
    log = ListLog()
    assert check_identity(FILES, config, log) == OWN
    assert log.events() == ["identity_healed"]
    assert path.read_bytes() == whole
    assert check_identity(FILES, config, log) == OWN
    assert log.events() == ["identity_healed"]


def test_a_copy_that_does_not_verify_or_is_anothers_heals_nothing(config: NodeConfig) -> None:
    write_identity(FILES, config.data_dir, OWN)
    path, copy = Path(config.data_dir) / IDENTITY_FILE, Path(config.data_dir) / COPY_FILE
    good = copy.read_bytes()
    path.write_bytes(b"{")
    for at in range(len(good)):
        copy.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ConfigError, match="is damaged"):
            check_identity(FILES, config)
        assert path.read_bytes() == b"{"
    other = replace(config, history=HistoryId("01" * 16))
    copy.write_bytes(good)
    with pytest.raises(ConfigError, match="is damaged"):
        check_identity(FILES, other)


def test_a_directory_of_an_earlier_release_gets_its_copy(config: NodeConfig) -> None:
    write_identity(FILES, config.data_dir, OWN)
    copy = Path(config.data_dir) / COPY_FILE
    good = copy.read_bytes()
    for content in (None, b"rotten"):
        copy.unlink()
        if content is not None:
            copy.write_bytes(content)
        assert check_identity(FILES, config) == OWN
        assert copy.read_bytes() == good


@given(st.binary(max_size=200))
def test_any_bytes_are_an_identity_or_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_identity(data, "x")


@given(
    st.dictionaries(
        st.sampled_from(["format", "cluster_id", "history", "node_id", "created", "more"]),
        st.none() | st.integers(0, 2) | st.text(max_size=40) | st.just("ab" * 16),
    )
)
def test_any_object_is_an_identity_or_refused(value: dict[str, Any]) -> None:
    try:
        found = parse_identity(json.dumps(value).encode(), "x")
    except ConfigError:
        return
    assert parse_identity(render_identity(found), "x") == found


def test_identity_round_trips() -> None:
    assert parse_identity(render_identity(OWN), "x") == OWN


class Lines:
    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        raise AssertionError(event)

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append((event, fields))

    def error(self, event: str, **fields: Any) -> None:
        raise AssertionError(event)


NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


def test_a_clock_before_the_release_is_refused() -> None:
    for wall_ms in (0, -5, int(RELEASED.timestamp() * 1000) - 1):
        with pytest.raises(ConfigError) as caught:
            check_clock(wall_ms, None, Lines())
        assert time_text(wall_ms) in caught.value.message
        assert "set the clock" in caught.value.hint
    check_clock(int(RELEASED.timestamp() * 1000), None, Lines())


@pytest.mark.parametrize(
    ("last_ms", "alarm"),
    [
        (None, False),
        (0, False),
        (NOW_MS, False),
        (NOW_MS + HOUR_MS, False),
        (NOW_MS + HOUR_MS + 1, True),
        (NOW_MS - 366 * 24 * HOUR_MS, False),
        (NOW_MS - 366 * 24 * HOUR_MS - 1, True),
        (1 << 62, True),
    ],
)
def test_a_clock_far_from_the_last_write_gives_an_alarm(last_ms: int | None, alarm: bool) -> None:
    log = Lines()
    check_clock(NOW_MS, last_ms, log)
    assert [event for event, _ in log.warnings] == (["clock_far_off"] if alarm else [])
    assert all(fields["hint"] for _, fields in log.warnings)
