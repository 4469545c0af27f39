"""Changes of members, on the leader: one at a time, from request to outcome (row 19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from raftdb.base.errors import InternalError
from raftdb.base.ids import Index
from raftdb.consensus.core import Core
from raftdb.consensus.membership import (
    ChangeError,
    Configuration,
    Demote,
    MemberChange,
    Promote,
    Remove,
    changed,
)
from raftdb.consensus.port import Changed, ChangeOutcome, NotChanged, OutcomeUnknown
from raftdb.consensus.wall import LEADER

ROUNDS_MAX = 10
"""Of catching up (thesis 4.2.1)."""
STILL_S = 10.0
"""A learner that acknowledges nothing for this long is not promoted."""

ChangeDone = Callable[[ChangeOutcome], None]


class _Pending(NamedTuple):
    log_index: int
    done: ChangeDone


class _CatchUp:
    """Thesis 4.2.1: rounds of replication; what came in during one is the next one. A learner has
    caught up when a round took less than an election timeout: as a voter it will not hold up
    commits for longer than that."""

    def __init__(self, change: Promote, done: ChangeDone, target: int, now_s: float) -> None:
        self.change = change
        self.done = done
        self.target = target
        self.begun_s = now_s
        self.rounds = 1
        self.match = -1
        self.moved_s = now_s


class Changes:
    """Everything here runs on the loop, inside an event of the engine."""

    def __init__(
        self,
        core: Core,
        now_s: Callable[[], float],
        round_s: float,
        connected: Callable[[str], bool],
        resolve: Callable[[ChangeDone, ChangeOutcome], None],
        resolve_soon: Callable[[ChangeDone, ChangeOutcome], None],
    ) -> None:
        """`round_s`: a round of catching up that takes no longer will do."""
        self._core = core
        self._now_s = now_s
        self._round_s = round_s
        self._connected = connected
        self._resolve = resolve
        self._resolve_soon = resolve_soon
        self._pending: _Pending | None = None
        self._catch_up: _CatchUp | None = None

    @property
    def active(self) -> bool:
        """Something is to be done or waited for."""
        return self._pending is not None or self._catch_up is not None

    def begin(self, change: MemberChange, done: ChangeDone, transferring: bool) -> None:
        """A request. `done` is called later, once."""
        refused = self._why_not(transferring) or self._try(change, done)
        if refused is not None:
            self._resolve_soon(done, refused)

    def _try(self, change: MemberChange, done: ChangeDone) -> ChangeOutcome | None:
        """Begin; or what became of it already."""
        core = self._core
        known = core.electorate.configurations
        try:
            wanted = changed(known.latest, change)
        except ChangeError as error:
            return NotChanged(error.code, error.message, error.hint)
        if wanted == known.latest:
            return Changed(known.latest_index, wanted)
        if isinstance(change, Remove | Demote) and not change.force:
            stuck = self._stuck(wanted)
            if stuck is not None:
                return stuck
        if isinstance(change, Promote):
            if not self._connected(change.node_id):
                return NotChanged(
                    "not_caught_up",
                    f"{change.node_id} is not connected to the leader",
                    "start it, and see its log",
                )
            target, now_s = core.log.last_index, self._now_s()
            self._catch_up = _CatchUp(change, done, target, now_s)
            return None
        self._append(wanted, done)
        return None

    def _why_not(self, transferring: bool) -> NotChanged | None:
        core, wall = self._core, self._core.wall
        library = core.library
        if library.role != LEADER:
            return NotChanged("not_leader", "this node does not lead")
        if transferring:
            return NotChanged("transfer_under_way", "leadership is just being handed over")
        if not wall.change_after_noop(library.commit_index, library.noop_index):
            return NotChanged("not_ready", "the leader has just been elected")
        alone = wall.change_alone(core.electorate.configurations.next_index)
        if self._catch_up is not None or not alone:
            return NotChanged("change_under_way", "another change of members is under way")
        return None

    def _stuck(self, wanted: Configuration) -> NotChanged | None:
        """Why nothing would be committed afterwards."""
        core = self._core
        alive = [one for one in wanted.voters if one == core.node_id or self._connected(one)]
        if 2 * len(alive) > len(wanted.voters):
            return None
        away = [one for one in wanted.voters if one not in alive]
        return NotChanged(
            "no_quorum",
            f"of the {len(wanted.voters)} voters that would be left, {', '.join(away)} "
            f"{'is' if len(away) == 1 else 'are'} not connected: nothing could be written until "
            "a majority is back",
            "bring them up or remove those first; with --force it is done all the same",
        )

    def _append(self, wanted: Configuration, done: ChangeDone) -> None:
        if self._pending is not None:
            # Only without row 19's rule.
            self.fail("overtaken")
        self._pending = _Pending(self._core.append_configuration(wanted), done)

    # -- going on ----------------------------------------------------------------------------------

    def step(self) -> None:
        """While this node leads, after anything that may have changed."""
        catch_up = self._catch_up
        if catch_up is not None:
            self._catching_up(catch_up)

    def _catching_up(self, catch_up: _CatchUp) -> None:
        core, name, now_s = self._core, catch_up.change.node_id, self._now_s()
        if core.electorate.configurations.latest.member(name) is None:
            raise InternalError("a member went while it caught up")
        match = core.library.match_index(name)
        if match != catch_up.match:
            catch_up.match, catch_up.moved_s = match, now_s
        if match < catch_up.target:
            if now_s - catch_up.moved_s > STILL_S:
                self._give_up(catch_up, f"it has acknowledged nothing for {STILL_S:g} s")
            return
        last = core.log.last_index
        if now_s - catch_up.begun_s > self._round_s and match < last:
            catch_up.rounds += 1
            if catch_up.rounds > ROUNDS_MAX:
                self._give_up(catch_up, f"it fell behind in each of {ROUNDS_MAX} rounds")
                return
            catch_up.target, catch_up.begun_s = last, now_s
            return
        self._catch_up = None
        self._append(changed(core.electorate.configurations.latest, catch_up.change), catch_up.done)

    def _give_up(self, catch_up: _CatchUp, why: str) -> None:
        self._catch_up = None
        name = catch_up.change.node_id
        behind = self._core.log.last_index - catch_up.match
        self._resolve(
            catch_up.done,
            NotChanged(
                "not_caught_up",
                f"{name} is not promoted: {why}, and is {behind} entries behind",
                "it stays a learner: see raftdb status, and try again when it is nearer",
            ),
        )

    def settle(self) -> None:
        """Configurations up to the committed one are committed."""
        pending, known = self._pending, self._core.electorate.configurations
        if pending is not None and pending.log_index <= known.committed_index:
            self._pending = None
            self._resolve(pending.done, Changed(Index(pending.log_index), known.committed))

    def fail(self, reason: str) -> None:
        """Leadership is gone, or the node stops."""
        pending, self._pending = self._pending, None
        catch_up, self._catch_up = self._catch_up, None
        if pending is not None:
            self._resolve(pending.done, OutcomeUnknown(reason))
        if catch_up is not None:
            self._resolve(catch_up.done, NotChanged("not_leader", "leadership was lost meanwhile"))
