"""`raftdb cert show | renew | revoke | issue`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json

_DIR = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The directory that `raftdb init` made, with its ca directory.",
)
_DAYS = click.option(
    "--days",
    type=click.FloatRange(0, 3650, min_open=True),
    default=365,
    show_default=True,
    help="How long the new certificate is good.",
)


@click.group()
def cert() -> None:
    """Certificates: how old they are; renew, revoke, issue."""


@cert.command(
    epilog="""\b
Example:
  raftdb cert show --dir cluster
  raftdb cert show --dir cluster/n1"""
)
@_DIR
@json_option
def show(directory: Path, as_json: bool) -> int:
    """List all certificates below a directory, most urgent first.

    Exit code 1 when one expires within 30 days.
    """
    from raftdb.ops.certificates import list_certificates

    found = list_certificates(directory)
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "path": one.path,
                    "days_left": round(one.days_left, 1),
                    "alarm": one.alarm,
                    "revoked": one.revoked,
                }
                for one in found
            ]
        )
    else:
        for one in found:
            state = "  REVOKED" if one.revoked else "  RENEW IT" if one.alarm else ""
            click.echo(f"{one.days_left:6.0f} days  {one.name}  {one.path}{state}")
    return int(ExitCode.FAILED if any(one.alarm for one in found) else ExitCode.OK)


@cert.command(
    epilog="""\b
Example:
  raftdb cert renew --dir cluster
  raftdb cert renew n1 client --dir cluster --days 90"""
)
@click.argument("names", nargs=-1)
@_DIR
@_DAYS
@json_option
def renew(names: tuple[str, ...], directory: Path, days: float, as_json: bool) -> None:
    """New keys and certificates for nodes (by id) and the client; for all if none is named.

    A running node takes new files up by itself. The old certificates stay good until they expire;
    revoke them if a key was lost.
    """
    from raftdb.ops.certificates import renew_certificates

    renewed = renew_certificates(directory, names, days)
    if as_json:
        print_json([_issued(one.uri, one.serial, one.expires, path) for path, one in renewed])
        return
    for path, one in renewed:
        click.echo(f"{one.uri} until {one.expires:%Y-%m-%d}: {path}")
    click.echo("Copy each node's tls directory to its machine; the node takes it up by itself.")


@cert.command(
    epilog="""\b
Example:
  raftdb cert issue reporting --dir cluster --to reporting-client"""
)
@click.argument("name")
@_DIR
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="A new directory: certificate, key and client.toml go there.",
)
@_DAYS
@json_option
def issue(name: str, directory: Path, target: Path, days: float, as_json: bool) -> None:
    """A certificate for one more client, with all that it needs to connect."""
    from raftdb.ops.certificates import issue_client_directory

    one = issue_client_directory(directory, name, target, days)
    if as_json:
        print_json(_issued(one.uri, one.serial, one.expires, str(target)))
    else:
        click.echo(f"{one.uri} until {one.expires:%Y-%m-%d}: {target}")
        click.echo(f"Use it: raftdb sql --dir {target}")


@cert.command(
    epilog="""\b
Example:
  raftdb cert revoke reporting --dir cluster
  raftdb cert revoke 5f3a09 --dir cluster
  raftdb cert revoke stolen/client.crt --dir cluster"""
)
@click.argument("what")
@_DIR
@json_option
def revoke(what: str, directory: Path, as_json: bool) -> None:
    """Trust a certificate no more: by client name, node id, serial number or file.

    Writes ca/revoked.json, and copies it to the nodes' directories below --dir; running nodes take
    it up within seconds and close the connections that it forbids.
    """
    from raftdb.ops.certificates import revoke_certificates

    revoked, told = revoke_certificates(directory, what)
    if as_json:
        print_json(
            {
                "revoked": [{"name": one.name, "serial": f"{one.serial:x}"} for one in revoked],
                "distributed_to": told,
            }
        )
        return
    for one in revoked:
        click.echo(f"revoked {one.name}, serial {one.serial:x}")
    if not revoked:
        click.echo("nothing new to revoke: it was revoked before, or has expired")
    for path in told:
        click.echo(f"told {path}")
    click.echo(f"Copy {directory}/ca/revoked.json into the tls directory of nodes elsewhere.")


def _issued(uri: str, serial: int, expires: Any, path: str) -> dict[str, str]:
    return {
        "name": uri,
        "serial": f"{serial:x}",
        "expires": expires.isoformat(),
        "path": path,
    }
