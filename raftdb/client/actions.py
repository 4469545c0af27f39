"""What the core asks of whoever drives it: five small values, and the link that they speak of.

The core is made of generators. It yields an action, is sent the action's result, and in the end
returns. It never opens, waits or sleeps by itself, so the blocking driver, an event loop and a
simulation run the same code:

    Dial(address, until_s)       -> Link        a connection, TLS included; no hello yet
    Transmit(link, messages, until_s, stall_s)
                                 -> None        all of them, in order, in one piece if possible;
                                                fails when nothing moves for `stall_s`
    Await(link, until_s)         -> [Message]   what came; [] when `until_s` passed first
    Drop(link)                   -> None        close it; never fails
    Pause(until_s)               -> None

Dial, Transmit and Await fail by LinkError, thrown into the generator. Times are those of the Clock
that the core was given.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from raftdb.base.errors import Error
from raftdb.base.frozen import frozen
from raftdb.base.ids import Address
from raftdb.wire import Hello, Request


class LinkError(Exception):
    """A connection could not be made, or is gone. What was sent may have arrived or not."""

    def __init__(
        self,
        reason: str,
        cause: Error | None = None,
        *,
        silent: bool = False,
        unsent: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cause = cause
        """Set when trying again would not help: a refused certificate, another cluster."""
        self.silent = silent
        """Nothing came back, not even a refusal: trying again costs as much time again."""
        self.unsent = unsent
        """From Transmit: the connection was gone before the first byte, so nothing arrived."""
        self.refused = refused
        """From Dial: nobody listens there, or there is no way there."""


class Link:
    """One connection as the core sees it. Drivers derive from it."""

    node_id: str = ""
    """Whom the other end's certificate names; `` where there is none."""
    cluster_id: str = ""

    def abandon(self) -> None:
        """In the child of a fork: close this process's end, and tell nobody."""


@frozen
class Dial:
    """Connect."""

    address: Address
    until_s: float


@frozen
class Transmit:
    """Send."""

    link: Link
    messages: Sequence[Hello | Request]
    until_s: float
    stall_s: float


@frozen
class Await:
    """Receive."""

    link: Link
    until_s: float


@frozen
class Drop:
    """Close."""

    link: Link


@frozen
class Pause:
    """Wait."""

    until_s: float


Action = Dial | Transmit | Await | Drop | Pause

_Value = TypeVar("_Value")
Steps = Generator[Action, Any, _Value]
"""A generator of actions that returns a value."""
