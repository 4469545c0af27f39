"""The floor of the reads: it answers over TLS, as many bytes as asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import echo
from bench.errors import BenchError
from bench.reads import run


def test_the_echo_is_measured_as_the_systems_are(tmp_path: Path) -> None:
    found = run([echo.Echo.name], 1, 0.2, tmp_path, lambda line: None)
    assert [one.name for one in found] == ["TLS echo, 1 client", "TLS echo, 64 clients"]
    assert all(one.per_s > 0 and one.p50_ms > 0 for one in found)


def test_an_echo_that_cannot_listen_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "free_ports", lambda count: [1 << 17])
    with pytest.raises(BenchError, match="echo"):
        run([echo.Echo.name], 1, 0.2, tmp_path, lambda line: None)
