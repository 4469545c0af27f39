"""A reply that was to wait for N places leaves when the entry is on disk in N distinct ones: looked
up in the nodes' own journals, by paths of locations that this file cuts by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from raftdb.node.replica import Replica
from tests.sim.checkers.base import Broken, Checker

_PARTS = {"region": 1, "zone": 2}


class DurableInPlaces(Checker):
    """Watches the nodes' answers while `watching`."""

    def __init__(self) -> None:
        self.cluster: Any = None
        self._durable: dict[str, int] = {}
        """What each machine's journal had on disk when it was seen last: it only grows below the
        commit index."""
        self.seen = 0

    @contextmanager
    def watching(self, cluster: Any) -> Iterator[None]:
        """Have every answer of every node go through here."""
        self.cluster = cluster
        propose = Replica.propose_durably

        def watched(
            replica: Any,
            payload: Any,
            timeout_s: float,
            done: Any,
            durability: str,
            refuse: bool = True,
        ) -> None:
            def answered(answer: Any, error: Any) -> None:
                if answer is not None:
                    self._check(durability, answer.index)
                done(answer, error)

            propose(replica, payload, timeout_s, answered, durability, refuse)

        with mock.patch.object(Replica, "propose_durably", watched):
            yield

    def look(self) -> None:
        """Note what is on disk now."""
        for name, host in self.cluster.hosts.items():
            if host.node is not None:
                now = int(host.node.journal.durable_index)
                self._durable[name] = max(now, self._durable.get(name, 0))

    def _check(self, durability: str, index: int) -> None:
        count, level = _read(durability)
        if not count:
            return
        self.look()
        self.seen += 1
        parts = _PARTS[level]
        holding = {
            "/".join(str(host.config.location).split("/")[:parts])
            for name, host in self.cluster.hosts.items()
            if self._durable.get(name, 0) >= index
        }
        if len(holding) < count:
            raise Broken(
                "durable in places",
                f"{durability} acknowledged at {index}: on disk in {sorted(holding)} only",
            )


def _read(durability: str) -> tuple[int, str]:
    if not durability.startswith("locations="):
        return 0, ""
    count, _, level = durability.removeprefix("locations=").partition("@")
    return int(count), level or "region"
