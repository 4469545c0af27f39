"""`node.json`: whose data a data directory holds. Written once by `raftdb init`.

    <data_dir>/node.json     this file
    <data_dir>/journal/      the log
    <data_dir>/database/     the SQLite database, by generation

A node starts only on a directory that was founded for it: an empty one would make an emptied
voter (it could vote its acknowledged entries away), and another's would fork the log.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import ConfigError
from raftdb.base.ids import ClusterId, HistoryId, NodeId, parse_cluster_id, parse_node_id
from raftdb.base.ports import Files

FILE_NAME = "node.json"
JOURNAL_DIRECTORY = "journal"
DATABASE_DIRECTORY = "database"
VERSION = 1


@dataclass(frozen=True, slots=True)
class NodeFile:
    """What the file says."""

    cluster_id: ClusterId
    history: HistoryId
    node_id: NodeId


def node_file_path(data_dir: str) -> str:
    """Where the file is."""
    return posixpath.join(data_dir, FILE_NAME)


def journal_path(data_dir: str) -> str:
    """The directory of the journal."""
    return posixpath.join(data_dir, JOURNAL_DIRECTORY)


def database_path(data_dir: str) -> str:
    """The directory of the database."""
    return posixpath.join(data_dir, DATABASE_DIRECTORY)


def render_node_file(value: NodeFile) -> bytes:
    """The file's content: JSON, one key a line."""
    body = {
        "version": VERSION,
        "cluster_id": value.cluster_id,
        "history": value.history,
        "node_id": value.node_id,
    }
    return (json.dumps(body, indent=2) + "\n").encode()


def parse_node_file(data: bytes, where: str) -> NodeFile:
    """Read its content; `where` is its path, for messages. Raises ConfigError."""
    try:
        value: Any = json.loads(data)
        if not isinstance(value, dict) or value.get("version") != VERSION:
            raise ValueError(f"version {VERSION} is expected")
        return NodeFile(
            parse_cluster_id(str(value["cluster_id"])),
            HistoryId(parse_cluster_id(str(value["history"]))),
            parse_node_id(str(value["node_id"])),
        )
    except (ValueError, KeyError, RecursionError, ConfigError) as error:
        raise ConfigError(
            f"{where} is not a node file: {error}",
            hint="it is written once, by `raftdb init`: restore it from a backup of the machine",
        ) from error


def check_node_file(files: Files, data_dir: str, expected: NodeFile) -> None:
    """Whether the directory was founded for this node. Raises ConfigError."""
    path = node_file_path(data_dir)
    try:
        found = parse_node_file(files.read_file(path), path)
    except FileNotFoundError:
        raise ConfigError(
            f"{data_dir} does not hold the data of a node: {path} is missing",
            hint="if this node's disk was lost, it must not come back under its old name "
            f"({expected.node_id}); else check data_dir in the configuration",
            code="not_founded",
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    for name, mine, others in (
        ("cluster", expected.cluster_id, found.cluster_id),
        ("history", expected.history, found.history),
        ("node", expected.node_id, found.node_id),
    ):
        if mine != others:
            raise ConfigError(
                f"{data_dir} holds the data of {name} {others}, and the configuration is of "
                f"{name} {mine}",
                hint="a directory belongs to one node: check data_dir and node_id",
                code="foreign_data",
            )
