"""Every path of the cluster as a toxiproxy proxy, and what can be done to it.

Of two nodes, one dials: connections from a to b go through the proxy `a-b`, whichever way the bytes
flow then. So what a says to b flows upstream through `a-b` and downstream through `b-a`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

UPSTREAM, DOWNSTREAM = "upstream", "downstream"
CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Toxic:
    """One of toxiproxy's, as its API takes it."""

    kind: str
    attributes: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(f"{name} {value}" for name, value in self.attributes)
        return f"{self.kind}({shown})"


BLOCK = Toxic("timeout", (("timeout", 0),))
"""Nothing gets through, and nobody is told: a black hole."""


def latency(ms: int, jitter_ms: int = 0) -> Toxic:
    """Delay of one direction."""
    return Toxic("latency", (("latency", ms), ("jitter", jitter_ms)))


class Links:
    """All proxies of a cluster."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._proxies: dict[tuple[str, str], Any] = {}
        self._put: set[tuple[tuple[str, str], str, str]] = set()
        """(proxy, stream, kind) of what is there now."""
        self.ports: dict[tuple[str, str], int] = {}
        """Where each proxy listens."""

    def make(self, source: str, target: str, listen: str, upstream: str) -> None:
        """The way from `source` (a node, or the clients) to a node; `listen`: HOST:PORT."""
        self._proxies[source, target] = self._api.create(
            upstream=upstream, name=f"{source}-{target}", listen=listen
        )
        self.ports[source, target] = int(listen.rpartition(":")[2])

    def put(self, source: str, target: str, toxic: Toxic) -> None:
        """On everything that `source` says to `target`."""
        for pair, stream in self._streams(source, target):
            key = (pair, stream, toxic.kind)
            if pair in self._proxies and key not in self._put:
                self._proxies[pair].add_toxic(
                    type=toxic.kind,
                    name=f"{toxic.kind}_{stream}",
                    stream=stream,
                    attributes=dict(toxic.attributes),
                )
                self._put.add(key)

    def take(self, source: str, target: str, kind: str) -> None:
        """Take that kind of toxic away again."""
        for pair, stream in self._streams(source, target):
            key = (pair, stream, kind)
            if key in self._put:
                self._proxies[pair].destroy_toxic(f"{kind}_{stream}")
                self._put.discard(key)

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Nothing gets from the first to the second of each pair."""
        for source, target in pairs:
            self.put(source, target, BLOCK)

    def mend(self, pairs: Iterable[tuple[str, str]]) -> None:
        """The same, taken back."""
        for source, target in pairs:
            self.take(source, target, BLOCK.kind)

    def heal(self) -> None:
        """Take everything away."""
        for pair, stream, kind in list(self._put):
            self._proxies[pair].destroy_toxic(f"{kind}_{stream}")
        self._put.clear()

    def _streams(self, source: str, target: str) -> list[tuple[tuple[str, str], str]]:
        return [((source, target), UPSTREAM), ((target, source), DOWNSTREAM)]


def both_ways(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each pair in both directions."""
    return [pair for one in pairs for pair in (one, (one[1], one[0]))]
