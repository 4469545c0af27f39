"""Comparing all nodes: the content hash, table by table, at one applied index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from raftdb.base.errors import Error, UnavailableError
from raftdb.ops.status import AT_ONCE_MAX, ConnectTo

ATTEMPTS = 20


@dataclass(slots=True)
class NodeHash:
    """One node's content at one index."""

    node_id: str
    index: int = 0
    total: str = ""
    tables: dict[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(slots=True)
class CheckReport:
    """What the comparison found."""

    index: int
    """The common applied index; 0 when none was found."""
    nodes: list[NodeHash]
    differing: dict[str, list[str]] = field(default_factory=dict)
    """Table to the nodes that do not hold what the majority holds (all nodes if none does)."""
    diverged: list[str] = field(default_factory=list)
    """Nodes that are not with the majority; all when there is none."""

    @property
    def equal(self) -> bool:
        """All nodes that were compared hold the same."""
        return self.index > 0 and not self.diverged

    @property
    def complete(self) -> bool:
        """Every member was compared, at one index."""
        return self.index > 0 and not any(node.problem for node in self.nodes)


def check_nodes(
    members: Mapping[str, str], connect_to: ConnectTo, timeout_s: float = 10.0
) -> CheckReport:
    """Compare members (node id to address). Raises UnavailableError when less than two answer.

    While clients write, nodes may answer at different indexes; then they are asked again.
    """
    report = CheckReport(0, [])
    index: int | None = None
    for _ in range(ATTEMPTS):
        report.nodes = _ask_all(members, connect_to, index, timeout_s)
        answers = [node for node in report.nodes if not node.problem]
        if not answers:
            raise UnavailableError(
                f"no node gave its content hash: {report.nodes[0].problem}",
                hint="see raftdb status",
            )
        index = max(node.index for node in answers)
        if all(node.index == index for node in answers):
            report.index = index
            _compare(report, answers)
            return report
    return report


def _ask_all(
    members: Mapping[str, str], connect_to: ConnectTo, index: int | None, timeout_s: float
) -> list[NodeHash]:
    def ask(item: tuple[str, str]) -> NodeHash:
        node_id, address = item
        try:
            connection = connect_to(address)
            try:
                return _read(node_id, connection.content_hash(index=index, timeout=timeout_s))
            finally:
                connection.close()
        except Error as error:
            return NodeHash(node_id, problem=error.message)

    with ThreadPoolExecutor(min(len(members), AT_ONCE_MAX)) as pool:
        return list(pool.map(ask, members.items()))


def _read(node_id: str, answer: Mapping[str, Any]) -> NodeHash:
    tables = {str(name): str(value) for name, value in answer.get("tables", {}).items()}
    return NodeHash(node_id, int(answer["index"]), str(answer["total"]), tables)


def _compare(report: CheckReport, answers: list[NodeHash]) -> None:
    agreed = _majority(node.total for node in answers)
    report.diverged = [node.node_id for node in answers if node.total != agreed]
    if not report.diverged:
        return
    for table in sorted({name for node in answers for name in node.tables}):
        common = _majority(node.tables.get(table, "") for node in answers)
        wrong = [node.node_id for node in answers if node.tables.get(table, "") != common]
        if wrong:
            report.differing[table] = wrong


def _majority(values: Iterable[str]) -> str | None:
    """The value that more than half have."""
    found = list(values)
    for value in dict.fromkeys(found):
        if found.count(value) * 2 > len(found):
            return value
    return None
