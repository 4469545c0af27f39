"""`raftdb demo`."""

from __future__ import annotations

from pathlib import Path

import click

from raftdb.cli.output import json_option


@click.command(
    epilog="""\b
Example:
  raftdb demo
  raftdb demo --keep --seconds 30"""
)
@click.option("--keep", is_flag=True, help="Leave the cluster running and say how to use it.")
@click.option("--seconds", type=click.IntRange(5, 3600), default=None, help="How long to load it.")
@click.option(
    "--nodes",
    type=click.IntRange(3, 7),
    default=3,
    show_default=True,
    help="How many nodes, each in a place of its own.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=None,
    help="Where to make the cluster (default: a temporary directory).",
)
@json_option
def demo(keep: bool, seconds: int | None, nodes: int, directory: Path | None, as_json: bool) -> int:
    """Three nodes, real data, the leader killed twice under load, every write checked."""
    from raftdb import demo as room

    return int(
        room.run(keep=keep, seconds=seconds, nodes=nodes, directory=directory, as_json=as_json)
    )
