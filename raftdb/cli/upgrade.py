"""`raftdb upgrade plan | check | status | finalize | rollback`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from raftdb._version import __version__
from raftdb.base.errors import ConfigError, OperationalError, UnavailableError
from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json, show_error
from raftdb.cli.target import open_connection, target_of, target_options

if TYPE_CHECKING:
    from raftdb.ops.status import ClusterState
    from raftdb.ops.target import Target
    from raftdb.ops.upgrade import Plan, Releases
    from raftdb.ops.upgrade_check import Check

_Function = TypeVar("_Function", bound=Callable[..., object])
_COLUMNS = ("node", "location", "role", "version", "levels", "address")


@click.group()
def upgrade() -> None:
    """From one release to the next, node by node, with no request failing; and back.

    \b
    raftdb upgrade check       is the cluster fit for it?
    raftdb upgrade plan        which node when, and the one command for each
    raftdb upgrade status      who runs what, and what is pending
    raftdb upgrade finalize    all run it: turn on what it brings (no way back after that)
    raftdb upgrade rollback    what is in the way of going back, which node when, and how
    """


def _command_option(function: _Function) -> _Function:
    return click.option(
        "--command",
        metavar="TEXT",
        default=None,
        help="What exchanges the release on a node's machine, with the fields {node}, {version}, "
        "{host} and {location}. Default: as docs/upgrade.md installs it.",
    )(function)


@upgrade.command(
    epilog="""\b
Example:
  raftdb upgrade plan --dir cluster
  raftdb upgrade plan --to 0.2.0 --command "ssh {host} switch-raftdb {version}" --dir cluster"""
)
@click.option("--to", default=__version__, show_default=True, help="The release to install.")
@_command_option
@target_options
@json_option
def plan(
    to: str,
    command: str | None,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Print which node is to change its release when, and the one command for each.

    Those far from the leader first, place by place, the leader last; one at a time. Stopping a node
    drains it: leadership is handed over, clients go elsewhere, what is under way is finished. Run
    the second line of each step before the next one: it ends when the node has caught up.
    """
    from raftdb.ops.upgrade import COMMAND, make_plan, plan_dict, releases_of

    releases = releases_of(_state(target_of(url, directory), timeout))
    made = make_plan(releases, to, command or COMMAND, _named(url, directory))
    if as_json:
        print_json({**plan_dict(made), "feature_level": releases.level})
    else:
        _plan_lines(made, releases, back=False)
    return int(ExitCode.OK)


@upgrade.command(
    epilog="""\b
Example:
  raftdb upgrade rollback --dir cluster
  raftdb upgrade rollback --to 0.1.0 --package /opt/raftdb/0.1.0 --dir cluster --json"""
)
@click.option("--to", default=None, help="The release to go back to. Default: the one before.")
@click.option(
    "--package",
    type=click.Path(path_type=Path),
    default=None,
    help="Where that release is installed on this machine (a virtual environment, its python, or "
    "sources): looked at, and asked to read the nodes' configurations below --dir.",
)
@_command_option
@target_options
@json_option
def rollback(
    to: str | None,
    package: Path | None,
    command: str | None,
    url: str | None,
    directory: Path | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Print which node is to go back when, and the one command for each: the release before is
    started again on the same data.

    What is in the way is looked for, and named; the plan is printed all the same, since a release
    may be bad enough. Exit code 0 if nothing is, 1 if something is; 2, without a plan, once the new
    release was finalized: then there is no way back.
    """
    from raftdb.ops.upgrade import COMMAND, make_plan, plan_dict, previous_of, releases_of

    target = target_of(url, directory)
    try:
        state = _state(target, timeout)
    except UnavailableError as error:
        error.hint = (
            "with no node up there is no order to keep: start the release before on every node. "
            + (error.hint or "")
        )
        raise
    releases = releases_of(state)
    wanted = to or previous_of(releases)
    made = make_plan(releases, wanted, command or COMMAND, _named(url, directory))
    found = _rollback_checks(target, state, wanted, package, directory, timeout)
    ready = all(one.ok for one in found)
    if as_json:
        checks = [{"name": one.name, "ok": one.ok, "detail": one.detail} for one in found]
        facts = {**plan_dict(made), "feature_level": releases.level}
        print_json({**facts, "ready": ready, "checks": checks})
    else:
        _plan_lines(made, releases, back=True)
        for one in found:
            if not one.ok:
                click.echo(f"NOT  {one.name:<10} {one.detail}", err=True)
    return int(ExitCode.OK if ready else ExitCode.FAILED)


def _rollback_checks(
    target: Target,
    state: ClusterState,
    to: str,
    package: Path | None,
    directory: Path | None,
    timeout: float,
) -> list[Check]:
    from raftdb.ops.status import connect_to_node
    from raftdb.ops.upgrade_check import check_rollback

    found = check_rollback(state, connect_to_node(target, timeout), to, timeout)
    if package is not None:
        from raftdb.drill.package import check_package

        configs = sorted(directory.glob("*/raftdb.toml")) if directory is not None else []
        found += check_package(package, to, configs)
    return found


def _named(url: str | None, directory: Path | None) -> str:
    """The cluster, as the commands that follow name it."""
    return f" --dir {directory}" if directory is not None else f" {url}" if url else ""


def _plan_lines(made: Plan, releases: Releases, *, back: bool) -> None:
    click.echo(
        f"from {', '.join(releases.versions)} {'back ' if back else ''}to {made.to}, feature level "
        f"{releases.level}"
    )
    if not made.steps:
        click.echo(f"nothing to do: every member runs {made.to}")
    for number, step in enumerate(made.steps, 1):
        click.echo(f"\n{number}. {step.node_id} ({step.location}, {step.role}, {step.version})")
        click.echo(f"   {step.command}")
        click.echo(f"   {step.then}")
    for remark in made.remarks:
        click.echo(f"note: {remark}", err=True)


@upgrade.command(
    epilog="""\b
Example:
  raftdb upgrade check --dir cluster
  raftdb upgrade check --to 0.2.0 --dir cluster --json"""
)
@click.option("--to", default=__version__, show_default=True, help="The release to install.")
@target_options
@json_option
def check(to: str, url: str | None, directory: Path | None, timeout: float, as_json: bool) -> int:
    """Look whether the cluster is fit for a change of release: all members reachable, following,
    equal in content, of releases and an SQLite build that go together, with room on their disks,
    and an archive that keeps up. Run it with the release that is to be installed.

    Exit code 0 if all is fine, 1 if something is in the way.
    """
    from raftdb.embedded import computes
    from raftdb.ops.status import connect_to_node
    from raftdb.ops.upgrade import check_version
    from raftdb.ops.upgrade_check import check_upgrade

    check_version(to)
    target = target_of(url, directory)
    state = _state(target, timeout)
    found = check_upgrade(state, connect_to_node(target, timeout), computes(), to, timeout)
    ready = all(one.ok for one in found)
    if as_json:
        checks = [{"name": one.name, "ok": one.ok, "detail": one.detail} for one in found]
        print_json({"to": to, "ready": ready, "checks": checks})
    else:
        for one in found:
            click.echo(f"{'ok ' if one.ok else 'NOT'}  {one.name:<10} {one.detail}")
        click.echo(f"ready for {to}" if ready else f"not ready for {to}")
    return int(ExitCode.OK if ready else ExitCode.FAILED)


@upgrade.command(
    epilog="""\b
Example:
  raftdb upgrade status --dir cluster
  raftdb upgrade status --wait n1=0.2.0 --timeout 60 --dir cluster"""
)
@click.option(
    "--wait",
    "awaited",
    metavar="NODE=VERSION",
    default=None,
    help="Until that node runs that release, follows the leader and has caught up.",
)
@target_options
@json_option
def status(
    awaited: str | None, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> int:
    """Print which release each node runs and the feature levels that it knows, the cluster's own
    feature level, and what is pending.

    Exit code 3 if the node that was waited for did not come back within --timeout.
    """
    from raftdb.ops.upgrade import releases_dict, releases_of

    target = target_of(url, directory)
    if awaited:
        _wait_for(target, awaited, timeout)
    releases = releases_of(_glance(target, timeout))
    if as_json:
        print_json(releases_dict(releases))
    else:
        _status_lines(releases)
    return int(ExitCode.OK)


def _status_lines(releases: Releases) -> None:
    from tabulate import tabulate

    from raftdb.ops.upgrade import pending

    rows = [
        [one.node_id, one.location, one.role, one.version, one.levels, one.address]
        for one in releases.nodes
    ]
    table = tabulate(rows, headers=_COLUMNS, tablefmt="simple", disable_numparse=True)
    click.echo(f"feature level {releases.level}\n")
    for line in table.splitlines():
        click.echo(line.rstrip())
    waiting = pending(releases)
    click.echo("")
    for one in waiting:
        click.echo(f"pending: {one}")
    if not waiting:
        click.echo("nothing is pending")


def _wait_for(target: Target, awaited: str, timeout: float) -> None:
    from raftdb.ops.upgrade import returned, wait_until
    from raftdb.runtime.clock import RealClock

    node_id, equals, version = awaited.partition("=")
    if not equals or not version:
        raise ConfigError(f"{awaited!r} is not NODE=VERSION", hint="such as n1=0.2.0")
    said = wait_until(
        lambda: returned(_glance(target, timeout), node_id, version), timeout, RealClock()
    )
    if said:
        raise OperationalError(
            f"{node_id} is not back after {timeout:g} s: {said}",
            code="not_back",
            retryable=True,
            hint="see its log, and raftdb status; do not go on with the next node",
        )


@upgrade.command(
    epilog="""\b
Example:
  raftdb upgrade finalize --dir cluster
  raftdb upgrade finalize --level 2 --dir cluster --json"""
)
@click.option(
    "--level",
    type=click.IntRange(1),
    default=None,
    help="The feature level to raise the cluster to. Default: the highest that the nodes know.",
)
@target_options
@json_option
def finalize(
    level: int | None, url: str | None, directory: Path | None, timeout: float, as_json: bool
) -> int:
    """Turn on what the new release brings, once every member runs it, learners too. After that no
    node can go back to the release before: the level is never lowered.

    Exit code 1, with the names, while a member does not run it or does not answer.
    """
    from raftdb.ops.upgrade import releases_dict, releases_of, wait_until, wanted_level
    from raftdb.runtime.clock import RealClock

    target = target_of(url, directory)
    releases = releases_of(_state(target, timeout))
    wanted = wanted_level(releases, level)
    missing = releases.without(wanted)
    if missing:
        show_error(
            f"not every member runs feature level {wanted}: {'; '.join(missing)}",
            "upgrade_incomplete",
            int(ExitCode.FAILED),
            "finish the upgrade first (raftdb upgrade plan); who is gone for good has to be "
            "removed (raftdb member remove)",
        )
        return int(ExitCode.FAILED)
    if wanted > releases.level:
        with open_connection(target, timeout) as connection:
            connection.ask("release", raise_to=wanted)
    wait_until(lambda: _behind(_glance(target, timeout), wanted), timeout, RealClock())
    releases = releases_of(_state(target, timeout))
    if as_json:
        print_json(releases_dict(releases))
    else:
        click.echo(f"feature level {releases.level} on all {len(releases.nodes)} nodes")
    return int(ExitCode.OK)


def _behind(state: ClusterState, level: int) -> str:
    from raftdb.ops.upgrade import releases_of

    seen = releases_of(state).levels_seen
    return "" if seen == (level,) else "some nodes have not applied it yet"


def _state(target: Target, timeout: float) -> ClusterState:
    """Each member has the whole time to answer: much is decided by one that does not."""
    from raftdb.ops.status import cluster_status

    return cluster_status(target, timeout)


def _glance(target: Target, timeout: float) -> ClusterState:
    """To be looked at, or again soon."""
    from raftdb.ops.status import ASK_S

    return _state(target, min(timeout, ASK_S))
