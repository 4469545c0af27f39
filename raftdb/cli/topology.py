"""`raftdb topology`."""

from __future__ import annotations

from pathlib import Path

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import target_of, target_options


@click.command(
    epilog="""\b
Example:
  raftdb topology --dir cluster
  raftdb topology raftdb://h1:7002,h2:7002/ --json"""
)
@target_options
@json_option
def topology(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Draw where the nodes are, with round-trip times, and say which losses are survived.

    Exit code 0 if there is a leader that a majority follows and the survival goal, if one is
    declared, is kept; 1 if it is not kept, 3 without a leader.
    """
    from raftdb.ops.status import ASK_S, cluster_status
    from raftdb.ops.topology import topology_dict, topology_lines, topology_of

    found = topology_of(cluster_status(target_of(url, directory), min(timeout, ASK_S)))
    if as_json:
        print_json(topology_dict(found))
    else:
        for line in topology_lines(found):
            click.echo(line)
    if not found.state.healthy:
        return int(ExitCode.UNREACHABLE)
    return int(ExitCode.FAILED if found.problem else ExitCode.OK)
