"""The floor of the reads: it answers over TLS, as many bytes as asked for."""

from __future__ import annotations

from pathlib import Path

from bench.echo import Echo
from bench.reads import run


def test_the_echo_is_measured_as_the_systems_are(tmp_path: Path) -> None:
    found = run([Echo.name], 1, 0.2, tmp_path, lambda line: None)
    assert [one.name for one in found] == ["TLS echo, 1 client", "TLS echo, 64 clients"]
    assert all(one.per_s > 0 and one.p50_ms > 0 for one in found)
