"""Errors while something new is made: what it was to be is nobody's yet, so nothing is broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raftdb.base.errors import ConfigError, FatalError

__all__ = ["making"]

_OF_THE_DISK = ("database_failed", "journal_io")
"""As a running node has them: there they end it, since a write may be lost."""


@contextmanager
def making() -> Iterator[None]:
    """Where the disk is full or refuses, raises ConfigError (code `not_made`)."""
    try:
        yield
    except FatalError as error:
        if error.code not in _OF_THE_DISK:
            raise
        raise ConfigError(
            error.message,
            code="not_made",
            hint="see that the disk has room and that this user may write there, then run the same "
            "command again",
        ) from error
