"""`raftdb vacuum`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import target_of, target_options

if TYPE_CHECKING:
    from raftdb.ops.vacuum import NodeVacuum


@click.command(
    epilog="""\b
Example:
  raftdb vacuum --dir cluster"""
)
@target_options
@json_option
def vacuum(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Give the free pages of all nodes' databases back to their file systems.

    Deleted rows leave free pages, which later writes use again; so this is for a database that will
    stay smaller. Each node moves the last pages of its file into free ones and cuts it, 64 pages at
    a time between the writes of clients, the leader last. Rows and answers stay as they are, no
    second copy is made, and Ctrl-C ends it anywhere.

    Exit code 0 if all nodes are done, 3 if some could not be reached.
    """
    from raftdb.ops.status import cluster_status, connect_to_node
    from raftdb.ops.vacuum import vacuum_nodes

    target = target_of(url, directory)
    state = cluster_status(target)
    last_is_leader = sorted(state.nodes, key=lambda node: node.node_id == state.leader)
    members = {node.node_id: node.address for node in last_is_leader}
    connect = connect_to_node(target, timeout)
    found = vacuum_nodes(members, connect, lambda _report: None, timeout)
    if as_json:
        print_json(
            [
                {
                    "node_id": one.node_id,
                    "given_back_bytes": one.given_back_bytes,
                    "file_bytes": one.file_bytes,
                    "free_bytes": one.free_bytes,
                    "problem": one.problem,
                }
                for one in found
            ]
        )
    else:
        for one in sorted(found, key=lambda one: one.node_id):
            click.echo(_line(one))
    return int(ExitCode.UNREACHABLE if any(one.problem for one in found) else ExitCode.OK)


def _line(one: NodeVacuum) -> str:
    if one.problem:
        return f"{one.node_id}: {one.problem}"
    return f"{one.node_id}: {one.given_back_bytes:,} bytes given back, {one.file_bytes:,} left"
