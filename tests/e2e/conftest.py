"""One cluster for the tests of a module that only use it; tests that break one make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three running nodes."""
    with running_cluster(tmp_path_factory.mktemp("cluster") / "c") as made:
        yield made
