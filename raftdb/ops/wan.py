"""The lines between regions, as a toxiproxy server plays them: round-trip times, and cuts.

A proxy is named `FROM-TO-WHAT`, as in `virginia-ireland-n2-peer`: what stands in FROM reaches what
stands in TO through it (docker/wan.json). Half of a pair's round-trip time is added in each
direction. Server and API: https://github.com/Shopify/toxiproxy; the client library comes with the
extra `raftdb[chaos]`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftdb.base.errors import ConfigError, UnavailableError
from raftdb.base.ids import Address
from raftdb.base.ports import Clock
from raftdb.base.settings import nearest

API_TIMEOUT_S = 5.0
"""One call of toxiproxy's API."""
_RETRY_S = 0.25
_TOXICS = ("latency_upstream", "latency_downstream")


def _pairs(**rtt_ms: float) -> Mapping[frozenset[str], float]:
    return {frozenset(name.split("_")): ms for name, ms in rtt_ms.items()}


PROFILES: Mapping[str, Mapping[frozenset[str], float]] = {
    "none": {},
    "metro": _pairs(
        virginia_ireland=1.0, virginia_frankfurt=1.5, virginia_oregon=2.0, ireland_frankfurt=1.0,
        ireland_oregon=2.0, frankfurt_oregon=1.5, office_virginia=1.0, office_ireland=1.0,
        office_frankfurt=1.0, office_oregon=1.0,
    ),
    "transatlantic": _pairs(
        virginia_ireland=68.0, virginia_frankfurt=90.0, virginia_oregon=62.0,
        ireland_frankfurt=24.0, ireland_oregon=120.0, frankfurt_oregon=145.0,
        office_virginia=82.0, office_ireland=14.0, office_frankfurt=18.0, office_oregon=135.0,
        offsite_virginia=75.0, offsite_ireland=10.0, offsite_frankfurt=12.0, offsite_oregon=130.0,
        offsite_office=12.0,
    ),
    "planet": _pairs(
        virginia_ireland=240.0, virginia_frankfurt=250.0, virginia_oregon=200.0,
        ireland_frankfurt=230.0, ireland_oregon=260.0, frankfurt_oregon=270.0,
        office_virginia=120.0, office_ireland=120.0, office_frankfurt=120.0, office_oregon=120.0,
    ),
}  # fmt: skip
"""Round-trip times in milliseconds between two places, by profile; what is not named adds none.
`transatlantic` are times as cloud providers publish them between such regions; `metro` is three
data centres of one city; `planet` is worse than any pair of regions on Earth is today."""


@dataclass(frozen=True, slots=True)
class Line:
    """One direction of one service between two places."""

    name: str
    origin: str
    target: str
    service: str
    up: bool
    rtt_ms: float


class Wan:
    """What a toxiproxy server plays. Every call raises UnavailableError when it does not answer."""

    def __init__(self, api: Address) -> None:
        try:
            import toxiproxy
            from toxiproxy.api import APIConsumer
        except ImportError as error:
            raise ConfigError(
                "toxiproxy-python is not installed", hint="pip install 'raftdb[chaos]'"
            ) from error
        self._api = api
        self._calls = APIConsumer
        toxiproxy.Toxiproxy().update_api_consumer(api.host, api.port)

    def lines(self) -> list[Line]:
        """Every line, by name. Raises ConfigError when there is none that is named as here."""
        found = self._call("get", "/proxies")
        lines = [_line(name, facts) for name, facts in sorted(found.items()) if "-" in name]
        if not lines:
            raise ConfigError(
                f"the toxiproxy at {self._api} knows no line between places",
                hint="start it with -config docker/wan.json",
            )
        return lines

    def apply(self, profile: str) -> list[Line]:
        """Give every line the latency that `profile` has for its two places."""
        if profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}", hint=nearest(profile, [*PROFILES]))
        rtt_ms = PROFILES[profile]
        for line in self.lines():
            wanted = rtt_ms.get(frozenset((line.origin, line.target)), 0.0)
            for toxic in self._call("get", f"/proxies/{line.name}/toxics"):
                if toxic["name"] in _TOXICS:
                    self._call("delete", f"/proxies/{line.name}/toxics/{toxic['name']}")
            if wanted:
                for name in _TOXICS:
                    self._call("post", f"/proxies/{line.name}/toxics", _latency(name, wanted))
        return self.lines()

    def cut(self, place: str) -> list[Line]:
        """No line from or to `place` carries anything. Raises ConfigError for an unknown place."""
        return self._switch(place, up=False)

    def heal(self, place: str | None = None) -> list[Line]:
        """The lines of a place, or all, carry again."""
        return self._switch(place, up=True)

    def _switch(self, place: str | None, *, up: bool) -> list[Line]:
        lines = self.lines()
        places = sorted({line.origin for line in lines} | {line.target for line in lines})
        if place is not None and place not in places:
            raise ConfigError(
                f"there is no place {place!r}", hint=f"places are {', '.join(places)}"
            )
        for line in lines:
            if line.up != up and place in (None, line.origin, line.target):
                self._call("post", f"/proxies/{line.name}", {"enabled": up})
        return self.lines()

    def _call(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One call of the API; the library's own objects have no time-outs."""
        import requests

        arguments = {"timeout": API_TIMEOUT_S} | ({} if body is None else {"json": body})
        try:
            answer = getattr(self._calls, verb)(path, **arguments)
            answer.raise_for_status()
            return answer.json() if answer.content else None
        except (requests.RequestException, ValueError, OSError) as error:
            raise UnavailableError(
                f"the toxiproxy at {self._api} does not answer: {error}",
                hint="give its API's address with --api, or RAFTDB_WAN_API",
            ) from error


def open_wan(api: Address, wait_s: float, clock: Clock) -> tuple[Wan, list[Line]]:
    """The server, once it answers; it has `wait_s` seconds to begin to."""
    wan = Wan(api)
    give_up = clock.monotonic_s() + wait_s
    while True:
        try:
            return wan, wan.lines()
        except UnavailableError:
            if clock.monotonic_s() >= give_up:
                raise
            threading.Event().wait(_RETRY_S)


def places_of(lines: Sequence[Line]) -> list[str]:
    """All places that lines begin or end in."""
    return sorted({line.origin for line in lines} | {line.target for line in lines})


def _line(name: str, facts: Mapping[str, Any]) -> Line:
    origin, target, *rest = name.split("-")
    rtt_ms = sum(
        toxic["attributes"]["latency"]
        for toxic in facts.get("toxics", [])
        if toxic["name"] in _TOXICS
    )
    return Line(name, origin, target, "-".join(rest), bool(facts["enabled"]), float(rtt_ms))


def _latency(name: str, rtt_ms: float) -> dict[str, Any]:
    """A tenth of it is jitter, as on real lines on a bad day. Toxiproxy counts whole milliseconds:
    the odd one goes upstream."""
    whole = round(rtt_ms)
    half = whole // 2 + (whole % 2 if name == "latency_upstream" else 0)
    return {
        "name": name,
        "type": "latency",
        "stream": name.removeprefix("latency_"),
        "toxicity": 1.0,
        "attributes": {"latency": half, "jitter": half // 20},
    }
