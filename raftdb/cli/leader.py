"""`raftdb leader show | move`."""

from __future__ import annotations

from pathlib import Path

import click

from raftdb.base.errors import UnavailableError
from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection, target_of, target_options


@click.group()
def leader() -> None:
    """Who leads; move leadership to another node."""


@leader.command(
    epilog="""\b
Example:
  raftdb leader show --dir cluster"""
)
@target_options
@json_option
def show(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Print the node that leads. Exit code 3 when there is none."""
    from raftdb.ops.status import ASK_S, cluster_status

    state = cluster_status(target_of(url, directory), min(timeout, ASK_S))
    if state.leader is None:
        raise UnavailableError("there is no leader", hint="see raftdb status")
    node = next(one for one in state.nodes if one.node_id == state.leader)
    if as_json:
        print_json(
            {
                "leader": node.node_id,
                "term": node.term,
                "address": node.address,
                "location": node.location,
            }
        )
    else:
        click.echo(node.node_id)
    return int(ExitCode.OK)


@leader.command(
    epilog="""\b
Example:
  raftdb leader move n2 --dir cluster
  raftdb leader move --dir cluster"""
)
@click.argument("node", required=False)
@target_options
@json_option
def move(
    node: str | None, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> None:
    """Move leadership to NODE, or to the most advanced follower. No request fails by it."""
    from raftdb.base.ids import parse_node_id
    from raftdb.ops.leader import move_leader
    from raftdb.runtime.clock import RealClock

    if node is not None and url is None and node.startswith("raftdb://"):
        node, url = None, node
    target = target_of(url, directory)
    wanted = parse_node_id(node) if node is not None else None
    with open_connection(target, timeout) as connection:
        old, new = move_leader(connection, target, wanted, timeout, RealClock())
    if as_json:
        print_json({"from": old, "to": new})
    else:
        click.echo(f"{new} leads" if old == new else f"{new} leads (before: {old})")
