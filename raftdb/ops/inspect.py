"""Looking into a stopped node: its journal, its entries, its database. Changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from raftdb.base.config import load_config
from raftdb.base.damage import DAMAGE_FILE
from raftdb.base.errors import ConfigError, Error
from raftdb.base.ids import ClusterId, HistoryId, NodeId
from raftdb.base.layout import (
    AMNESIA_FILE,
    QUARANTINE_FILE,
    REMOVED_FILE,
    SUPERSEDED_FILE,
    database_path,
    journal_path,
)
from raftdb.base.ports import Files
from raftdb.base.startup import IDENTITY_FILE, NodeIdentity, look_at_identity, time_text
from raftdb.command import Commit, Execute, Key, Request, Statement, decode_request
from raftdb.journal import JournalReport, LogEntry, inspect_journal, read_entries
from raftdb.journal.recovery import LOCK_NAME
from raftdb.machine import inspect_database

Payloads = Callable[[bytes], Sequence[bytes]]
"""Takes an entry's data, gives its requests' bytes: consensus knows the format, so the composition
root hands it in."""
PREVIEW_CHARACTERS = 200
NOTES = (DAMAGE_FILE, AMNESIA_FILE, QUARANTINE_FILE, REMOVED_FILE, SUPERSEDED_FILE)
NOTE_BYTES_MAX = 65_536
CONFIG_FILE = "raftdb.toml"
DATA_DIRECTORY = "data"
"""Where a node's data lie beside its configuration, unless that says otherwise."""
UNKNOWN = NodeIdentity(ClusterId("unknown"), HistoryId("unknown"), NodeId("unknown"), "")
"""Whose data it is cannot be told any more."""


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """Where a node keeps its data."""

    data_dir: str
    identity: NodeIdentity

    @property
    def journal(self) -> str:
        """Its journal."""
        return journal_path(self.data_dir)

    @property
    def database(self) -> str:
        """Its database."""
        return database_path(self.data_dir)


def find_node(directory: Path, files: Files) -> NodeDirectory:
    """From a node's directory (with raftdb.toml) or its data directory. Raises ConfigError where
    it cannot be told whose it is."""
    data_dir = os.path.abspath(directory)
    config = directory / CONFIG_FILE
    if config.is_file() and not (directory / IDENTITY_FILE).is_file():
        data_dir = load_config(str(config)).data_dir
    identity, damage = look_at_identity(files, data_dir)
    if identity is not None:
        return NodeDirectory(data_dir, identity)
    if files.exists(os.path.join(data_dir, IDENTITY_FILE)):
        raise ConfigError(
            "; ".join(damage),
            hint="restore this node's directory from before, or replace the node by a new member; "
            "`raftdb inspect` shows what else is there",
        )
    raise _no_node(directory, damage[0])


def look_for_node(directory: Path, files: Files) -> tuple[NodeDirectory, list[str]]:
    """The same, whatever is damaged; and what is. Raises ConfigError where nothing looks like a
    node's."""
    data_dir, config, damage = os.path.abspath(directory), directory / CONFIG_FILE, list[str]()
    by_config = UNKNOWN
    if config.is_file():
        try:
            read = load_config(str(config))
            by_config = NodeIdentity(read.cluster_id, read.history, read.node_id, "")
            data_dir = read.data_dir
        except ConfigError as error:
            damage.append(error.message)
            data_dir = os.path.join(data_dir, DATA_DIRECTORY)
    identity, wrong = look_at_identity(files, data_dir)
    if identity is None and not files.exists(journal_path(data_dir)):
        raise _no_node(directory, wrong[0])
    return NodeDirectory(data_dir, identity or by_config), damage + wrong


def _no_node(directory: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{directory} is no directory of a node: {why}",
        hint="give the directory of one node, with its raftdb.toml or its node.json",
    )


@contextmanager
def stopped_node(node: NodeDirectory, files: Files) -> Iterator[None]:
    """Holds the node's lock, so that it cannot run meanwhile. Raises ConfigError when it runs."""
    try:
        release = files.lock(os.path.join(node.journal, LOCK_NAME))
    except BlockingIOError:
        raise ConfigError(
            f"the node {node.identity.node_id} is running on {node.data_dir}",
            hint="stop it first; a running node is looked at by raftdb status and raftdb check",
            code="node_running",
        ) from None
    except FileNotFoundError:
        # Without a journal nothing runs on it.
        yield
        return
    except OSError as error:
        raise ConfigError(
            f"cannot lock {node.journal}: {error.strerror}",
            hint="run it as the user that runs the node, where the node's data can be written to",
        ) from error
    try:
        yield
    finally:
        release()


def notes_facts(node: NodeDirectory, files: Files) -> dict[str, Any]:
    """What the node noted beside its data of why it does not serve, by file name."""
    found: dict[str, Any] = {}
    for name in NOTES:
        path = os.path.join(node.data_dir, name)
        if files.exists(path):
            try:
                found[name] = json.loads(files.read_file(path)[:NOTE_BYTES_MAX])
            except (OSError, ValueError, RecursionError) as error:
                found[name] = f"cannot be read: {error}"
    return found


def journal_facts(node: NodeDirectory, files: Files) -> dict[str, Any]:
    """The journal as it lies there. One that cannot be read at all is damage, too."""
    try:
        report: JournalReport = inspect_journal(files, node.journal)
    except ConfigError as error:
        damage = [{"file": node.journal, "offset": 0, "text": error.message}]
        return {"directory": node.journal, "segments": [], "torn": None, "damage": damage}
    state = report.hard_state
    return {
        "directory": report.directory,
        "format_version": report.format_version,
        "journal_id": report.journal_id,
        "term": None if state is None else int(state.term),
        "voted_for": None if state is None else state.vote,
        "first_index": int(report.first_index),
        "last_index": int(report.last_index),
        "first_term": int(report.first_term),
        "last_term": int(report.last_term),
        "durable_index": int(report.durable_index),
        "segments": [
            {
                "name": one.name,
                "bytes": one.bytes,
                "batches": one.batches,
                "first_index": one.first_index,
                "last_index": one.last_index,
                "sealed": one.sealed,
                "damaged": bool(one.damage),
            }
            for one in report.segments
        ],
        "damage": [
            {"file": one.file, "offset": one.offset, "text": one.text} for one in report.damage
        ],
        "torn": None
        if report.torn is None
        else {
            "file": report.torn.file,
            "offset": report.torn.offset,
            "text": report.torn.text,
        },
    }


def database_facts(node: NodeDirectory, files: Files, *, full: bool = True) -> dict[str, Any]:
    """The database as it lies there; `full` reads every page and every row.

    A database that cannot be read at all, or is not there, is damage, too.
    """
    try:
        report = inspect_database(node.database, files=files, full=full)
    except ConfigError as error:
        return {"directory": node.database, "damage": [error.message]}
    damage = list(report.integrity)
    if report.content_matches is False:
        damage.append("the rows do not have the content hash that was kept for them")
    if node.identity is not UNKNOWN and report.history != node.identity.history:
        damage.append(f"it belongs to history {report.history}, the node to another")
    return {
        "path": report.path,
        "history": report.history,
        "applied_index": int(report.index),
        "applied_term": int(report.term),
        "position": report.position,
        "time": time_text(report.time_ms),
        "content_hash": report.content.total.hex(),
        "content_checked": report.content_matches is not None,
        "database_bytes": report.database_bytes,
        "wal_bytes": report.wal_bytes,
        "tables": [
            {"name": one.name, "rows": None if one.rows < 0 else one.rows, "hash": one.hash.hex()}
            for one in report.tables
        ],
        "sessions": [
            {"number": one.number, "label": one.label, "sequence": one.sequence}
            for one in report.sessions
        ],
        "damage": damage,
    }


def entries(
    node: NodeDirectory, files: Files, payloads: Payloads, first: int, last: int | None
) -> Iterator[dict[str, Any]]:
    """The journal's entries from `first` to `last`, decoded."""
    for entry in read_entries(files, node.journal):
        if entry.index < first:
            continue
        if last is not None and entry.index > last:
            return
        yield entry_facts(entry, payloads)


def entry_facts(entry: LogEntry, payloads: Payloads) -> dict[str, Any]:
    """One entry as plain values; what does not decode is said and shown as its size."""
    facts: dict[str, Any] = {
        "index": int(entry.index),
        "term": int(entry.term),
        "bytes": len(entry.data),
    }
    try:
        facts["requests"] = [_request(decode_request(one)) for one in payloads(entry.data)]
    except Error as error:
        facts["problem"] = error.message
    return facts


def _request(request: Request) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": type(request).__name__,
        "time_ms": request.stamp.time_ms,
        "seed": request.stamp.seed.hex(),
    }
    if isinstance(request, Execute | Commit):
        statements = [
            one if isinstance(one, Statement) else one.statement for one in request.statements
        ]
        facts |= {
            "session": request.session,
            "sequence": request.sequence,
            "statements": [_statement(one) for one in statements],
        }
        return facts
    for one in fields(request):
        if one.name != "stamp":
            facts[one.name] = _plain(getattr(request, one.name))
    return facts


def _plain(value: Any) -> Any:
    """A field of a request, for people."""
    if isinstance(value, Key):
        return {"name": value.name, "horizon": value.horizon}
    return value if isinstance(value, dict) else _short(value)


def _statement(statement: Statement) -> dict[str, Any]:
    sets = statement.parameter_sets
    return {
        "sql": statement.sql,
        "parameter_sets": len(sets),
        "first_parameters": _preview(sets[0]) if sets else [],
    }


def _preview(parameters: Any) -> Any:
    """Parameters for people: long ones cut, blobs as their size."""
    if isinstance(parameters, dict):
        return {name: _short(value) for name, value in parameters.items()}
    return [_short(value) for value in parameters]


def _short(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > PREVIEW_CHARACTERS:
        return f"{value[:PREVIEW_CHARACTERS]}… ({len(value)} characters)"
    return value
