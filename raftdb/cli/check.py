"""`raftdb check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import target_of, target_options

if TYPE_CHECKING:
    from raftdb.ops.check import CheckReport


@click.command(
    epilog="""\b
Example:
  raftdb check --dir cluster
  raftdb check raftdb://h1:7002,h2:7002,h3:7002/ --json"""
)
@target_options
@json_option
def check(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Compare the content of all nodes, table by table, at one index.

    Exit code 0 if every member was compared and all are equal, 4 if any differs, 3 if some could
    not be compared.
    """
    from raftdb.ops.check import check_nodes
    from raftdb.ops.status import ASK_S, cluster_status, connect_to_node

    target = target_of(url, directory)
    nodes = cluster_status(target, min(timeout, ASK_S)).nodes
    members = {node.node_id: node.address for node in nodes}
    silent = {node.node_id: node.problem for node in nodes if not node.answers}
    report = check_nodes(members, connect_to_node(target, timeout), timeout, silent)
    if as_json:
        print_json(
            {
                "equal": report.equal,
                "complete": report.complete,
                "index": report.index,
                "diverged": report.diverged,
                "differing_tables": report.differing,
                "nodes": [
                    {
                        "node_id": node.node_id,
                        "index": node.index,
                        "hash": node.total,
                        "tables": node.tables,
                        "problem": node.problem,
                    }
                    for node in report.nodes
                ],
            }
        )
    else:
        _show(report)
    if report.diverged:
        return int(ExitCode.BROKEN)
    return int(ExitCode.OK if report.equal and report.complete else ExitCode.UNREACHABLE)


def _show(report: CheckReport) -> None:
    for node in report.nodes:
        click.echo(f"{node.node_id}: {node.problem or f'{node.total} at index {node.index}'}")
    for table, nodes in report.differing.items():
        click.echo(f"table {table} differs on {', '.join(nodes)}")
    if report.index == 0:
        click.echo("the nodes could not be asked about one index: too many writes, try again")
    elif report.diverged:
        click.echo(f"DIVERGED: {', '.join(report.diverged)}")
    elif report.complete:
        click.echo(f"equal: all {len(report.nodes)} nodes at index {report.index}")
    elif report.equal:
        click.echo("equal, as far as nodes could be compared")
    else:
        click.echo("nothing could be compared: one node alone answered")
