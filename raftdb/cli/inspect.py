"""`raftdb inspect`: a stopped node, looked into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from raftdb.base.exits import ExitCode
from raftdb.cli.output import json_option, print_json


@click.command(
    epilog="""\b
Example:
  raftdb inspect cluster/n1
  raftdb inspect cluster/n1 --journal --entries 100:120
  raftdb inspect cluster/n1 --database --json"""
)
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--journal", is_flag=True, help="Only the journal.")
@click.option("--database", is_flag=True, help="Only the database.")
@click.option(
    "--entries",
    metavar="A:B",
    default=None,
    help="Print the log's entries from index A to B, decoded, one JSON line each. A: or :B too.",
)
@click.option("--quick", is_flag=True, help="Do not read every page and row of the database.")
@json_option
def inspect(
    directory: Path,
    journal: bool,
    database: bool,
    entries: str | None,
    quick: bool,
    as_json: bool,
) -> int:
    """Look into the journal and the database of a stopped node; changes nothing.

    DIRECTORY is the node's, with raftdb.toml or node.json. Whatever is damaged is named, and the
    rest shown. Exit code 4 if anything is damaged, 2 if the node is running.
    """
    from raftdb.ops.inspect import UNKNOWN, look_for_node, notes_facts, stopped_node
    from raftdb.runtime.files import RealFiles

    files = RealFiles()
    node, damage = look_for_node(directory, files)
    both = journal == database
    with stopped_node(node, files):
        if entries is not None:
            _print_entries(node, files, entries)
            return int(ExitCode.OK)
        facts: dict[str, Any] = {
            "node_id": node.identity.node_id,
            "cluster_id": node.identity.cluster_id,
            "history": node.identity.history,
            "data_dir": node.data_dir,
            "notes": notes_facts(node, files),
        }
        if node.identity is UNKNOWN:
            facts |= dict.fromkeys(("node_id", "cluster_id", "history"))
        if both or journal:
            facts["journal"] = _journal(node, files, damage)
        if both or database:
            facts["database"] = _database(node, files, damage, quick)
    facts["damage"] = damage
    if as_json:
        print_json(facts)
    else:
        _show(facts)
    return int(ExitCode.BROKEN if damage else ExitCode.OK)


def _print_entries(node: Any, files: Any, text: str) -> None:
    # How an entry holds its requests is consensus' format, which ops does not know.
    from raftdb.consensus.entry import decode_payloads
    from raftdb.ops.inspect import entries

    first, colon, last = text.partition(":")
    if not colon:
        last = first
    if not all(part.isascii() and (part.isdigit() or not part) for part in (first, last)):
        raise click.UsageError(f"--entries {text!r}: write A:B, such as 10:20.")
    for facts in entries(
        node, files, decode_payloads, int(first or 0), int(last) if last else None
    ):
        click.echo(json.dumps(facts, ensure_ascii=False))


def _journal(node: Any, files: Any, damage: list[str]) -> dict[str, Any]:
    from raftdb.ops.inspect import journal_facts

    facts: dict[str, Any] = journal_facts(node, files)
    damage += [f"{one['file']}, offset {one['offset']}: {one['text']}" for one in facts["damage"]]
    return facts


def _database(node: Any, files: Any, damage: list[str], quick: bool) -> dict[str, Any]:
    from raftdb.ops.inspect import database_facts

    facts: dict[str, Any] = database_facts(node, files, full=not quick)
    damage += [f"database: {text}" for text in facts["damage"]]
    return facts


def _show(facts: dict[str, Any]) -> None:
    whose = f"node {facts['node_id']} of cluster {facts['cluster_id']}"
    click.echo(f"{whose if facts['node_id'] else 'a node that is not known'}, {facts['data_dir']}")
    for name, note in facts["notes"].items():
        click.echo(f"{name}  {json.dumps(note, ensure_ascii=False)}")
    if "journal" in facts:
        _show_journal(facts["journal"])
    if "database" in facts:
        _show_database(facts["database"])
    for line in facts["damage"]:
        click.echo(f"DAMAGE {line}")
    click.echo("damaged: see above" if facts["damage"] else "sound")


def _show_journal(facts: dict[str, Any]) -> None:
    if "last_index" not in facts:
        return
    click.echo("journal")
    for name in ("term", "voted_for", "first_index", "last_index", "last_term", "durable_index"):
        click.echo(f"  {name:<16} {_text(facts[name])}")
    for one in facts["segments"]:
        state = "sealed" if one["sealed"] else "active"
        click.echo(
            f"  {one['name']}  {one['bytes']:>10} bytes  entries {one['first_index']} to "
            f"{one['last_index']}  {state}{'  DAMAGED' if one['damaged'] else ''}"
        )
    if facts["torn"] is not None:
        click.echo(f"  an unfinished write at offset {facts['torn']['offset']}: a start cuts it")


def _show_database(facts: dict[str, Any]) -> None:
    if "applied_index" not in facts:
        return
    click.echo("database")
    for name in ("applied_index", "applied_term", "time", "content_hash", "database_bytes"):
        click.echo(f"  {name:<16} {facts[name]}")
    for one in facts.get("tables", ()):
        rows = "" if one["rows"] is None else f"{one['rows']:>10,} rows  "
        click.echo(f"  {rows}{one['hash']}  {one['name']}")
    click.echo(f"  {len(facts.get('sessions', ()))} sessions")


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
