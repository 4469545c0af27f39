"""What a seed draws: sizes, distances, timing, workloads, and its own mix of faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from raftdb.base.config import TimingConfig
from raftdb.base.limits import Limits
from tests.sim.faults import Plan, ordinary
from tests.sim.faults_members import KINDS as CHANGES
from tests.sim.faults_seldom import KINDS as SELDOM
from tests.sim.hosts import Sizes
from tests.sim.network import Weather

ROUND_TRIPS_S = {"rack": 0.001, "metro": 0.02, "continent": 0.1, "globe": 0.25}
SCALES = {"rack": 1.0, "metro": 1.0, "continent": 3.0, "globe": 6.0}
"""Timing is that of a LAN times this: as docs/configuration.md says for a WAN."""
DURATIONS_S = {"rack": (8, 16), "metro": (10, 25), "continent": (40, 100), "globe": (80, 240)}
CALM, CALM_CHANCE = 6, 0.12
LULL_CHANCE, LULLS_S = 0.25, (600, 1800)
"""In so many runs around the globe nobody does anything for so long, in their midst: sessions and
keys grow old, ticks are logged, and what looks around by itself does. Elsewhere heartbeats are more
frequent, and they are what it costs; so it is of three nodes, and shorter where there are more."""
OPERATIONS_MAX = 900
"""About so many a run has: where clients are many and quick, it is short."""
CROWD_CHANCE = 0.25
DURABLE_CHANCE = 0.3
"""That a client asks for more than the quorum, where there is more."""
THREADS_CHANCE = 0.25
"""In so many runs lanes are threads that stop in their midst."""
LOOKS_CHANCE = 0.15
"""In so many runs time is stolen from hosts, and writes look often whether they run too long."""
STRAYS_CHANCE = 0.15
"""In so many runs something writes into write-ahead logs that are in use."""
CHANGES_CHANCE = 0.3
"""In so many runs members come and go."""


@dataclass(frozen=True)
class Settings:
    """What a run is made of."""

    profile: str
    sizes: Sizes
    duration_s: float
    clients: int
    pause_s: float
    plan: Plan
    lull_s: float = 0.0
    """In the midst: no client asks for anything, and no fault begins."""

    @property
    def scale(self) -> float:
        """Durations are those of a LAN times this."""
        return SCALES[self.profile]

    @property
    def changes_members(self) -> bool:
        """Whether members may come and go."""
        return not CHANGES.keys().isdisjoint(self.plan.weights)

    @property
    def election_timeout_s(self) -> float:
        """The longest."""
        return self.sizes.timing.election_max_ms / 1000

    @property
    def work(self) -> float:
        """About how long a run takes, in no unit."""
        nodes, timing = len(self.sizes.places), self.sizes.timing
        turn_s = self.pause_s + ROUND_TRIPS_S[self.profile]
        operations = self.clients * self.duration_s / turn_s
        heartbeats = (self.duration_s + self.lull_s) * 1000 / timing.heartbeat_ms
        return nodes * (operations + 2 * heartbeats)


def draw_settings(seed: int, nodes: int | None = None, profile: str | None = None) -> Settings:
    """Each seed has its own mix of sizes and faults."""
    draw = random.Random(f"settings {seed}")
    drawn = draw.choice(("rack", "rack", "metro", "metro", "continent", "globe"))
    profile = profile or drawn
    scale = SCALES[profile]
    weights = {name: kind.weight for name, kind in ordinary().items() if draw.random() < 0.6}
    members = random.Random(f"members {seed}")
    if members.random() < CHANGES_CHANCE:
        weights |= {name: kind.weight for name, kind in CHANGES.items() if members.random() < 0.8}
    look_steps = _seldom(seed, weights)
    plan = Plan(
        every_s=draw.choice((0.4, 0.8, 2.0)) * scale,
        weights=weights or {"kill": 1.0},
        scale=scale,
    )
    count = nodes or draw.choice((3, 3, 3, 4, 5, 5, 7))
    sizes = Sizes(
        places=_places(draw, count),
        timing=_timing(draw, scale),
        limits=_limits(draw, far=scale > 1),
        wal_bytes=draw.choice((1, 40_000, 200_000, 8 << 20)),
        weather=Weather(
            round_trip_s=ROUND_TRIPS_S[profile],
            jitter=draw.choice((0.05, 0.3, 1.0)),
            slow_chance=draw.choice((0.0, 0.01, 0.05)),
            bytes_per_s=draw.choice((0.0, 0.0, 1e6, 2e5)),
        ),
        slow_apply_chance=draw.choice((0.0, 0.02, 0.5)),
        keep_bytes=random.Random(f"kept log {seed}").choice((1, 1, 10_000, 1 << 20)),
        between_chance=draw.choice((0.0, 0.02, 0.3)),
        patience_s=0.5 * scale,
        timeout_s=random.Random(f"timeout {seed}").choice((1.0, 2.0, 5.0)) * scale,
        look_steps=look_steps,
    )
    threads = random.Random(f"threads {seed}")
    if threads.random() < THREADS_CHANCE:
        job_chance, stop_chance = threads.choice((0.2, 1.0)), threads.choice((0.02, 0.2))
        sizes = replace(sizes, job_chance=job_chance, stop_chance=stop_chance)
    low, high = DURATIONS_S[profile]
    duration_s = draw.uniform(low, high)
    pause_s = draw.choice((0.05, 0.2, 0.5)) * scale
    calm = draw.random() < CALM_CHANCE and scale > 1
    if calm:
        # Long and calm: few faults, few clients, much that only time brings about. Only where
        # heartbeats are rare: they are what such a run costs.
        duration_s *= CALM
        plan.every_s *= CALM
        pause_s *= CALM
    clients = draw.choice((1, 3, 6))
    crowd = random.Random(f"crowd {seed}")
    if crowd.random() < CROWD_CHANCE:
        # Many in a hurry: entries of many requests, and much under way when something breaks.
        clients, pause_s = 10, crowd.choice((0.005, 0.03)) * scale
        plan.every_s /= 2
    lull, lull_s = random.Random(f"lull {seed}"), 0.0
    if profile == "globe" and not calm and lull.random() < LULL_CHANCE:
        lull_s = lull.uniform(*LULLS_S) * 3 / count
    turn_s = pause_s + ROUND_TRIPS_S[profile]
    return Settings(
        profile=profile,
        sizes=sizes,
        duration_s=min(duration_s, max(3.0 * scale, OPERATIONS_MAX * turn_s / clients)),
        clients=clients,
        pause_s=pause_s,
        plan=plan,
        lull_s=lull_s,
    )


def _seldom(seed: int, weights: dict[str, float]) -> int:
    """Adds faults that few runs have to the others. `Sizes.look_steps`."""
    draw = random.Random(f"seldom {seed}")
    look_steps = draw.choice((3, 10)) if draw.random() < LOOKS_CHANCE else 0
    if look_steps:
        weights["stolen-time"] = SELDOM["stolen-time"].weight
    if draw.random() < STRAYS_CHANCE:
        weights["stray-write"] = SELDOM["stray-write"].weight
    return look_steps


def draw_durability(seed: int, number: int, places: tuple[str, ...]) -> str:
    """What all writes of a client wait for; `` for the quorum, as most."""
    draw = random.Random(f"durability {seed} {number}")
    regions = len({place.partition("/")[0] for place in places})
    if regions < 2 or draw.random() > DURABLE_CHANCE:
        return ""
    return f"locations={draw.choice((2, min(3, regions), min(3, regions)))}"


def _places(draw: random.Random, count: int) -> tuple[str, ...]:
    """One place for all, a place each, or something between."""
    kind = draw.choice(("one", "each", "each", "pairs"))
    if kind == "one":
        return ("eu/a/r1",) * count
    if kind == "each":
        return tuple(f"region{number}/a/r1" for number in range(count))
    return tuple(f"region{number // 2}/a/r1" for number in range(count))


def _timing(draw: random.Random, scale: float) -> TimingConfig:
    return TimingConfig(
        election_min_ms=300.0 * scale,
        election_max_ms=600.0 * scale,
        heartbeat_ms=draw.choice((50.0, 100.0)) * scale,
        leader_timeout_ms=draw.choice((600.0, 900.0)) * scale,
        connect_timeout_ms=500.0 * scale,
        reconnect_ms=50.0 * scale,
    )


def _limits(draw: random.Random, *, far: bool) -> Limits:
    """Small ones, so that batches, parts, segments and windows end all the time."""
    return Limits(
        entry_bytes_max=draw.choice((400, 2000, 1 << 20)),
        entry_requests_max=draw.choice((1, 3, 64)),
        append_bytes_max=draw.choice((300, 2000, 65536)),
        append_inflight_bytes_max=draw.choice((50_000,) if far else (4000, 20_000, 1 << 20)),
        peer_part_bytes=draw.choice((1000, 65536) if far else (400, 1000, 65536)),
        journal_segment_bytes=draw.choice((2048, 8192, 1 << 20)),
        journal_cache_bytes_max=draw.choice((2000, 1 << 20)),
        readers_max=draw.choice((1, 2, 8)),
    )
