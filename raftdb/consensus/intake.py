"""A follower that takes no new entries for a while, since it has no room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftdb.consensus.messages import Ack, Append

if TYPE_CHECKING:
    from raftdb.consensus.core import Core


class Intake:
    """Open, or closed: then an Append with something new is left unanswered, as if it were on its
    way still. The leader's window for this member fills, and the quorum is one of the others."""

    def __init__(self) -> None:
        self.open = True
        self._left_out: tuple[str, Append] | None = None
        """From whom, and the last one that was left unanswered."""

    def leaves_out(self, peer: str, message: Append) -> bool:
        """Whether nothing of this message is taken."""
        if not self.open:
            self._left_out = (peer, message)
        return not self.open

    def turn(self, is_open: bool, core: Core) -> None:
        """Close it; or open it again: the last message is refused now, which makes its sender go
        back to where this log ends (row 8)."""
        self.open = is_open
        left_out, self._left_out = self._left_out, None
        if is_open and left_out is not None and left_out[1].term == core.library.term:
            peer, message = left_out
            refusal = Ack(message.term, message.sequence, False, core.log.last_index + 1)
            core.gate.pass_or_hold(peer, core.links.epoch(peer), refusal)
