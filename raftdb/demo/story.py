"""The story: load, warm up, kill the leader, bring it back, kill the next one, bring it back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from raftdb.base.errors import Error, OperationalError
from raftdb.client import Connection
from raftdb.demo.ledger import Ledger
from raftdb.demo.processes import ProcessCluster
from raftdb.demo.report import Kill, Outcome
from raftdb.demo.screen import NodeView, Screen, View

START_S = 20.0
CATCH_UP_S = 20.0
POLL_S = 0.1
CAUGHT_UP_ENTRIES = 50
"""A node this close to the leader's applied index under load counts as caught up."""

ConnectTo = Callable[[str], Connection]


class Story:
    """Acts on the processes, and watches them as any client can."""

    def __init__(
        self,
        cluster: ProcessCluster,
        connect_to: ConnectTo,
        ledger: Ledger,
        view: View,
        screen: Screen,
        outcome: Outcome,
    ) -> None:
        self._cluster = cluster
        self._connect_to = connect_to
        self._ledger = ledger
        self._view = view
        self._screen = screen
        self._outcome = outcome
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._watchers = [
            threading.Thread(target=self._watch, args=(node,), daemon=True) for node in view.nodes
        ]

    def __enter__(self) -> Story:
        for watcher in self._watchers:
            watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for watcher in self._watchers:
            watcher.join(5.0)

    # ---- what is known

    def leader(self) -> NodeView | None:
        """Who leads: of those who say so, the one with the highest term."""
        leaders = [node for node in self._view.nodes if node.role == "leader"]
        return max(leaders, key=lambda node: node.term, default=None)

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Until the condition holds. Raises OperationalError after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise OperationalError(f"{what} did not happen within {timeout_s:g} s")
                self._cluster.require_running()
                self._changed.wait(min(left_s, 0.5))

    def until_led(self) -> None:
        """Wait for a first leader and for every node to be up."""
        self.wait(
            "a cluster with a leader",
            lambda: (
                self.leader() is not None
                and all(node.role in ("leader", "follower") for node in self._view.nodes)
            ),
            START_S,
        )

    # ---- what is done

    def run_load(self, seconds: float) -> None:
        """Let the load run, and refresh the figures."""
        end_s = time.monotonic() + seconds
        next_line_s = time.monotonic() + 2.0
        while (now_s := time.monotonic()) < end_s:
            self._refresh(now_s)
            if now_s >= next_line_s:
                self._screen.progress()
                next_line_s = now_s + 2.0
            self._stop.wait(POLL_S)

    def kill_leader(self, seconds: float) -> str:
        """SIGKILL the leader, let the load run on for `seconds`; returns who was killed."""
        leader = self.leader()
        if leader is None:
            raise OperationalError("nobody leads, so there is no leader to kill")
        victim = self._cluster.nodes[leader.node_id]
        moment_s = time.monotonic()
        victim.kill()
        leader.role = "down"
        self._screen.event(f"kill -9 {leader.node_id}, the leader of term {leader.term}")
        self.wait("a new leader", lambda: self._led_by_other(leader.node_id), START_S)
        successor = self.leader()
        assert successor is not None
        self._screen.event(
            f"{successor.node_id} leads term {successor.term},"
            f" {(time.monotonic() - moment_s) * 1000:.0f} ms after the kill"
        )
        self.run_load(seconds)
        silence_s = self._ledger.longest_silence_s(moment_s - 0.5, time.monotonic())
        self._outcome.kills.append(Kill(leader.node_id, silence_s, successor.node_id))
        self._screen.event(f"longest span without a commit: {silence_s * 1000:.0f} ms")
        return leader.node_id

    def bring_back(self, node_id: str) -> None:
        """Start the killed node, and wait until it has caught up under load."""
        self._cluster.nodes[node_id].start()
        self._screen.event(f"{node_id} is started again")
        begin_s = time.monotonic()
        self.wait(f"the return of {node_id}", lambda: self._has_caught_up(node_id), CATCH_UP_S)
        self._screen.event(f"{node_id} has caught up, after {time.monotonic() - begin_s:.1f} s")

    def _led_by_other(self, node_id: str) -> bool:
        leader = self.leader()
        return leader is not None and leader.node_id != node_id

    def _has_caught_up(self, node_id: str) -> bool:
        leader = self.leader()
        node = next(node for node in self._view.nodes if node.node_id == node_id)
        return (
            leader is not None
            and node.role == "follower"
            and node.applied_index >= leader.applied_index - CAUGHT_UP_ENTRIES
        )

    def _refresh(self, now_s: float) -> None:
        totals, view = self._ledger.totals(), self._view
        view.commits_per_s = float(self._ledger.commits_between(now_s - 1.0, now_s))
        view.acknowledged, view.reads = totals.acknowledged, totals.reads
        view.failed, view.longest_s = totals.failed, totals.longest_s

    # ---- watching

    def _watch(self, node: NodeView) -> None:
        """Ask one node how it is, again and again."""
        connection: Connection | None = None
        while not self._stop.is_set():
            try:
                connection = connection or self._connect_to(node.node_id)
                status = connection.status()
                self._seen(node, status)
            except Error:
                if connection is not None:
                    connection.close()
                    connection = None
                with self._changed:
                    node.role = "down"
            self._stop.wait(POLL_S)
        if connection is not None:
            connection.close()

    def _seen(self, node: NodeView, status: dict[str, Any]) -> None:
        with self._changed:
            node.role = str(status["role"])
            node.term = int(status["term"])
            node.applied_index = int(status["applied_index"])
            self._changed.notify_all()
