"""docs/protocol.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack

from raftdb import wire
from raftdb.base.errors import _CLASSES
from raftdb.wire.codec import encode
from tests.wire.messages import HELLO, REPLIES, REQUESTS, WELCOME, opened

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
ALL = (HELLO, WELCOME, *REQUESTS, *REPLIES, wire.Cancel(1), wire.Goodbye("x"))


def documented() -> dict[str, tuple[int, int]]:
    """Name: (kind, number of fields behind the kind)."""
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ([^|]*) \|", TEXT, re.M)
    return {
        name: (int(kind), len(re.sub(r"\([^)]*\)", "", fields).split(";")))
        for kind, name, fields in rows
    }


def test_every_kind_and_its_number_of_fields() -> None:
    found = {}
    for message in ALL:
        kind, *fields = msgpack.unpackb(encode(message))
        found[type(message).__name__] = (kind, len(fields))
    # The request id of a Hello and the like is written as a plain 0 there: it counts as a field.
    # An ErrorMessage's first field has a comma in its words, none in its number.
    assert documented() == found


def test_the_example() -> None:
    ping, pong = re.findall(r"^    ((?:[0-9a-f]{2} +){7})", TEXT, re.M)[:2]
    client, server = opened()
    assert client.send(wire.Ping(1)) == bytes.fromhex(ping)
    server.receive(bytes.fromhex(ping))
    assert server.send(wire.Pong(1)) == bytes.fromhex(pong)


def test_every_class_of_error() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| `class` |"))
    assert set(re.findall(r"`(\w+)`", row)) - {"class"} == set(_CLASSES)


def test_sizes() -> None:
    limits = wire.ServerSide().limits
    for number in (limits.hello_frame_bytes_max, 65_536, 262_144, 86_400_000):
        assert f"{number:,}" in TEXT
