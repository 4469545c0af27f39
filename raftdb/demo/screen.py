"""What the demo shows: a live panel on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

EVENTS_SHOWN = 14


@dataclass(slots=True)
class NodeView:
    """What is shown of one node."""

    node_id: str
    location: str
    role: str = "starting"
    term: int = 0
    applied_index: int = 0


@dataclass(slots=True)
class View:
    """All that the panel shows; the story writes it, the screen reads it."""

    nodes: list[NodeView] = field(default_factory=list)
    commits_per_s: float = 0.0
    acknowledged: int = 0
    reads: int = 0
    failed: int = 0
    longest_s: float = 0.0
    phase: str = ""


class Screen:
    """Shows a View. Everything goes to stderr: stdout belongs to the result."""

    def __init__(self, view: View, quiet: bool = False) -> None:
        self._view = view
        self._console = Console(stderr=True, quiet=quiet)
        self._events: list[tuple[float, str]] = []
        self._start_s = time.monotonic()
        self._live: Live | None = None
        if sys.stderr.isatty() and not quiet:
            self._live = Live(
                console=self._console,
                refresh_per_second=8,
                transient=True,
                get_renderable=self._panel,
            )

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            for moment_s, text in self._events:
                self._console.print(f"{moment_s:6.1f} s  {text}", highlight=False)

    def event(self, text: str) -> None:
        """Something happened that a person wants to know."""
        moment_s = time.monotonic() - self._start_s
        self._events.append((moment_s, text))
        if self._live is None:
            self._console.print(f"{moment_s:6.1f} s  {text}", highlight=False)

    def progress(self) -> None:
        """Without a live panel, a line now and then; with one, nothing."""
        if self._live is None:
            view = self._view
            leader = next((node.node_id for node in view.nodes if node.role == "leader"), "-")
            self.event(
                f"leader {leader}, {view.commits_per_s:.0f} commits/s, longest pause"
                f" {view.longest_s * 1000:.0f} ms, failed requests {view.failed}"
            )

    def _panel(self) -> Panel:
        view = self._view
        nodes = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("node", "location", "role", "term", "applied"):
            nodes.add_column(title)
        for node in view.nodes:
            style = {"leader": "bold green", "down": "bold red"}.get(node.role, "")
            nodes.add_row(
                node.node_id,
                node.location,
                Text(node.role, style),
                str(node.term),
                f"{node.applied_index:,}",
            )
        failed_style = "red" if view.failed else "green"
        figures = Text.assemble(
            f"{view.commits_per_s:,.0f} commits/s   {view.acknowledged:,} rows acknowledged   "
            f"{view.reads:,} reads   longest pause {view.longest_s * 1000:,.0f} ms   ",
            (f"{view.failed} failed requests", failed_style),
        )
        events = Text("\n".join(f"{s:6.1f} s  {text}" for s, text in self._events[-EVENTS_SHOWN:]))
        body = Group(nodes, Text(""), figures, Text(""), events)
        return Panel(body, title=f"raftdb demo: {view.phase}")
