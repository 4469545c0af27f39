"""Connections and fork(): what was made before belongs to the parent alone.

A child has a copy of the session and of its next number. What both sent under one number would be
one write to the cluster: the second is answered with the first one's reply, and is never applied.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from raftdb.base.errors import InterfaceError


class Forkable(Protocol):
    """A connection, as far as a fork matters to it."""

    def forked(self) -> None:
        """This process is a child of the one that made it: it is of no use here."""


_made: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(connection: Forkable) -> None:
    """Have it told when it finds itself in a child."""
    _made.add(connection)


def of_the_parent() -> InterfaceError:
    """The error of a connection that was made before the fork."""
    return InterfaceError(
        "the connection was made before this process was forked, and is its parent's",
        code="forked",
        hint="connect in each process, after the fork",
    )


def _in_child() -> None:
    for connection in list(_made):
        connection.forked()
    _made.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
