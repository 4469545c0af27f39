"""`raftdb start`: one node in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from raftdb.base.errors import ConfigError
from raftdb.cli.output import json_option, print_json


@click.command(
    epilog="""\b
Example:
  raftdb start --config cluster/n1/raftdb.toml
  raftdb start --config raftdb.toml --log-level debug
  RAFTDB_LOG__FORMAT=json raftdb start --config raftdb.toml
  raftdb start --config raftdb.toml --set limits.cursors_max=500 --print-config"""
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="RAFTDB_CONFIG",
    show_envvar=True,
    help="The raftdb.toml that `raftdb init` wrote.",
)
@click.option("--data-dir", default=None, help="Journal and database.")
@click.option("--peer-listen", default=None, metavar="HOST:PORT", help="Where to listen for nodes.")
@click.option(
    "--client-listen", default=None, metavar="HOST:PORT", help="Where to listen for clients."
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default=None)
@click.option("--log-format", type=click.Choice(["text", "json"]), default=None)
@click.option("--insecure", is_flag=True, default=None, help="No TLS: anybody is let in.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key of the configuration, dotted. Repeatable.",
)
@click.option("--print-config", is_flag=True, help="Print the whole configuration and end.")
@json_option
def start(
    config_file: Path | None,
    data_dir: str | None,
    peer_listen: str | None,
    client_listen: str | None,
    log_level: str | None,
    log_format: str | None,
    insecure: bool | None,
    settings: tuple[str, ...],
    print_config: bool,
    as_json: bool,
) -> int:
    """Run a node in the foreground, until SIGTERM or Ctrl-C.

    Flags win over RAFTDB_* variables, those over the file. Both signals hand leadership over and
    finish what is under way; a second one ends the node at once, which loses nothing either.
    --json is --log-format json (with --print-config: the configuration as JSON).
    """
    from raftdb.base.config import load_config

    overrides: dict[str, Any] = {
        "data_dir": data_dir,
        "peer_listen": peer_listen,
        "client_listen": client_listen,
        "log.level": log_level,
        "log.format": "json" if as_json and log_format is None else log_format,
        "insecure": insecure,
        **dict(_setting(text) for text in settings),
    }
    if config_file is None and not os.environ.get("RAFTDB_NODE_ID"):
        raise ConfigError(
            "which node?", hint="give --config DIR/<node>/raftdb.toml, as raftdb init wrote it"
        )
    config = load_config(str(config_file) if config_file else None, os.environ, overrides)
    if print_config:
        _print(config, as_json)
        return 0
    from raftdb.embedded import run_node

    return int(run_node(config))


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text!r}: write KEY=VALUE.")
    return key.strip(), value


def _print(config: Any, as_json: bool) -> None:
    from raftdb.base.config_text import render_toml

    text = render_toml(config)
    if as_json:
        import tomllib

        print_json(tomllib.loads(text))
    else:
        click.echo(text, nl=False)
