"""Whether a cluster is fit for a change of release: each precondition, and what is in its way."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from raftdb._version import __version__
from raftdb.base.errors import Error
from raftdb.base.release import LEVEL_MAX, LEVEL_MIN, SAMPLE, range_text
from raftdb.ops.check import check_nodes
from raftdb.ops.status import (
    AT_ONCE_MAX,
    ClusterState,
    ConnectTo,
    NodeState,
    archives_of,
    no_leader,
    troubles_of,
)
from raftdb.ops.upgrade import Releases, level_of_version, release_of, releases_of

__all__ = ["FREE_BYTES_MIN", "Check", "check_rollback", "check_upgrade"]

FREE_BYTES_MIN = 256 * 1024 * 1024
"""Beyond the node's own reserve: what a node may write while it catches up after its restart."""
LAG_ENTRIES_MAX = 1_024
COMPUTES = (
    *("sqlite_version", "sqlite_source_id", "compile_options", "arithmetic", SAMPLE),
    "pysyncobj",
)
"""What replicas of every release must have in common."""


@dataclass(frozen=True, slots=True)
class Check:
    """One precondition."""

    name: str
    ok: bool
    detail: str
    """What was found, or what is in the way."""


def check_upgrade(
    state: ClusterState,
    connect_to: ConnectTo,
    here: Mapping[str, Any],
    to: str,
    timeout_s: float = 10.0,
) -> list[Check]:
    """All of them, in the order of importance. `here`: what this release computes with, if `to` is
    it."""
    told, silent = _told(state, connect_to, timeout_s)
    return [
        _reachable(state),
        _healthy(state),
        _spare(state),
        _serving(state),
        _equal(state, connect_to, timeout_s),
        _versions(releases_of(state), to),
        _same_build(told, silent, here if to == __version__ else {}),
        _room(state),
        _archive(state),
    ]


def check_rollback(
    state: ClusterState, connect_to: ConnectTo, to: str, timeout_s: float = 10.0
) -> list[Check]:
    """The same before going back, where what is written already counts too."""
    found = check_upgrade(state, connect_to, {}, to, timeout_s)
    told, _silent = _told(state, connect_to, timeout_s)
    place = next(number for number, one in enumerate(found) if one.name == "build")
    return [*found[:place], _formats(told, to), *found[place:]]


def _check(name: str, wrong: list[str], fine: str) -> Check:
    return Check(name, not wrong, "; ".join(wrong) if wrong else fine)


def _reachable(state: ClusterState) -> Check:
    wrong = [f"{one.node_id}: {one.problem}" for one in state.nodes if not one.answers]
    return _check("reachable", wrong, f"all {len(state.nodes)} members answer")


def _healthy(state: ClusterState) -> Check:
    wrong = []
    if state.leader is None:
        wrong.append(no_leader(state))
    elif state.with_leader < state.voters:
        wrong.append(f"{state.with_leader} of {state.voters} voters follow {state.leader}")
    wrong += [
        f"{one.node_id} lacks {one.lag_entries} entries"
        for one in state.nodes
        if one.lag_entries is not None and one.lag_entries > LAG_ENTRIES_MAX
    ]
    return _check("healthy", wrong, f"{state.leader} leads, and all follow it closely")


def _spare(state: ClusterState) -> Check:
    """One voter at a time will be away."""
    leader = next((one for one in state.nodes if one.node_id == state.leader), None)
    problem = leader.facts.get("survival", {}).get("problem", "") if leader is not None else ""
    wrong = [str(problem)] if problem else []
    if state.voters < 3:
        wrong.append(f"with {state.voters} voters nothing is written while one is restarted")
    return _check("spare", wrong, f"{state.voters} voters: one may be away")


def _serving(state: ClusterState) -> Check:
    wrong = [f"{one.node_id} {why}" for one in state.nodes for why in troubles_of(one)]
    return _check("serving", wrong, "no member is quarantined, damaged, full or being stopped")


def _equal(state: ClusterState, connect_to: ConnectTo, timeout_s: float) -> Check:
    members = {one.node_id: one.address for one in state.nodes if one.answers}
    try:
        report = check_nodes(members, connect_to, timeout_s)
    except Error as error:
        return Check("equal", False, error.message)
    wrong = [f"{one.node_id}: {one.problem}" for one in report.nodes if one.problem]
    if report.diverged:
        wrong.append(f"content differs on {', '.join(report.diverged)}")
    elif not report.equal:
        wrong.append("nodes could not be asked about one index: too many writes, try again")
    return _check("equal", wrong, f"all hold the same at index {report.index}")


def _versions(releases: Releases, to: str) -> Check:
    level, wrong = releases.level, []
    running = [*releases.versions, to]
    if len(set(running)) > 2:
        wrong.append(f"{', '.join(releases.versions)} run already: finish that change first")
    if to == __version__:
        low, high = LEVEL_MIN, LEVEL_MAX
        if not low <= level <= high:
            wrong.append(f"{to} runs feature level {range_text(low, high)}, and not {level}")
    elif level_of_version(to) < level:
        wrong.append(f"{to} does not run feature level {level}, which was finalized")
    wrong += [
        f"{one.node_id} does not run feature level {level}"
        for one in releases.nodes
        if not one.problem and not one.runs(level)
    ]
    fine = f"{', '.join(releases.versions)} at feature level {level}, which {to} runs"
    return _check("versions", wrong, fine)


def _told(
    state: ClusterState, connect_to: ConnectTo, timeout_s: float
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """What each node computes and writes with; and who does not say."""

    def ask(node: NodeState) -> Mapping[str, Any] | Error:
        try:
            connection = connect_to(node.address)
            try:
                told: Mapping[str, Any] = connection.ask(
                    "compatibility", anywhere=True, timeout=timeout_s
                )
                return told
            finally:
                connection.close()
        except Error as error:
            return error

    nodes = [one for one in state.nodes if one.answers]
    with ThreadPoolExecutor(max(1, min(len(nodes), AT_ONCE_MAX))) as pool:
        answers = dict(zip([one.node_id for one in nodes], pool.map(ask, nodes), strict=True))
    silent = [f"{name}: {one.message}" for name, one in answers.items() if isinstance(one, Error)]
    return {name: one for name, one in answers.items() if not isinstance(one, Error)}, silent


def _same_build(
    answers: Mapping[str, Mapping[str, Any]], silent: list[str], here: Mapping[str, Any]
) -> Check:
    """Releases run together only with one SQLite, and on machines that compute alike."""
    told, wrong = dict(answers), list(silent)
    if here:
        told["this machine"] = here
    for name in COMPUTES:
        asked = [who for who, one in told.items() if name in one or name != SAMPLE]
        values = {who: str(told[who].get(name)) for who in asked}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{value[:40]} on {who}" for who, value in values.items())
            wrong.append(f"{name} differs: {shown}")
    build = next((str(one.get("sqlite_version")) for one in told.values()), "?")
    what = f"SQLite {build} everywhere, and the same arithmetic"
    return _check("build", wrong, what + (", on this machine too" if here else ""))


def _formats(answers: Mapping[str, Mapping[str, Any]], to: str) -> Check:
    """What nodes write now is read by the release that is to be started on it."""
    reads = release_of(to).reads
    wrong = [
        f"{who} writes {name} {one[name]}, and {to} reads {' and '.join(map(str, known))}"
        for who, one in answers.items()
        for name, known in reads.items()
        if one.get(name, known[0]) not in known
    ]
    return _check("formats", wrong, f"log, database and protocol are written as {to} reads them")


def _room(state: ClusterState) -> Check:
    known = {one.node_id: int(one.facts.get("disk_free_bytes", -1)) for one in state.nodes}
    wrong = [
        f"{name} has {free >> 20} MiB" for name, free in known.items() if 0 <= free < FREE_BYTES_MIN
    ]
    return _check("room", wrong, f"{FREE_BYTES_MIN >> 20} MiB and more are free on every node")


def _archive(state: ClusterState) -> Check:
    found = archives_of(state)
    wrong = [
        f"{one['url']} is {one['lag_s']:.0f} s behind"
        if one["alarm"]
        else f"{one['url']} was not restored on trial for too long"
        for one in found
        if one["alarm"] or one.get("verify_alarm")
    ]
    return _check("archive", wrong, "it keeps up" if found else "there is none")
