"""A linearizable read is answered when a majority has answered a heartbeat that left after the read
came in, and from behind everything that was committed anywhere by then (row 10, thesis 6.4). Looked
at for every read, so that it needs no luck: no deposed leader, no reply that comes late. And how
fresh a node takes itself to be by it, is true (rule R1)."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from raftdb.consensus.messages import HeartbeatAck
from tests.sim.checkers.base import Broken, Checker


class ReadsConfirmed(Checker):
    hears = (HeartbeatAck,)

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, int], int] = {}
        """(member, term) to the newest heartbeat that it has answered there."""
        self._committed = 0
        """By anybody, so far."""
        self._times_s: list[float] = []
        self._commits: list[int] = []
        """When that moved, and to what."""

    def after_event(self, node: Any) -> None:
        if node.commit_index > self._committed:
            self._committed = node.commit_index
            self._times_s.append(node.now_s())
            self._commits.append(self._committed)

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, HeartbeatAck):
            self._rounds[node.name, message.term] = message.round

    def on_asked(self, node: Any) -> Any:
        return self._committed

    def on_round_asked(self, node: Any) -> Any:
        core = node.engine._core
        return node.term, core.round, _voters(core)

    def on_answer(self, node: Any, asked: Any, index: int) -> None:
        if index < asked:
            raise Broken(
                "reads are confirmed",
                f"{node.name} answers a read from {index}, {asked} was committed before it came",
            )
        if index > node.applied_index:
            raise Broken(
                "reads are confirmed",
                f"{node.name} answers a read from {index}, it has applied {node.applied_index}",
            )

    def on_fresh(self, node: Any, since_s: float) -> None:
        place = bisect_left(self._times_s, since_s)
        if place and self._commits[place - 1] > node.applied_index:
            raise Broken(
                "fresh as it says",
                f"{node.name} says that it has what was committed before {since_s:.4f}, and has "
                f"applied {node.applied_index}: {self._commits[place - 1]} was committed then",
            )

    def on_round(self, node: Any, asked: Any, index: int) -> None:
        term, before, *_voters_then = asked
        core = node.engine._core
        came = core._rounds_acked
        # It may have been confirmed before the members changed, and have waited for its index.
        for others, is_voter in (_voters(core), *_voters_then):
            heard = is_voter + sum(
                # It left there, and came here.
                min(self._rounds.get((str(peer), term), 0), came.get(peer, 0)) > before
                for peer in others
            )
            members = is_voter + len(others)
            if heard > members // 2:
                return
        raise Broken(
            "reads are confirmed",
            f"{node.name} answers a read in term {term}: of {members} members {heard} have "
            f"answered a heartbeat after {before}, the last one before the read",
        )


def _voters(core: Any) -> tuple[tuple[Any, ...], bool]:
    """The others that count here now, and whether this node does."""
    return tuple(core.electorate.voters), bool(core.electorate.is_voter)
