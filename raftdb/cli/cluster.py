"""`raftdb cluster settings get | set | unset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from raftdb.base.errors import ConfigError
from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection, target_of, target_options

_URL = "raftdb://"


@click.group()
def cluster() -> None:
    """What holds for the cluster as a whole."""


@cluster.group()
def settings() -> None:
    """The survival goal, the default durability, the leader's place: kept in the log.

    \b
    survive            region, zone or node: the loss of any one must leave a majority
    durability         quorum, locations=N or locations=N@zone: what writes wait for
    leader_preference  locations, the best first: where the leader should be
    """


@settings.command(
    epilog="""\b
Example:
  raftdb cluster settings get --dir cluster"""
)
@target_options
@json_option
def get(url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Print all that are set."""
    _ask(url, directory, timeout, as_json, {})
    return int(ExitCode.OK)


@settings.command(
    name="set",
    epilog="""\b
Example:
  raftdb cluster settings set survive=zone durability=locations=2@zone --dir cluster
  raftdb cluster settings set leader_preference=eu/madrid,us --dir cluster""",
)
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option("--force", is_flag=True, help="Declare a goal although it is not kept now.")
@click.option("--url", default=None, help="The cluster, as raftdb://host:port,...")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory of a cluster that `raftdb init` made, or of its client directory.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds until a request is given up.",
)
@json_option
def set_(
    changes: tuple[str, ...],
    force: bool,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Change settings, all or none. Refused when the voters cannot keep what is declared."""
    asked: dict[str, Any] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals or not value or text.startswith(_URL):
            raise ConfigError(f"{text!r} is not NAME=VALUE", hint="see --help for the names")
        asked[name] = value
    _ask(url, directory, timeout, as_json, {"changes": asked, "force": force})
    return int(ExitCode.OK)


@settings.command(
    epilog="""\b
Example:
  raftdb cluster settings unset leader_preference --dir cluster"""
)
@click.argument("name")
@target_options
@json_option
def unset(name: str, url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Take a setting away, so that its default holds."""
    _ask(url, directory, timeout, as_json, {"changes": {name: None}})
    return int(ExitCode.OK)


def _ask(
    url: str | None, directory: Path | None, timeout: float, as_json: bool, asked: dict[str, Any]
) -> None:
    with open_connection(target_of(url, directory), timeout) as connection:
        told = connection.ask("settings", **asked)
    if as_json:
        print_json(told)
        return
    for name, value in sorted(told["settings"].items()):
        shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        click.echo(f"{name} = {shown}")
    if not told["settings"]:
        click.echo("nothing is set")
    for remark in (*told["remarks"], *([told["problem"]] if told["problem"] else ())):
        click.echo(f"note: {remark}", err=True)
