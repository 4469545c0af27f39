"""python -m bench: side-by-side measurements."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from bench import apply_cost as apply_module
from bench import (
    archive,
    archive_chain,
    archive_cost,
    archive_faults,
    connections,
    copying,
    document,
    drills,
    flights,
    host,
    rejoin,
    report,
    size,
    total_loss,
    wan,
)
from bench import commits as commits_module
from bench import embedded_read as embedded_module
from bench import hostile as hostile_module
from bench import overload as overload_module
from bench import profile as profile_module
from bench import reads as reads_module
from bench import timeline as timeline_module
from bench import transactions as transactions_module
from bench.command import RESULTS, save
from bench.command import console_for as _console
from bench.command import guarded as _guarded
from bench.targets import ALL, Options


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Measure raftdb beside its peers, on this machine, with everything durable.

    Exit codes: 0 measured, 2 wrong use or an unsuitable directory, 3 something is not installed
    (the message says how), 4 a node died or an acknowledged write was missing, 130 interrupted.
    """


def _default_targets() -> str:
    names = [name for name in ALL if name != "rqlite" or os.environ.get("RQLITED")]
    return ",".join(names)


@main.command()
@click.option(
    "--targets",
    "names",
    help="Which systems, separated by commas.  [default: all; "
    "rqlite only when RQLITED names its binary]",
)
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="Interleaved rounds.")
@click.option(
    "--seconds", default=5.0, type=click.FloatRange(0.2, 600), help="Measured time of one run."
)
@click.option("--warmup", default=1.0, type=click.FloatRange(0, 60), help="Seconds before it.")
@click.option("--connections", default="1,16,64", help="Client connections, separated by commas.")
@click.option(
    "--value-bytes",
    default=100,
    type=click.IntRange(1, 100_000),
    help="Size of the value in each row.",
)
@click.option("--etcd-tls", is_flag=True, help="Mutual TLS for etcd too.")
@click.option("--insecure", is_flag=True, help="raftdb without TLS, to see what TLS costs.")
@click.option(
    "--raftdb-load",
    default="events",
    type=click.Choice(["events", "threads"]),
    help="How the load process drives raftdb.",
)
@click.option(
    "--directory", help="Where the clusters' data goes, on a real disk.  [default: /var/tmp]"
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file of results.  [default: bench/results/commits-DATE.json]",
)
@click.option(
    "--quick", is_flag=True, help="Only see that it runs: 1 round of 1 s; proves nothing."
)
@click.option("--keep", is_flag=True, help="Keep data and logs.")
def commits(
    names: str | None,
    rounds: int,
    seconds: float,
    warmup: float,
    connections: str,
    value_bytes: int,
    etcd_tls: bool,
    insecure: bool,
    raftdb_load: str,
    directory: str | None,
    output: Path | None,
    quick: bool,
    keep: bool,
) -> None:
    """Durable single-row inserts: latency, throughput, CPU per commit, memory.

    \b
    Three nodes on loopback each, one system after the other, in rounds.
      python -m bench commits
      python -m bench commits --targets raftdb,etcd --connections 1 --rounds 9
      RQLITED=~/bin/rqlited python -m bench commits
    """
    settings = commits_module.Settings(
        rounds=1 if quick else rounds,
        seconds=1.0 if quick else seconds,
        warmup_s=0.3 if quick else warmup,
        connections=_numbers(connections),
        value_bytes=value_bytes,
    )
    options = Options(etcd_tls=etcd_tls, insecure=insecure, raftdb_load=raftdb_load)
    chosen = _names(names or _default_targets())
    _guarded(lambda: _commits(chosen, settings, options, directory, output, keep))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or max(found) > 1000:
        raise click.BadParameter(f"{text!r}: give numbers from 1 to 1000, such as 1,16,64")
    return found


def _names(text: str, known: Iterable[str] = ALL) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in found if name not in known]
    if unknown or not found:
        raise click.BadParameter(f"{text!r}: choose from {', '.join(known)}")
    return found


def _commits(
    names: list[str],
    settings: commits_module.Settings,
    options: Options,
    directory: str | None,
    output: Path | None,
    keep: bool,
) -> None:
    console = _console()
    targets = [ALL[name](options) for name in names]
    commits_module.require(targets)
    versions: dict[str, str] = {}
    for target in targets:
        versions.update(target.prepare())
    place, disk = host.work_directory(directory)
    console.print(f"data in {place}, {disk.file_system} on {disk.device}", highlight=False)
    try:
        probes = {"before": host.fdatasync_latency(place)}
        runs = commits_module.measure(
            targets, settings, place, lambda line: console.print(line, highlight=False)
        )
        probes["after"] = host.fdatasync_latency(place)
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    results = commits_module.record(runs, settings, versions, disk, probes, asdict(options))
    path = output or RESULTS / host.file_name(results)
    save(results, path)
    report.show(results, console)
    console.print(f"results in {path}", highlight=False)


@main.command()
@click.option("--connections", default=64, type=click.IntRange(1, 1000))
@click.option("--seconds", default=10.0, type=click.FloatRange(1, 600))
@click.option("--insecure", is_flag=True, help="Without TLS.")
@click.option("--directory", help="As in commits.")
@click.option(
    "--raw",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the stacks here, for flamegraph.pl or speedscope.",
)
def profile(
    connections: int,
    seconds: float,
    insecure: bool,
    directory: str | None,
    raw: Path | None,
) -> None:
    """Where the leader's processor time goes, per commit (by py-spy, and perf if it is there)."""
    options = Options(insecure=insecure)

    def work() -> None:
        place, _ = host.work_directory(directory)
        try:
            kept = raw or place / "stacks"
            found = profile_module.Profiler(place, connections, seconds, kept).run(options)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        report.show_profile(found, _console())

    _guarded(work)


@main.command()
@click.option("--insecure", is_flag=True, help="Without TLS.")
@click.option("--directory", help="As in commits.")
def timeline(insecure: bool, directory: str | None) -> None:
    """Where one commit's latency goes, step by step (by perf's tracepoints: needs root)."""

    def work() -> None:
        place, _ = host.work_directory(directory)
        try:
            found = timeline_module.record(Options(insecure=insecure), place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        report.show_timeline(*found, _console())

    _guarded(work)


@main.command("embedded-read")
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="Interleaved rounds.")
@click.option("--seconds", default=3.0, type=click.FloatRange(0.2, 600), help="Of one run.")
@click.option("--directory", help="As in commits.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file of results.  [default: bench/results/embedded-read-DATE.json]",
)
@click.option("--quick", is_flag=True, help="Only see that it runs: 1 round of 1 s.")
def embedded_read(
    rounds: int, seconds: float, directory: str | None, output: Path | None, quick: bool
) -> None:
    """Reads by primary key on an embedded node, beside raw apsw."""
    console = _console()

    def work() -> None:
        place, disk = host.work_directory(directory)
        try:
            found = embedded_module.run(
                1 if quick else rounds,
                1.0 if quick else seconds,
                place,
                lambda line: console.print(line, highlight=False),
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results = {
            **host.record("embedded-read", disk),
            "versions": ALL["raftdb"](Options()).prepare(),
            "runs": [asdict(item) for item in found],
        }
        path = output or RESULTS / host.file_name(results)
        save(results, path)
        embedded_module.show(found, console)
        console.print(f"results in {path}", highlight=False)

    _guarded(work)


@main.command("transactions")
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="Interleaved rounds.")
@click.option("--seconds", default=3.0, type=click.FloatRange(0.2, 600), help="Of one run.")
@click.option("--directory", help="As in commits.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file of results.  [default: bench/results/transactions-DATE.json]",
)
@click.option("--quick", is_flag=True, help="Only see that it runs: 1 round of 1 s.")
def transactions(
    rounds: int, seconds: float, directory: str | None, output: Path | None, quick: bool
) -> None:
    """An interactive transaction of three statements, beside a single write."""
    console = _console()

    def work() -> None:
        place, disk = host.work_directory(directory)
        try:
            found = transactions_module.run(
                1 if quick else rounds,
                1.0 if quick else seconds,
                place,
                lambda line: console.print(line, highlight=False),
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results = {
            **host.record("transactions", disk),
            "versions": ALL["raftdb"](Options()).prepare(),
            "runs": [asdict(item) for item in found],
        }
        path = output or RESULTS / host.file_name(results)
        save(results, path)
        transactions_module.show(found, console)
        console.print(f"results in {path}", highlight=False)

    _guarded(work)


@main.command("overload")
@click.option("--kind", default="write", type=click.Choice(["write", "read"]))
@click.option("--levels", default="1,2,5,10", help="Multiples of the peak, separated by commas.")
@click.option("--seconds", default=4.0, type=click.FloatRange(0.5, 600), help="Of one level.")
@click.option(
    "--work",
    default=2_500,
    type=click.IntRange(1, 1_000_000),
    help="Rows that one statement joins, by 2,500.",
)
@click.option("--connections", default=256, type=click.IntRange(64, 1_000))
@click.option("--insecure", is_flag=True, help="Without TLS.")
@click.option("--directory", help="As in commits.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, no table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file of results.  [default: bench/results/overload-DATE.json]",
)
def overload(
    kind: str,
    levels: str,
    seconds: float,
    work: int,
    connections: int,
    insecure: bool,
    directory: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """More requests than the cluster can do, at fixed rates from a process of its own."""
    settings = overload_module.Settings(
        kind=kind,
        levels=tuple(float(number) for number in _numbers(levels)),
        seconds=seconds,
        work=work,
        connections=connections,
    )
    console = Console(stderr=True) if as_json else _console()

    def run() -> None:
        place, disk = host.work_directory(directory)
        options = Options(insecure=insecure)
        try:
            found = overload_module.Overload(settings, options, place).run(
                lambda line: console.print(line, highlight=False)
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results = {
            **host.record("overload", disk),
            "versions": ALL["raftdb"](options).prepare(),
            "settings": asdict(settings),
            **found,
            "verdict": overload_module.verdict(found, kind),
        }
        path = output or RESULTS / host.file_name(results)
        save(results, path)
        if as_json:
            click.echo(json.dumps(results))
        else:
            overload_module.show(results, console)
            console.print(f"results in {path}", highlight=False)

    _guarded(run)


@main.command("hostile")
@click.option("--calm", "calm_s", default=1.5, type=click.FloatRange(0.2, 60), help="Seconds.")
@click.option("--only", default="", help="Only those whose name holds this text.")
@click.option("--directory", help="As in commits.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, no table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file of results.  [default: bench/results/hostile-DATE.json]",
)
def hostile(
    calm_s: float, only: str, directory: str | None, as_json: bool, output: Path | None
) -> None:
    """What is meant to bring a cluster down, and what other clients notice of it."""
    console = Console(stderr=True) if as_json else _console()

    def run() -> None:
        place, disk = host.work_directory(directory)
        try:
            found = hostile_module.run(
                place, calm_s, only, lambda line: console.print(line, highlight=False)
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results = {
            **host.record("hostile", disk),
            "versions": ALL["raftdb"](Options()).prepare(),
            **found,
            "verdict": hostile_module.verdict(found),
        }
        path = output or RESULTS / host.file_name(results)
        save(results, path)
        if as_json:
            click.echo(json.dumps(results))
        else:
            hostile_module.show(results, console)
            console.print(f"results in {path}", highlight=False)

    _guarded(run)


@main.command("reads")
@click.option("--rounds", default=3, type=click.IntRange(1, 100), help="Interleaved rounds.")
@click.option("--seconds", default=2.0, type=click.FloatRange(0.2, 600), help="Of one phase.")
@click.option(
    "--targets",
    "names",
    help="raftdb, rqlite, echo.  [default: all; rqlite only when RQLITED names its binary]",
)
@click.option("--directory", help="As in commits.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, no table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file of results.  [default: bench/results/reads-DATE.json]",
)
def reads(
    rounds: int,
    seconds: float,
    names: str | None,
    directory: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Reads at each level over the network, and batches of 1,000 rows."""
    known = reads_module.SYSTEMS
    chosen = [name for name in known if name != "rqlite" or os.environ.get("RQLITED")]
    if names:
        chosen = _names(names, known)
    console = Console(stderr=True) if as_json else _console()

    def run() -> None:
        commits_module.require([known[name](Options()) for name in chosen])
        place, disk = host.work_directory(directory)
        try:
            found = reads_module.run(
                chosen, rounds, seconds, place, lambda line: console.print(line, highlight=False)
            )
        finally:
            shutil.rmtree(place, ignore_errors=True)
        results = {
            **host.record("reads", disk),
            "versions": ALL["raftdb"](Options()).prepare(),
            "runs": [asdict(one) for one in found],
        }
        path = output or RESULTS / host.file_name(results)
        save(results, path)
        if as_json:
            click.echo(json.dumps(results))
        else:
            reads_module.show(found, console)
            console.print(f"results in {path}", highlight=False)

    _guarded(run)


@main.command("apply")
@click.option("--rounds", default=5, type=click.IntRange(1, 100), help="The best one counts.")
@click.option("--directory", help="As in commits.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, no table.")
def apply(rounds: int, directory: str | None, as_json: bool) -> None:
    """The CPU of applying a single-row request, and its parts."""

    def run() -> None:
        place, disk = host.work_directory(directory)
        try:
            found = apply_module.run(rounds, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if as_json:
            click.echo(json.dumps({**host.record("apply", disk), **found}))
        else:
            apply_module.show(found, _console())

    _guarded(run)


@main.command("show")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--markdown", is_flag=True, help="As a table for a document.")
def show(file: Path, markdown: bool) -> None:
    """Print the table of a recorded FILE again."""
    results = json.loads(file.read_text())
    if markdown:
        click.echo(report.markdown(results))
    else:
        report.show(results, _console())


for one in (
    size.size,
    copying.copying,
    rejoin.rejoin,
    connections.connections,
    wan.wan,
    drills.drills,
    total_loss.total_loss,
    flights.command_flights,
    archive.archive,
    archive_chain.command,
    archive_cost.command,
    archive_faults.archive_faults,
    document.figures,
):
    main.add_command(one)


if __name__ == "__main__":
    main(prog_name="python -m bench")
