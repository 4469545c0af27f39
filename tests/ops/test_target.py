"""Which cluster is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.base.errors import ConfigError
from raftdb.base.ids import Address, ClusterId
from raftdb.client.options import make_options
from raftdb.ops.target import (
    Target,
    cluster_url,
    find_target,
    read_client_file,
    render_client_file,
)

ADDRESSES = [Address("h1", 7002), Address("::1", 7003)]
CLUSTER = ClusterId("0123456789abcdef" * 2)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    client = tmp_path / "a cluster" / "client"
    client.mkdir(parents=True)
    (client / "client.toml").write_text(render_client_file(ADDRESSES, CLUSTER, insecure=False))
    return client.parent


def test_the_client_file_reads_back_with_paths_beside_it(directory: Path) -> None:
    target = read_client_file(directory / "client" / "client.toml")
    assert target.url == "raftdb://h1:7002,[::1]:7003/"
    assert target.options == {
        "cluster": CLUSTER,
        "ca": str(directory / "client" / "ca.crt"),
        "cert": str(directory / "client" / "client.crt"),
        "key": str(directory / "client" / "client.key"),
    }
    options = make_options(target.url, target.options)
    assert options.addresses == tuple(ADDRESSES)
    assert options.cert.endswith("client.crt")


def test_an_insecure_client_file(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(render_client_file(ADDRESSES, CLUSTER, insecure=True))
    target = read_client_file(path)
    assert make_options(target.url, target.options).insecure


def test_urls_carry_certificates_for_the_library(tmp_path: Path) -> None:
    place = tmp_path / "with space&more"
    options = make_options(cluster_url(ADDRESSES, place), {})
    assert options.ca == str(place / "ca.crt")
    assert options.key == str(place / "client.key")
    assert make_options(cluster_url(ADDRESSES, None), {}).insecure


def test_where_the_target_comes_from(directory: Path) -> None:
    by_directory = read_client_file(directory / "client" / "client.toml")
    assert find_target(None, directory, {}) == by_directory
    assert find_target(None, directory / "client", {}) == by_directory
    assert find_target(str(directory), None, {}) == by_directory
    assert find_target(None, None, {"RAFTDB_DIR": str(directory)}) == by_directory
    assert find_target("raftdb://h:1/", None, {"RAFTDB_DIR": "x"}).url == "raftdb://h:1/"
    assert find_target(None, None, {"RAFTDB_URL": "raftdb://h:1/"}) == Target(
        "raftdb://h:1/", {}, "the command line"
    )


def test_what_cannot_be_a_target(directory: Path, tmp_path: Path) -> None:
    for url, place, message in (
        (None, None, "which cluster"),
        ("raftdb://h:1/", directory, "both a URL and --dir"),
        ("http://h:1/", None, "neither a URL nor a directory"),
        ("nowhere", None, "neither a URL nor a directory"),
        (None, tmp_path / "none", "client.toml is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_target(url, place, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url = 5", "url is 5"),
        ("nonsense", "cannot read"),
        ('url = "raftdb://h:1/"\nkye = "x"', r"unknown key 'kye' .*did you mean key"),
        ('url = "raftdb://h:1/"\ncluster = "x"', "not a cluster id"),
    ],
)
def test_bad_client_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_client_file(path)
