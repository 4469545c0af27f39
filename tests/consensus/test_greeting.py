"""What members say of their release: to whom, when it is demanded, and who is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from raftdb.base.limits import Limits
from raftdb.consensus.messages import Append, CopyHello, Hello, Message, Note, Superseded, Vote
from raftdb.consensus.port import Greeting
from tests.consensus.wires import HandConnection, Station, hello, node

MINE = Note(b"mine")


@dataclass
class Rules:
    """Answers of the node above."""

    demanded: bool
    met: list[str] = field(default_factory=list)
    greeted: list[str] = field(default_factory=list)

    def greeting(self) -> Greeting:
        return Greeting(
            lambda: b"mine",
            lambda: self.demanded,
            lambda name, data: "" if data == b"good" else f"{name} says {data!r}",
            lambda name: f"{name} does not greet",
            self.met.append,
            self.greeted.__contains__,
        )


def station(*, demanded: bool) -> tuple[Station, Rules]:
    rules = Rules(demanded)
    return Station(greeting=rules.greeting()), rules


def answered(made: Station) -> HandConnection:
    """n3 answers this node's dial."""
    handler = made.network.dials[-1][2]
    connection = HandConnection(handler, node("n3"))
    handler.connection_made(connection)
    return connection


def test_who_dials_greets_with_the_hello_and_who_is_dialled_after_the_others() -> None:
    """An older release reads it as a Note, and only there where it may come: not beside a copy."""
    made, rules = station(demanded=False)
    assert answered(made).take() == [hello("n2"), MINE]
    connection = made.accepted(node("n1"))
    assert connection.take() == [hello("n2")]
    connection.receive(hello("n1"))
    assert connection.take() == [MINE]
    assert rules.met == ["n1"]


def test_no_copy_is_greeted() -> None:
    made, _rules = station(demanded=True)
    connection = made.accepted(node("n1"))
    connection.receive(CopyHello(*hello("n1")))
    assert connection.take() == [hello("n2")]
    assert made.take() == [("ready", None), ("copy", "n1", False)]
    made.transport.dial_copy("n3")
    connection = answered(made)
    assert [type(one) for one in connection.take()] == [CopyHello]
    connection.receive(hello("n3"))
    assert made.take() == [("copy", "n3", True)]


@pytest.mark.parametrize("knows", [True, False])
def test_only_who_greeted_is_told_what_an_older_release_does_not_know(knows: bool) -> None:
    """It would take the message for a broken frame, and hang up."""
    made, rules = station(demanded=False)
    connection = made.accepted(node("n1"))
    connection.receive(hello("n1"))
    connection.take()
    rules.greeted += ["n1"] if knows else ["n3"]
    word = Superseded("f" * 32, hello("n2").history_id)
    made.transport.superseded("n3", word)
    assert connection.take() == ([word] if knows else [])
    assert made.take()[-1] == ("superseded", "n3", "f" * 32)


@pytest.mark.parametrize("second", [Vote(1), Note(b"anything")])
def test_who_says_nothing_is_a_peer_as_long_as_none_is_demanded(second: Message) -> None:
    made, _rules = station(demanded=False)
    connection = made.accepted(node("n1"))
    connection.receive(hello("n1"), second)
    assert made.take() == [("ready", None), ("connected", "n1"), ("n1", second)]


@pytest.mark.parametrize("dialled", [True, False])
def test_a_demanded_greeting_comes_before_anything_else(dialled: bool) -> None:
    made, rules = station(demanded=True)
    name = "n3" if dialled else "n1"
    connection = answered(made) if dialled else made.accepted(node("n1"))
    connection.receive(hello(name))
    assert connection.take() == [hello("n2"), MINE]
    assert not made.transport.connected(name)
    made.transport.send(name, Vote(1))
    assert connection.take() == [], "nothing is said to it yet"
    connection.receive(Note(b"good"), Vote(2))
    assert made.take() == [
        ("ready", None),
        ("connected", name),
        (name, Note(b"good")),
        (name, Vote(2)),
    ]
    assert rules.met == [name]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (Vote(1), "n1 does not greet"),
        (Append(1, 1, 0, 0, 0, ((1, b"x" * 10_000),)), "n1 does not greet"),
        (Note(b"bad"), "n1 says b'bad'"),
        (hello("n1"), "n1 does not greet"),
    ],
)
def test_who_must_not_be_a_peer_is_refused_and_logged(second: Message, why: str) -> None:
    made, _rules = station(demanded=True)
    connection = made.accepted(node("n1"))
    connection.receive(hello("n1"))
    connection.receive(second)
    assert not connection.open
    assert made.take() == [("ready", None)]
    [(event, fields)] = made.log.lines
    assert (event, fields["error"]) == ("peer_refused", why)


def test_who_never_greets_is_given_up() -> None:
    made, _rules = station(demanded=True)
    connection = made.accepted(node("n1"))
    connection.receive(hello("n1"))
    made.executor.pass_time(Limits().handshake_timeout_ms / 1000 + 1)
    assert not connection.open
    assert made.take() == [("ready", None)]


def test_a_member_that_fell_below_the_level_is_disconnected_and_may_come_again() -> None:
    made, rules = station(demanded=False)
    connection = made.join("n1")
    rules.demanded = True
    made.transport.disconnect("n1", "it is too old")
    assert not connection.open
    made.transport.disconnect("n1", "nobody is there")
    assert made.take()[1:] == [("connected", "n1"), ("disconnected", "n1")]
    connection = made.accepted(node("n1"))
    connection.receive(hello("n1"), Note(b"good"))
    assert made.transport.connected("n1")


def test_the_hello_is_that_of_every_release() -> None:
    """Older releases compare each field, and their number: nothing may be added to it."""
    assert Hello._fields == (
        "version",
        "cluster_id",
        "node_id",
        "history_id",
        "library",
        "fingerprint",
    )
