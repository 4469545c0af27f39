"""What a long request costs, off the loop: it is read, and its values are looked at."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import raftdb.wire as wire
from raftdb.base.errors import Error
from raftdb.node import Replica


def prepared(replica: Replica, message: wire.Message, packed: bytes = b"") -> wire.Message:
    """The same, with its statements checked. From any thread. What is wrong with them is said when
    its turn comes. `packed`: an Execute's, as the log has them, if they came so."""
    if isinstance(message, wire.Execute | wire.Query):
        with suppress(Error):
            for_log = isinstance(message, wire.Execute)
            checked = replica.admission.checked(message.statements, for_log, packed)
            return replace(message, statements=checked)
    return message


def read_long(replica: Replica, body: bytes, values_max: int) -> wire.Message:
    """The message of a long body, prepared. From any thread. Raises RemoteProtocolError."""
    message = wire.decode(body, values_max)
    packed = wire.packed_statements(body) if isinstance(message, wire.Execute) else b""
    return prepared(replica, message, packed)
