"""URLs and options: what is wrong is said, and what is secret is not."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import raftdb
from raftdb.base.errors import ConfigError, InterfaceError
from raftdb.base.ids import Address
from raftdb.client.options import Options, make_options, with_timeout

CLUSTER = "a" * 32


def test_a_full_url() -> None:
    options = make_options(
        f"raftdb://h1:1,h2:2,[::1]:3/?ca=/c/ca.crt&cert=c.crt&key=c%20d.key&cluster={CLUSTER}"
        "&timeout=2.5&read=local&prefer=n2&pin=1&name=app",
        {},
    )
    assert options == Options(
        addresses=(Address("h1", 1), Address("h2", 2), Address("::1", 3)),
        ca="/c/ca.crt",
        cert="c.crt",
        key="c d.key",
        cluster=CLUSTER,
        timeout=2.5,
        read="local",
        prefer="n2",
        pin=True,
        name="app",
    )


def test_keywords_win_and_have_longer_names_too() -> None:
    options = make_options(
        "raftdb://h:1?cert=a&timeout=9",
        {"certificate": "b", "cluster_id": CLUSTER, "timeout": 1, "ca": None},
    )
    assert (options.cert, options.cluster, options.timeout) == ("b", CLUSTER, 1.0)


def test_addresses_as_keyword() -> None:
    assert make_options(None, {"addresses": "h1:1, h2:2"}).addresses == (
        Address("h1", 1),
        Address("h2", 2),
    )
    assert make_options(None, {"addresses": ["h:1", Address("h", 1)]}).addresses == (
        Address("h", 1),
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1/",
        "h:1",
        "",
        "raftdb://",
        "raftdb://h/",
        "raftdb://h:0/",
        "raftdb://h:99999/",
        "raftdb://h:x/",
        "raftdb://h:1,/",
        "raftdb://h:1/database",
        "raftdb://user:secret@h:1/",
        "raftdb://h:1/?nonsense=1",
        "raftdb://h:1/?timeout",
        "raftdb://h:1/?timeout=soon",
        "raftdb://h:1/?timeout=0",
        "raftdb://h:1/?timeout=-1",
        "raftdb://h:1/?timeout=nan",
        "raftdb://h:1/?timeout=inf",
        "raftdb://h:1/?read=dirty",
        "raftdb://h:1/?pin=perhaps",
        "raftdb://h:1/?cluster=xyz",
        "raftdb://h:1/?ca=a&ca=b",
        "raftdb://h:1/?cert=a&certificate=b",
        "raftdb://h:1/?insecure=1&key=k",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_options(url, {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", [None, 5, b"raftdb://h:1/"])
def test_urls_of_other_types(url: Any) -> None:
    with pytest.raises(ConfigError):
        raftdb.connect(url)


def test_without_certificates_one_must_say_insecure() -> None:
    with pytest.raises(ConfigError, match="ca, cert, key missing"):
        raftdb.connect("raftdb://h:1/")
    with pytest.raises(ConfigError, match="key missing"):
        raftdb.connect("raftdb://h:1/?ca=a&cert=b")


def test_missing_files_are_named() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/c\.crt"):
        raftdb.connect("raftdb://h:1/?ca=/nowhere/a.crt&cert=/nowhere/c.crt&key=/nowhere/c.key")


@pytest.mark.parametrize("timeout", [0, -1, 1e9, "5", float("nan")])
def test_bad_timeouts_of_a_call(timeout: Any) -> None:
    with pytest.raises(InterfaceError):
        with_timeout(Options(), timeout)
    assert with_timeout(Options(timeout=3), None) == 3


def test_every_option_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
    table = text.split("| option |")[1].split("\n\n")[0]
    for field in fields(Options):
        where = text if field.name == "addresses" else table
        assert f"`{field.name}`" in where, field.name
