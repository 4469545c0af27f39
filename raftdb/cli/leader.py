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
    from raftdb.ops.status import ASK_S, cluster_status, no_leader

    state = cluster_status(target_of(url, directory), min(timeout, ASK_S))
    if state.leader is None:
        raise UnavailableError(no_leader(state), hint="see raftdb status")
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
  raftdb leader move --to n2 --dir cluster
  raftdb leader move --to eu/madrid --dir cluster
  raftdb leader move --dir cluster"""
)
@click.option("--to", default=None, help="A node, or a location: one of its nodes.")
@target_options
@json_option
def move(
    to: str | None, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> None:
    """Move leadership to a node or a location, or to the most advanced follower. No request fails
    by it. Where a leader_preference is set (raftdb cluster settings), it goes back by itself."""
    from raftdb.ops.leader import move_leader
    from raftdb.runtime.clock import RealClock

    target = target_of(url, directory)
    with open_connection(target, timeout) as connection:
        old, new = move_leader(connection, target, to, timeout, RealClock())
    if as_json:
        print_json({"from": old, "to": new})
    else:
        click.echo(f"{new} leads" if old == new else f"{new} leads (before: {old})")
