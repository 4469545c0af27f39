"""`raftdb chaos wan`: the lines between the regions of docker-compose.yml."""

from __future__ import annotations

from typing import Any

import click

from raftdb.cli.output import json_option, print_json


@click.group()
def chaos() -> None:
    """Trouble on purpose: latency and cuts between the regions of docker-compose.yml."""


@chaos.command(
    epilog="""\b
Example:
  raftdb chaos wan
  raftdb chaos wan --profile transatlantic
  raftdb chaos wan --cut frankfurt
  raftdb chaos wan --heal --json"""
)
@click.option("--profile", help="Round-trip times: none, metro, transatlantic, planet.")
@click.option("--cut", multiple=True, metavar="PLACE", help="Cut all lines of a place. Repeatable.")
@click.option("--heal", is_flag=True, help="All lines carry again.")
@click.option(
    "--api",
    default="127.0.0.1:8474",
    show_default=True,
    envvar="RAFTDB_WAN_API",
    metavar="HOST:PORT",
    help="Toxiproxy's API [also: RAFTDB_WAN_API].",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 600),
    default=10.0,
    show_default=True,
    help="Seconds that it has to begin to answer.",
)
@json_option
def wan(
    profile: str | None,
    cut: tuple[str, ...],
    heal: bool,
    api: str,
    wait: float,
    as_json: bool,
) -> None:
    """Show the lines between places, give them latency, cut them, heal them.

    What is asked for happens in the order heal, profile, cut. Without any of them, nothing is
    changed.
    """
    from raftdb.base.ids import parse_address
    from raftdb.ops.wan import open_wan
    from raftdb.runtime.clock import RealClock

    server, lines = open_wan(parse_address(api), wait, RealClock())
    if heal:
        lines = server.heal()
    if profile is not None:
        lines = server.apply(profile)
    for place in cut:
        lines = server.cut(place)
    if as_json:
        print_json({"lines": [_facts(line) for line in lines]})
        return
    _show(lines)


def _facts(line: Any) -> dict[str, Any]:
    return {
        "name": line.name,
        "from": line.origin,
        "to": line.target,
        "service": line.service,
        "up": line.up,
        "rtt_ms": line.rtt_ms,
    }


def _show(lines: Any) -> None:
    """One row per pair of places, both directions and all services together."""
    from tabulate import tabulate

    pairs: dict[tuple[str, ...], list[Any]] = {}
    for line in lines:
        pairs.setdefault(tuple(sorted((line.origin, line.target))), []).append(line)
    rows = [
        (
            " - ".join(pair),
            f"{max(line.rtt_ms for line in members):g} ms",
            _state([line.up for line in members]),
        )
        for pair, members in sorted(pairs.items())
    ]
    click.echo(tabulate(rows, headers=("places", "round trip", "state"), tablefmt="simple"))


def _state(up: list[bool]) -> str:
    if all(up):
        return "up"
    return "in part cut" if any(up) else "cut"
