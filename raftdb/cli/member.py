"""`raftdb member token | prepare | add | remove | promote | demote | move | replace | list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from raftdb.base.errors import ConfigError
from raftdb.base.exits import ExitCode
from raftdb.base.settings import MemberConfig
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection, target_of, target_options

_FORCE = "Even if nothing can be written until other voters are back, or a goal breaks."
_FORCE_MOVE = "Even if the node does not answer at --client (as seen from here), or a goal breaks."


@click.group()
def member() -> None:
    """Who the members are, and who of them counts. Changes are made while the cluster runs, one at
    a time, from any node."""


@member.command(
    name="list",
    epilog="""\b
Example:
  raftdb member list --dir cluster""",
)
@target_options
@json_option
def list_(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Print the members: voters count, learners hold all data and count nowhere."""
    from raftdb.ops.member import list_members

    with open_connection(target_of(url, directory), timeout) as connection:
        _print(list_members(connection), as_json)
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member add n4,location=eu/rome,peer=10.0.4.5:7001,client=10.0.4.5:7002 --dir cluster"""
)
@click.argument("node", metavar="NODE")
@target_options
@json_option
def add(node: str, url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Add NODE (ID,location=…,peer=HOST:PORT,client=HOST:PORT) as a learner. Its id must be new: a
    node with an empty disk is another member than the one that it was."""
    from raftdb.ops.found import parse_member
    from raftdb.ops.member import add_member

    with open_connection(target_of(url, directory), timeout) as connection:
        new = parse_member(node)
        _print(add_member(connection, new, timeout_s=timeout), as_json)
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member prepare n4,location=eu/rome,peer=10.0.4.5:7001,client=10.0.4.5:7002 --dir cluster"""
)
@click.argument("node", metavar="NODE")
@target_options
@json_option
def prepare(
    node: str, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> int:
    """Make the directory of a new node below that of the cluster, where its certificate authority
    is. Copy it to the node's machine, `raftdb member add` it, and start it."""
    from raftdb.ops.found import parse_member
    from raftdb.ops.member import list_members, prepare_member
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.random import RealRandom

    if directory is None:
        raise ConfigError("which cluster's directory?", hint="give --dir, where its ca/ is")
    target = target_of(url, directory)
    with open_connection(target, timeout) as connection:
        status, known = connection.status(), list_members(connection)["members"]
    made = prepare_member(
        directory,
        parse_member(node),
        status,
        known,
        RealFiles(),
        RealRandom(),
        RealClock(),
        with_learner,
        insecure=bool(target.options.get("insecure")),
    )
    if as_json:
        print_json({"config": str(made)})
    else:
        click.echo(f"raftdb start --config {made}")
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member token n4 --dir cluster --to n4.token"""
)
@click.argument("node_id", metavar="ID")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A new file, which only its owner may read: the token goes there.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, 7 * 24 * 60, min_open=True),
    default=60,
    show_default=True,
    help="How long `raftdb join` takes it.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, 3650, min_open=True),
    default=365,
    show_default=True,
    help="How long the node's certificate is good.",
)
@target_options
@json_option
def token(
    node_id: str,
    target: Path,
    minutes: float,
    days: float,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Make a join token for a new node called ID, where the cluster's certificate authority is.

    Bring the file to the new node's machine, and there: raftdb join. It holds the new node's
    key: keep it as secret as that, and delete it afterwards. A lost one: raftdb cert revoke ID.
    """
    from raftdb.base.ids import parse_node_id
    from raftdb.ops.join import make_token
    from raftdb.ops.member import list_members
    from raftdb.security import write_token

    if directory is None:
        raise ConfigError("which cluster's directory?", hint="give --dir, where its ca/ is")
    if target.exists():
        raise ConfigError(f"{target} exists", hint="give the name of a new file")
    new = parse_node_id(node_id)
    with open_connection(target_of(url, directory), timeout) as connection:
        status, told = connection.status(), list_members(connection)
    text, made = make_token(directory, new, status, told, minutes=minutes, days=days)
    write_token(str(target), text)
    facts = {
        "node_id": made.node_id,
        "cluster_id": made.cluster_id,
        "ca_sha256": made.ca_sha256,
        "expires": made.expires.isoformat(),
        "path": str(target),
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"{target}: for {made.node_id}, until {made.expires:%Y-%m-%d %H:%M} UTC")
    click.echo(f"cluster {made.cluster_id}, CA {made.ca_sha256}")
    click.echo(
        f"raftdb join {target.name} --data {made.node_id} --location … --peer HOST:PORT "
        "--client HOST:PORT"
    )


@member.command(
    epilog="""\b
Example:
  raftdb member remove n4 --dir cluster"""
)
@click.argument("node")
@click.option("--force", is_flag=True, help=_FORCE)
@target_options
@json_option
def remove(
    node: str, force: bool, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> int:
    """Remove NODE for good: it stops by itself, and its id is never used again. A leader hands over
    first."""
    _change("remove", node, url, directory, timeout, as_json, force=force)
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member promote n4 --timeout 600 --dir cluster"""
)
@click.argument("node")
@target_options
@json_option
def promote(
    node: str, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> int:
    """Make the learner NODE a voter, as soon as it has caught up with the leader."""
    _change("promote", node, url, directory, timeout, as_json)
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member demote n3 --dir cluster"""
)
@click.argument("node")
@click.option("--force", is_flag=True, help=_FORCE)
@target_options
@json_option
def demote(
    node: str, force: bool, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> int:
    """Make the voter NODE a learner: a replica for reads."""
    _change("demote", node, url, directory, timeout, as_json, force=force)
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member move n2 --peer 10.0.9.5:7001 --client 10.0.9.5:7002 --dir cluster"""
)
@click.argument("node")
@click.option("--location", default="", help="Where it stands now, as region/zone/rack.")
@click.option("--peer", default="", help="host:port where the other nodes reach it now.")
@click.option("--client", default="", help="host:port where clients reach it now.")
@click.option("--force", is_flag=True, help=_FORCE_MOVE)
@target_options
@json_option
def move(
    node: str,
    location: str,
    peer: str,
    client: str,
    force: bool,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Tell the cluster the new addresses or the new location of NODE, which keeps its data.

    Clients are sent to the new --client from then on, so NODE has to answer there already.
    """
    from raftdb.ops.member import check_address
    from raftdb.ops.status import connect_to_node

    if client and not force:
        check_address(node, client, connect_to_node(target_of(url, directory)))
    told = {"location": location, "peer": peer, "client": client, "force": force}
    _change("move", node, url, directory, timeout, as_json, **told)
    return int(ExitCode.OK)


@member.command(
    epilog="""\b
Example:
  raftdb member replace n3 n4,location=eu/rome,peer=10.0.4.5:7001,client=10.0.4.5:7002 \\
    --timeout 600 --dir cluster"""
)
@click.argument("old")
@click.argument("node", metavar="NODE")
@target_options
@json_option
def replace(
    old: str,
    node: str,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Put NODE in the place of OLD: added, caught up and promoted before OLD is removed (after it,
    where both have the same address)."""
    from raftdb.ops.found import parse_member
    from raftdb.ops.member import replace_member
    from raftdb.runtime.clock import RealClock

    with open_connection(target_of(url, directory), timeout) as connection:
        new = parse_member(node)
        told = replace_member(connection, old, new, timeout_s=timeout, clock=RealClock())
        _print(told, as_json)
    return int(ExitCode.OK)


def with_learner(known: Sequence[MemberConfig], new: MemberConfig) -> bytes:
    """What a new node takes for its cluster, until the log tells."""
    from raftdb.consensus.membership import (
        LEARNER,
        VOTER,
        Member,
        configuration_of,
        encode_configuration,
    )

    members = [
        Member(one.node_id, one.location, one.peer_address, one.client_address, role)
        for one, role in (*((one, VOTER) for one in known), (new, LEARNER))
    ]
    return encode_configuration(configuration_of(members))


def _change(
    change: str,
    node: str,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
    **more: Any,
) -> None:
    from raftdb.ops.member import change_member
    from raftdb.runtime.clock import RealClock

    with open_connection(target_of(url, directory), timeout) as connection:
        told = change_member(connection, change, node, timeout_s=timeout, clock=RealClock(), **more)
    _print(told, as_json)


def _print(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    for one in told["members"]:
        click.echo(
            f"{one['node_id']:<12} {one['role']:<8} {one['location']:<24} "
            f"{one['peer_address']} {one['client_address']} {one.get('version', '')}".rstrip()
        )
