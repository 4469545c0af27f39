"""`raftdb recover` and `raftdb rejoin`: a cluster goes on without its majority."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from raftdb.base.errors import ConfigError
from raftdb.cli.output import json_option, print_json
from raftdb.cli.source import archive_options, where

_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(
    epilog="""\b
Example:
  raftdb recover cluster/n1
  raftdb recover cluster/n1 cluster/n2 --keep n3 --bundle recovered --yes
  raftdb recover /srv/raftdb/n1 --account n2.json --from s3://bucket/cluster --json"""
)
@click.argument("directories", nargs=-1, required=True, type=_DIRECTORY)
@click.option(
    "--account",
    "accounts",
    multiple=True,
    type=_FILE,
    help="What `raftdb recover DIR --json` printed on another survivor's machine. Repeatable.",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="ID",
    help="A former member that stays one: it comes back by `raftdb rejoin`. Its vote counts from "
    "the beginning. Repeatable.",
)
@click.option(
    "--leave",
    multiple=True,
    metavar="ID",
    help="Go on although this member runs, or may run, and is not looked at. Repeatable.",
)
@archive_options
@click.option(
    "--ignore-archive",
    is_flag=True,
    help="Neither read nor claim the archive; the new cluster has none until it is given another.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory to make: what other nodes join from. Default: recovered-…, beside the first.",
)
@click.option("--yes", is_flag=True, help="Do it. Without it, the plan is shown (and asked about).")
@json_option
def recover(
    directories: tuple[Path, ...],
    accounts: tuple[Path, ...],
    keep: tuple[str, ...],
    leave: tuple[str, ...],
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    ignore_archive: bool,
    bundle: Path | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Go on without a majority: make a new cluster from the survivors' DIRECTORIES.

    The nodes must be stopped. The newest log counts, and what the archive has beyond it. What the
    lost nodes alone had acknowledged is lost: what that can be is shown first. The data of the
    survivors are set aside, not deleted. Only for a majority that will not come back.
    """
    from raftdb.ops.inspect import find_node, stopped_node
    from raftdb.ops.recover import plan_recovery, recovery_facts
    from raftdb.ops.survivors import look_at
    from raftdb.runtime.files import RealFiles

    files = RealFiles()
    with ExitStack() as locks:
        for directory in directories:
            locks.enter_context(stopped_node(find_node(directory, files), files))
        here = [look_at(directory, files, _log_format()) for directory in directories]
        elsewhere = [one for path in accounts for one in _accounts(path)]
        running = _others(here, elsewhere, leave)
        archives = None
        if not ignore_archive:
            archives = _archives(here[0], urls, key_file, config)
        plan = plan_recovery(here, elsewhere, archives, keep, files)
        facts = recovery_facts(plan, running)
        if not as_json:
            _show_plan(facts)
        if not yes and not _asked(as_json):
            if as_json:
                print_json(facts)
            else:
                click.echo("nothing was done: give --yes to do it")
            return 0
        done = _carry_out(plan, here, bundle)
    if as_json:
        print_json({**facts, **done})
    else:
        _show_done(facts, done)
    return 0


def _carry_out(plan: Any, here: Sequence[Any], bundle: Path | None) -> dict[str, Any]:
    from raftdb.base.ids import HistoryId
    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.making import making
    from raftdb.ops.recover import check_unmoved, claim_fork, make_bundle
    from raftdb.ops.rejoin import join_from, read_bundle
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.log import StreamLog
    from raftdb.runtime.random import RealRandom

    files, clock = RealFiles(), RealClock()
    history = HistoryId(os.urandom(16).hex())
    place = bundle or here[0].directory.parent / f"recovered-{history[:8]}"
    if place.exists():
        raise click.UsageError(f"{place} is there already: give a new directory.")
    try:
        with making():
            made = make_bundle(
                plan,
                history,
                place,
                files=files,
                log=StreamLog(level="error"),
                payloads=decode_payloads,
                clock=clock,
            )
        if plan.archives is not None:
            claim_fork(plan.archives, history, made["index"], clock)
            source = plan.source.config
            check_unmoved(plan.archives, source.history, source.cluster_id)
    except BaseException:
        # Nobody has joined from it: the same command begins again.
        shutil.rmtree(place, ignore_errors=True)
        raise
    found = read_bundle(place, files)
    aside: dict[str, str] = {}
    try:
        for one in here:
            joined = join_from(found, one.directory, files, RealRandom())
            aside[one.account.node_id] = joined
    except BaseException:
        left = [one.directory for one in here if one.account.node_id not in aside]
        click.echo(
            f"the bundle {place} is whole, and the new history has begun. Finish by:", err=True
        )
        for directory in left:
            click.echo(f"  raftdb rejoin {place} {directory}", err=True)
        raise
    return {
        "history": history,
        "fork_index": made["index"],
        "content_hash": made["content"],
        "bundle": str(place),
        "set_aside": aside,
    }


def _log_format() -> Any:
    from raftdb.base.settings import MemberConfig
    from raftdb.consensus.entry import CONFIGURATION, decode_payloads
    from raftdb.consensus.membership import decode_configuration
    from raftdb.ops.survivors import LogFormat

    def members(body: bytes) -> Any:
        found = decode_configuration(body)
        rows = tuple(
            MemberConfig(one.node_id, one.location, one.peer_address, one.client_address)
            for one in found.members
        )
        return rows, found.voters

    def configuration(data: bytes) -> bytes:
        return data[1:] if data[:1] == CONFIGURATION else b""

    return LogFormat(decode_payloads, configuration, members)


def _accounts(path: Path) -> list[Any]:
    from raftdb.ops.survivors import parse_account

    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    rows = value.get("survivors", ()) if isinstance(value, dict) else ()
    if not rows:
        raise ConfigError(
            f"{path} has no accounts of survivors",
            hint="it is what `raftdb recover DIR --json` prints on the other machine",
        )
    return [parse_account(one, str(path)) for one in rows]


def _others(here: Sequence[Any], elsewhere: Sequence[Any], leave: Sequence[str]) -> list[str]:
    """Members that were left out and run. Raises ConfigError when a majority lives, or a member
    runs that was not looked at."""
    from raftdb.ops.majority import running_members

    seen = {one.account.node_id for one in here} | {one.node_id for one in elsewhere}
    members = {one.node_id: one for survivor in here for one in survivor.members}
    found = running_members(here[0].config, list(members.values()), seen)
    for node_id, leader in found.items():
        if leader:
            raise ConfigError(
                f"{node_id} runs and follows the leader {leader}: a majority lives",
                code="majority_alive",
                hint="start the other nodes again; nothing is to be recovered",
            )
    unknown = [node_id for node_id in found if node_id not in leave]
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)} runs, without a leader, and may have the newest log",
            code="node_running",
            hint="stop it, and give its directory, or its account by --account; or go on without "
            "it by --leave",
        )
    return list(found)


def _archives(
    survivor: Any, urls: tuple[str, ...], key_file: Path | None, config: Path | None
) -> Any:
    """The archive that is named, or that the survivor's configuration names; None without one."""
    from raftdb.base.config import load_config
    from raftdb.ops.archive import keys_of, open_archives
    from raftdb.ops.recover import find_archives
    from raftdb.runtime.files import RealFiles

    if not urls and config is None:
        config = survivor.directory / "raftdb.toml"
        if not load_config(str(config), os.environ).archive.destinations:
            return None
    urls, keys = where(urls, key_file, None if urls else config)
    archives = open_archives(urls, keys_of(keys, os.environ, RealFiles()))
    return find_archives(archives, survivor.config.cluster_id, survivor.config.history)


def _asked(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        return False
    return click.confirm("Make the new cluster?", default=False)


def _show_plan(facts: dict[str, Any]) -> None:
    for one in facts["survivors"]:
        click.echo(
            f"{one['node_id']:<8} log to entry {one['last_index']} of term {one['last_term']}, "
            f"database at {one['applied_index']}"
        )
        for text in (*one["journal_damage"], *one["database_damage"]):
            click.echo(f"         DAMAGE {text}")
    click.echo(
        f"the log of {facts['log_of']} counts, on the database of {facts['database_of']}: up to "
        f"entry {facts['last_index']}, {facts['time']}"
    )
    if facts["from_archive"]:
        click.echo(f"of these, {facts['from_archive']} come from the archive")
    if facts["entries_dropped"]:
        click.echo(f"{facts['entries_dropped']} entries are dropped: no majority ever had them")
    if facts["may_be_lost"]:
        click.echo(
            f"MAY BE LOST: what was acknowledged after entry {facts['last_index']} "
            f"({facts['time']}) by {', '.join(facts['not_seen']) or 'damaged journals'}"
        )
    else:
        click.echo("nothing that was acknowledged is lost: a majority was looked at")
    click.echo(
        f"the new cluster: {', '.join(facts['voters'])}; it needs {facts['quorum']} of "
        f"{len(facts['voters'])} to work"
    )
    for url in facts["archives"]:
        click.echo(f"a new epoch is claimed in {url}")


def _show_done(facts: dict[str, Any], done: dict[str, Any]) -> None:
    click.echo(f"history {done['history']} begins after entry {done['fork_index']}")
    for node_id, aside in done["set_aside"].items():
        click.echo(f"{node_id} is a member; its former data: {aside or '-'}")
    if facts["not_seen"]:
        off = ", ".join(facts["not_seen"])
        click.echo(f"never start {off} with their former data again: `raftdb rejoin`, or wipe them")
    click.echo(f"the bundle for the others: {done['bundle']}")
    ready = {Path(directory).name for directory in done["set_aside"]}
    missing = [name for name in facts["voters"] if name not in ready]
    click.echo(
        "start the nodes now" + (f"; {', '.join(missing)} by `raftdb rejoin`" if missing else "")
    )


@click.command(
    epilog="""\b
Example:
  raftdb rejoin recovered-1f2e3d4c cluster/n2
  raftdb rejoin /mnt/bundle /srv/raftdb/n3 --lost-disk"""
)
@click.argument("bundle", type=_DIRECTORY)
@click.argument("directory", type=_DIRECTORY)
@click.option(
    "--lost-disk",
    is_flag=True,
    help="The node's data are gone, and it has not joined the recovered cluster before.",
)
@json_option
def rejoin(bundle: Path, directory: Path, lost_disk: bool, as_json: bool) -> None:
    """Bring a stopped node back into a recovered cluster, from the BUNDLE that `recover` made.

    The node's DIRECTORY keeps its certificates; its former data are set aside, its configuration is
    written anew. Once per node. An interrupted one is repeated.
    """
    from raftdb.ops.inspect import find_node, stopped_node
    from raftdb.ops.rejoin import has_data, join_from, read_bundle
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.random import RealRandom

    files = RealFiles()
    found = read_bundle(bundle, files)
    with ExitStack() as locks:
        if has_data(directory, files):
            locks.enter_context(stopped_node(find_node(directory, files), files))
        aside = join_from(found, directory, files, RealRandom(), lost_disk=lost_disk)
    if as_json:
        print_json({"directory": str(directory), "history": found.history, "set_aside": aside})
        return
    click.echo(f"{directory} is a member of history {found.history}; former data: {aside or '-'}")
