"""docs/figures.md says what bench/results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import rows
from bench.document import PATH, document, recorded

WRITTEN = "run `python -m bench figures`, and look at what changed"


def test_the_page_fits_the_recorded_results() -> None:
    assert PATH.read_text("utf-8") == document(recorded()), WRITTEN


def result(date: str, **changed: Any) -> dict[str, Any]:
    machine = {"cores": 2, "cpu": "a processor", "load_average": [0.1, 0.2, 0.3]}
    far = {"round_trip_ms": 20, "proxied_ms": 20.5, "commits": 9, "p50_ms": 24.0, "over_ms": 3.5}
    return {
        "benchmark": "wan",
        "date": date,
        "commit": "c" * 40,
        "changed": False,
        "machine": machine,
        "quick": False,
        "settings": {},
        "distances": [far],
        **changed,
    }


def test_the_newest_counts_and_quick_looks_and_other_benchmarks_do_not(tmp_path: Path) -> None:
    near = {"round_trip_ms": 20, "proxied_ms": 20.5, "commits": 9, "p50_ms": 22.0, "over_ms": 1.5}
    for name, one in {
        "a": result("2026-01-02", distances=[near]),
        "b": result("2026-01-01"),
        "c": result("2026-01-03", quick=True),
        "d": result("2026-01-03", benchmark="commits"),
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    found = recorded(tmp_path)
    assert [one["file"] for one in found] == ["a.json"]
    text = document(found)
    assert "1.5 more than 20.5" in text
    assert "| met |" in text
    assert text.count("Not recorded yet.") == len(rows.JUDGES) - 1
    assert "**missed**" in document(recorded_of(tmp_path, result("2026-01-04")))


def recorded_of(place: Path, one: dict[str, Any]) -> list[dict[str, Any]]:
    (place / "e.json").write_text(json.dumps(one))
    return recorded(place)
