"""What one drill found, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raftdb.drill.load import Write
from raftdb.drill.objectives import Objective

MET, MISSED, BROKEN, NOT_RUN = "met", "missed", "broken", "not run"
BUCKET_S = 0.1
TIMELINE_MAX = 6_000
"""Buckets in a report: ten minutes."""


@dataclass(slots=True)
class Phase:
    """A moment of the drill, for the timeline."""

    at_s: float
    """Seconds from the beginning of the load."""
    name: str


@dataclass(slots=True)
class Check:
    """Something that has to be true."""

    name: str
    ok: bool
    found: str = ""


@dataclass(slots=True)
class Bucket:
    """A tenth of a second of the timeline."""

    at_s: float
    commits: int = 0
    latency_max_ms: float = 0.0


@dataclass(slots=True)
class Result:
    """One drill. Seconds; None: not measured in this scenario, or it never came."""

    scenario: str
    started: str
    """ISO 8601, UTC."""
    nodes: int
    acknowledged: int = 0
    failed_tries: int = 0
    rpo_writes: int | None = 0
    """None: there was no load, with the archive of a real cluster."""
    rpo_s: float | None = 0.0
    rto_s: float | None = None
    full_s: float | None = None
    silence_s: float = 0.0
    phases: list[Phase] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    timeline: list[Bucket] = field(default_factory=list)
    disaster_at_s: float | None = None
    """When it struck, from the beginning of the load."""
    error: str = ""
    """The drill could not be carried to its end."""
    not_run: str = ""
    """Why it could not begin here, where others could."""
    objective: Objective = field(default_factory=Objective)

    def check(self, name: str, ok: bool, found: str = "") -> None:
        """Note whether something is true."""
        self.checks.append(Check(name, ok, found))

    @property
    def broken(self) -> list[str]:
        """What is not true and must be, in words."""
        found = [f"{one.name}: {one.found}" for one in self.checks if not one.ok]
        return [self.error, *found] if self.error else found

    @property
    def missed(self) -> list[str]:
        """Objectives that were missed, in words."""
        found: list[str] = []
        if self.not_run:
            return found
        for name, unit in (("rpo_writes", ""), ("rpo_s", " s"), ("rto_s", " s"), ("full_s", " s")):
            bound, got = getattr(self.objective, name), getattr(self, name)
            if bound is None:
                continue
            if got is None:
                found.append(f"{name}: never, the objective is {bound:g}{unit}")
            elif got > bound:
                found.append(f"{name}: {got:g}{unit}, the objective is {bound:g}{unit}")
        return found

    @property
    def verdict(self) -> str:
        """`met`, `missed` (an objective), `broken` (a promise) or `not run`."""
        if self.not_run:
            return NOT_RUN
        return BROKEN if self.broken else MISSED if self.missed else MET

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Result:
        """What `as_dict` gave, without the objective."""
        names = [
            *("scenario", "started", "nodes", "acknowledged", "failed_tries", "rpo_writes"),
            *("rpo_s", "rto_s", "full_s", "silence_s", "facts", "error", "disaster_at_s"),
        ]
        return cls(
            **{name: found[name] for name in names},
            phases=[Phase(**one) for one in found["phases"]],
            checks=[Check(**one) for one in found["checks"]],
            timeline=[Bucket(*one) for one in found.get("timeline", [])],
        )

    def as_dict(self, *, timeline: bool = True) -> dict[str, Any]:
        """Plain values."""
        return {
            "scenario": self.scenario,
            "started": self.started,
            "verdict": self.verdict,
            "missed": self.missed,
            "broken": self.broken,
            "not_run": self.not_run,
            "nodes": self.nodes,
            "acknowledged": self.acknowledged,
            "failed_tries": self.failed_tries,
            "rpo_writes": self.rpo_writes,
            "rpo_s": _rounded(self.rpo_s),
            "rto_s": _rounded(self.rto_s),
            "full_s": _rounded(self.full_s),
            "silence_s": _rounded(self.silence_s),
            "disaster_at_s": _rounded(self.disaster_at_s),
            "error": self.error,
            "objective": self.objective.as_dict(),
            "checks": [{"name": one.name, "ok": one.ok, "found": one.found} for one in self.checks],
            "facts": self.facts,
            "phases": [{"at_s": _rounded(one.at_s), "name": one.name} for one in self.phases],
            **({"timeline": [_bucket(one) for one in self.timeline]} if timeline else {}),
        }


def timeline(writes: Sequence[Write], begin_s: float, end_s: float) -> list[Bucket]:
    """Commits and latency in each tenth of a second, by the moment of acknowledgement."""
    count = min(int((end_s - begin_s) / BUCKET_S) + 1, TIMELINE_MAX)
    buckets = [Bucket(number * BUCKET_S) for number in range(count)]
    for write in writes:
        if write.acknowledged_s is None:
            continue
        place = int((write.acknowledged_s - begin_s) / BUCKET_S)
        if 0 <= place < count:
            bucket = buckets[place]
            bucket.commits += 1
            bucket.latency_max_ms = max(bucket.latency_max_ms, write.latency_s * 1000)
    return buckets


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _bucket(bucket: Bucket) -> list[float]:
    return [round(bucket.at_s, 1), bucket.commits, round(bucket.latency_max_ms, 1)]
