"""`raftdb status`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import target_of, target_options

if TYPE_CHECKING:
    from raftdb.ops.status import ClusterState

_COLUMNS = ("node", "location", "role", "term", "applied", "lag", "cert days", "version", "address")


@click.command(
    epilog="""\b
Example:
  raftdb status --dir cluster
  raftdb status raftdb://h1:7002,h2:7002/ --json"""
)
@target_options
@json_option
def status(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Show every node: role, term, indexes, lag, certificate, version.

    Exit code 0 if there is a leader that a majority follows, else 3. Nodes that do not answer are
    shown as unreachable. The last recovery drills that were run from this machine are listed below.
    """
    from raftdb.ops.status import ASK_S, cluster_status

    state = cluster_status(target_of(url, directory), min(timeout, ASK_S))
    if as_json:
        print_json(status_dict(state))
    else:
        for line in status_lines(state):
            click.echo(line)
        for line in _drill_lines():
            click.echo(line)
        for problem in state.problems:
            click.echo(f"problem: {problem}", err=True)
    return int(ExitCode.OK if state.healthy else ExitCode.UNREACHABLE)


def status_dict(state: ClusterState) -> dict[str, Any]:
    """For --json."""
    from raftdb.ops.status import archives_of
    from raftdb.ops.upgrade import releases_of

    return {
        "cluster_id": state.cluster_id,
        "healthy": state.healthy,
        "leader": state.leader,
        "members": len(state.nodes),
        "voters": state.voters,
        "with_leader": state.with_leader,
        "quorum": state.quorum,
        "archive": archives_of(state),
        "feature_level": releases_of(state).level,
        "drills": _drills(),
        "problems": state.problems,
        "nodes": [
            {
                "node_id": node.node_id,
                "location": node.location,
                "address": node.address,
                "answers": node.answers,
                "problem": node.problem,
                "role": node.role,
                "term": node.term,
                "leader": node.leader,
                "applied_index": node.applied_index,
                "commit_index": node.commit_index,
                "durable_index": node.durable_index,
                "lag_entries": node.lag_entries,
                "certificate_days_left": node.certificate_days_left,
                "version": node.version,
                "feature_level": node.facts.get("feature_level"),
                "feature_level_max": node.facts.get("feature_level_max"),
                "facts": node.facts,
            }
            for node in state.nodes
        ],
    }


def _drills() -> list[dict[str, Any]]:
    """The last drill of each kind that was run from here."""
    from raftdb.drill.history import last_drills

    return last_drills(os.environ)


def _drill_lines() -> list[str]:
    drills = _drills()
    if not drills:
        return []
    from raftdb.drill.report import summary

    return ["", *(f"drill {summary(one)}" for one in drills)]


def status_lines(state: ClusterState) -> list[str]:
    """For people."""
    from tabulate import tabulate

    rows = []
    for node in state.nodes:
        lag = "" if node.lag_entries is None else str(node.lag_entries)
        days = "" if node.certificate_days_left is None else f"{node.certificate_days_left:.0f}"
        numbers = [str(node.term), str(node.applied_index)] if node.answers else ["", ""]
        rows.append(
            [
                node.node_id,
                node.location,
                node.role,
                *numbers,
                lag,
                days,
                node.version,
                node.address,
            ]
        )
    table = tabulate(
        rows,
        headers=_COLUMNS,
        tablefmt="simple",
        disable_numparse=True,
        colalign=["left", "left", "left", "right", "right", "right", "right", "left", "left"],
    )
    verdict = "healthy" if state.healthy else "NOT AVAILABLE"
    learners = len(state.nodes) - state.voters
    more = f", and {learners} learner{'s' if learners > 1 else ''}" if learners else ""
    return [
        f"cluster {state.cluster_id}: {verdict}, {state.with_leader} of {state.voters} members "
        f"with the leader ({state.leader or 'none'}){more}",
        "",
        *(line.rstrip() for line in table.splitlines()),
        *_archive_lines(state),
    ]


def _archive_lines(state: ClusterState) -> list[str]:
    from raftdb.ops.status import archives_of

    lines = []
    for one in archives_of(state):
        age_s = one["verified_age_s"]
        verified = "never verified" if age_s is None else f"verified {age_s / 3600:.1f} h ago"
        alarm = ", ALARM" if one["alarm"] or one.get("verify_alarm") else ""
        lines.append(
            f"archive {one['url']}: up to entry {one['archived_index']}, "
            f"{one['lag_s']:.1f} s behind, {verified}{alarm}"
        )
    return ["", *lines] if lines else []
