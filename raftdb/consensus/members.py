"""What follows from changes of members for one engine (row 19): connections, who is told, who ends.

`Changes` has the requests; here is what happens when a configuration comes into force, is
committed, or says that this node counts no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftdb.base.errors import FatalError, ProtocolError
from raftdb.base.ids import Index
from raftdb.base.ports import Ports
from raftdb.consensus.changes import ChangeDone, Changes
from raftdb.consensus.core import Core
from raftdb.consensus.membership import (
    Configuration,
    Configurations,
    Member,
    MemberChange,
    configuration_of,
    decode_configuration,
)
from raftdb.consensus.messages import Directory, Removed
from raftdb.consensus.port import ChangeOutcome, EngineEvents, NotChanged, StateMachine
from raftdb.consensus.transfer import best_successor
from raftdb.consensus.transport import Transport
from raftdb.consensus.wall import LEADER


def known_configurations(machine: StateMachine, seed: Sequence[Member]) -> Configurations:
    """What the machine holds, or the founding list when it never heard of a configuration."""
    stored = machine.configuration()
    if stored is None:
        return Configurations(configuration_of(seed))
    index, body = stored
    return Configurations(decode_configuration(body), index)


class Members:
    """Belongs to an engine; everything on the loop, inside its events."""

    def __init__(
        self,
        core: Core,
        transport: Transport,
        ports: Ports,
        events: EngineEvents,
        call: Callable[..., None],
        round_s: float,
    ) -> None:
        """`call`: somebody else's code, guarded. `round_s`: a round of catching up that takes no
        longer will do."""
        self._core = core
        self._transport = transport
        self._ports = ports
        self._events = events
        self._call = call
        self._gone_index = Index(0)
        """Of the committed entry by which this node is no member any more."""
        self._told = False
        """The node above knows that."""
        self._changes = Changes(
            core, ports.clock.monotonic_s, round_s, transport.connected, call, self._soon
        )
        core.handle(Removed, self._on_told_removed)
        core.handle(Directory, self._on_directory)

    def _soon(self, done: ChangeDone, outcome: ChangeOutcome) -> None:
        self._ports.executor.call_soon(self._call, done, outcome)

    @property
    def configurations(self) -> Configurations:
        """Those in the log."""
        return self._core.electorate.configurations

    # -- life ------------------------------------------------------------------------------------

    def start(self, applied: int) -> None:
        """The log behind what is applied may hold more. Before connections are made."""
        self._core.electorate.scan(self._core.log, applied)
        self._core.configure()
        self._turn_away()

    def change(self, change: MemberChange, done: ChangeDone, transferring: bool) -> None:
        """A request; `done` is called later, once."""
        self._changes.begin(change, done, transferring)

    def refuse(self, done: ChangeDone) -> None:
        """A request while the node is being stopped."""
        self._soon(done, NotChanged("stopping", "this node is being stopped"))

    def fail(self, reason: str) -> None:
        """Leadership is gone, or the node stops."""
        self._changes.fail(reason)

    # -- going on --------------------------------------------------------------------------------

    def configured(self, latest: Configuration) -> None:
        """Another configuration is in force here, or is known to be committed."""
        me, committed = self._core.node_id, self.configurations.committed
        # Those of the committed one as well: the latest may have to be taken back, by one of them.
        known = {one.node_id: one for one in (*committed.members, *latest.members)}
        self._transport.set_members([one for name, one in known.items() if name != me])
        self._call(self._events.on_members, latest)

    @property
    def busy(self) -> bool:
        """`step` has something to do."""
        if self._core.electorate.configurations.next_index or self._changes.active:
            return True
        return self._gone_index > 0 and not self._told

    def step(self) -> None:
        """The commit index may have moved, or a learner come nearer."""
        core = self._core
        if core.settle():
            known = self.configurations
            self._ports.log.info(
                "members_changed",
                index=int(known.committed_index),
                voters=",".join(known.committed.voters),
                learners=",".join(known.committed.learners),
            )
            self._changes.settle()
            self._turn_away()
        if core.library.role == LEADER:
            self._changes.step()
        elif self._gone_index:
            self._tell_gone()

    def _turn_away(self) -> None:
        """Who was removed is told, this node too."""
        known, wall = self.configurations, self._core.wall
        gone = [
            one for one in known.committed.removed if wall.refuses_removed(one, known.committed)
        ]
        if gone:
            self._transport.refuse_removed(gone, int(known.committed_index))
        if self._core.node_id in gone:
            self._gone(known.committed_index)

    def may_leave_office(self, applied: int) -> bool:
        """This leader counts no more, by a committed configuration, and everything of its own was
        answered (thesis 4.2.2)."""
        if self._core.electorate.is_voter:
            return False
        known = self.configurations
        return not known.next_index and applied >= known.committed_index

    def leave_office(self) -> None:
        """The best successor is asked to stand, at once."""
        core = self._core
        successor = best_successor(core)
        if successor is not None:
            core.library.transfer(successor)
        self._ports.log.info("leaves_office", successor=successor or "")
        core.library.step_down()

    def _on_told_removed(self, peer: str, message: Removed) -> None:
        """`peer` knows a committed configuration by which this node was removed."""
        if message.log_index > self.configurations.committed_index:
            self._ports.log.warning("told_of_removal", peer=peer, index=message.log_index)
            self._gone(Index(message.log_index))

    def _on_directory(self, _peer: str, message: Directory) -> None:
        """Addresses to fetch a copy from; who counts is not learned from messages."""
        try:
            self._transport.learn(decode_configuration(message.configuration).members)
        except FatalError as error:
            raise ProtocolError(error.message) from error

    def _gone(self, index: Index) -> None:
        """A leader leaves its office first."""
        self._gone_index = index
        self._core.stand_down("removed", "this node was removed from the cluster")
        if self._core.library.role != LEADER:
            self._tell_gone()

    def _tell_gone(self) -> None:
        if not self._told:
            self._told = True
            self._call(self._events.on_removed, self._gone_index)
