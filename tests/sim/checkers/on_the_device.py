"""What a promise rests on is on the device: no file of the journal has bytes or a name that a power
cut could still take when an acknowledgement, a vote or a request for votes leaves; and a start
trusts no write-ahead log of the database that is in the page cache alone. It asks the simulated
disk, not the journal."""

from __future__ import annotations

import posixpath
from typing import Any

from raftdb.consensus.messages import Ack, RequestVote, Vote
from tests.sim.checkers.base import Broken, Checker


class OnTheDevice(Checker):
    hears = (Vote, RequestVote, Ack)

    def on_started(self, node: Any) -> None:
        directory = posixpath.dirname(str(node.machine.path))
        dirty = node.journal._files.unsynced(directory)
        found = [what for what in dirty if what.startswith("bytes") and what.endswith("-wal")]
        if found and not node.machine.absent:
            raise Broken(
                "promise on the device",
                f"{node.name} starts with a database of which a power cut could take {found[0]}",
            )

    def on_send(self, node: Any, message: Any) -> None:
        if isinstance(message, Vote | RequestVote) or (
            isinstance(message, Ack) and message.success
        ):
            journal = node.journal
            dirty = journal._files.unsynced(journal._directory)
            if dirty:
                raise Broken(
                    "promise on the device",
                    f"{node.name} sends {message}, a power cut could still take {dirty[0]}",
                )
