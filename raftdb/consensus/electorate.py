"""Who counts, by the configuration that is in this member's log (row 19)."""

from __future__ import annotations

from collections.abc import Sequence

from raftdb.consensus.entry import CONFIGURATION
from raftdb.consensus.log import DurableLog
from raftdb.consensus.membership import (
    Configurations,
    decode_configuration,
    encode_configuration,
)
from raftdb.consensus.messages import Directory
from raftdb.consensus.wall import Wall

SCAN_BYTES = 1 << 20
NEVER = -1
"""The round of heartbeats that nobody answered."""


class Electorate:
    """The configurations in the log, and what follows from them for one member."""

    def __init__(self, node_id: str, configurations: Configurations, wall: Wall) -> None:
        self._node_id = node_id
        self._wall = wall
        self.configurations = configurations
        self.peers: tuple[str, ...] = ()
        """All others that get the log."""
        self.voters: tuple[str, ...] = ()
        """Those of them that count."""
        self.holders: tuple[str, ...] = ()
        """Those of them whose copies count."""
        self.learners: tuple[str, ...] = ()
        """Those that do not."""
        self.is_voter = False
        """This member counts too."""
        self.may_stand = False
        self.changed = False
        """The log brought another configuration, or took one back: `update` is due."""
        self.update()

    def update(self) -> None:
        """Take what is in force now."""
        known, wall = self.configurations, self._wall
        self.changed = False
        latest, committed = known.latest, known.committed
        counted = wall.electorate(latest, committed)
        self.is_voter = self._node_id in counted
        self.voters = tuple([name for name in counted if name != self._node_id])
        holders = wall.holders(latest, committed)
        self.holders = tuple([name for name in holders if name != self._node_id])
        everybody = {str(member.node_id) for member in latest.members} | set(counted)
        self.peers = tuple(sorted(everybody - {self._node_id}))
        self.learners = tuple([name for name in self.peers if name not in self.voters])
        self.may_stand = wall.may_stand(self._node_id, latest, committed)

    def directory(self) -> Directory:
        """Who the members are, and where."""
        return Directory(encode_configuration(self.configurations.latest))

    # -- the log ---------------------------------------------------------------------------------

    def appended(self, first: int, entries: Sequence[tuple[int, bytes]]) -> None:
        """(term, data) each, from index `first` on, are in the log: what they say is in force."""
        for place, (_term, data) in enumerate(entries):
            if data[:1] == CONFIGURATION:
                self.configurations.append(first + place, decode_configuration(data[1:]))
                self.changed = True

    def truncated(self, index: int) -> None:
        """And what was behind here is in force no more."""
        known = self.configurations
        if known.next_index:
            keeps = [self._wall.keeps_configuration(one, index) for one in known.uncommitted()]
            self.changed |= known.truncate(keeps)

    def settle(self, commit: int) -> bool:
        """Whether another configuration is known to be committed since the last time."""
        known = self.configurations
        if not 0 < known.next_index <= commit:
            return False
        known.settle(commit)
        return True

    def scan(self, log: DurableLog, applied: int) -> None:
        """At a start: what lies in the log behind the last applied entry, whose configuration is
        the machine's (rule C2)."""
        index = max(applied, log.first_index - 1) + 1
        while index <= log.last_index:
            found = log.entries(index, log.last_index, SCAN_BYTES)
            self.appended(index, [(int(one.term), one.data) for one in found])
            index += len(found)

    # -- counting --------------------------------------------------------------------------------

    # A member that does not count itself needs more than half of n others; the wall's rules ask for
    # more than half of n + 1 with it. One more who never answers makes the two the same.

    @property
    def size(self) -> int:
        """Of the electorate, for rules that take this member's own voice for granted."""
        return len(self.voters) + (1 if self.is_voter else 2)

    def rounds(self, acked: dict[str, int]) -> list[int]:
        """Per other voter, the newest round of heartbeats that it answered."""
        rounds = [acked[peer] for peer in self.voters]
        return rounds if self.is_voter else [*rounds, NEVER]

    def silences_s(self, heard_s: Sequence[float], now_s: float) -> list[float]:
        """Per other voter, how long it has been silent."""
        silences = [now_s - one for one in heard_s]
        return silences if self.is_voter else [*silences, float("inf")]

    def holds(self, own: int, matches: list[int]) -> tuple[int, list[int]]:
        """What voters hold, one apart from the rest (thesis 4.2.2: a leader that does not count
        manages a cluster without itself)."""
        return (own, matches) if self.is_voter else (matches[0], matches[1:])
