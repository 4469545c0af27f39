"""Where the nodes are, what lies between them, and what the cluster survives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raftdb.base.locations import LEVELS, losses, majority
from raftdb.ops.status import ClusterState, NodeState, troubles_of


@dataclass(slots=True)
class Place:
    """A location and what is below it."""

    name: str
    path: str
    places: list[Place] = field(default_factory=list)
    nodes: list[NodeState] = field(default_factory=list)
    durable_index: int = 0
    """Up to which index some voter in it has the log on disk: as the leader knows, or, without one,
    by the nodes' own word; 0: not known."""


@dataclass(slots=True)
class Topology:
    """All of it."""

    state: ClusterState
    roots: list[Place]
    round_trips_ms: dict[str, dict[str, float]]
    """By node, to the others: as each node measured it."""
    losses: dict[str, list[dict[str, Any]]]
    """By level: `place`, `nodes`, `survives` (with all others up), `survives_now`."""
    voters: int
    majority: int
    learners: set[str]
    """Members that have copies and do not count."""
    settings: dict[str, Any]
    problem: str
    """Why the survival goal is not kept, or what the leader says of it; `` when it is."""

    @property
    def goal(self) -> str:
        """What was declared; `` for nothing."""
        return str(self.settings.get("survive", ""))


def topology_of(state: ClusterState) -> Topology:
    """From what all nodes say of themselves."""
    leader = next((node for node in state.nodes if node.node_id == state.leader), None)
    facts = leader.facts if leader is not None else {}
    known = facts or next((node.facts for node in state.nodes if node.answers), {})
    learners = {
        str(member["node_id"])
        for member in known.get("members", ())
        if member.get("role") == "learner"
    }
    voters = [node for node in state.nodes if node.node_id not in learners]
    durable = _durable(state, leader)
    gone = {node.node_id for node in voters if not node.answers}
    found: dict[str, list[dict[str, Any]]] = {}
    for level in LEVELS:
        now = {loss.place: loss.survives for loss in losses(voters, level, gone)}
        found[level] = [
            {
                "place": loss.place,
                "nodes": list(loss.nodes),
                "survives": loss.survives,
                "survives_now": now[loss.place],
            }
            for loss in losses(voters, level)
        ]
    survival = known.get("survival", {})
    return Topology(
        state=state,
        roots=_tree(state.nodes, durable),
        round_trips_ms=_round_trips(state.nodes),
        losses=found,
        voters=len(voters),
        majority=majority(len(voters)),
        learners=learners,
        settings=dict(known.get("settings", {})),
        problem=str(survival.get("problem", "")),
    )


def _durable(state: ClusterState, leader: NodeState | None) -> dict[str, int]:
    """By node, as the leader knows."""
    if leader is None:
        return {node.node_id: node.durable_index for node in state.nodes if node.answers}
    found = {
        str(member["node_id"]): int(member.get("match_index", 0))
        for member in leader.facts.get("members", ())
    }
    found[leader.node_id] = leader.durable_index
    return found


def _tree(nodes: list[NodeState], durable: dict[str, int]) -> list[Place]:
    roots: list[Place] = []
    for node in sorted(nodes, key=lambda one: (one.location, one.node_id)):
        level, path = roots, ""
        parts = (node.location or "?").split("/")
        for number, name in enumerate(parts):
            path = f"{path}/{name}" if path else name
            place = next((one for one in level if one.name == name), None)
            if place is None:
                place = Place(name, path)
                level.append(place)
            place.durable_index = max(place.durable_index, durable.get(node.node_id, 0))
            if number == len(parts) - 1:
                place.nodes.append(node)
            level = place.places
    return roots


def _round_trips(nodes: list[NodeState]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for node in nodes:
        for member in node.facts.get("members", ()):
            trip_ms = member.get("round_trip_ms")
            if trip_ms is not None and member["node_id"] != node.node_id:
                found.setdefault(node.node_id, {})[str(member["node_id"])] = float(trip_ms)
    return found


def topology_dict(topology: Topology) -> dict[str, Any]:
    """For --json."""
    return {
        "cluster_id": topology.state.cluster_id,
        "leader": topology.state.leader,
        "healthy": topology.state.healthy,
        "voters": topology.voters,
        "majority": topology.majority,
        "learners": sorted(topology.learners),
        "settings": topology.settings,
        "survive": topology.goal,
        "problem": topology.problem,
        "tree": [_place_dict(place) for place in topology.roots],
        "round_trips_ms": topology.round_trips_ms,
        "losses": topology.losses,
    }


def _place_dict(place: Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "path": place.path,
        "durable_index": place.durable_index,
        "nodes": [
            {
                "node_id": node.node_id,
                "role": node.role,
                "answers": node.answers,
                "troubles": troubles_of(node),
                "applied_index": node.applied_index,
                "durable_index": node.durable_index,
                "lag_entries": node.lag_entries,
            }
            for node in place.nodes
        ],
        "places": [_place_dict(one) for one in place.places],
    }


def topology_lines(topology: Topology) -> list[str]:
    """For people."""
    lines = [f"cluster {topology.state.cluster_id}"]
    for number, place in enumerate(topology.roots):
        _draw(place, "", number == len(topology.roots) - 1, topology, lines)
    lines += ["", *_loss_lines(topology)]
    return lines


def _draw(place: Place, indent: str, last: bool, topology: Topology, lines: list[str]) -> None:
    branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
    durable = place.durable_index or "an entry that is not known"
    lines.append(f"{indent}{branch}{place.name}  durable up to {durable}")
    inner = indent + below
    rest = len(place.nodes) + len(place.places)
    for node in place.nodes:
        rest -= 1
        lines.append(f"{inner}{'├─ ' if rest else '└─ '}{_node_line(node, topology)}")
    for one in place.places:
        rest -= 1
        _draw(one, inner, rest == 0, topology, lines)


def _node_line(node: NodeState, topology: Topology) -> str:
    trips = topology.round_trips_ms.get(node.node_id, {})
    told = ", ".join(f"{other} {trip_ms:.1f} ms" for other, trip_ms in sorted(trips.items()))
    role = node.role if node.answers else f"unreachable ({node.problem})"
    if node.node_id in topology.learners:
        role = "learner: counts in no majority"
    role += "".join(f", {one}" for one in troubles_of(node))
    return f"{node.node_id}  {role}" + (f"  to {told}" if told else "")


def _loss_lines(topology: Topology) -> list[str]:
    lines = []
    for level, found in topology.losses.items():
        fatal = [one for one in found if not one["survives"]]
        if not fatal:
            line = f"loss of any one {level}: survived ({len(found)} of them)"
        elif len(found) == 1:
            line = f"loss of the only {level}, {found[0]['place']}: not survived"
        else:
            line = f"loss of a {level}: not survived for " + ", ".join(
                f"{one['place']} ({', '.join(one['nodes'])})" for one in fatal
            )
        worse = [one["place"] for one in found if one["survives"] and not one["survives_now"]]
        if worse:
            line += f"; now, with nodes down, not for {', '.join(worse)} either"
        lines.append(line)
    if topology.goal:
        kept = topology.problem or "kept"
        lines.append(f"goal survive={topology.goal}: {kept}")
    return lines
