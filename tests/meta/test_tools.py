"""The linters are part of the tests: what they would say in CI fails here first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.source import ROOT

BIN = Path(sys.executable).parent
TOOLS = {
    "ruff": [str(BIN / "ruff"), "check", "."],
    "ruff format": [str(BIN / "ruff"), "format", "--check", "."],
    "mypy": [str(BIN / "mypy")],
    "import contracts": [str(BIN / "lint-imports")],
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TOOLS)
def test_is_clean(name: str) -> None:
    done = subprocess.run(
        TOOLS[name], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, f"{name}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
