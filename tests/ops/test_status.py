"""The cluster's state, put together from what nodes say and from those that say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from raftdb.base.errors import AuthError, DeadlineError, Error, UnavailableError
from raftdb.ops.check import check_nodes
from raftdb.ops.status import connect_to_node, gather, target_addresses
from raftdb.ops.target import Target

IDS = ("n1", "n2", "n3")


def answer(
    node_id: str, leader: str | None = "n1", hears: tuple[str, ...] = IDS, **changes: Any
) -> dict[str, Any]:
    facts = {
        "node_id": node_id,
        "cluster_id": "c" * 32,
        "location": f"eu/{node_id}",
        "version": "1.0",
        "role": "leader" if leader == node_id else "follower",
        "term": 3,
        "leader": leader,
        "applied_index": 90,
        "commit_index": 100,
        "durable_index": 100,
        "certificate_days_left": 300.0,
        "members": [
            {
                "node_id": one,
                "location": f"eu/{one}",
                "client_address": one,
                **({"connected": one in hears} if leader == node_id and one != node_id else {}),
            }
            for one in IDS
        ],
    }
    return {**facts, **changes}


class Node:
    """Answers for a fake node."""

    asked: list[tuple[int | None, bool]] = []

    def __init__(self, answers: Mapping[str, Any], address: str) -> None:
        self._answers, self._address = answers, address

    def status(self) -> Any:
        found = self._answers.get(self._address, UnavailableError("nobody listens"))
        if isinstance(found, Error):
            raise found
        return found

    def content_hash(self, index: int | None, *, timeout: float, exact: bool) -> Any:
        found = self._answers[self._address]
        self.asked.append((index, exact))
        found = found.pop(0) if isinstance(found, list) else found
        if isinstance(found, Error):
            raise found
        return found

    def close(self) -> None:
        pass


def state_of(answers: Mapping[str, Any], *asked: str) -> Any:
    return gather(asked or ("n1",), lambda address: Node(answers, address))


def test_one_address_leads_to_all_members() -> None:
    state = state_of({one: answer(one) for one in IDS})
    assert [node.node_id for node in state.nodes] == list(IDS)
    assert (state.leader, state.with_leader, state.quorum, state.healthy) == ("n1", 3, 2, True)
    assert [node.lag_entries for node in state.nodes] == [10, 10, 10]
    assert state.problems == []


def test_a_node_that_is_down_is_shown() -> None:
    state = state_of({"n1": answer("n1"), "n2": answer("n2")})
    assert state.healthy
    assert state.nodes[2].role == "unreachable"
    assert state.nodes[2].location == "eu/n3"
    assert state.problems == ["n3 does not answer at n3: nobody listens"]


def test_no_quorum_and_no_leader() -> None:
    alone = state_of({"n1": answer("n1", hears=())})
    assert not alone.healthy
    assert "no quorum: 1 of 3 members follow n1" in alone.problems
    leaderless = state_of({one: answer(one, leader=None, role="candidate") for one in IDS})
    assert not leaderless.healthy
    assert "there is no leader" in leaderless.problems


def test_who_is_cut_off_from_the_leader_does_not_follow_by_its_own_word() -> None:
    facts = {one: answer(one) for one in IDS}
    facts["n1"] = answer("n1", hears=("n3",))
    state = state_of(facts)
    assert (state.leader, state.with_leader, state.healthy) == ("n1", 2, True)
    assert state.problems == ["n2 is not connected with the leader n1: see both their logs"]


def test_a_leader_that_only_the_others_see_is_not_called_none() -> None:
    state = state_of({one: answer(one) for one in ("n2", "n3")}, "n2")
    assert state.leader is None
    assert not state.healthy
    assert state.problems[0] == "n1 leads, as n2, n3 say, and does not answer here"
    # Of an older term: who says so has not heard of the newest one.
    late = state_of({"n2": answer("n2"), "n3": answer("n3", leader=None, term=4)}, "n2")
    assert late.problems[0] == "there is no leader"


def test_why_there_is_no_leader_is_told_by_who_heard_it() -> None:
    forgotten = {"members": ["n2"], "problem": "", "hint": ""}
    waits = state_of({"n1": answer("n1", leader=None, role="candidate", forgotten=forgotten)}, "n1")
    assert waits.problems[:2] == [
        "there is no leader",
        "n2 has lost the end of its log, and takes no part until a leader that the others elect "
        "without it relieves it of its vote: bring the other voters up",
    ]
    stuck = state_of(
        {
            "n1": answer(
                "n1",
                leader=None,
                role="candidate",
                forgotten={"members": ["n2"], "problem": "nobody can be elected", "hint": "do it"},
            ),
            "n3": answer("n3", leader=None, role="follower", forgotten=forgotten),
        },
        "n1",
    )
    assert stuck.problems[1] == "nobody can be elected; what helps: do it"
    assert sum("n2" in one for one in stuck.problems) == 1, "that it does not answer"


def test_followers_that_only_the_leader_reaches_count() -> None:
    members = answer("n1", hears=())["members"]
    members[1]["connected"] = True
    state = state_of({"n1": answer("n1", members=members)})
    assert state.healthy
    assert state.with_leader == 2


def test_an_old_leader_is_not_the_leader() -> None:
    state = state_of(
        {
            "n1": answer("n1", term=3),
            "n2": answer("n2", leader="n2", hears=("n3",), term=4),
            "n3": answer("n3", leader="n2", term=4),
        }
    )
    assert state.leader == "n2"
    assert state.with_leader == 2


def test_what_to_look_at() -> None:
    state = state_of(
        {
            "n1": answer("n1"),
            "n2": answer("n2", certificate_days_left=12.4),
            "n3": answer(
                "n3", version="0.9", disk_full=True, disk_free_bytes=9 << 20, disk_stalled=True
            ),
        }
    )
    assert sorted(state.problems) == [
        "nodes run different versions: 0.9, 1.0",
        "the certificate of n2 expires in 12 days",
        "the disk of n3 does not answer: it does not lead",
        "the disk of n3 is full (9 MiB are free): it takes no writes, and goes on by itself when "
        "there is room",
    ]


def test_when_nobody_answers_the_caller_learns_why() -> None:
    with pytest.raises(UnavailableError, match="no node answers: nobody listens"):
        state_of({}, "n1", "n2")
    with pytest.raises(AuthError, match="wrong certificate"):
        state_of({"n2": AuthError("wrong certificate")}, "n1", "n2")


def test_addresses_of_a_target() -> None:
    assert target_addresses(Target("raftdb://h1:1, [::1]:2,h3:3/?ca=x")) == [
        "h1:1",
        "[::1]:2",
        "h3:3",
    ]
    connection = connect_to_node(Target("raftdb://h1:1,h2:2/?insecure=1&name=me"))("h2:2")
    assert [str(one) for one in connection.options.addresses] == ["h2:2"]
    assert (connection.options.pin, connection.options.insecure) == (True, True)
    assert connection.options.name == "me"
    connection.close()


# ---- raftdb check


def hashes(**answers: Any) -> Any:
    return check_nodes({one: one for one in answers}, lambda address: Node(answers, address))


def content(index: int, mark: int = 0, **tables: str) -> dict[str, Any]:
    return {
        "index": index,
        "mark": mark,
        "total": "|".join(f"{k}{v}" for k, v in tables.items()),
        "tables": tables,
    }


def test_equal_content() -> None:
    report = hashes(n1=content(5, t="a"), n2=content(5, t="a"), n3=content(5, t="a"))
    assert (report.equal, report.complete, report.index) == (True, True, 5)


def test_the_node_against_the_majority_and_its_table_are_named() -> None:
    report = hashes(
        n1=content(5, t="a", u="x"), n2=content(5, t="b", u="x"), n3=content(5, t="a", u="x")
    )
    assert not report.equal
    assert report.diverged == ["n2"]
    assert report.differing == {"t": ["n2"]}


def test_without_a_majority_all_are_named() -> None:
    report = hashes(n1=content(5, t="a"), n2=content(5, t="b"), n3=content(5, t="c"))
    assert report.diverged == ["n1", "n2", "n3"]
    assert report.differing == {"t": ["n1", "n2", "n3"]}


def test_nodes_are_asked_again_until_they_stand_at_one_index() -> None:
    report = hashes(
        n1=[content(5, t="a"), content(7, t="b")],
        n2=[content(7, t="b"), content(7, t="b")],
    )
    assert (report.equal, report.index) == (True, 7)


def test_nodes_that_are_written_to_all_the_time_are_asked_about_one_index() -> None:
    """One that they have passed; where they differ there, one to come, to name the tables."""
    Node.asked.clear()
    report = hashes(
        n1=[content(500), content(900, mark=896), content(832, t="a")],
        n2=[content(600), content(800, mark=768), content(832, t="a")],
        n3=[content(400), content(700, mark=640), content(832, t="a")],
    )
    assert (report.equal, report.complete, report.index) == (True, True, 832)
    assert Node.asked[::3] == [(0, False), (600, False), (640, True)]

    late, gone = DeadlineError("it did not come"), UnavailableError("forgotten")
    Node.asked.clear()
    report = hashes(
        n1=[content(5), content(9), content(3), content(64), content(320, t="a")],
        n2=[content(6), content(8), gone, late, content(320, t="b")],
        n3=[content(4), content(7), content(3), content(64), content(320, t="a")],
    )
    assert (report.index, report.diverged) == (320, ["n2"])
    assert report.differing == {"t": ["n2"]}
    assert Node.asked[6::3] == [(0, True), (10, True), (265, True)]

    # Nothing comes any more, so nobody writes: they are asked for what they hold once more.
    report = hashes(
        n1=[content(5), content(7), gone, late, late, late, content(8, t="a")],
        n2=[content(6), content(8), gone, late, late, late, content(8, t="a")],
    )
    assert (report.equal, report.complete, report.index) == (True, True, 8)


def test_a_node_that_does_not_answer_makes_it_incomplete() -> None:
    report = hashes(n1=content(5, t="a"), n2=UnavailableError("down"), n3=content(5, t="a"))
    assert (report.equal, report.complete) == (True, False)
    known = {"n2": "refused the connection"}
    Node.asked.clear()
    answers = {"n1": [content(5), content(7), content(7)], "n3": [content(6), content(7)]}
    report = check_nodes(
        {"n1": "n1", "n2": "n2", "n3": "n3"}, lambda one: Node(answers, one), 10.0, known
    )
    assert [node.problem for node in report.nodes] == ["", "refused the connection", ""]
    assert (report.equal, report.complete, report.index) == (True, False, 7)
    # Who did not answer once is not waited for again.
    tried: list[str] = []

    def connect_to(address: str) -> Node:
        tried.append(address)
        return Node({**answers, "n2": UnavailableError("down")}, address)

    answers = {"n1": [content(5), content(7)], "n3": [content(6), content(7)]}
    assert not check_nodes({"n1": "n1", "n2": "n2", "n3": "n3"}, connect_to).complete
    assert tried.count("n2") == 1
    alone = hashes(n1=content(5, t="a"), n2=UnavailableError("down"), n3=UnavailableError("down"))
    assert (alone.equal, alone.complete) == (False, False)
    assert (hashes(n1=content(5, t="a")).equal) is True
    with pytest.raises(UnavailableError, match="down"):
        hashes(n1=UnavailableError("down"), n2=UnavailableError("down"))


def test_indexes_that_never_meet_prove_nothing() -> None:
    report = hashes(
        n1=[content(n, t="a") for n in range(100)],
        n2=[content(n + 1, t="a") for n in range(100)],
    )
    assert (report.equal, report.complete, report.index) == (False, False, 0)


def test_learners_count_in_no_majority() -> None:
    members = [
        {**one, "role": "voter" if one["node_id"] != "n3" else "learner"}
        for one in answer("n1")["members"]
    ]
    state = state_of({name: answer(name, members=members) for name in IDS})
    assert [node.role for node in state.nodes] == ["leader", "follower", "learner"]
    assert (state.voters, state.quorum, state.with_leader) == (2, 2, 2)
    assert state.healthy
    apart = [{**one, "connected": one["node_id"] == "n3"} for one in members]
    two = state_of({name: answer(name, members=apart) for name in ("n1", "n3")})
    assert (two.with_leader, two.healthy) == (1, False)
