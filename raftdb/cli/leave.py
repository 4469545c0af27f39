"""`raftdb leave`: the node on this machine leaves its cluster."""

from __future__ import annotations

import os
from pathlib import Path

import click

from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection

LEAVE_S = 60.0


@click.command(
    epilog="""\b
Example:
  raftdb leave --config cluster/n3/raftdb.toml"""
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="RAFTDB_CONFIG",
    show_envvar=True,
    required=True,
    help="The node's raftdb.toml.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Even if nothing can be written until other voters are back, or a goal breaks.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=LEAVE_S,
    show_default=True,
    help="Seconds until it is given up.",
)
@json_option
def leave(config_file: Path, force: bool, timeout: float, as_json: bool) -> None:
    """Have the node of this machine leave its cluster, for good.

    Leadership is handed over first; then the node is removed from the members, finishes what is
    under way, and its process ends by itself (exit code 2, as at every start from then on). Works
    with the node's own certificate. Interrupted, it may be asked again.
    """
    from raftdb.base.config import load_config
    from raftdb.ops.leave import leave_cluster, node_target
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles

    config = load_config(str(config_file), os.environ)
    target = node_target(config)
    with open_connection(target, min(timeout, 10.0)) as connection:
        told = leave_cluster(
            config,
            target,
            connection,
            RealFiles(),
            RealClock(),
            timeout_s=timeout,
            force=force,
            progress=lambda text: None if as_json else click.echo(text),
        )
    if as_json:
        print_json({"node_id": config.node_id, "ended": True, **told})
        return
    left = ", ".join(f"{one['node_id']} ({one['role']})" for one in told["members"])
    click.echo(f"{config.node_id} has left the cluster, and its process has ended. Left: {left}")
