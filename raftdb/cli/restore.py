"""`raftdb restore` and `raftdb undelete`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from raftdb.base.errors import Error
from raftdb.base.ids import HistoryId
from raftdb.cli.output import json_option, print_json
from raftdb.cli.source import (
    archive_config,
    archive_options,
    moment_options,
    open_moment,
    progress_bar,
)
from raftdb.cli.target import open_connection, target_of, target_options


@click.command(
    epilog="""\b
Example:
  raftdb restore --from file:///mnt/backup/cluster --to restored.db
  raftdb restore --from s3://bucket/cluster --at 2026-11-23T10:30:00Z --to restored.db --plan
  raftdb restore --from file:///mnt/backup/cluster --before-statement "drop table t" --to t.db
  raftdb restore --from file:///mnt/backup/cluster --to cluster2 --local 3 --replace"""
)
@archive_options
@moment_options
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    default=None,
    help="The SQLite file to make, or, with --node or --local, a new cluster's directory. Beside "
    "it, NAME.restoring holds what an interrupted restore goes on with.",
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="ID,location=L,peer=H:P,client=H:P",
    help="One member of a new cluster, as for `raftdb init`. Repeat for each.",
)
@click.option("--local", type=int, metavar="N", help="A new cluster of N nodes on this machine.")
@click.option("--base-port", type=int, default=None, help="First port of --local.")
@click.option("--insecure", is_flag=True, help="A new cluster without TLS.")
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=None,
    help="With --replace: the old cluster's ca directory, so that its clients' certificates stay "
    "good and they trust the new nodes. Without it, certificates are new.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="The new cluster takes the old one's place: its id, its clients' sessions, its archive. "
    "The old nodes are shut out.",
)
@click.option(
    "--clone", is_flag=True, help="The new cluster is one of its own; the old one goes on."
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
    target: Path | None,
    nodes: tuple[str, ...],
    local: int | None,
    base_port: int | None,
    insecure: bool,
    ca: Path | None,
    replace: bool,
    clone: bool,
    only_plan: bool,
    despite_damage: bool,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Restore a moment of the archive: the newest one unless one is named. Into a SQLite file, or
    (with --node or --local) into a whole new cluster.

    Every request is replayed and its content hash compared with the one that was recorded when it
    was first applied: what comes out is what was there, or an error that names what is wrong.
    """
    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.archive import find_point
    from raftdb.ops.restore import check_damage, check_target_room, check_time, plan_facts
    from raftdb.runtime.clock import RealClock

    members = _members(nodes, local, base_port, replace=replace, clone=clone)
    if ca is not None and (insecure or not replace):
        raise click.UsageError("--ca goes with --replace, and not with --insecure.")
    if not only_plan:
        _check_target(target, whole_cluster=bool(members))
    explicit = any(one is not None for one in (at, index, mark, before_statement))
    found, moment = open_moment(
        urls, key_file, config, at=at, index=index, mark=mark, before_statement=before_statement
    )
    check_damage(found, explicit=explicit, accepted=despite_damage)
    point = find_point(found, decode_payloads, **moment)
    check_time(found, at, RealClock())
    facts = plan_facts(found, found.sources.plan(point), RealClock())
    if only_plan:
        _show_plan(facts, as_json)
        return
    assert target is not None
    for problem in facts["problems"]:
        click.echo(f"warning: {problem}", err=True)
    check_target_room(facts, target, nodes=len(members))
    archive = archive_config(urls, key_file, config)
    _carry_out(
        found,
        point,
        target,
        _NewCluster(members, replace, insecure, archive, ca, explicit) if members else None,
        _shown(progress, as_json),
        as_json,
    )


def _check_target(target: Path | None, *, whole_cluster: bool) -> None:
    """Before anything is read, which may take a while."""
    from raftdb.ops.restore import work_of

    if target is None:
        raise click.UsageError("Where to? Give --to FILE (with --plan there is no need).")
    if not target.exists():
        return
    if not whole_cluster or not target.is_dir() or any(target.iterdir()):
        work = work_of(target)
        if whole_cluster and work.is_dir():
            raise click.UsageError(
                f"{target} is there already, and so is {work}: a restore was cut short while it "
                f"made the cluster's directories. Unless its nodes were started since, delete "
                f"{target} and run the same command again: it goes on from {work}."
            )
        raise click.UsageError(
            f"{target} is there already: a restore overwrites nothing. Name another --to."
        )


@dataclass(frozen=True, slots=True)
class _NewCluster:
    members: tuple[Any, ...]
    replace: bool
    insecure: bool
    archive: Any
    authority: Path | None
    explicit: bool
    """The moment was named."""


def _carry_out(
    found: Any, point: Any, target: Path, cluster: _NewCluster | None, shown: bool, as_json: bool
) -> None:
    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.recreate import claim_epoch, claim_newest, recreate_cluster
    from raftdb.ops.restore import make_file, remove_work, restore_copy, work_of
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.random import RealRandom

    clock, files = RealClock(), RealFiles()
    start_s = clock.monotonic_s()
    history = HistoryId(os.urandom(16).hex())
    if cluster is not None and cluster.replace and cluster.explicit:
        claim_epoch(found, point, history, clock)
    elif cluster is not None and cluster.replace:
        found, point = claim_newest(found, point, history, clock)
    work = work_of(target)
    try:
        with progress_bar(shown) as show:
            done = restore_copy(
                found,
                point,
                work,
                files=files,
                log=_quiet_log(),
                decode=decode_payloads,
                progress=show,
            )
    except KeyboardInterrupt:
        click.echo(f"interrupted: the same command goes on from what is in {work}", err=True)
        raise
    url = None
    if cluster is not None:
        founded = recreate_cluster(
            found,
            done,
            target,
            cluster.members,
            replace=cluster.replace,
            history=history,
            files=files,
            random=RealRandom(),
            clock=clock,
            insecure=cluster.insecure,
            archive=cluster.archive,
            authority=None if cluster.authority is None else str(cluster.authority),
        )
        url = founded.url
    else:
        make_file(done, target, files)
    remove_work(work)
    _show_done(done, target, clock.monotonic_s() - start_s, url, as_json)


def _members(
    nodes: tuple[str, ...],
    local: int | None,
    base_port: int | None,
    *,
    replace: bool,
    clone: bool,
) -> tuple[Any, ...]:
    """The members of a new cluster; none: a file is wanted."""
    from raftdb.ops.found import local_members, parse_member
    from raftdb.ops.ports import free_ports

    wanted = bool(nodes) or local is not None
    if wanted and replace == clone:
        raise click.UsageError("For a new cluster, give either --replace or --clone.")
    if not wanted and (replace or clone):
        raise click.UsageError("--replace and --clone go with --node or --local.")
    if nodes and local is not None:
        raise click.UsageError("Give --node for each member, or --local N.")
    if local is not None:
        return local_members(local, base_port or free_ports(2 * local))
    return tuple(parse_member(text) for text in nodes)


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

    found, moment = open_moment(
        urls, key_file, config, at=at, index=index, mark=mark, before_statement=before_statement
    )
    explicit = any(one is not None for one in (at, index, mark, before_statement))
    check_damage(found, explicit=explicit, accepted=False)
    point = find_point(found, decode_payloads, **moment)
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
            try:
                reports = load_sqlite(connection, file, tables, options, RealClock())
            except Error as error:
                raise _not_undeleted(error, str(file), point, on_conflict) from error
    rows = [{"table": one.table, "rows": one.rows, "created": one.created} for one in reports]
    if as_json:
        print_json({"point": str(point), "tables": rows})
        return
    for one in rows:
        made = " (made)" if one["created"] else ""
        click.echo(f"{one['table']}{made}: {one['rows']:,} rows as of {point}")


def _not_undeleted(error: Error, file: str, point: Any, on_conflict: str) -> Error:
    """Nobody knows the scratch file, nor goes on in it."""
    error.message = error.message.replace(file, f"the database as of {point}")
    if error.code.startswith("constraint") and on_conflict == "abort":
        error.hint = (
            "the table has rows of its own: --on-conflict ignore keeps them, --on-conflict replace "
            "takes what is restored"
        )
    return error


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
            text = ", ".join(value) if isinstance(value, list) else "-" if value is None else value
            click.echo(f"{key:<20} {text}")
    for problem in facts["problems"]:
        click.echo(f"problem: {problem}")


def _show_done(done: Any, target: Path, seconds: float, url: str | None, as_json: bool) -> None:
    from raftdb.base.startup import logged_time

    facts = {
        "to": str(target),
        "url": url,
        "point": str(done.point),
        "time": logged_time(done.time_ms),
        "content_hash": done.content.hex(),
        "proven": done.proven,
        "requests_replayed": done.requests,
        "hashes_compared": done.compared,
        "seconds": round(seconds, 2),
    }
    if as_json:
        print_json(facts)
        return
    time = f", {facts['time']}" if facts["time"] else ""
    click.echo(f"{target}: as of {facts['point']}{time}")
    if url is not None:
        click.echo(f"a new cluster: start its nodes, then connect to {url}")
    click.echo(f"{done.requests} requests replayed, {done.compared} content hashes equal")
    if not done.proven:
        click.echo("warning: no content hash was recorded at this very moment", err=True)
