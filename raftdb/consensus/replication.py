"""The leader's sending: pipelined, bounded by bytes, driven by events (rows 3, 8 and 18)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from raftdb.base.errors import ProtocolError
from raftdb.base.limits import Limits
from raftdb.base.ports import Log
from raftdb.consensus.log import DurableLog
from raftdb.consensus.messages import (
    APPEND_ENTRIES_MAX,
    Ack,
    Append,
    CopyNeeded,
    Directory,
    Message,
)
from raftdb.consensus.seams import Library
from raftdb.consensus.wall import Wall


class Progress:
    """How far one follower is, beside what the library keeps (next and match index)."""

    __slots__ = (
        "generation",
        "inflight",
        "inflight_bytes",
        "lacks",
        "probing",
        "sequence",
        "stalled",
    )

    def __init__(self) -> None:
        self.sequence = 0
        """Of the last Append sent to it."""
        self.generation = 0
        """`sequence` at the last rewind: refusals of older messages are stale (row 8)."""
        self.inflight: deque[tuple[int, int, int]] = deque()
        """(sequence, bytes, first index) of what is not answered yet."""
        self.inflight_bytes = 0
        self.probing = True
        """Where the logs match is not known yet: one message at a time."""
        self.stalled = False
        """The last refusal brought nothing new: wait for a heartbeat before trying again."""
        self.lacks = False
        """It needs entries that this log does not have any more: a copy has to help (row 13)."""

    def rewind(self) -> None:
        """What is in flight does not count any more."""
        self.generation = self.sequence
        self.inflight.clear()
        self.inflight_bytes = 0
        self.probing = True

    def answered(self, sequence: int) -> int:
        """Answers come in order, so everything sent up to `sequence` has arrived. Returns the
        first index of the newest of these messages, 0 when none was waiting."""
        first_index = 0
        while self.inflight and self.inflight[0][0] <= sequence:
            _sequence, size, first_index = self.inflight.popleft()
            self.inflight_bytes -= size
        return first_index


class Replicator:
    """Sends what followers lack. `send` takes (peer, message)."""

    def __init__(
        self,
        *,
        library: Library,
        log: DurableLog,
        wall: Wall,
        limits: Limits,
        log_port: Log,
        connected: Callable[[str], bool],
        send: Callable[[str, Message], None],
        directory: Callable[[], Directory],
    ) -> None:
        self._library = library
        self._log = log
        self._wall = wall
        self._limits = limits
        self._log_port = log_port
        self._connected = connected
        self._send = send
        self._directory = directory
        self._progress: dict[str, Progress] = {}
        self._sequence = 0
        """Of the last Append made, for whomever; never starts over while the engine runs."""
        self._last_made: Append | None = None

    def set_peers(self, peers: Sequence[str], *, leads: bool) -> None:
        """Who gets the log (row 19). One that is new is asked what it has."""
        before = self._progress
        self._progress = {peer: before.get(peer) or Progress() for peer in peers}
        if leads:
            for peer in peers:
                if peer not in before:
                    self.on_connected(peer)

    def begin_term(self) -> None:
        """This node leads now: nothing is known of anybody."""
        for progress in self._progress.values():
            progress.rewind()
            progress.stalled = progress.lacks = False
        self.replicate_all()

    def on_connected(self, peer: str) -> None:
        """A new connection: what was in flight may be lost, so ask what matches."""
        progress = self._progress[peer]
        progress.rewind()
        progress.stalled = False
        match = self._library.match_index(peer)
        if match:
            self._library.set_next_index(peer, match + 1)
        self._send_one(peer, progress)

    def forget(self, peer: str) -> None:
        """It has lost its log (row 22): ask anew what it has, from the end on."""
        library = self._library
        if peer not in self._progress:
            return
        library.set_match_index(peer, self._wall.still_has(library.match_index(peer)))
        library.set_next_index(peer, self._log.last_index + 1)
        self.on_connected(peer)

    def replicate_all(self) -> None:
        """Send to every follower what it may be sent."""
        for peer in self._progress:
            self.replicate(peer)

    def replicate(self, peer: str) -> None:
        """Send to one follower, within the window."""
        progress = self._progress[peer]
        if not self._connected(peer) or progress.stalled:
            return
        last, window = self._log.last_index, self._limits.append_inflight_bytes_max
        while self._library.next_index(peer) <= last:
            if progress.inflight and (progress.probing or progress.inflight_bytes >= window):
                return
            self._send_one(peer, progress)

    def retry(self, peer: str) -> None:
        """A heartbeat was answered: a follower that stalled gets another try."""
        progress = self._progress[peer]
        if progress.stalled:
            progress.stalled = False
            self._send_one(peer, progress)
        elif not progress.inflight:
            self.replicate(peer)

    def on_success(self, peer: str, ack: Ack) -> None:
        """Rows 3 and 6: the follower has everything up to ack.log_index on its disk."""
        library, progress = self._library, self._progress[peer]
        if ack.log_index > self._log.last_index or ack.sequence > progress.sequence:
            raise ProtocolError(f"{peer} acknowledges what was never sent")
        before = library.next_index(peer)
        self._deliver(peer, ack.log_index + 1, success=True)
        library.set_next_index(
            peer, self._wall.next_after_success(before, library.next_index(peer))
        )
        progress.answered(ack.sequence)
        if ack.sequence > progress.generation:
            progress.probing = False
            progress.stalled = progress.lacks = False
        self.replicate(peer)

    def on_reject(self, peer: str, ack: Ack) -> None:
        """Row 8: go back to the hint, and send at once."""
        library, progress = self._library, self._progress[peer]
        if not self._wall.reject_counts(ack.sequence, progress.generation):
            return
        refused = progress.answered(ack.sequence)
        match = library.match_index(peer)
        after = self._wall.next_after_reject(ack.log_index, match, self._log.last_index)
        self._deliver(peer, after, success=False)
        progress.rewind()
        first_index = self._log.first_index
        if after < first_index:
            self._tell_to_copy(peer, progress, after, first_index)
            return
        progress.lacks = False
        if after < refused:
            self._send_one(peer, progress)
            return
        progress.stalled = True
        self._log_port.warning(
            "replication_stalled", peer=peer, match_index=match, hint_index=ack.log_index
        )

    def _tell_to_copy(self, peer: str, progress: Progress, wanted: int, first_index: int) -> None:
        """What it needs was dropped here. It is told at heartbeats, until it can go on from the
        log; no entries are sent meanwhile."""
        if not progress.lacks:
            self._log_port.warning(
                "follower_needs_copy", peer=peer, next_index=wanted, first_index=first_index
            )
        progress.stalled = progress.lacks = True
        # It may have been away for so long, or be so new, that it knows nobody who is here.
        self._send(peer, self._directory())
        self._send(peer, CopyNeeded(self._library.term, first_index))

    def _deliver(self, peer: str, next_index: int, *, success: bool) -> None:
        self._library.deliver(
            peer,
            {
                "type": "next_node_idx",
                "next_node_idx": next_index,
                "reset": not success,
                "success": success,
            },
        )

    def _send_one(self, peer: str, progress: Progress) -> None:
        """One Append, empty when there is nothing to send."""
        if not self._connected(peer):
            return
        next_index = max(self._library.next_index(peer), self._log.first_index)
        if progress.lacks:
            message = self._probe(next_index)
        else:
            message = self._make(progress.sequence, next_index)
        size = sum([len(data) for _term, data in message.entries])
        progress.sequence = message.sequence
        progress.inflight.append((message.sequence, size, next_index))
        progress.inflight_bytes += size
        self._library.set_next_index(peer, next_index + len(message.entries))
        self._send(peer, message)

    def _probe(self, next_index: int) -> Append:
        """Asks whether the logs meet there, without entries."""
        self._sequence += 1
        prev = next_index - 1
        library = self._library
        return Append(
            library.term, self._sequence, prev, self._log.term_at(prev), library.commit_index, ()
        )

    def _make(self, sent: int, next_index: int) -> Append:
        """The Append that begins at `next_index`. Followers that are equally far get the very same
        message, so that it is made and encoded once; `sent` is the last one this follower got."""
        library, log, made = self._library, self._log, self._last_made
        last_index, commit = log.last_index, library.commit_index
        if (
            made is not None
            and made.sequence > sent
            and made.prev_index == next_index - 1
            and made.prev_index + len(made.entries) == last_index
            and (made.term, made.commit_index) == (library.term, commit)
        ):
            return made
        entries: tuple[tuple[int, bytes], ...] = ()
        if next_index <= last_index:
            last = min(last_index, next_index + APPEND_ENTRIES_MAX - 1)
            found = log.entries(next_index, last, self._limits.append_bytes_max)
            entries = tuple([(entry.term, entry.data) for entry in found])
        self._sequence += 1
        prev = next_index - 1
        made = Append(library.term, self._sequence, prev, log.term_at(prev), commit, entries)
        self._last_made = made
        return made
