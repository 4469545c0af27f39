"""Whose fault it was.

base.ProtocolError
├── LocalProtocolError    this program asked `send` for something the protocol forbids: a bug here
└── RemoteProtocolError   the bytes that came in are not the protocol: close the connection
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raftdb.base.errors import ProtocolError

if TYPE_CHECKING:
    from raftdb.wire.messages import Message


class LocalProtocolError(ProtocolError):
    """`send` was asked for what the protocol does not allow now. The connection is unharmed."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol. Nothing more can be received on this connection."""

    messages: Sequence[Message] = ()
    """Good messages that stood ahead of the fault in the same bytes."""
