"""`raftdb outcome`."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json
from raftdb.cli.target import open_connection, target_of, target_options

if TYPE_CHECKING:
    from raftdb.client import RequestOutcome

_EXITS = {
    "applied": ExitCode.OK,
    "not_applied": ExitCode.FAILED,
    "unknown": ExitCode.OUTCOME_UNKNOWN,
}


@click.command(
    epilog="""\b
Example:
  raftdb outcome --dir cluster --key order-42
  raftdb outcome --dir cluster --session 4f2a… --sequence 7 --json"""
)
@target_options
@click.option("--key", default=None, help="The idempotency key that the request had.")
@click.option(
    "--horizon",
    type=click.IntRange(1),
    default=None,
    help="The horizon that was kept beside the key.",
)
@click.option("--session", default=None, help="The session of the request, hexadecimal.")
@click.option(
    "--sequence", type=click.IntRange(1), default=None, help="Its sequence within the session."
)
@json_option
def outcome(
    url: str | None,
    directory: Path | None,
    timeout: float,
    key: str | None,
    horizon: int | None,
    session: str | None,
    sequence: int | None,
    as_json: bool,
) -> int:
    """What became of a write: applied, not_applied, or unknown (too long ago to tell).

    The answer is final: a write that the cluster has not seen yet never takes effect from now on.
    Exit code 0: applied; 1: not applied; 5: unknown.
    """
    if (key is None) == (session is None and sequence is None):
        raise click.UsageError("give --key, or --session and --sequence")
    with open_connection(target_of(url, directory), timeout) as connection:
        found = connection.outcome(
            idempotency_key=key, horizon=horizon, session=session, sequence=sequence
        )
    if as_json:
        print_json(_facts(found))
    else:
        click.echo(found.state)
        if found.error is not None:
            click.echo(f"[{found.error.code}] {found.error}")
    return int(_EXITS[found.state])


def _facts(found: RequestOutcome) -> dict[str, Any]:
    error = found.error
    return {
        "outcome": found.state,
        "index": found.index,
        "error": None if error is None else {"code": error.code, "message": error.message},
        "results": [
            {
                "columns": list(one.columns),
                "rows": [[_plain(value) for value in row] for row in one.rows],
                "changes": one.changes,
                "last_insert_rowid": one.last_insert_rowid,
            }
            for one in found.results
        ],
    }


def _plain(value: Any) -> Any:
    """As the shell writes it in JSON."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii")}
    return value
