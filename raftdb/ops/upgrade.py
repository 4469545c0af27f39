"""From one release to the next, node by node, and back: what runs, what is next, in which order.

Those that share least with the leader's place go first, place by place, the leader last; one at
a time. A node that is asked to stop hands leadership over, says goodbye to its clients and finishes
what is under way, so nothing else has to be done before its package is exchanged.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raftdb.base.errors import ConfigError, UnavailableError
from raftdb.base.ports import Clock
from raftdb.base.release import RELEASES, SETTING, Release, range_text, version_for
from raftdb.ops.status import ClusterState, NodeState

__all__ = [
    "COMMAND",
    "NodeRelease",
    "Plan",
    "Releases",
    "Step",
    "check_version",
    "in_order",
    "make_plan",
    "pending",
    "plan_dict",
    "previous_of",
    "release_of",
    "releases_dict",
    "releases_of",
    "returned",
    "wait_until",
    "wanted_level",
]

COMMAND = (
    "ln -sfn /opt/raftdb/{version} /opt/raftdb/current && systemctl restart raftdb@{node}.service"
)
"""What exchanges a node's release where it is installed as docs/upgrade.md has it."""
POLL_S = 0.25
_VERSION = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,3}(?:[.+-]?[A-Za-z][A-Za-z0-9.+-]{0,30})?")
FIELDS = ("node", "version", "host", "location")


@dataclass(frozen=True, slots=True)
class NodeRelease:
    """One member, and the release that it runs."""

    node_id: str
    address: str
    location: str
    role: str
    voter: bool
    problem: str
    """Why it does not answer; `` when it does."""
    version: str
    level_min: int
    level_max: int

    def runs(self, level: int) -> bool:
        """Whether it answers, and can be a member of a cluster of that level."""
        return not self.problem and self.level_min <= level <= self.level_max

    @property
    def levels(self) -> str:
        """Such as `1-2`; `` when it is not known."""
        return "" if self.problem else range_text(self.level_min, self.level_max)


@dataclass(frozen=True, slots=True)
class Releases:
    """All members, and the cluster's feature level."""

    nodes: tuple[NodeRelease, ...]
    leader: str | None
    level: int
    levels_seen: tuple[int, ...]
    """As the nodes that answer have applied it: one that is behind may not know of it yet."""

    @property
    def versions(self) -> tuple[str, ...]:
        """Those that run, the oldest first."""
        return tuple(sorted({one.version for one in self.nodes if one.version}, key=version_key))

    @property
    def level_max(self) -> int:
        """The highest that any of them knows."""
        return max((one.level_max for one in self.nodes if not one.problem), default=1)

    def without(self, level: int) -> list[str]:
        """Who does not run that level, and why not."""
        return [
            f"{one.node_id} does not answer" if one.problem else f"{one.node_id} runs {one.version}"
            for one in self.nodes
            if not one.runs(level)
        ]


@dataclass(frozen=True, slots=True)
class Step:
    """One node's turn."""

    node_id: str
    address: str
    location: str
    role: str
    version: str
    to: str
    command: str
    """To be run on the node's machine."""
    then: str
    """Ends when the node is back and has caught up; run it before the next step."""


@dataclass(slots=True)
class Plan:
    """The steps, in order."""

    to: str
    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_version(text: str) -> str:
    """What a release may be called: it goes into paths and commands. Raises ConfigError."""
    if not _VERSION.fullmatch(text):
        raise ConfigError(f"{text!r} is no release", hint=f"such as {RELEASES[-1].version}")
    return text


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Orders versions by their numbers."""
    parts = version.replace("-", ".").split(".")
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in parts)


def level_of_version(version: str) -> int:
    """The highest feature level that a release knows, by this release's table."""
    return release_of(version).level


def release_of(version: str) -> Release:
    """What this release's table has of another one: the line of the last that is no later."""
    known = [one for one in RELEASES if version_key(one.version) <= version_key(version)]
    return known[-1] if known else RELEASES[0]


def releases_of(state: ClusterState) -> Releases:
    """What runs where, by the nodes' own accounts. One that does not tell runs level 1."""
    nodes = tuple(_node(one) for one in state.nodes)
    seen = [int(one.facts.get(SETTING, 1)) for one in state.nodes if one.answers]
    return Releases(nodes, state.leader, max(seen, default=1), tuple(sorted(set(seen))))


def _node(one: NodeState) -> NodeRelease:
    facts = one.facts
    return NodeRelease(
        one.node_id,
        one.address,
        one.location,
        one.role,
        one.voter,
        one.problem,
        one.version,
        int(facts.get(f"{SETTING}_min", 1)),
        int(facts.get(f"{SETTING}_max", 1)),
    )


def pending(releases: Releases) -> list[str]:
    """What is not done; nothing when all run one release at its level."""
    found = []
    if len(releases.versions) > 1:
        newest, *_rest = reversed(releases.versions)
        behind = [one for one in releases.nodes if one.version and one.version != newest]
        names = ", ".join(f"{one.node_id} runs {one.version}" for one in behind)
        found.append(
            f"nodes run different releases ({names}, the others {newest}): go on (raftdb upgrade "
            "plan), or back (raftdb upgrade rollback)"
        )
    elif releases.level < releases.level_max:
        found.append(
            f"all run {releases.versions[-1]}, at feature level {releases.level}: raise it to "
            f"{releases.level_max} (raftdb upgrade finalize), or go back (raftdb upgrade rollback)"
        )
    if len(releases.levels_seen) > 1:
        found.append(f"some nodes have not applied feature level {releases.level} yet")
    found += [f"{one.node_id} does not answer" for one in releases.nodes if one.problem]
    return found


# ---- in which order


def in_order(releases: Releases) -> list[NodeRelease]:
    """Who does not answer first: with one away already nobody else may be restarted. The leader
    last, and its place last: the others place by place, the furthest first."""
    leader = next((one for one in releases.nodes if one.node_id == releases.leader), None)
    near = leader.location.split("/") if leader is not None else []

    def shared(one: NodeRelease) -> int:
        count = 0
        for mine, theirs in zip(near, one.location.split("/"), strict=False):
            if mine != theirs:
                break
            count += 1
        return count

    return sorted(
        releases.nodes,
        key=lambda one: (
            one is leader,
            not one.problem,
            shared(one),
            one.location,
            one.node_id,
        ),
    )


def make_plan(releases: Releases, to: str, command: str = COMMAND, cluster: str = "") -> Plan:
    """Who is to change to that release, in which order. `cluster`: how the commands that follow
    name it. Raises ConfigError where the release does not run the cluster's level."""
    if releases.level > level_of_version(check_version(to)):
        raise ConfigError(
            f"raftdb {to} does not run feature level {releases.level}, which this cluster has",
            code="finalized",
            hint="a level that was finalized is never lowered: install a release that runs it, or "
            f"go on with a fix that does. Data of before are in the archive (raftdb restore "
            f"makes another cluster of {to} from it)",
        )
    plan = Plan(to)
    for one in in_order(releases):
        if one.version != to or one.problem:
            host = one.address.rpartition(":")[0]
            values = {
                "node": one.node_id,
                "version": to,
                "host": host,
                "location": one.location,
            }
            then = f"raftdb upgrade status --wait {one.node_id}={to}{cluster}"
            plan.steps.append(
                Step(
                    one.node_id,
                    one.address,
                    one.location,
                    one.role,
                    one.version,
                    to,
                    filled(command, values),
                    then,
                )
            )
    plan.remarks = _remarks(releases, plan)
    return plan


def filled(command: str, values: Mapping[str, str]) -> str:
    """The command with its fields. Raises ConfigError."""
    try:
        return command.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"the command {command!r:.200} has a field that is not known: {error}",
            hint="fields are " + ", ".join(f"{{{name}}}" for name in FIELDS),
        ) from None


def _remarks(releases: Releases, plan: Plan) -> list[str]:
    away = [one for one in releases.nodes if one.problem]
    found = [f"{one.node_id} does not answer, so it is not known what it runs" for one in away]
    voters = sum(1 for one in releases.nodes if one.voter)
    up = voters - sum(1 for one in away if one.voter)
    if len(plan.steps) > len(away) and away and 2 * (up - 1) <= voters and voters >= 3:
        found.append(
            f"{', '.join(one.node_id for one in away)} first: with {up} of {voters} voters up, "
            "nothing can be written while another one is restarted"
        )
    if plan.steps and voters < 3:
        found.append(f"with {voters} voters nothing can be written while one is restarted")
    return found


def previous_of(releases: Releases) -> str:
    """The release to go back to: the older one of those that run, or the one before. Raises
    ConfigError when it is not known."""
    versions = releases.versions
    if len(versions) > 1:
        return versions[0]
    newest = version_key(versions[-1]) if versions else ()
    older = [one.version for one in RELEASES if version_key(one.version) < newest]
    if not older:
        raise ConfigError(
            f"no release before {versions[-1] if versions else 'this one'} is known",
            hint="name the one that is installed beside it: --to VERSION",
        )
    return older[-1]


def wanted_level(releases: Releases, level: int | None) -> int:
    """The level to raise to: the highest that the members' releases know, if none is said. Raises
    ConfigError for one that is lower than the cluster's, or that nobody knows."""
    wanted = releases.level_max if level is None else level
    if wanted < releases.level:
        raise ConfigError(
            f"the feature level is {releases.level}, and it is never lowered", code="finalized"
        )
    if wanted > releases.level_max:
        raise ConfigError(
            f"no member knows feature level {wanted}", hint=f"install {version_for(wanted)} first"
        )
    return wanted


def returned(state: ClusterState, node_id: str, version: str) -> str:
    """Why the next node must not have its turn yet: this one is not back, or has not caught up;
    `` when it may."""
    node = next((one for one in state.nodes if one.node_id == node_id), None)
    if node is None:
        known = ", ".join(one.node_id for one in state.nodes)
        raise ConfigError(f"{node_id} is no member", hint=f"members are {known}")
    if not node.answers:
        return f"{node_id} does not answer"
    if node.version != version:
        return f"{node_id} runs {node.version}"
    if state.leader is None or state.with_leader < state.voters:
        return f"{state.with_leader} of {state.voters} voters follow the leader"
    if node.leader != state.leader:
        return f"{node_id} does not follow the leader"
    if node.lag_entries:
        return f"{node_id} lacks {node.lag_entries} entries"
    return ""


def wait_until(check: Callable[[], str], timeout_s: float, clock: Clock) -> str:
    """Ask until it says ``, for so long; what it said last. A cluster that does not answer is
    asked again."""
    end_s = clock.monotonic_s() + timeout_s
    while True:
        try:
            said = check()
        except UnavailableError as error:
            said = error.message
        if not said or clock.monotonic_s() >= end_s:
            return said
        threading.Event().wait(POLL_S)


# ---- for programs


def releases_dict(releases: Releases) -> dict[str, Any]:
    """For --json."""
    return {
        "feature_level": releases.level,
        "feature_level_max": releases.level_max,
        "leader": releases.leader,
        "versions": list(releases.versions),
        "pending": pending(releases),
        "nodes": [
            {
                "node_id": one.node_id,
                "address": one.address,
                "location": one.location,
                "role": one.role,
                "answers": not one.problem,
                "problem": one.problem,
                "version": one.version,
                "feature_level_min": None if one.problem else one.level_min,
                "feature_level_max": None if one.problem else one.level_max,
            }
            for one in releases.nodes
        ],
    }


def plan_dict(plan: Plan) -> dict[str, Any]:
    """For --json."""
    return {
        "to": plan.to,
        "remarks": plan.remarks,
        "steps": [
            {
                "node_id": one.node_id,
                "address": one.address,
                "location": one.location,
                "role": one.role,
                "from": one.version,
                "to": one.to,
                "command": one.command,
                "then": one.then,
            }
            for one in plan.steps
        ],
    }
