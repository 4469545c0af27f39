"""The tree of locations, and what is said of losses."""

from __future__ import annotations

from typing import Any

from raftdb.base.errors import UnavailableError
from raftdb.ops.status import gather
from raftdb.ops.topology import topology_dict, topology_lines, topology_of

PLACES = {"n1": "eu/madrid", "n2": "eu/lyon", "n3": "us/east", "n4": "asia/tokyo", "n5": "sa/rio"}


class Fake:
    """A connection to one node."""

    def __init__(self, node_id: str, **facts: Any) -> None:
        self.node_id, self.facts = node_id, facts

    def status(self) -> dict[str, Any]:
        trips = {"n2": 11.0, "n3": 81.5, "n4": 240.0, "n5": 190.0}
        return {
            "node_id": self.node_id,
            "cluster_id": "c" * 32,
            "location": PLACES[self.node_id],
            "role": "leader" if self.node_id == "n1" else "follower",
            "term": 3,
            "leader": "n1",
            "applied_index": 40,
            "commit_index": 40,
            "durable_index": 41,
            "members": [
                {
                    "node_id": name,
                    "location": place,
                    "client_address": f"{name}:1",
                    "connected": True,
                    "match_index": 39 if name == "n2" else 40,
                    "round_trip_ms": trips.get(name) if self.node_id == "n1" else None,
                }
                for name, place in PLACES.items()
            ],
            **self.facts,
        }

    def close(self) -> None: ...


def topology(**facts: Any) -> Any:
    return topology_of(gather(["n1:1"], lambda address: Fake(address[:2], **facts)))


def test_the_tree_has_nodes_roles_distances_and_durable_indexes() -> None:
    lines = topology_lines(topology(settings={"survive": "region"}, survival={"problem": ""}))
    text = "\n".join(lines)
    assert "├─ eu  durable up to 41" in text
    assert "n1  leader  to n2 11.0 ms, n3 81.5 ms, n4 240.0 ms, n5 190.0 ms" in text
    assert "lyon  durable up to 39" in text
    assert "loss of any one region: survived (4 of them)" in text
    assert lines[-1] == "goal survive=region: kept"


def test_without_a_leader_nodes_are_taken_at_their_own_word() -> None:
    def answers(address: str) -> Fake:
        if address.startswith("n2"):
            raise UnavailableError("down")
        return Fake(address[:2], role="follower", leader=None)

    lines = topology_lines(topology_of(gather(["n1:1"], answers)))
    assert "│  ├─ lyon  durable up to an entry that is not known" in lines
    assert "│  └─ madrid  durable up to 41" in lines


def test_who_does_not_serve_is_drawn_so() -> None:
    def answers(address: str) -> Fake:
        full = {"disk_full": True} if address.startswith("n2") else {}
        return Fake(address[:2], **full)

    lines = topology_lines(topology_of(gather(["n1:1"], answers)))
    assert [line for line in lines if "full disk" in line] == [
        "│  │  └─ n2  follower, has a full disk"
    ]


def test_as_values() -> None:
    facts = topology_dict(topology(survival={"problem": "no"}, settings={"survive": "zone"}))
    assert [place["path"] for place in facts["tree"]] == ["asia", "eu", "sa", "us"]
    assert facts["round_trips_ms"] == {"n1": {"n2": 11.0, "n3": 81.5, "n4": 240.0, "n5": 190.0}}
    assert all(one["survives"] for one in facts["losses"]["region"])
    assert (facts["problem"], facts["survive"], facts["majority"]) == ("no", "zone", 3)


def test_learners_are_drawn_and_do_not_count() -> None:
    members = Fake("n1").status()["members"]
    members[1]["role"] = "learner"
    found = topology(members=members)
    assert (found.voters, found.majority, found.learners) == (4, 3, {"n2"})
    text = "\n".join(topology_lines(found))
    assert "n2  learner: counts in no majority" in text
    assert "loss of any one region: survived (4 of them)" in text


def test_what_is_not_survived_is_named() -> None:
    PLACES["n3"] = "eu/paris"
    try:
        text = "\n".join(topology_lines(topology()))
    finally:
        PLACES["n3"] = "us/east"
    assert "loss of a region: not survived for eu (n1, n2, n3)" in text
