"""What a long request costs, off the loop: its values are looked at and packed for the log."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import raftdb.wire as wire
from raftdb.base.errors import Error
from raftdb.node import Replica


def prepared(replica: Replica, message: wire.Message) -> wire.Message:
    """The same, with its statements checked. From any thread. What is wrong with them is said when
    its turn comes."""
    if isinstance(message, wire.Execute | wire.Query):
        with suppress(Error):
            for_log = isinstance(message, wire.Execute)
            checked = replica.admission.checked(message.statements, for_log)
            return replace(message, statements=checked)
    return message
