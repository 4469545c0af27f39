"""`raftdb init`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from raftdb.cli.output import json_option, print_json


@click.command(
    epilog="""\b
Example:
  raftdb init cluster --local 3
  raftdb init cluster \\
    --node n1,location=eu/madrid,peer=10.0.1.5:7001,client=10.0.1.5:7002 \\
    --node n2,location=eu/paris,peer=10.0.2.5:7001,client=10.0.2.5:7002 \\
    --node n3,location=us/boston,peer=10.0.3.5:7001,client=10.0.3.5:7002"""
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="ID,location=L,peer=H:P,client=H:P",
    help="One member: its name, where it stands (widest first, as eu/madrid/rack3), and where "
    "other nodes and clients reach it. Repeat for each.",
)
@click.option("--local", type=int, metavar="N", help="N nodes on this machine's loopback instead.")
@click.option(
    "--base-port",
    type=int,
    default=None,
    help="First port of --local; each node takes two. Default: some that are free now.",
)
@click.option("--insecure", is_flag=True, help="No TLS: whoever reaches a port is let in.")
@click.option(
    "--days",
    type=click.FloatRange(0, 3650, min_open=True),
    default=365,
    show_default=True,
    help="How long the first certificates are good.",
)
@json_option
def init(
    directory: Path,
    nodes: tuple[str, ...],
    local: int | None,
    base_port: int | None,
    insecure: bool,
    days: float,
    as_json: bool,
) -> None:
    """Found a cluster: keys, certificates and one directory per node, in DIRECTORY.

    DIRECTORY must be empty or missing; nothing is ever overwritten.
    """
    from raftdb.ops.found import found_cluster, local_members, parse_member, warnings_about
    from raftdb.ops.ports import free_ports
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.random import RealRandom

    if bool(nodes) == (local is not None):
        raise click.UsageError("Give --node for each member, or --local N.")
    if base_port is not None and local is None:
        raise click.UsageError("--base-port goes with --local.")
    if local is not None:
        members = local_members(local, base_port or free_ports(2 * local))
    else:
        members = tuple(parse_member(text) for text in nodes)
    founded = found_cluster(
        directory,
        members,
        RealFiles(),
        RealRandom(),
        RealClock(),
        insecure=insecure,
        days=days,
    )
    warnings = warnings_about(members) if local is None else []
    if insecure:
        warnings.append("no TLS: whoever reaches a port can read and write everything")
    if as_json:
        print_json(_facts(founded, warnings))
        return
    for line in _advice(founded, local is not None):
        click.echo(line)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _facts(founded: Any, warnings: list[str]) -> dict[str, Any]:
    return {
        "directory": str(founded.directory),
        "cluster_id": founded.cluster_id,
        "history": founded.history,
        "url": founded.url,
        "insecure": founded.insecure,
        "nodes": [
            {
                "node_id": member.node_id,
                "location": member.location,
                "peer": str(member.peer_address),
                "client": str(member.client_address),
                "config": str(founded.directory / member.node_id / "raftdb.toml"),
            }
            for member in founded.members
        ],
        "warnings": warnings,
    }


def _advice(founded: Any, local: bool) -> list[str]:
    where = founded.directory
    lines = [f"Founded cluster {founded.cluster_id} in {where}", ""]
    if local:
        lines.append("Start each node in a terminal of its own:")
        lines += [
            f"  raftdb start --config {where}/{one.node_id}/raftdb.toml" for one in founded.members
        ]
    else:
        lines.append("Copy each node's directory to its machine, and start it there:")
        for one in founded.members:
            host = one.peer_address.host
            lines.append(f"  scp -r {where}/{one.node_id} {host}:raftdb")
            lines.append(f"  ssh {host} raftdb start --config raftdb/raftdb.toml")
    lines += [
        "",
        "Then, from here or wherever you copy the client directory to:",
        f"  raftdb status --dir {where}",
        f"  raftdb sql --dir {where}",
    ]
    if not founded.insecure:
        lines += [
            "",
            f"{where}/ca holds the key of the cluster's authority: keep it off the nodes.",
        ]
    return lines
