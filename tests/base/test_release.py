"""Releases and feature levels: the table, and what a node says of itself."""

from __future__ import annotations

import pytest

from raftdb._version import __version__
from raftdb.base import release
from raftdb.base.cluster import check_change
from raftdb.base.errors import ConfigError
from raftdb.base.release import Announced, allows, check_level, level_of
from raftdb.embedded.compatibility import compatibility
from raftdb.machine.format import FORMAT_FENCED, FORMAT_VERSION


def test_the_table_is_whole() -> None:
    assert [one.level for one in release.RELEASES] == list(range(1, release.LEVEL_MAX + 1))
    assert release.RELEASES[-1].version == __version__
    assert 1 <= release.LEVEL_MIN <= release.LEVEL_MAX
    assert all(1 <= level <= release.LEVEL_MAX for level in release.FEATURES.values())


def test_the_table_has_the_formats_of_this_release() -> None:
    told, reads = compatibility(), release.RELEASES[-1].reads
    assert set(reads) == {"format_version", "journal_format", "peer_protocol"}
    assert [name for name in reads if told[name] not in reads[name]] == []
    assert reads["format_version"] == (FORMAT_VERSION, FORMAT_FENCED)
    # What a cluster of level 1 writes is what the release before reads.
    assert [
        name for name, known in release.RELEASES[0].reads.items() if told[name] not in known
    ] == []


@pytest.mark.parametrize("name", release.FEATURES)
def test_a_feature_waits_for_its_level(name: str) -> None:
    level = release.FEATURES[name]
    assert not allows(name, level - 1)
    assert allows(name, level)
    assert allows(name, level + 1)


def test_a_feature_that_is_not_listed_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        allows("something", 1)


@pytest.mark.parametrize("stored", [{}, {"feature_level": "2"}, {"feature_level": True}])
def test_nobody_raised_it(stored: dict[str, object]) -> None:
    assert level_of(stored) == 1


def test_a_level_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_level(1, "x")
    check_level(2, "x")
    with pytest.raises(ConfigError, match="x has feature level 3, and this release runs 1-2") as e:
        check_level(3, "x")
    assert "never lowered" in e.value.hint
    monkeypatch.setattr(release, "LEVEL_MIN", 2)
    with pytest.raises(ConfigError, match="feature level 1, and this release runs 2 ") as e:
        check_level(1, "x")
    assert "install raftdb 0.2.0 first, raise the level" in e.value.hint


def test_what_a_node_says_is_read_again_with_what_a_later_one_adds() -> None:
    said = Announced("0.2.0", 1, 2, 2)
    assert Announced.from_bytes(said.to_bytes()) == said
    assert Announced.from_bytes(b'["9.1.0rc1", 3, 7, 5, {"more": 1}]') == Announced(
        "9.1.0rc1", 3, 7, 5
    )
    assert [said.runs(level) for level in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[",
        b"7",
        b'["0.2.0", 1, 2]',
        b'["0.2.0", 1, 2, 0]',
        b'["0.2.0", 1, 2, "2"]',
        b'["", 1, 2, 1]',
        b'["0.2.0", 2, 1, 1]',
        b'["0.2.0", 0, 1, 1]',
        b'["0.2.0", true, 2, 1]',
        b'["0.2.0", 1, 2e3, 1]',
        b'["0.2.0", 1, 99999999, 1]',
        b"[" * 200,
        b'["0.2.0", 1, 2, 1]' + b" " * 200,
        b"\xff\xfe",
    ],
)
def test_what_does_not_read(data: bytes) -> None:
    with pytest.raises(ValueError):
        Announced.from_bytes(data)


def test_it_is_not_set_like_a_setting() -> None:
    for value in (2, None):
        with pytest.raises(ConfigError, match="not set like this") as caught:
            check_change("feature_level", value)
        assert "upgrade finalize" in caught.value.hint
