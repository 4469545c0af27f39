"""`raftdb vacuum`: free pages of all nodes go back to their file systems, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import Error

CALLS_MAX = 100_000
"""Of about a second each."""


@dataclass(slots=True)
class NodeVacuum:
    """What became of one node's file."""

    node_id: str
    given_back_bytes: int = 0
    file_bytes: int = 0
    """Of the database as it is now."""
    free_bytes: int = 0
    problem: str = ""


def vacuum_nodes(
    members: Mapping[str, str],
    connect_to: Callable[[str], Any],
    tell: Callable[[NodeVacuum], None],
    timeout_s: float = 10.0,
) -> list[NodeVacuum]:
    """All members (node id to address) in that order; `tell` is called after each second of work.
    What cannot be reached is in the report, and does not keep the others from it."""
    found = []
    for node_id, address in members.items():
        report = NodeVacuum(node_id)
        found.append(report)
        try:
            connection = connect_to(address)
            try:
                _vacuum(connection, report, tell, timeout_s)
            finally:
                connection.close()
        except Error as error:
            report.problem = error.message
            tell(report)
    return found


def _vacuum(
    connection: Any, report: NodeVacuum, tell: Callable[[NodeVacuum], None], timeout_s: float
) -> None:
    for _ in range(CALLS_MAX):
        facts = connection.ask("vacuum", anywhere=True, timeout=timeout_s)
        page_bytes = int(facts["page_bytes"])
        report.given_back_bytes += int(facts["given_back"]) * page_bytes
        report.file_bytes = int(facts["pages"]) * page_bytes
        report.free_bytes = int(facts["free"]) * page_bytes
        tell(report)
        # Writers may free pages all the time: what this call could not give back is theirs.
        if not facts["given_back"] or not facts["free"]:
            return
