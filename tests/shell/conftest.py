"""A shell on a fake connection, and what it wrote."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from raftdb.runtime import RealClock
from raftdb.shell import Settings, Shell
from tests.shell.fake import FakeConnection


class Bench:
    """A shell under test."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        self.output = io.StringIO(newline="")
        self.messages = io.StringIO()
        self.settings = Settings()
        self.shell = Shell(self.connection, self.output, self.messages, RealClock(), self.settings)

    def run(self, text: str, source: str = "test.sql") -> str:
        """Run a script; returns what it wrote as data just now."""
        before = len(self.output.getvalue())
        self.shell.run(io.StringIO(text, newline="\n"), source)
        return self.output.getvalue()[before:]

    @property
    def said(self) -> str:
        """All messages so far."""
        return self.messages.getvalue()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.connection.close()
