"""`raftdb start` with its file operations and promises recorded.

python -m tests.powerloss.node RECORD KILL_AFTER start --config …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from raftdb.cli.app import run as raftdb
from raftdb.consensus import Engine
from raftdb.consensus.messages import Ack, Message, RequestVote, Vote
from raftdb.embedded import assembly, foreground, process
from tests.powerloss.record import FileSink, Recorder, RecordingFiles, RecordingVfs
from tests.powerloss.story import NotedJournal


class NotedEngine(Engine):
    """The real engine; the record is told what leaves, what is applied, and what is answered."""

    recorder: Recorder

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        made: dict[int, tuple[Message, int]] = {}
        """What each message relied on when it was made, by its identity."""
        journal, gate, transport = parts["journal"], self._core.gate, self._transport
        hold, send = gate.pass_or_hold, transport.send

        def pass_or_hold(peer: str, epoch: int, message: Message) -> None:
            made[id(message)] = (message, journal.sequence())
            hold(peer, epoch, message)

        def noted_send(peer: str, message: Message) -> None:
            if isinstance(message, Vote | RequestVote | Ack):
                _, sequence = made.pop(id(message), (message, journal.sequence()))
                self.recorder.note("promise", sequence)
            send(peer, message)

        gate.pass_or_hold = pass_or_hold  # type: ignore[method-assign]
        transport.send = noted_send  # type: ignore[method-assign]

    def _on_applied(self, entry: Any, replies: Sequence[bytes]) -> None:
        self.recorder.note("applied", int(entry.index))
        for position, reply in enumerate(replies):
            self.recorder.note("acked", int(entry.index), position, bytes(reply))
        super()._on_applied(entry, replies)


class NotedAssembly(assembly.Assembly):
    """A node of noted parts."""

    journal_class = NotedJournal
    engine_class = NotedEngine


def main() -> int:
    """The exit code of `raftdb start`."""
    record, kill_after, *arguments = sys.argv[1:]
    recorder = Recorder(FileSink(record), int(kill_after))
    vfs = RecordingVfs(recorder)
    NotedJournal.recorder = NotedEngine.recorder = recorder
    process.RealFiles = partial(RecordingFiles, recorder)  # type: ignore[misc,assignment]
    foreground.Assembly = partial(NotedAssembly, vfs_base=vfs.name)  # type: ignore[misc,assignment]
    return raftdb(arguments)


if __name__ == "__main__":
    sys.exit(main())
