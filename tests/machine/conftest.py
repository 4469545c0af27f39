from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.support import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An open database with one session."""
    made = Database(tmp_path / "database")
    yield made
    made.close()
