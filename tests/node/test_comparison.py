"""Replicas that differ are found: real machines with their comparisons, on a loop run by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftdb.base.ids import Index, NodeId
from raftdb.machine import MARK_EVERY, Sample
from raftdb.node.comparison import (
    AGREES,
    DETAIL_S,
    DOUBT,
    QUARANTINED,
    WRITE_AGAIN_S,
    Comparison,
)
from raftdb.node.notes import NOTE_BYTES_MAX, decode_note, encode_note, told_tables
from raftdb.runtime.files import RealFiles
from tests.machine.support import Database, Entry
from tests.node.fakes import HandLoop

NAMES = ("n1", "n2", "n3")


class Recorder:
    """A Log that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    warning = error = info

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


class Member:
    """One replica: database, comparison, and the engine it believes to have."""

    def __init__(self, trio: Trio, name: str, path: Path) -> None:
        self.trio = trio
        self.name = name
        self.path = path
        self.database = Database(path / "database")
        self.role = "follower"
        self.connected = True
        self.stood_down = ""
        self.transfers: list[str] = []
        self.serves = True
        self.log = Recorder()
        self.comparison = self.make()

    def make(self) -> Comparison:
        ports: Any = SimpleNamespace(
            clock=self.trio.loop, executor=self.trio.loop, files=RealFiles(), log=self.log
        )
        engine: Any = self
        return Comparison(
            node_id=NodeId(self.name),
            members=[NodeId(name) for name in NAMES],
            engine=engine,
            machine=self.database.machine,
            ports=ports,
            quarantine_path=str(self.path / "quarantine.json"),
            on_serving=self._serving,
        )

    def _serving(self, serves: bool) -> None:
        self.serves = serves

    # the engine

    def tell(self, data: bytes) -> None:
        for other in self.trio.members.values():
            if other is not self and self.connected and other.connected:
                self.trio.loop.call_soon(other.comparison.on_note, NodeId(self.name), data)

    def stand_down(self, reason: str) -> None:
        self.stood_down = reason

    def status(self) -> Any:
        peers = [
            SimpleNamespace(node_id=NodeId(name), connected=True, match_index=Index(9))
            for name in NAMES
            if name != self.name
        ]
        return SimpleNamespace(role=self.role, peers=peers)

    def transfer_leadership(self, target: Any, done: Any) -> None:
        self.transfers.append(str(target))
        self.role = "follower"
        self.trio.loop.call_soon(done, "")

    # damage

    def diverge(self, sql: str) -> None:
        """Executed here and nowhere else, as a request that is not deterministic would be."""
        self.database.machine._writer.execute(f"{sql} /*raftdb*/")


class Trio:
    def __init__(self, path: Path) -> None:
        self.loop = HandLoop()
        self.members: dict[str, Member] = {}
        for name in NAMES:
            self.members[name] = Member(self, name, path / name)
        for member in self.members.values():
            member.comparison.start()

    def write(self, *sql: str, to: tuple[str, ...] = NAMES) -> None:
        """One entry, applied by these."""
        first = self.members["n1"].database
        entry = first.entry(first.request(*sql))
        self.apply(entry, to)

    def apply(self, entry: Entry, to: tuple[str, ...] = NAMES) -> None:
        for name in to:
            self.members[name].database.machine.apply([entry])

    def states(self) -> list[str]:
        return [member.comparison.state for member in self.members.values()]


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    made = Trio(tmp_path)
    made.write("CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance)", "CREATE TABLE other(a)")
    made.write("INSERT INTO accounts VALUES (1, 100), (2, 200)")
    made.loop.pass_time(1)
    yield made
    for member in made.members.values():
        member.comparison.stop()
        member.database.close()


def test_replicas_that_agree_say_so(trio: Trio) -> None:
    index = trio.members["n1"].database.machine.applied()[0]
    for member in trio.members.values():
        assert member.comparison.state == AGREES
        assert member.comparison.agreed_index == index
        assert member.comparison.refusal(local=False) is None
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(0.5)
    assert trio.members["n2"].comparison.agreed_index == index + 1


def test_who_differs_is_found_within_a_second_and_named_with_its_table(trio: Trio) -> None:
    trio.members["n2"].diverge("UPDATE accounts SET balance = 101 WHERE id = 1")
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(0.9)
    assert trio.states() == [AGREES, QUARANTINED, AGREES]
    wrong = trio.members["n2"]
    assert not wrong.serves
    assert wrong.stood_down
    assert "accounts" in wrong.comparison.reason
    for member in trio.members.values():
        assert member.comparison.diverged == {"n2": ("accounts",)}
        assert any(event["tables"] == "accounts" for event in member.log.named("diverged"))
    for local in (True, False):
        refused = wrong.comparison.refusal(local=local)
        assert refused is not None
        assert (refused.code, refused.retryable) == ("quarantined", True)
        assert "by itself" in refused.hint
    assert trio.members["n1"].comparison.refusal(local=False) is None


def test_a_leader_that_differs_hands_over(trio: Trio) -> None:
    leader = trio.members["n3"]
    leader.role = "leader"
    leader.diverge("DELETE FROM accounts WHERE id = 2")
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(1)
    assert leader.comparison.state == QUARANTINED
    assert leader.transfers[0] in ("n1", "n2")
    assert leader.stood_down


def test_without_a_majority_writes_stop_and_go_on_when_there_is_one(trio: Trio) -> None:
    away = trio.members["n3"]
    away.connected = False
    trio.members["n2"].diverge("UPDATE accounts SET balance = 0")
    first = trio.members["n1"].database
    entry = first.entry(first.request("INSERT INTO other VALUES (1)"))
    trio.apply(entry, ("n1", "n2"))
    trio.loop.pass_time(0.5)
    assert trio.states() == [AGREES, AGREES, AGREES], "the third may only be late"
    trio.loop.pass_time(2)
    assert trio.states()[:2] == [DOUBT, DOUBT]
    refused = trio.members["n1"].comparison.refusal(local=False)
    assert refused is not None
    assert refused.code == "diverged"
    assert trio.members["n1"].comparison.refusal(local=True) is None
    # The third comes back and catches up: now it is known who is right.
    trio.apply(entry, ("n3",))
    away.connected = True
    trio.loop.pass_time(2)
    assert trio.states() == [AGREES, QUARANTINED, AGREES]


def test_three_that_all_differ_stop_at_once(trio: Trio) -> None:
    for number, name in enumerate(NAMES):
        trio.members[name].diverge(f"UPDATE accounts SET balance = {number} WHERE id = 1")
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(0.5)
    assert trio.states() == [DOUBT, DOUBT, DOUBT]


def test_answers_that_differ_are_found_though_the_content_is_equal(trio: Trio) -> None:
    wrong = trio.members["n1"]
    wrong.database.machine._applier._results = b"x" * 16
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(1)
    assert wrong.comparison.state == QUARANTINED
    assert trio.members["n2"].comparison.diverged == {"n1": ("(results)",)}


def test_a_quarantine_outlives_a_restart_until_the_content_is_right_again(trio: Trio) -> None:
    wrong = trio.members["n2"]
    wrong.diverge("UPDATE accounts SET balance = 101 WHERE id = 1")
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(1)
    assert (wrong.path / "quarantine.json").exists()
    wrong.comparison.stop()
    wrong.connected = False
    wrong.serves, wrong.stood_down = True, ""
    wrong.comparison = wrong.make()
    wrong.comparison.start()
    assert wrong.comparison.state == QUARANTINED
    assert "accounts" in wrong.comparison.reason
    assert not wrong.serves
    # As a copy from the majority would leave it.
    wrong.diverge("UPDATE accounts SET balance = 100 WHERE id = 1")
    wrong.connected = True
    trio.write("INSERT INTO other VALUES (2)")
    trio.loop.pass_time(2)
    assert trio.states() == [AGREES] * 3
    assert wrong.serves
    assert not wrong.stood_down
    assert not (wrong.path / "quarantine.json").exists()


def test_under_load_marks_are_where_all_commit(trio: Trio) -> None:
    """Each groups entries in its own way; only every 64th index is sure to be common."""
    first = trio.members["n1"].database
    start = first.next_index
    entries = [
        first.entry(first.request("INSERT INTO other VALUES (1)"), index=start + place)
        for place in range(300)
    ]
    for name, size in zip(NAMES, (300, 7, 50), strict=True):
        for place in range(0, len(entries), size):
            trio.members[name].database.machine.apply(entries[place : place + size])
    machines = [member.database.machine for member in trio.members.values()]
    for index in (64, 128, 192, 256):
        samples = [machine.sample_at(index) for machine in machines]
        assert samples[0] is not None
        assert samples[0] == samples[1] == samples[2]
    trio.loop.pass_time(0.5)
    assert trio.members["n3"].comparison.agreed_index == start + 299


def test_asked_for_an_agreement_nodes_tell_several_commits(trio: Trio) -> None:
    """Two that end their transactions at every third and every fourth entry agree upon the
    newest at which both do, and say so once."""
    first = trio.members["n1"].database
    start = first.next_index
    entries = [
        first.entry(first.request("INSERT INTO other VALUES (1)"), index=start + place)
        for place in range(32)
    ]
    assert not any(one.index % MARK_EVERY == 0 for one in entries)
    for name, size, end in (("n1", 3, 30), ("n2", 4, 32)):
        for place in range(0, end, size):
            trio.members[name].database.machine.apply(entries[place : place + size])
    asked, other = trio.members["n1"].comparison, trio.members["n2"].comparison
    told: list[int] = []
    other.on_agreed = lambda: told.append(other.agreed_index)
    trio.loop.pass_time(1.0)
    assert other.agreed_index == start - 1
    # What was told already is not told again: as when the question comes before the next turn.
    asked._told_index = start - 1
    asked.hasten()
    trio.loop.pass_time(0.01)
    assert other.agreed_index == start + 23
    assert told == [start + 23]


def test_one_that_lags_far_behind_is_compared_when_it_gets_there(trio: Trio) -> None:
    late = trio.members["n3"]
    late.diverge("UPDATE accounts SET balance = 7")
    first = trio.members["n1"].database
    start = first.next_index
    entries = [
        first.entry(first.request("INSERT INTO other VALUES (1)"), index=start + place)
        for place in range(400)
    ]
    for entry in entries:
        trio.apply(entry, ("n1", "n2"))
        trio.loop.pass_time(0.01)
    assert late.comparison.state == AGREES
    late.database.machine.apply(entries[:100])
    trio.loop.pass_time(0.5)
    assert late.comparison.state == QUARANTINED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"samples": 1, "differs": true}',
        b'{"samples": [[1, "00", "00"]], "differs": true}',
        b'{"samples": [[-1, "' + b"0" * 32 + b'", "' + b"0" * 32 + b'"]], "differs": true}',
        b'{"samples": [], "differs": true, "tables": [1]}',
        b"\xff" * 10,
        b"[" * 50_000,
        b"x" * (NOTE_BYTES_MAX + 1),
    ],
)
def test_notes_that_do_not_read_are_dropped(trio: Trio, data: bytes) -> None:
    member = trio.members["n1"]
    member.comparison.on_note(NodeId("n2"), data)
    assert member.log.named("comparison_unreadable")
    assert member.comparison.state == AGREES


def test_a_note_with_very_many_tables_is_cut() -> None:
    tables = {f"table number {number}": b"t" * 16 for number in range(5_000)}
    sample = Sample(Index(5), b"c" * 16, b"r" * 16, tables)
    data = encode_note([sample] * 70, differs=True)
    assert len(data) <= NOTE_BYTES_MAX
    read = decode_note(data)
    assert read.values == {5: (b"c" * 16, b"r" * 16)}
    assert 100 < len(read.tables[5]) < 5_000


def test_told_tables_come_in_turns_where_not_all_fit() -> None:
    tables = {f"table number {number}": b"t" * 16 for number in range(1_000)}
    tables["(schema)"] = tables["(sequences)"] = b"s" * 16
    seen: set[str] = set()
    place, turns = 0, 0
    while place or not turns:
        told, place = told_tables(tables, place)
        assert {"(schema)", "(sequences)"} <= told.keys()
        seen |= told.keys()
        turns += 1
    assert seen == tables.keys()
    assert 2 < turns < 10
    # As many tables went away meanwhile.
    assert told_tables({"a": b"x" * 16}, 900) == ({"a": "78" * 16}, 0)


def test_of_very_many_tables_the_one_that_differs_is_named(trio: Trio) -> None:
    """Notes have room for some hundred tables: those that were not told do not differ by that."""
    tables = [f"CREATE TABLE table_number_{number}(a)" for number in range(700)]
    trio.write(*tables)
    trio.members["n2"].diverge("INSERT INTO table_number_650 VALUES (1)")
    trio.write("INSERT INTO other VALUES (1)")
    for _ in range(12):
        trio.loop.pass_time(1)
    wrong = trio.members["n2"].comparison
    assert wrong.state == QUARANTINED
    assert wrong.diverged == {"n2": ("table_number_650",)}
    assert "table_number_650" in wrong.reason
    for name in ("n1", "n3"):
        assert trio.members[name].comparison.diverged == {"n2": ("table_number_650",)}


def test_a_reason_stays_short_and_its_note_reads_however_long_names_are(tmp_path: Path) -> None:
    made = Trio(tmp_path)
    member = made.members["n1"]
    member.comparison.quarantine("the rows of table " + "long" * 50_000 + " are not")
    made.loop.pass_time(1)
    again = member.make()
    again.start()
    assert again.quarantined
    assert "does not read" not in again.reason
    # Digests that agree do not end it.
    made.loop.pass_time(5)
    assert again.quarantined
    again.stop()
    for one in made.members.values():
        one.comparison.stop()
        one.database.close()


def test_tables_sums_are_kept_for_a_while_after_a_difference_and_not_for_ever(trio: Trio) -> None:
    """Each of two that are at it says so to the other."""
    trio.members["n2"].diverge("UPDATE accounts SET balance = 101 WHERE id = 1")
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(1)
    samples = [member.database.machine._applier.samples for member in trio.members.values()]
    assert [one.detailed for one in samples] == [True, True, True]
    # It is whole again: nobody sees a difference any more.
    trio.members["n2"].diverge("UPDATE accounts SET balance = 100 WHERE id = 1")
    trio.write("INSERT INTO other VALUES (2)")
    trio.loop.pass_time(2)
    assert trio.members["n1"].comparison.diverged == {}
    trio.loop.pass_time(3 * DETAIL_S)
    assert [one.detailed for one in samples] == [False, False, False]


def test_doubt_ends_where_nobody_elses_opinion_counts_any_more(trio: Trio) -> None:
    """Of two that differ, one was removed."""
    one = trio.members["n1"].comparison
    for member in trio.members.values():
        names = [NodeId("n1"), NodeId("n2")]
        member.comparison.set_members(names, names)
    trio.members["n2"].diverge("UPDATE accounts SET balance = 0")
    trio.write("INSERT INTO other VALUES (1)")
    trio.loop.pass_time(2)
    assert one.state == DOUBT
    one.set_members([NodeId("n1")], [NodeId("n1")])
    trio.loop.pass_time(2)
    assert one.state == AGREES
    assert one.refusal(local=False) is None
    # What a scrub finds then nobody mends.
    one.quarantine("its rows are not what was written")
    refused = one.refusal(local=True)
    assert refused is not None
    assert "raftdb restore" in refused.hint


def test_a_quarantine_that_finds_no_room_on_the_disk_is_written_when_there_is_some(
    trio: Trio,
) -> None:
    """A start would not know of it, and answer with what is rotten."""
    member = trio.members["n2"]
    path = member.path / "quarantine.json.new"
    path.mkdir()
    member.comparison.quarantine("its rows are not what was written")
    trio.loop.pass_time(1)
    assert len(member.log.named("quarantine_not_written")) == 1
    path.rmdir()
    trio.loop.pass_time(2 * WRITE_AGAIN_S)
    assert (member.path / "quarantine.json").exists()
    assert len(member.log.named("quarantine_not_written")) == 1
