"""Looking into a stopped node: its journal, its entries, its database. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftdb.base.config import load_config
from raftdb.base.errors import ConfigError, Error
from raftdb.base.layout import database_path, journal_path
from raftdb.base.ports import Files
from raftdb.base.startup import IDENTITY_FILE, NodeIdentity, parse_identity, time_text
from raftdb.command import (
    CloseSession,
    Execute,
    OpenSession,
    Request,
    Statement,
    Tick,
    decode_request,
)
from raftdb.journal import JournalReport, LogEntry, inspect_journal, read_entries
from raftdb.journal.recovery import LOCK_NAME
from raftdb.machine import inspect_database

Payloads = Callable[[bytes], Sequence[bytes]]
"""Takes an entry's data, gives its requests' bytes: consensus knows the format, so the composition
root hands it in."""
PREVIEW_CHARACTERS = 200
CONFIG_FILE = "raftdb.toml"


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
    """From a node's directory (with raftdb.toml) or its data directory. Raises ConfigError."""
    data_dir = os.path.abspath(directory)
    config = directory / CONFIG_FILE
    if config.is_file() and not (directory / IDENTITY_FILE).is_file():
        data_dir = load_config(str(config)).data_dir
    path = os.path.join(data_dir, IDENTITY_FILE)
    try:
        identity = parse_identity(files.read_file(path), path)
    except OSError as error:
        raise ConfigError(
            f"{directory} is no directory of a node: cannot read {path}: {error.strerror}",
            hint="give the directory of one node, with its raftdb.toml or its node.json",
        ) from error
    return NodeDirectory(data_dir, identity)


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
    except OSError as error:
        raise ConfigError(f"cannot lock {node.journal}: {error.strerror}") from error
    try:
        yield
    finally:
        release()


def journal_facts(node: NodeDirectory, files: Files) -> dict[str, Any]:
    """The journal as it lies there. Raises ConfigError when there is none."""
    report: JournalReport = inspect_journal(files, node.journal)
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

    A database that cannot be read at all is damage, too. Raises ConfigError when there is none.
    """
    try:
        report = inspect_database(node.database, files=files, full=full)
    except ConfigError as error:
        if error.code != "database_corrupt":
            raise
        return {"directory": node.database, "damage": [error.message]}
    damage = list(report.integrity)
    if report.content_matches is False:
        damage.append("the rows do not have the content hash that was kept for them")
    if report.history != node.identity.history:
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
    if isinstance(request, Execute):
        facts |= {
            "session": request.session,
            "sequence": request.sequence,
            "statements": [_statement(one) for one in request.statements],
        }
    elif isinstance(request, OpenSession):
        facts["label"] = request.label
    elif isinstance(request, CloseSession):
        facts["session"] = request.session
    else:
        assert isinstance(request, Tick)
    return facts


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
