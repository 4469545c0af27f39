"""`raftdb join`: a new node of a running cluster, by a token."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from raftdb.base.errors import AuthError, ConfigError, DeadlineError, UnavailableError
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection

JOIN_S = 30.0
TOKEN_BYTES_MAX = 1 << 20


@click.command(
    epilog="""\b
Example:
  raftdb join n4.token --data n4 --location eu/rome --peer 10.0.4.5:7001 --client 10.0.4.5:7002
  raftdb start --config n4/raftdb.toml"""
)
@click.argument("token", type=click.File("r"))
@click.option(
    "--data",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A new directory: configuration, certificate, log and database go there.",
)
@click.option("--location", required=True, help="Where the node stands, as region/zone/rack.")
@click.option("--peer", required=True, metavar="HOST:PORT", help="Where other nodes reach it.")
@click.option("--client", required=True, metavar="HOST:PORT", help="Where clients reach it.")
@click.option("--ca", "fingerprint", default="", help="Refuse another CA than of this SHA-256.")
@click.option("--start", is_flag=True, help="Run the node afterwards, in the foreground.")
@click.option(
    "--promote",
    is_flag=True,
    help="Wait until it has caught up and is a voter: start it meanwhile. Not with --start.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 86_400),
    default=JOIN_S,
    show_default=True,
    help="Seconds until a step is given up; --promote needs the time of catching up.",
)
@json_option
def join(
    token: Any,
    directory: Path,
    location: str,
    peer: str,
    client: str,
    fingerprint: str,
    start: bool,
    promote: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Make this machine a node of the cluster that the file TOKEN names (- reads standard input).

    Writes the node's directory, compares SQLite's build, arithmetic and formats with the cluster's
    (a difference is refused before anything is changed), and has it added as a learner, which holds
    all data and counts nowhere. Interrupted, the same command goes on.
    """
    from raftdb.base.config import load_config
    from raftdb.base.ids import parse_address, parse_location
    from raftdb.cli.member import with_learner
    from raftdb.embedded import computes, run_node
    from raftdb.ops.join import join_cluster, prepare_directory, token_target
    from raftdb.ops.member import change_member
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.random import RealRandom

    if start and promote:
        raise click.UsageError("--start keeps the command running: promote from another terminal.")
    place = parse_location(location), parse_address(peer), parse_address(client)
    read = read_checked(token, fingerprint)
    joining = prepare_directory(read, directory)
    clock = RealClock()
    with open_joining(joining, token_target(joining), timeout) as connection:
        told = join_cluster(
            joining,
            connection,
            computes(),
            place,
            RealFiles(),
            RealRandom(),
            clock,
            with_learner,
            timeout_s=timeout,
        )
        config_file, node_id = joining.config_file, read.node_id
        if not as_json:
            click.echo(f"{node_id} is a member of cluster {read.cluster_id}: delete the token")
            click.echo(f"raftdb start --config {config_file}")
            sys.stdout.flush()
        if promote:
            told = change_member(connection, "promote", node_id, timeout_s=timeout, clock=clock)
    role = next(str(one["role"]) for one in told["members"] if one["node_id"] == node_id)
    if as_json:
        print_json({"node_id": node_id, "role": role, "config": str(config_file), **told})
    elif promote:
        click.echo(f"{node_id} is a {role}")
    sys.stdout.flush()
    return int(run_node(load_config(str(config_file)))) if start else 0


def read_checked(token: Any, fingerprint: str) -> Any:
    """The token, of the CA that is meant. Raises ConfigError."""
    from raftdb.security import read_token

    try:
        read = read_token(token.read(TOKEN_BYTES_MAX + 1))
    except UnicodeDecodeError:
        raise ConfigError(
            "this is no join token", code="token_damaged", hint="give the file of the token"
        ) from None
    if fingerprint and fingerprint.lower().replace(":", "") != read.ca_sha256:
        raise ConfigError(
            f"the token is of the CA {read.ca_sha256}, and not of the one that was given",
            code="token_foreign",
            hint="`raftdb member token` prints the fingerprint of its CA",
        )
    return read


def open_joining(joining: Any, target: Any, timeout_s: float) -> Any:
    """Connect; what cannot be reached leaves nothing behind. Raises ConfigError for a cluster of
    another CA, UnavailableError."""
    from raftdb.ops.join import discard

    addresses = ", ".join(str(one) for one in joining.token.addresses)
    try:
        connection = open_connection(target, timeout_s)
        try:
            connection.ping()
        except BaseException:
            connection.close()
            raise
    except AuthError as error:
        discard(joining)
        raise ConfigError(
            f"the nodes at {addresses} are not of the cluster of this token: {error.message}",
            code="token_foreign",
            hint="the token's CA is not theirs: make one where the ca/ of that cluster is; or "
            "their clocks are behind this one, and the token's certificate is not good yet by them",
        ) from error
    except (DeadlineError, UnavailableError) as error:
        discard(joining)
        raise UnavailableError(
            f"no member of the cluster lets this node in: {error.message}",
            hint="the token has the members' addresses of the time when it was made. Where a node "
            "closes the connection, its log says why: the token may have been revoked",
        ) from error
    except BaseException:
        discard(joining)
        raise
    return connection
