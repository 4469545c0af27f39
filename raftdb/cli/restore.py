"""`raftdb restore` and `raftdb undelete`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from raftdb.cli.output import json_option, print_json
from raftdb.cli.source import archive_options, moment_options, open_archive, progress_bar
from raftdb.cli.target import open_connection, target_of, target_options


@click.command(
    epilog="""\b
Example:
  raftdb restore --from file:///mnt/backup/cluster --to restored.db
  raftdb restore --from s3://bucket/cluster --at 2026-11-23T10:30:00Z --to restored.db --plan
  raftdb restore --from file:///mnt/backup/cluster --before-statement "drop table t" --to t.db"""
)
@archive_options
@moment_options
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="The SQLite file to make. Beside it, NAME.restoring holds what an interrupted restore "
    "goes on with.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be done, and stop.")
@click.option(
    "--despite-damage",
    is_flag=True,
    help="Restore the newest readable moment although later ones may be lost.",
)
@click.option("--progress/--no-progress", default=None, help="A progress bar (on a terminal).")
@json_option
def restore(
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    at: str | None,
    index: str | None,
    mark: str | None,
    before_statement: str | None,
    target: Path,
    only_plan: bool,
    despite_damage: bool,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Restore a moment of the archive into a SQLite file; the newest one unless one is named.

    Every request is replayed and its content hash compared with the one that was recorded when it
    was first applied: what comes out is what was there, or an error that names what is wrong.
    """
    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.archive import find_point
    from raftdb.ops.restore import check_damage, make_file, plan_facts, remove_work, restore_copy
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles

    found = open_archive(urls, key_file, config)
    explicit = any(one is not None for one in (at, index, mark, before_statement))
    check_damage(found, explicit=explicit, accepted=despite_damage)
    point = find_point(
        found, decode_payloads, at=at, index=index, mark=mark, before_statement=before_statement
    )
    facts = plan_facts(found, found.sources.plan(point), RealClock())
    if only_plan:
        _show_plan(facts, as_json)
        return
    if target.exists():
        raise click.UsageError(f"{target} is there already: a restore overwrites nothing.")
    for problem in facts["problems"]:
        click.echo(f"warning: {problem}", err=True)
    work = target.with_name(target.name + ".restoring")
    clock = RealClock()
    start_s = clock.monotonic_s()
    with progress_bar(_shown(progress, as_json)) as show:
        done = restore_copy(
            found,
            point,
            work,
            files=RealFiles(),
            log=_quiet_log(),
            decode=decode_payloads,
            progress=show,
        )
    make_file(done, target, RealFiles())
    remove_work(work)
    _show_done(done, target, clock.monotonic_s() - start_s, as_json)


@click.command(
    epilog="""\b
Example:
  raftdb undelete --dir cluster --from file:///mnt/backup/cluster \\
    --before-statement "drop table accounts" --table accounts
  raftdb undelete --dir cluster --from s3://bucket/cluster --at 2026-11-23T10:30:00Z \\
    --table orders --on-conflict ignore"""
)
@target_options
@archive_options
@moment_options
@click.option("--table", "tables", multiple=True, required=True, help="To copy back. Repeatable.")
@click.option(
    "--on-conflict",
    type=click.Choice(["abort", "ignore", "replace"]),
    default="abort",
    show_default=True,
    help="When a row is there already: stop, keep what is there, or take what is restored.",
)
@click.option("--progress/--no-progress", default=None, help="A progress bar (on a terminal).")
@json_option
def undelete(
    url: str | None,
    directory: Path | None,
    timeout: float,
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    at: str | None,
    index: str | None,
    mark: str | None,
    before_statement: str | None,
    tables: tuple[str, ...],
    on_conflict: str,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Copy tables back from a moment of the archive, into the running cluster.

    The moment is restored into a scratch file; missing tables are made as they were, with their
    indexes, and rows are written through the cluster as any client's.
    """
    import tempfile

    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.archive import find_point
    from raftdb.ops.load import LoadOptions
    from raftdb.ops.load_sqlite import load_sqlite
    from raftdb.ops.restore import check_damage, make_file, restore_copy
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles

    found = open_archive(urls, key_file, config)
    explicit = any(one is not None for one in (at, index, mark, before_statement))
    check_damage(found, explicit=explicit, accepted=False)
    point = find_point(
        found, decode_payloads, at=at, index=index, mark=mark, before_statement=before_statement
    )
    options = LoadOptions(create=True, on_conflict=on_conflict)
    with (
        tempfile.TemporaryDirectory(prefix="raftdb-undelete-") as scratch,
        progress_bar(_shown(progress, as_json)) as show,
    ):
        done = restore_copy(
            found,
            point,
            Path(scratch) / "work",
            files=RealFiles(),
            log=_quiet_log(),
            decode=decode_payloads,
            progress=show,
        )
        file = Path(scratch) / "restored.db"
        make_file(done, file, RealFiles())
        with open_connection(target_of(url, directory), timeout) as connection:
            reports = load_sqlite(connection, file, tables, options, RealClock())
    rows = [{"table": one.table, "rows": one.rows, "created": one.created} for one in reports]
    if as_json:
        print_json({"point": str(point), "tables": rows})
        return
    for one in rows:
        made = " (made)" if one["created"] else ""
        click.echo(f"{one['table']}{made}: {one['rows']:,} rows as of {point}")


def _shown(progress: bool | None, as_json: bool) -> bool:
    return sys.stderr.isatty() and not as_json if progress is None else progress


def _quiet_log() -> Any:
    from raftdb.runtime.log import StreamLog

    return StreamLog(level="error")


def _show_plan(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        if key != "problems":
            text = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"{key:<20} {text}")
    for problem in facts["problems"]:
        click.echo(f"problem: {problem}")


def _show_done(done: Any, target: Path, seconds: float, as_json: bool) -> None:
    from raftdb.base.startup import time_text

    facts = {
        "file": str(target),
        "point": str(done.point),
        "time": time_text(done.time_ms),
        "content_hash": done.content.hex(),
        "proven": done.proven,
        "requests_replayed": done.requests,
        "hashes_compared": done.compared,
        "seconds": round(seconds, 2),
    }
    if as_json:
        print_json(facts)
        return
    click.echo(f"{target}: as of {facts['point']}, {facts['time']}")
    click.echo(f"{done.requests} requests replayed, {done.compared} content hashes equal")
    if not done.proven:
        click.echo("warning: no content hash was recorded at this very moment", err=True)
