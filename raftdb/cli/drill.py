"""`raftdb drill`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json

if TYPE_CHECKING:
    from raftdb.drill import Result

_Function = TypeVar("_Function", bound=Callable[..., Any])

ABOUT = {
    "leader-kill": "Kill the leader's process under load, and measure until writes go on.",
    "node-loss": "Kill a follower's process under load: nobody may notice.",
    "disk-loss": "Delete the leader's disk for good: a new member takes its place.",
    "region-loss": "Kill every node of the leader's region at once; it comes back later.",
    "majority-loss": "Kill most voters, delete disks, and go on with who is left (raftdb recover).",
    "log-end-loss": "Damage the end of the log of one of two voters, and recover from the other.",
    "total-loss": "Kill every node, delete every disk, and restore a new cluster from the archive.",
    "total-loss-archived": "The same, with clients that wait for the archive: nothing may be lost.",
    "point-in-time": "Destroy a table by a statement, and bring it back as of the moment before.",
    "archive-outage": "Take the archive away: writes go on, the alarm comes, the backlog drains.",
    "release-rollback": "Upgrade node by node, declare the release bad, and put every node back: "
    "no request may fail.",
    "release-crash": "Give every node a release that crashes, and put all of them back in one go.",
    "all": "Run all of them, one after the other.",
}


@click.group()
def drill() -> None:
    """Rehearse recovery on a throw-away cluster, and measure RPO and RTO.

    Real processes are killed and real directories deleted, but only those that the drill made
    itself: no running cluster is touched. It recovers as the documents tell an operator to.
    """


_FILE = click.Path(path_type=Path, dir_okay=False)
_WHAT = (
    click.option("--nodes", type=click.Choice(["3", "5"]), default="3", show_default=True),
    click.option(
        "--seconds",
        type=click.FloatRange(0.1, 3600),
        default=3.0,
        show_default=True,
        help="Of load before the disaster, and again after the recovery.",
    ),
    click.option(
        "--repeat",
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="How often; the spread of the recovery times is shown then.",
    ),
    click.option(
        "--points",
        type=click.IntRange(0, 10_000),
        default=3,
        show_default=True,
        help="Moments of the past that point-in-time restores and compares.",
    ),
    click.option(
        "--archive",
        metavar="URL",
        default=None,
        help="An empty place for the archive (s3://…). Default: a directory of its own.",
    ),
    click.option(
        "--against",
        metavar="RAFTDB.TOML",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        default=None,
        help="Rehearse with a real cluster, named by a node's configuration; nothing is broken. "
        "total-loss: its archive's newest moment becomes a throw-away cluster beside it; "
        "point-in-time: moments become files; leader-kill: the leader hands over, and back.",
    ),
    click.option(
        "--previous",
        metavar="DIR|PYTHON",
        type=click.Path(path_type=Path, exists=True),
        default=None,
        help="Another version, for the drills of releases: a virtual environment, its "
        "python, or sources. Default, in a checkout: the release before this one, from "
        "its history.",
    ),
    click.option(
        "--compose",
        metavar="[FILE]",
        type=click.Path(path_type=Path, dir_okay=False),
        is_flag=False,
        flag_value="docker-compose.yml",
        default=None,
        help="Kill containers of the cluster of docker-compose.yml (leader-kill, node-loss, "
        "region-loss); it is brought up for the drill unless it is there.",
    ),
    click.option("--yes", is_flag=True, help="Consent to --against, or to a --compose that is up."),
)
_RESULT = (
    click.option(
        "--objectives",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        default=None,
        help="RPO and RTO to judge by. Default: those that come with raftdb.",
    ),
    click.option("--html", type=_FILE, default=None, help="Write a page with timelines."),
    click.option(
        "--history",
        type=_FILE,
        default=None,
        help="Where to note the result. Default: RAFTDB_DRILLS, or the user's own file.",
    ),
    click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Work here, and leave logs and data. Default: a temporary directory.",
    ),
)


def _options(function: _Function) -> _Function:
    for option in reversed((*_WHAT, *_RESULT, json_option)):
        function = option(function)
    return function


def _run(
    names: tuple[str, ...],
    nodes: str,
    seconds: float,
    repeat: int,
    points: int,
    archive: str | None,
    against: Path | None,
    compose: Path | None,
    previous: Path | None,
    yes: bool,
    objectives: Path | None,
    html: Path | None,
    history: Path | None,
    directory: Path | None,
    as_json: bool,
) -> int:
    from raftdb.drill import SCENARIOS, History, Options, load_objectives, run
    from raftdb.drill.against import HARMLESS, rehearse
    from raftdb.drill.compose import rehearse_composed
    from raftdb.drill.history import default_path
    from raftdb.drill.scenarios import COMPOSED

    wanted = names or tuple(SCENARIOS)
    bounds = load_objectives(objectives, tuple(SCENARIOS))
    if against is not None:
        if not yes:
            raise click.UsageError(
                f"--against reads the archive that {against} names, and leader-kill moves the "
                "leader of that cluster: consent by --yes."
            )
        harmless = names or HARMLESS
        results = [rehearse(name, against, points, bounds[name], _say) for name in harmless]
    elif compose is not None:
        results = rehearse_composed(
            *(names or COMPOSED, compose, bounds, _say),
            seconds=seconds,
            repeat=repeat,
            consent=yes,
        )
    else:
        own = Options(
            *(int(nodes), seconds, repeat, points, directory, archive, previous),
            lenient=not names,
        )
        results = run(wanted, own, bounds, _say)
    if html is not None:
        from raftdb.drill.page import render

        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render(results), "utf-8")
    History(history or default_path(os.environ)).add(results)
    _show(results, as_json)
    if any(one.broken for one in results):
        return int(ExitCode.BROKEN)
    return int(ExitCode.FAILED if any(one.missed for one in results) else ExitCode.OK)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _show(results: list[Result], as_json: bool) -> None:
    from raftdb.drill import report

    if as_json:
        print_json(
            {
                "verdict": "met"
                if all(one.verdict in ("met", "not run") for one in results)
                else "not met",
                "together": report.distribution(results),
                "drills": [one.as_dict() for one in results],
            }
        )
        return
    report.show(report.make_console(), results)


def _command(name: str) -> click.Command:
    example = f"raftdb drill {name}"

    @drill.command(
        name,
        help=f"{ABOUT[name]}\n\nExit code 0: every objective was met; 1: one was missed; 4: a "
        "promise was broken, or the drill did not come to its end.",
        epilog=f"\b\nExample:\n  {example}\n  {example} --nodes 5 --html report.html --json",
    )
    @_options
    def one(**options: Any) -> int:
        return _run(() if name == "all" else (name,), **options)

    return one


for _name in ABOUT:
    _command(_name)


@drill.command(
    epilog="""\b
Example:
  raftdb drill history
  raftdb drill history --file drills.jsonl --json"""
)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Default: RAFTDB_DRILLS, or the user's own file.",
)
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="So many.")
@json_option
def history(file: Path | None, last: int, as_json: bool) -> None:
    """Show the drills that were run from here, oldest first."""
    from raftdb.drill import History
    from raftdb.drill.history import default_path

    drills = History(file or default_path(os.environ)).read()[-last:]
    if as_json:
        print_json(drills)
        return
    from raftdb.drill.report import make_console, show_history

    show_history(make_console(), drills)


@drill.command(
    epilog="""\b
Example:
  raftdb drill schedule
  raftdb drill schedule --every weekly --at 04:15 --drill total-loss --drill region-loss"""
)
@click.option(
    "--every", type=click.Choice(["daily", "weekly", "monthly"]), default="daily", show_default=True
)
@click.option("--at", metavar="HH:MM", default="03:30", show_default=True, help="Local time.")
@click.option(
    "--drill",
    "drills",
    type=click.Choice([name for name in ABOUT if name != "all"]),
    multiple=True,
    help="Which; default: all. Repeatable.",
)
@json_option
def schedule(every: str, at: str, drills: tuple[str, ...], as_json: bool) -> None:
    """Print a systemd service and timer, and a line for cron, that run drills regularly.

    Their results go to the history, whose newest entries `raftdb status` shows. Systemd and cron
    report a drill that missed an objective by its exit code.
    """
    from raftdb.drill.history import default_path
    from raftdb.drill.schedule import schedule as texts

    # A unit takes a name that is in the path, or a whole path.
    named = sys.argv[0].endswith("raftdb")
    program = os.path.abspath(sys.argv[0]) if named and "/" in sys.argv[0] else "raftdb"
    environ = [("RAFTDB_DRILLS", str(default_path(os.environ)))]
    names = drills or ("all",)
    found = [texts((program, "drill", name), every, at, environ) for name in names]
    if as_json:
        print_json([{"drill": name, **one} for name, one in zip(names, found, strict=True)])
        return
    for name, one in zip(names, found, strict=True):
        for suffix in ("service", "timer"):
            click.echo(f"# /etc/systemd/system/raftdb-drill-{name}.{suffix}")
            click.echo(one[suffix])
        click.echo(f"# then: systemctl enable --now raftdb-drill-{name}.timer")
        click.echo("# or, for cron:")
        click.echo(one["cron"])
