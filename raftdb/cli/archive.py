"""`raftdb archive`: the copies off-site, looked at and looked after."""

from __future__ import annotations

import os
from pathlib import Path

import click

from raftdb.base.exits import ExitCode
from raftdb.cli import prune as pruning
from raftdb.cli.output import json_option, print_json
from raftdb.cli.source import archive_options, open_archive, where
from raftdb.cli.target import open_connection, target_of, target_options


@click.group()
def archive() -> None:
    """Continuous copies off-site: state, restore points, history, verification."""


@archive.command(
    epilog="""\b
Example:
  raftdb archive status --from file:///mnt/backup/cluster
  raftdb archive status --config cluster/n1/raftdb.toml --json"""
)
@archive_options
@json_option
def status(urls: tuple[str, ...], key_file: Path | None, config: Path | None, as_json: bool) -> int:
    """How far the archive reaches, and whether its chain is whole as far as its newest moment needs
    it. Exit code 4 when it is not. `raftdb archive verify` reads all of it."""
    from raftdb.ops.archive import status as describe
    from raftdb.runtime.clock import RealClock

    found = open_archive(urls, key_file, config, summary=True)
    facts = describe(found, RealClock())
    if as_json:
        print_json(facts)
    else:
        for one in facts["destinations"]:
            click.echo(one.pop("url"))
            for key, value in one.items():
                click.echo(f"  {key:<16} {'-' if value is None else value}")
        _show_problems(facts["problems"], facts["notes"])
    return int(ExitCode.BROKEN if facts["problems"] else ExitCode.OK)


@archive.command(
    "list",
    epilog="""\b
Example:
  raftdb archive list --from file:///mnt/backup/cluster""",
)
@archive_options
@json_option
def list_points(
    urls: tuple[str, ...], key_file: Path | None, config: Path | None, as_json: bool
) -> None:
    """Bases, marks, gaps and verified restores. (Every request after a base is a restore point.)"""
    from raftdb.ops.archive import points

    found = open_archive(urls, key_file, config, summary=True)
    rows = points(found)
    if as_json:
        print_json(rows)
        return
    for one in rows:
        first = f"{one['first']} to " if one["first"] else ""
        size = f"  {one['bytes']:,} bytes" if one["bytes"] else ""
        click.echo(
            f"{one['kind']:<9} {first + one['point']:>12}  {one['time'] or '-':<20}{size}  "
            f"{one['note']}"
        )
    _show_problems([str(one) for one in found.damage], [])


@archive.command(
    epilog="""\b
Example:
  raftdb archive log --from file:///mnt/backup/cluster --search "drop table"
  raftdb archive log --from file:///mnt/backup/cluster --first 1000 --json"""
)
@archive_options
@click.option("--first", type=click.IntRange(1), default=None, help="From this entry on.")
@click.option("--last", type=click.IntRange(1), default=None, help="Up to this entry.")
@click.option("--search", metavar="TEXT", default=None, help="Only statements that contain it.")
@json_option
def log(
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    first: int | None,
    last: int | None,
    search: str | None,
    as_json: bool,
) -> None:
    """What was done when: one line per request, each with the moment right before it.

    `raftdb restore --index POINT` with the point that a line begins with restores to that moment.
    """
    import json

    from raftdb.archive import Near
    from raftdb.base.startup import time_text
    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.archive import archive_log

    near = None if first is None else Near(first=first, index=last)
    found = open_archive(urls, key_file, config, near=near)
    if not as_json:
        click.echo(f"{'before':>10}  {'time':<20}  {'tables':<16} statements")
    for line in archive_log(found, decode_payloads, first=first, last=last, search=search):
        if as_json:
            facts = {
                "before": str(line.before),
                "after": str(line.after),
                "time": time_text(line.time_ms),
                "digest": line.digest,
                "tables": line.tables,
                "statements": line.statements,
                "sql": line.sql,
            }
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            tables = ",".join(line.tables) or "-"
            sql = " ".join(line.sql.split())
            click.echo(f"{line.before!s:>10}  {time_text(line.time_ms)}  {tables:<16} {sql}")


@archive.command(
    epilog="""\b
Example:
  raftdb archive verify --from file:///mnt/backup/cluster
  raftdb archive verify --from s3://bucket/cluster,file:///mnt/backup --restore"""
)
@archive_options
@click.option(
    "--restore",
    "really",
    is_flag=True,
    help="Also restore the newest base and log into a scratch directory, compare every content "
    "hash, and note the result in the archive.",
)
@click.option(
    "--quick", is_flag=True, help="Do not read every object: what the newest moment needs, no more."
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    default=None,
    help="Directory for --restore, emptied before and after. Default: below the system's for "
    "temporary files.",
)
@click.option("--background", is_flag=True, help="At the lowest priority.")
@json_option
def verify(
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    really: bool,
    quick: bool,
    scratch: Path | None,
    background: bool,
    as_json: bool,
) -> int:
    """Read every object of every destination. Exit code 4, and names, when one is not whole.

    Nodes do `--restore --quick` by themselves, every archive.verify_minutes.
    """
    from raftdb.ops.verify import verify_archive, verify_restore

    if background:
        os.nice(19)
    found = open_archive(urls, key_file, config, newest=True)
    facts, found = verify_archive(found, every_object=not quick)
    if really:
        from raftdb.consensus.entry import decode_payloads

        facts["restores"] = verify_restore(found, decode_payloads, scratch)
        facts["problems"] += [one["problem"] for one in facts["restores"] if one["problem"]]
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{facts['objects']} objects read")
        for one in facts.get("restores", ()):
            click.echo(
                f"{one['url']}: restored to {one['point']}, {one['requests']} requests replayed, "
                f"{one['compared']} hashes equal"
                if not one["problem"]
                else f"{one['url']}: the restore failed"
            )
        _show_problems(facts["problems"], facts["notes"])
        click.echo("damaged: see above" if facts["problems"] else "whole")
    return int(ExitCode.BROKEN if facts["problems"] else ExitCode.OK)


@archive.command(
    epilog="""\b
Example:
  raftdb archive mark "before migration 42" --dir cluster --from file:///mnt/backup/cluster"""
)
@click.argument("name")
@target_options
@archive_options
@json_option
def mark(
    name: str,
    url: str | None,
    directory: Path | None,
    timeout: float,
    urls: tuple[str, ...],
    key_file: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Give this moment a NAME, for `raftdb restore --mark NAME`.

    The moment holds every write that was acknowledged before the command began.
    """
    from raftdb.ops.archive import add_mark, answering_archives, keys_of
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.files import RealFiles

    if not 0 < len(name) <= 200:
        raise click.UsageError("A mark's name has 1 to 200 characters.")
    given, keys = where(urls, key_file, config)
    archives, missing = answering_archives(given, keys_of(keys, os.environ, RealFiles()))
    with open_connection(target_of(url, directory), timeout) as connection:
        connection.execute("SELECT 1").fetchall()
        index = int(connection.status()["applied_index"])
    for one in archives:
        add_mark(one, name, index, RealClock(), "mark")
    for problem in missing:
        click.echo(f"warning: not marked in {problem}", err=True)
    if as_json:
        print_json({"name": name, "index": index})
    else:
        click.echo(f"entry {index} is {name!r} now")


@archive.command(
    epilog="""\b
Example:
  raftdb archive keygen archive.keys
  raftdb archive keygen archive.keys --id 2027"""
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--id", "key_id", default=None, help="Name of the key. Default: k1, k2, …")
@json_option
def keygen(file: Path, key_id: str | None, as_json: bool) -> None:
    """Put a new key at the top of FILE, which is made when missing.

    New objects are sealed by it; the older keys go on opening what they sealed. Copy FILE to all
    nodes, and keep a copy where it survives them: without it nothing can be restored.
    """
    from raftdb.archive import new_key_line, parse_keys
    from raftdb.ops.archive import write_key
    from raftdb.runtime.files import RealFiles

    files = RealFiles()
    path = str(file.absolute())
    before = files.read_file(path).decode("utf-8", "replace") if files.exists(path) else ""
    known = parse_keys(before, path).keys if before else {}
    name = key_id or f"k{len(known) + 1}"
    if name in known:
        raise click.UsageError(f"{file} has a key {name!r} already.")
    write_key(path, new_key_line(name, os.urandom(32)), files)
    if as_json:
        print_json({"file": str(file), "key": name, "keys": len(known) + 1})
    else:
        click.echo(f"key {name} is the first of {len(known) + 1} in {file}")


for _command in (pruning.prune, pruning.hold, pruning.release):
    archive.add_command(_command)


def _show_problems(problems: list[str], notes: list[str]) -> None:
    for text in problems:
        click.echo(f"DAMAGE {text}")
    for text in notes:
        click.echo(f"note: {text}")
