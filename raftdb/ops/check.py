"""Comparing all nodes: the content hash, table by table, at one applied index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from raftdb.base.errors import Error, UnavailableError
from raftdb.ops.status import AT_ONCE_MAX, ConnectTo

PLAIN = 2
"""Rounds in which nodes are asked for what they hold now."""
AHEAD = (1, 256, 1024)
"""How far behind the furthest node the index lies that all are asked about in advance, so that they
can name the tables: round by round."""
AHEAD_S = 3.0
"""How long such an index may take to come: if it does not, nobody writes much."""


@dataclass(slots=True)
class NodeHash:
    """One node's content at one index."""

    node_id: str
    index: int = 0
    total: str = ""
    mark: int = 0
    """An index that it has passed and can tell of exactly."""
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
        """All nodes that were compared hold the same; one of several alone proves nothing."""
        together = self.complete or len(_answered(self.nodes)) > 1
        return self.index > 0 and not self.diverged and together

    @property
    def complete(self) -> bool:
        """Every member was compared, at one index."""
        return self.index > 0 and not any(node.problem for node in self.nodes)


def check_nodes(
    members: Mapping[str, str],
    connect_to: ConnectTo,
    timeout_s: float = 10.0,
    silent: Mapping[str, str] | None = None,
) -> CheckReport:
    """Compare members (node id to address). `silent`: why some are known not to answer. Raises
    UnavailableError when none answers.

    While clients write, nodes answer at different indexes. Then all are asked about one index: one
    that they have passed, which they remember without their tables, and, where that differs, one
    that is still to come. So it makes an end however much is written: seven rounds at most. One
    that did not say what it holds is not waited for again.
    """
    silent = dict(silent or {})

    def ask(index: int, *, exact: bool, within_s: float = timeout_s) -> list[NodeHash]:
        asked = {name: where for name, where in members.items() if name not in silent}
        found = _ask_all(asked, connect_to, index, min(within_s, timeout_s), exact)
        told = {one.node_id: one for one in found}
        return [told.get(name) or NodeHash(name, problem=silent[name]) for name in members]

    report = CheckReport(0, [])
    index = 0
    for _ in range(PLAIN):
        report.nodes = ask(index, exact=False)
        silent |= {one.node_id: one.problem for one in report.nodes if one.problem}
        answers = _answered(report.nodes)
        if not answers:
            raise UnavailableError(
                f"no node gave its content hash: {report.nodes[0].problem}",
                hint="see raftdb status",
            )
        index = max(node.index for node in answers)
        if _compare(report, report.nodes):
            return report
    passed = ask(min(node.mark for node in answers), exact=True)
    if len(_answered(passed)) == len(answers) and _compare(report, passed) and report.equal:
        return report
    for ahead in AHEAD:
        found = ask(index + ahead, exact=True, within_s=AHEAD_S)
        if len(_answered(found)) == len(answers) and _compare(report, found):
            return report
    if report.index == 0:
        _compare(report, ask(index, exact=False))
    return report


def _answered(nodes: list[NodeHash]) -> list[NodeHash]:
    return [node for node in nodes if not node.problem]


def _ask_all(
    members: Mapping[str, str],
    connect_to: ConnectTo,
    index: int,
    timeout_s: float,
    exact: bool,
) -> list[NodeHash]:
    def ask(item: tuple[str, str]) -> NodeHash:
        node_id, address = item
        try:
            connection = connect_to(address)
            try:
                return _read(
                    node_id, connection.content_hash(index, timeout=timeout_s, exact=exact)
                )
            finally:
                connection.close()
        except Error as error:
            return NodeHash(node_id, problem=error.message)

    with ThreadPoolExecutor(max(1, min(len(members), AT_ONCE_MAX))) as pool:
        return list(pool.map(ask, members.items()))


def _read(node_id: str, answer: Mapping[str, Any]) -> NodeHash:
    tables = {str(name): str(value) for name, value in answer.get("tables", {}).items()}
    mark = int(answer.get("mark", 0))
    return NodeHash(node_id, int(answer["index"]), str(answer["total"]), mark, tables)


def _compare(report: CheckReport, nodes: list[NodeHash]) -> bool:
    """Into the report, if all that answered did so at one index; whether they did."""
    answers = _answered(nodes)
    if len({node.index for node in answers}) != 1:
        return False
    report.nodes, report.index = nodes, answers[0].index
    report.differing = {}
    agreed = _majority(node.total for node in answers)
    report.diverged = [node.node_id for node in answers if node.total != agreed]
    if not report.diverged:
        return True
    named = [node for node in answers if node.tables]
    for table in sorted({name for node in named for name in node.tables}):
        common = _majority(node.tables.get(table, "") for node in named)
        wrong = [node.node_id for node in named if node.tables.get(table, "") != common]
        if wrong:
            report.differing[table] = wrong
    return True


def _majority(values: Iterable[str]) -> str | None:
    """The value that more than half have."""
    found = list(values)
    for value in dict.fromkeys(found):
        if found.count(value) * 2 > len(found):
            return value
    return None
