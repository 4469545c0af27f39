"""No promise leaves before its bytes are on the device: looked up in the simulated disk's journal,
not in what the engine believes."""

from __future__ import annotations

from typing import Any

from raftdb.consensus.messages import Ack, RequestVote, Vote
from tests.sim.checkers.base import Broken, Checker, NodeView


class PromiseDurable(Checker):
    hears = (Vote, RequestVote, Ack)

    def on_send(self, node: NodeView, message: Any) -> None:
        journal = node.journal
        if isinstance(message, Vote | RequestVote):
            disk = journal._disk_hard_state
            if disk.term < message.term:
                raise Broken(
                    "promise durable",
                    f"{node.name} sends {message}, its disk has term {disk.term}",
                )
            if disk.term == message.term and disk.vote is None:
                raise Broken("promise durable", f"{node.name} sends {message} without a vote")
        elif (
            isinstance(message, Ack)
            and message.success
            and message.term == node.term
            and message.log_index > journal.durable_index
        ):
            raise Broken(
                "promise durable",
                f"{node.name} acknowledges {message.log_index}, its disk has "
                f"{journal.durable_index}",
            )
