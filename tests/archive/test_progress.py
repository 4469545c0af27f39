"""Nodes tell each other how far the archive is, so that a leader's replies can wait for it."""

from __future__ import annotations

import pytest

from raftdb.archive.progress import (
    ACTIVE,
    FAILING,
    NOTE_MARK,
    STALE_S,
    STANDBY,
    Known,
    Progress,
    destination_id,
)
from tests.archive.ports import hand_ports
from tests.node.fakes import HandLoop

A, B = destination_id("s3://a/c?region=x"), destination_id("file:///b")


class Nodes:
    """Three nodes, two destinations; what one tells, the others hear at once."""

    def __init__(self) -> None:
        ports, self.loop, self.log = hand_ports()
        self.loop: HandLoop
        self.own = [{A: Known(0, STANDBY), B: Known(0, STANDBY)} for _ in range(3)]
        self.all = [Progress([A, B], lambda i=i: self.own[i], ports) for i in range(3)]
        self.told = [0, 0, 0]
        self.moved = [0, 0, 0]
        self.hurried: list[list[int]] = [[], [], []]
        for number, one in enumerate(self.all):
            one.tell = lambda data, number=number: self.hear(number, data)
            one.moved = lambda number=number: self.count(number)
            one.hurry = self.hurried[number].append

    def count(self, number: int) -> None:
        self.moved[number] += 1

    def hear(self, number: int, data: bytes) -> None:
        assert data.startswith(NOTE_MARK)
        self.told[number] += 1
        for other, one in enumerate(self.all):
            if other != number:
                one.on_note(f"n{number + 1}", data)

    def set(self, number: int, name: str, archived: int, state: str) -> None:
        self.own[number] = {**self.own[number], name: Known(archived, state)}
        self.all[number].changed()


def test_what_any_node_knows_counts_and_the_kth_destination_decides() -> None:
    nodes = Nodes()
    for one in nodes.all:
        one.changed()
    nodes.set(1, A, 10, ACTIVE)
    assert [one.upto(1) for one in nodes.all] == [10, 10, 10]
    assert nodes.all[0].upto(2) == 0
    nodes.set(2, B, 7, ACTIVE)
    assert [nodes.all[0].upto(count) for count in (0, 1, 2, 3)] == [0, 10, 7, 0]
    # Somebody who knows less takes nothing back.
    nodes.set(0, A, 3, STANDBY)
    assert nodes.all[0].upto(1) == 10
    assert nodes.moved[0] == 2


def test_somebody_who_waits_is_told_at_once_and_others_each_second() -> None:
    nodes = Nodes()
    nodes.set(1, A, 10, ACTIVE)
    before = list(nodes.told)
    for index in range(11, 20):
        nodes.set(1, A, index, ACTIVE)
    assert nodes.told == before
    # The leader's wishes of one moment are one note.
    for index in range(20, 30):
        nodes.all[0].want(index)
    nodes.loop.pass_time(0.02)
    assert nodes.told[0] == before[0] + 1
    assert nodes.hurried[1] == [29]
    assert nodes.hurried[0] == list(range(20, 30))
    nodes.set(1, A, 25, ACTIVE)
    nodes.set(1, A, 29, ACTIVE)
    assert nodes.told[1] == before[1] + 2
    assert nodes.all[0].upto(1) == 29
    nodes.set(1, A, 30, ACTIVE)
    assert nodes.told[1] == before[1] + 2
    nodes.loop.pass_time(1.0)
    nodes.all[1].changed()
    assert nodes.told[1] == before[1] + 3


def test_all_are_asked_to_agree_and_nobody_hurries_for_that() -> None:
    nodes = Nodes()
    agree: list[list[int]] = [[], [], []]
    for number, one in enumerate(nodes.all):
        one.agree = agree[number].append
    nodes.all[1].ask(12)
    assert agree == [[12], [12], [12]]
    assert nodes.hurried == [[], [], []]
    # Other words do not ask.
    nodes.set(1, A, 12, ACTIVE)
    assert agree == [[12], [12], [12]]


def test_which_destinations_answer() -> None:
    nodes = Nodes()
    for one in nodes.all:
        one.changed()
    leader = nodes.all[0]
    assert leader.answering() == 2
    nodes.set(1, A, 10, ACTIVE)
    assert leader.answering() == 2
    # The uploader is in trouble, nobody has taken over.
    nodes.set(1, A, 10, FAILING)
    assert leader.answering() == 1
    # Another node has: the trouble was the first one's own.
    nodes.set(2, A, 11, ACTIVE)
    assert leader.answering() == 2
    # What was said long ago says nothing.
    nodes.set(0, A, 0, FAILING)
    assert leader.answering() == 2
    nodes.loop.pass_time(STALE_S + 0.1)
    assert leader.answering() == 1


@pytest.mark.parametrize(
    "data",
    [
        b"A",
        b"A{}",
        b"A[1]",
        b'A{"destinations": {"x": [1, "active"]}, "wanted": 0}',
        b'A{"destinations": {"0123456789abcdef": [1, "asleep"]}, "wanted": 0}',
        b'A{"destinations": {"0123456789abcdef": [-1, "active"]}, "wanted": 0}',
        b'A{"destinations": {}, "wanted": true}',
        b'A{"destinations": {}, "wanted": 0, "agree": -1}',
        b'A{"destinations": {"a":1,"b":1,"c":1,"d":1,"e":1}, "wanted": 0}',
        b"A" + b" " * 5000,
    ],
)
def test_what_does_not_read_is_dropped(data: bytes) -> None:
    nodes = Nodes()
    nodes.all[0].on_note("n2", data)
    assert [event for event, _fields in nodes.log.events] == ["archive_note_unreadable"]
    assert nodes.moved[0] == 0
