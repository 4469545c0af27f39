"""One S3 server for all tests of the archive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.archive.s3 import s3_endpoint


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with s3_endpoint() as address:
        yield address
