"""Who runs which release, and the cluster's feature level, as one node sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raftdb.base.errors import ConfigError, Error, InterfaceError, OperationalError
from raftdb.base.ids import NodeId
from raftdb.base.release import DEMANDED_GREETING, SAMPLE, Announced
from raftdb.command import Configure, Results, StatementResult, decode_request, encode_reply
from raftdb.consensus.port import Applied, EngineStatus, ReadReady
from raftdb.machine import arithmetic_sample
from raftdb.node import Proximity, Releases
from raftdb.node.proximity import greeting_note, read_greeting
from raftdb.node.releases import CHECK_EVERY_S, OWN
from tests.node.fakes import MEMBERS, Bench, FakeEngine

N2, N3 = NodeId("n2"), NodeId("n3")
OLD, NEW = Announced("0.1.0", 1, 1), Announced("0.2.0", 1, 2)


class Engine(FakeEngine):
    """With members and connections."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[tuple[str, str]] = []
        self.away: set[str] = set()

    def disconnect(self, peer: NodeId, reason: str) -> None:
        self.gone.append((str(peer), reason))

    def status(self) -> EngineStatus:
        found = super().status()
        peers = tuple(replace(one, connected=one.node_id not in self.away) for one in found.peers)
        return replace(found, members=MEMBERS, peers=peers)


class Table:
    """Releases of n1, which leads, on fakes."""

    def __init__(self, **stored: Any) -> None:
        self.bench = Bench()
        self.engine = Engine()
        self.bench.replica._engine = self.engine  # type: ignore[assignment]
        self.bench.machine.applied = lambda: (50, 3)  # type: ignore[attr-defined]
        self.stored: dict[str, Any] = stored
        self.releases = Releases(lambda: self.stored, "/data", self.bench.ports)
        self.ended: list[BaseException] = []
        self.releases.connect(
            self.engine,  # type: ignore[arg-type]
            self.bench.replica,
            self.ended.append,
        )

    def hear(self, peer: NodeId, announced: Announced) -> None:
        assert self.releases.on_note(peer, greeting_note(announced.to_bytes()))

    def ask(self, **arguments: Any) -> None:
        self.releases.ask(arguments, 5.0, self.bench.done)
        self.bench.loop.run()

    def commit(self) -> dict[str, Any]:
        """What was proposed is applied; returns the changes."""
        [(payload, done)] = self.engine.proposals
        request = decode_request(payload)
        assert isinstance(request, Configure)
        self.stored = {**self.stored, **request.changes}
        reply = encode_reply(Results((StatementResult(("settings",), (("{}",),), 1, 0),)))
        done(Applied(self.engine.applied_index, 0, reply))
        self.bench.loop.run()
        return dict(request.changes)


def test_all_run_it_and_the_level_is_raised() -> None:
    table = Table()
    table.hear(N2, NEW)
    table.hear(N3, NEW)
    assert not table.releases.allows(DEMANDED_GREETING)
    table.ask(raise_to=2)
    assert table.commit() == {"feature_level": 2}
    assert table.bench.answers[0].body == {
        "feature_level": 2,
        "feature_level_min": 1,
        "feature_level_max": 2,
        "pending": (),
    }
    assert table.releases.allows(DEMANDED_GREETING)
    assert table.engine.gone == []


@pytest.mark.parametrize("case", ["old", "silent", "away"])
def test_it_is_refused_while_one_member_does_not_run_it(case: str) -> None:
    table = Table()
    table.hear(N2, NEW)
    if case != "silent":
        table.hear(N3, OLD if case == "old" else NEW)
    if case == "away":
        table.engine.away.add("n3")
    with pytest.raises(OperationalError) as caught:
        table.ask(raise_to=2)
    assert caught.value.code == "upgrade_incomplete"
    assert "n2" not in caught.value.message
    assert "n3 is not connected" in caught.value.message or "n3 runs raftdb 0.1.0" in (
        caught.value.message
    )
    assert table.engine.proposals == []


def test_a_connection_of_now_counts_and_none_of_before() -> None:
    """A member that went back to the older release says nothing on its new connection."""
    table = Table()
    table.hear(N3, NEW)
    assert table.releases.member_facts("n3")["version"] == "0.2.0"
    assert table.releases.greeting().greeted("n3")
    table.releases.greeting().met("n3")
    assert not table.releases.greeting().greeted("n3")
    assert table.releases.member_facts("n3") == {}
    assert "n3 runs raftdb 0.1.0" in table.releases.pending(2)


def test_never_lowered_never_beyond_and_twice_is_fine() -> None:
    table = Table(feature_level=2)
    with pytest.raises(ConfigError, match="never lowered"):
        table.ask(raise_to=1)
    with pytest.raises(ConfigError, match="feature levels up to 2") as caught:
        table.ask(raise_to=3)
    assert "install a release of raftdb that runs feature level 3" in caught.value.hint
    with pytest.raises(InterfaceError):
        table.ask(raise_to="2")
    table.hear(N2, NEW)
    table.hear(N3, NEW)
    table.ask(raise_to=2)
    table.engine.reads[0](ReadReady(table.engine.applied_index))
    assert table.engine.proposals == []
    assert table.bench.answers[0].body["feature_level"] == 2


def test_who_does_not_lead_says_so() -> None:
    table = Table()
    table.engine.role = "follower"
    with pytest.raises(Error) as caught:
        table.ask(raise_to=2)
    assert caught.value.code == "not_leader"


def test_who_is_below_the_level_is_turned_away_when_it_rises() -> None:
    table = Table()
    table.hear(N2, NEW)
    table.hear(N3, OLD)
    assert table.engine.gone == []
    table.stored = {"feature_level": 2}
    table.releases.start()
    [(name, why)] = table.engine.gone
    assert name == "n3"
    assert "install raftdb 0.2.0 there" in why
    table.bench.loop.pass_time(3 * CHECK_EVERY_S)
    assert len(table.engine.gone) == 1
    table.releases.stop()


def test_nothing_is_allowed_before_who_is_below_it_is_turned_away() -> None:
    table = Table()
    table.stored = {"feature_level": 2}
    assert table.releases.allows(DEMANDED_GREETING)
    assert [name for name, _why in table.engine.gone] == ["n2", "n3"]


def test_greetings_at_level_two() -> None:
    rules = Table(feature_level=2).releases.greeting()
    assert rules.demanded()
    assert rules.refusal("n3", rules.data()) == ""
    assert read_greeting(rules.data()) == Announced(OWN.version, 1, 2, 2).to_bytes()
    for data in (greeting_note(OLD.to_bytes()), greeting_note(b"rubbish"), b"P", b"{}", b""):
        refused = rules.refusal("n3", data)
        assert "runs raftdb 0.1.0, which runs feature level 1, and this cluster has feature" in (
            refused
        )
        assert "install raftdb 0.2.0 there" in refused
    assert "n3 runs raftdb 0.4.0, which runs feature level 3-4" in rules.refusal(
        "n3", greeting_note(Announced("0.4.0", 3, 4).to_bytes())
    )
    assert "n3 runs raftdb 0.1.0" in rules.missing("n3")
    assert not Table().releases.greeting().demanded()


def test_a_peer_beyond_this_cluster_is_turned_away_at_level_one_too() -> None:
    table = Table()
    table.hear(N3, Announced("0.4.0", 3, 4))
    assert [name for name, _why in table.engine.gone] == ["n3"]


@pytest.mark.parametrize("level", [1, 2])
def test_a_node_that_the_cluster_went_beyond_ends_and_says_what_to_do(level: int) -> None:
    """It was away when the level was raised, or went back too late: all others turn it away."""
    table = Table(feature_level=level)
    note = greeting_note(Announced("0.3.0", 1, 3, 3).to_bytes())
    if level == 1:
        table.releases.on_note(N3, note)
    else:
        table.releases.greeting().refusal("n3", note)
    table.bench.loop.run()
    [error] = table.ended
    assert isinstance(error, ConfigError)
    assert "the cluster, as n3 says, has feature level 3, and this release runs 1-2" in str(error)
    assert "install a release of raftdb that runs feature level 3" in error.hint


def test_a_node_that_is_only_behind_goes_on() -> None:
    table = Table()
    table.hear(N3, Announced("0.2.0", 1, 2, 2))
    table.bench.loop.run()
    assert table.ended == []


def test_data_of_a_level_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="/data has feature level 3, and this release runs 1-2"):
        Table(feature_level=3)


def test_what_is_no_greeting_is_left_to_others() -> None:
    table = Table()
    for data in (b"", b"P", b'{"samples": []}', b"A{}", greeting_note(b"")[:9]):
        assert not table.releases.on_note(N2, data)
    assert table.releases.on_note(N2, greeting_note(b"rubbish"))
    assert table.releases.member_facts("n2") == {}


def test_0_1_0_drops_a_greeting_without_a_word() -> None:
    """It takes the note for one of round trips, of a kind that it does not know (as this release
    does, should one come to that part)."""
    table = Table()
    told: list[bytes] = []
    table.engine.tell = lambda data, to=None: told.append(data)  # type: ignore[attr-defined]
    proximity = Proximity(table.engine, table.bench.ports, lambda: "")  # type: ignore[arg-type]
    note = greeting_note(OWN.to_bytes())
    assert note[:1] == b"P"
    assert 10 <= len(note) <= 210
    proximity.on_note(N2, note)
    assert told == []
    assert proximity.unfit("n2") == "not heard of"


def test_who_joins_is_told_of_it_if_it_can_understand_that() -> None:
    """0.1.0 compares all that it is told word by word, and asks without `release`."""
    assert Table().releases.joining({}) == {}
    told = Table().releases.joining({"release": "0.2.0"})
    assert (told["release"], told["feature_level"], told["entry_format"]) == (OWN.version, 1, 1)
    assert told[SAMPLE] == arithmetic_sample()
    assert Table(feature_level=2).releases.joining({})["feature_level"] == 2
