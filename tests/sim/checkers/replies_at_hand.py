"""Who applied a request has its reply for whoever waits, however the entry was cut into
transactions; gone are those alone that were applied before the process began (rule M1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftdb.command import ResultDropped, encode_reply
from tests.sim.checkers.base import Broken, Checker

GONE = encode_reply(ResultDropped(0))


class RepliesAtHand(Checker):
    def on_replies(self, node: Any, entries: Sequence[Any], replies: list[list[bytes]]) -> None:
        begun = node.machine.begun
        for entry, made in zip(entries, replies, strict=False):
            before = begun.position if entry.index == begun.index + 1 else 0
            if GONE in made[before:]:
                raise Broken(
                    "replies are at hand",
                    f"{node.name} has applied request {made.index(GONE, before)} of entry "
                    f"{entry.index} itself, and says that the result is gone",
                )
