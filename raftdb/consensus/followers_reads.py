"""Linearizable reads at a follower: it asks the leader for the index (thesis 6.4).

One question is under way at a time, for all reads that came in before it left; those that come in
meanwhile share the next one. The leader confirms its leadership after it got the question, by a
round of heartbeats, so the index covers every write that was acknowledged before the question left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from raftdb.base.ids import Index
from raftdb.consensus.link import Links
from raftdb.consensus.messages import ReadIndex, ReadIndexIs
from raftdb.consensus.port import NotApplied, ReadOutcome, ReadReady
from raftdb.consensus.reads import ReadDone
from raftdb.consensus.waits import AppliedWaits


class _Question(NamedTuple):
    number: int
    leader: str
    epoch: int
    """Of the connection that it left by: when that was replaced it may be lost, or its answer."""
    asked_s: float
    dones: list[ReadDone]


class FollowersReads:
    """Reads wait here: first for a shared question, then for its answer, then for the machine."""

    def __init__(
        self,
        send: Callable[[str, ReadIndex], None],
        now_s: Callable[[], float],
        waits: AppliedWaits,
        resolve: Callable[[ReadDone, ReadOutcome], None],
    ) -> None:
        self._send = send
        self._now_s = now_s
        self._waits = waits
        self._resolve = resolve
        self._waiting: list[ReadDone] = []
        self._question: _Question | None = None
        self._numbers = 0
        self.count = 0
        """Reads without an index yet."""

    def add(self, done: ReadDone) -> None:
        """A read came in."""
        self._waiting.append(done)
        self.count += 1

    def step(self, leader: str | None, links: Links) -> None:
        """Ask, if reads wait and nothing is asked yet; ask again where the connection is a new
        one; give up what nobody will answer."""
        question = self._question
        if question is not None:
            asked = question.leader
            if asked != leader or not links.connected(asked):
                self._refuse(question.dones)
                self._question = question = None
            elif links.epoch(asked) != question.epoch:
                self._waiting = question.dones + self._waiting
                self._question = question = None
        if self._waiting and question is None:
            dones, self._waiting = self._waiting, []
            if leader is None or not links.connected(leader):
                self._refuse(dones)
                return
            self._numbers += 1
            epoch = links.epoch(leader)
            self._question = _Question(self._numbers, leader, epoch, self._now_s(), dones)
            self._send(leader, ReadIndex(self._numbers))

    def on_answer(self, peer: str, answer: ReadIndexIs) -> None:
        """The leader's answer; one to a question that was given up is overlooked."""
        question = self._question
        if question is None or question.number != answer.number or question.leader != peer:
            return
        self._question = None
        if not answer.known:
            self._refuse(question.dones)
            return
        self.count -= len(question.dones)
        ready = ReadReady(Index(answer.read_index), question.asked_s)
        for done in question.dones:
            self._waits.add(
                answer.read_index,
                lambda reason, done=done: self._resolve(  # type: ignore[misc]
                    done, NotApplied(reason) if reason else ready
                ),
            )

    def fail(self, reason: str) -> None:
        """The engine stops, or this node leads now: its clients ask again."""
        dones = self._question.dones if self._question is not None else []
        dones += self._waiting
        self._question, self._waiting = None, []
        self._refuse(dones, reason)

    def _refuse(self, dones: list[ReadDone], reason: str = "not_leader") -> None:
        self.count -= len(dones)
        for done in dones:
            self._resolve(done, NotApplied(reason))
