"""`raftdb archive prune`, `hold` and `release`: what an archive may lose."""

from __future__ import annotations

import os
from pathlib import Path

import click

from raftdb.cli.output import json_option, print_json
from raftdb.cli.source import archive_options, where


@click.command(
    epilog="""\b
Example:
  raftdb archive prune --from file:///mnt/backup/cluster --dry-run
  raftdb archive prune --from s3://bucket/cluster --days 35 --daily-days 90
  raftdb archive prune --from s3://bucket/cluster --merge-hours 24"""
)
@archive_options
@click.option(
    "--days",
    type=click.IntRange(0),
    default=35,
    show_default=True,
    help="Every moment of the last so many days stays restorable.",
)
@click.option(
    "--daily-days",
    type=click.IntRange(0),
    default=90,
    show_default=True,
    help="Older: one base per day, this long.",
)
@click.option(
    "--weekly-days",
    type=click.IntRange(0),
    default=365,
    show_default=True,
    help="One base per week, this long.",
)
@click.option(
    "--monthly-days",
    type=click.IntRange(0),
    default=1826,
    show_default=True,
    help="One base per month, this long.",
)
@click.option(
    "--merge-hours",
    type=click.FloatRange(0),
    default=None,
    metavar="HOURS",
    help="First make segments that are older than this one, up to 4,096 at a time, so that a long "
    "chain is read in seconds; the small ones go a day later. Release 0.1.0 does not read them.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@json_option
def prune(
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    days: int,
    daily_days: int,
    weekly_days: int,
    monthly_days: int,
    merge_hours: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete what no kept moment needs.

    Run it by cron or a timer, from one machine, with credentials that may delete; the nodes' need
    not. A damaged archive, and one with a legal hold, is left as it is.
    """
    from raftdb.archive.retention import Retention
    from raftdb.ops.archive import keys_of
    from raftdb.ops.prune import prune as carry_out
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles

    found, keys = where(urls, key_file, config)
    retention = Retention(days, daily_days, weekly_days, monthly_days)
    keyring = keys_of(keys, os.environ, RealFiles())
    results = carry_out(
        *(found, keyring, retention, RealClock()), dry_run=dry_run, merge_hours=merge_hours
    )
    if as_json:
        print_json(results)
        return
    for one in results:
        if dry_run:
            for name in one["objects"]:
                click.echo(name)
        verb = "would go" if dry_run else "deleted"
        click.echo(
            f"{one['url']}: {one['would_delete']} objects, {one['bytes']:,} bytes {verb}; "
            f"every moment from entry {one['oldest_index']} on stays, and {one['kept_bases']} bases"
        )
        if merge_hours is not None:
            verb = "would become" if dry_run else "became"
            click.echo(
                f"{one['url']}: {one['merged_segments']} segments {verb} {one['merged_into']}"
            )
        for name in one["holds"]:
            click.echo(f"held: {name}")


@click.command(
    epilog="""\b
Example:
  raftdb archive hold case-2026-17 --from file:///mnt/backup/cluster"""
)
@click.argument("name")
@archive_options
@json_option
def hold(
    name: str, urls: tuple[str, ...], key_file: Path | None, config: Path | None, as_json: bool
) -> None:
    """Put a legal hold on the archive: nothing is pruned until it is released."""
    from raftdb.ops.archive import keys_of
    from raftdb.ops.prune import hold as put
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles

    found, keys = where(urls, key_file, config)
    put(found, keys_of(keys, os.environ, RealFiles()), name, RealClock())
    _said(name, "held", as_json)


@click.command(
    epilog="""\b
Example:
  raftdb archive release case-2026-17 --from file:///mnt/backup/cluster"""
)
@click.argument("name")
@archive_options
@json_option
def release(
    name: str, urls: tuple[str, ...], key_file: Path | None, config: Path | None, as_json: bool
) -> None:
    """Take a legal hold off the archive. Needs credentials that may delete."""
    from raftdb.ops.prune import release as take_off

    take_off(where(urls, key_file, config)[0], name)
    _said(name, "released", as_json)


def _said(name: str, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "state": what})
    else:
        click.echo(f"{name}: {what}")
