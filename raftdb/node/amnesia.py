"""A node that has lost the end of its log, and with it what it had promised (row 22).

It does not know for whom it voted, nor what it acknowledged. So it takes no part, and asks to be
relieved of its vote: the leader makes it a learner, by a configuration like any other, and says
so when that is committed. From then on nothing rests on what was lost: a copy of the database that
is no older makes it a learner like a new one, and once it has caught up it is made a voter again.
`consensus/DESIGN.md` has the argument.

Both sides talk by notes: who has forgotten asks everybody, and whoever leads answers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raftdb.base.amnesia import Amnesia, remove_amnesia, write_amnesia
from raftdb.base.errors import FatalError
from raftdb.base.ids import NodeId
from raftdb.base.ports import Ports
from raftdb.consensus.membership import VOTER, Demote, Promote
from raftdb.consensus.port import Changed, ChangeOutcome, EnginePort, EngineStatus, ReadReady

MARK = b"F"
"""A note that begins so is one of these."""
NONCE_BYTES = 8
ASK_EVERY_S = 1.0
HEARD_S = 5 * ASK_EVERY_S
"""A member that asked so lately has forgotten too."""
EVERYWHERE_S = 10.0
"""So many have forgotten for this long that nobody can lead: then this node gives up."""
STEADY = 3
"""So often in a row it must be seen to be a voter, before the note of its loss goes."""
SAY_EVERY_S = 60.0
LANE = "checkpoint"
_RELIEVE, _RELIEVED, _PROMOTE = 1, 2, 3
_HEAD = struct.Struct(f">cB{NONCE_BYTES}sQ")


class Forgetful:
    """Of one node that asks: to be relieved of its vote, and, when it is whole, to be given it
    again. Belongs to the loop."""

    def __init__(
        self,
        *,
        memory: Amnesia,
        lost: bool,
        data_dir: str,
        engine: EnginePort,
        ports: Ports,
        relieved: Callable[[int], None],
        give_up: Callable[[BaseException], None],
    ) -> None:
        """`lost`: as opposed to whole again. `relieved` is called once, with the lowest index of
        which a copy of the database is of use."""
        self.memory = memory
        self.lost = lost
        self._data_dir = data_dir
        self._engine = engine
        self._ports = ports
        self._relieved = relieved
        self._give_up = give_up
        self._nonce = ports.random.randbytes(NONCE_BYTES)
        """Answers to an earlier life of this node do not count."""
        self._timer: Any = None
        self._others_s: dict[str, float] = {}
        """When others were heard that have forgotten as well."""
        self._too_many_s: float | None = None
        self._steady = 0
        self._writing = False
        self._said_s = float("-inf")

    def start(self) -> None:
        """Begin to ask; or go on where an earlier life was told already."""
        if self.lost and self.memory.relieved_index:
            self._ports.executor.call_soon(self._relieved, self.memory.relieved_index)
        else:
            self._later()

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _later(self) -> None:
        self._timer = self._ports.executor.call_later(ASK_EVERY_S, self._ask)

    def _ask(self) -> None:
        if self.lost:
            self._ask_for_relief()
        else:
            self._ask_for_vote()
        if self._timer is not None:
            self._later()

    # -- without memory --------------------------------------------------------------------------

    def _ask_for_relief(self) -> None:
        now_s = self._ports.clock.monotonic_s()
        if now_s - self._said_s > SAY_EVERY_S:
            self._said_s = now_s
            self._ports.log.warning(
                "memory_lost",
                reason=self.memory.reason,
                hint="it waits for a leader, elected by the others, that relieves it of its vote; "
                "an older release does not know how: move leadership to a newer one "
                "(raftdb leader move)",
            )
        self._engine.tell(_HEAD.pack(MARK, _RELIEVE, self._nonce, 0))
        self._judge_others(now_s)

    def _judge_others(self, now_s: float) -> None:
        """The same damage in so many places that no leader can be elected."""
        status = self._engine.status()
        voters = [str(one.node_id) for one in status.members if one.role == VOTER]
        lost = {name for name, at_s in self._others_s.items() if now_s - at_s < HEARD_S}
        lost.add(str(status.node_id))
        sound = sum(name not in lost for name in voters)
        if 2 * sound > len(voters):
            self._too_many_s = None
        elif self._too_many_s is None:
            self._too_many_s = now_s
        elif now_s - self._too_many_s >= EVERYWHERE_S:
            self._give_up(forgotten_by_too_many([one for one in voters if one in lost], voters))

    def on_note(self, peer: NodeId, data: bytes) -> None:
        """What does not read is dropped."""
        if len(data) != _HEAD.size:
            return
        _mark, kind, nonce, index = _HEAD.unpack(data)
        if kind == _RELIEVE:
            self._others_s[str(peer)] = self._ports.clock.monotonic_s()
        elif kind == _RELIEVED and nonce == self._nonce and self.lost and not self._writing:
            self._told(str(peer), index)

    def _told(self, peer: str, index: int) -> None:
        """Durable before a copy can count."""
        if self.memory.relieved_index:
            return
        self._writing = True
        memory = replace(self.memory, relieved_index=index)
        files, data_dir = self._ports.files, self._data_dir

        def written(_none: Any, error: BaseException | None) -> None:
            self._writing = False
            if error is not None:
                self._ports.log.warning("amnesia_not_noted", reason=str(error))
                return
            self.memory = memory
            self.stop()
            self._ports.log.warning("memory_relieved", by=peer, index=index)
            self._relieved(index)

        self._ports.executor.submit(LANE, lambda: write_amnesia(files, data_dir, memory), written)

    # -- whole again -----------------------------------------------------------------------------

    def _ask_for_vote(self) -> None:
        status = self._engine.status()
        votes = _role(status, status.node_id) == VOTER
        self._steady = self._steady + 1 if votes and status.leader is not None else 0
        if self._steady < STEADY and (self.memory.voter or votes):
            if not votes:
                self._engine.tell(_HEAD.pack(MARK, _PROMOTE, self._nonce, 0))
            return
        self.stop()
        files, data_dir = self._ports.files, self._data_dir

        def removed(_none: Any, error: BaseException | None) -> None:
            if error is not None:
                self._ports.log.warning("amnesia_not_noted", reason=str(error))
            else:
                self._ports.log.info("memory_regained", voter=votes)

        self._ports.executor.submit(LANE, lambda: remove_amnesia(files, data_dir), removed)


class Reliever:
    """The answering side, on every node: only a leader answers, and who is heard to have forgotten
    is remembered, since it may be gone when somebody asks why there is no leader. Belongs to the
    loop."""

    def __init__(self, engine: EnginePort, ports: Ports) -> None:
        self._engine = engine
        self._ports = ports
        self._asked: set[str] = set()
        """What is under way for whom."""
        self._heard_s: dict[str, float] = {}
        self._said_s = float("-inf")

    def on_note(self, peer: NodeId, data: bytes) -> None:
        """What does not read is dropped."""
        if len(data) != _HEAD.size:
            return
        _mark, kind, nonce, _index = _HEAD.unpack(data)
        status = self._engine.status()
        role = _role(status, peer)
        self._note(peer, kind, role)
        if status.role != "leader" or peer in self._asked:
            return
        if role and kind == _RELIEVE:
            self._relieve(peer, nonce, role)
        elif role and role != VOTER and kind == _PROMOTE:
            self._promote(peer)

    def _note(self, peer: NodeId, kind: int, role: str) -> None:
        if kind == _PROMOTE or not role:
            self._heard_s.pop(peer, None)
        elif kind == _RELIEVE:
            now_s = self._heard_s[peer] = self._ports.clock.monotonic_s()
            error = self._too_many()
            if error is not None and now_s - self._said_s > SAY_EVERY_S:
                self._said_s = now_s
                self._ports.log.error(
                    "memory_lost_elsewhere", reason=error.message, hint=error.hint
                )

    def _forgotten(self) -> list[str]:
        """Members that said so lately, or said so last before they went."""
        status, now_s = self._engine.status(), self._ports.clock.monotonic_s()
        up = {str(peer.node_id) for peer in status.peers if peer.connected}
        return [
            str(one.node_id)
            for one in status.members
            if (at_s := self._heard_s.get(one.node_id)) is not None
            and (now_s - at_s < HEARD_S or one.node_id not in up)
        ]

    def _too_many(self) -> FatalError | None:
        """What is the matter when nobody can be elected without those that have forgotten."""
        status = self._engine.status()
        voters = [str(one.node_id) for one in status.members if one.role == VOTER]
        lost = [name for name in self._forgotten() if name in voters]
        if not lost or 2 * (len(voters) - len(lost)) > len(voters):
            return None
        up = {status.node_id, *(peer.node_id for peer in status.peers if peer.connected)}
        if status.leader in up and status.leader not in lost:
            # A follower that cannot stand remembers who led before.
            return None
        return forgotten_by_too_many(lost, voters)

    def facts(self) -> dict[str, Any]:
        """For the status: `members` that have lost the end of their logs, as this node heard;
        `problem` and `hint` where there can be no leader without them."""
        error = self._too_many()
        return {
            "members": self._forgotten(),
            "problem": "" if error is None else error.message,
            "hint": "" if error is None else error.hint,
        }

    def _relieve(self, peer: NodeId, nonce: bytes, role: str) -> None:
        self._asked.add(peer)
        self._engine.has_lost_log(peer)
        if role != VOTER:
            # Without a vote already: true for sure if this node leads still, now that it was asked.
            def confirmed(outcome: object) -> None:
                self._asked.discard(peer)
                status = self._engine.status()
                known = status.configuration_index <= status.commit_index
                if (
                    isinstance(outcome, ReadReady)
                    and known
                    and _role(status, peer) not in ("", VOTER)
                ):
                    self._answer(peer, nonce, max(outcome.index, status.configuration_index))

            self._engine.read_index(confirmed)
            return
        self._ports.log.warning("member_without_memory", peer=peer, doing="it votes no more")

        def demoted(outcome: ChangeOutcome) -> None:
            self._asked.discard(peer)
            if isinstance(outcome, Changed):
                self._answer(peer, nonce, int(outcome.index))

        self._engine.change_members(Demote(peer, force=True), demoted)

    def _answer(self, peer: NodeId, nonce: bytes, index: int) -> None:
        self._engine.tell(_HEAD.pack(MARK, _RELIEVED, nonce, index), peer)

    def _promote(self, peer: NodeId) -> None:
        self._asked.add(peer)

        def promoted(outcome: ChangeOutcome) -> None:
            self._asked.discard(peer)
            if isinstance(outcome, Changed):
                self._ports.log.info("member_votes_again", peer=peer)

        self._engine.change_members(Promote(peer), promoted)


def _role(status: EngineStatus, node_id: str) -> str:
    """By the latest configuration in the log; `` for who is no member."""
    for member in status.members:
        if member.node_id == node_id:
            return member.role
    return ""


def forgotten_by_too_many(lost: Sequence[str], voters: Sequence[str]) -> FatalError:
    """Without those no leader can be elected, and with them none safely."""
    sound = [name for name in voters if name not in lost]
    keep = " ".join(f"--keep {name}" for name in lost)
    recover = (
        f"stop {' and '.join(sound)}, run `raftdb recover DIR {keep} --bundle BUNDLE --yes` there, "
        f"start it, and run `raftdb rejoin BUNDLE DIR` for {' and '.join(lost)}"
        if sound
        else "recover from the node whose database is newest (raftdb recover DIR)"
    )
    return FatalError(
        f"{', '.join(lost)} of the voters {', '.join(voters)} lost the end of the log: what they "
        "promised is not known any more, and without them nobody can be elected",
        code="memory_lost_everywhere",
        hint=f"keep all data directories; {recover}; or restore the cluster from its archive "
        "(raftdb restore, docs/archive.md)",
    )
