"""Which release each member runs, and the feature level of the cluster (raftdb.base.release).

Nodes say their release on each new connection, right after the hello. 0.1.0 says nothing of itself,
and does not know the message: it comes as a Note of a kind that 0.1.0 drops without a word. So a
member that said nothing counts as one that runs level 1 only. From level 2 on nothing is said to a
peer, and nothing heard of it, before it has greeted.

Everything here runs on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from raftdb._version import __version__
from raftdb.base.errors import ConfigError, Error, InterfaceError, OperationalError
from raftdb.base.ids import NodeId
from raftdb.base.ports import Ports
from raftdb.base.release import (
    DEMANDED_GREETING,
    LEVEL_MAX,
    LEVEL_MIN,
    SAMPLE,
    SETTING,
    SILENT,
    Announced,
    allows,
    check_level,
    level_of,
    range_text,
    version_for,
)
from raftdb.command import ENTRY_FORMAT, Configure, Results, decode_reply, encode_request
from raftdb.consensus.port import EnginePort, Greeting
from raftdb.machine import arithmetic_sample
from raftdb.node.calls import Answer, Done
from raftdb.node.proximity import greeting_note, read_greeting
from raftdb.node.replica import Replica

CHECK_EVERY_S = 1.0

OWN = Announced(__version__, LEVEL_MIN, LEVEL_MAX)
"""What this node says."""


class Releases:
    """One node's view. `stored` gives the cluster's settings as applied here."""

    def __init__(
        self,
        stored: Callable[[], Mapping[str, Any]],
        where: str,
        ports: Ports,
        own: Announced = OWN,
    ) -> None:
        """Raises ConfigError when the data is of a level that this release does not run. `where`
        names it."""
        self._stored = stored
        self._executor = ports.executor
        self._log = ports.log
        self._own = own
        self._heard: dict[str, Announced] = {}
        self._engine: EnginePort | None = None
        self._replica: Replica | None = None
        self._give_up: Callable[[BaseException], None] = _ignore
        self._timer: Any = None
        self._level = level_of(stored())
        check_level(self._level, where)

    def connect(
        self,
        engine: EnginePort,
        replica: Replica,
        give_up: Callable[[BaseException], None],
    ) -> None:
        """Once they are made. `give_up`: this node cannot be a member with this release."""
        self._engine, self._replica, self._give_up = engine, replica, give_up
        replica.releases = self

    def start(self) -> None:
        """Begin to watch the level: not every node proposes something."""
        self.look()
        self._timer = self._executor.call_later(CHECK_EVERY_S, self.start)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def level(self) -> int:
        """The cluster's, as applied here. Who is below it is a peer no more when this is known."""
        self.look()
        return self._level

    def allows(self, feature: str) -> bool:
        """Whether the cluster may do that: what is written then is read by every member."""
        return allows(feature, self.level)

    def of(self, node_id: str) -> Announced:
        """What that member said, on its connection of now."""
        return self._heard.get(node_id, SILENT)

    # ---- greeting

    def greeting(self) -> Greeting:
        """For the engine."""
        return Greeting(
            data=lambda: greeting_note(replace(self._own, level=self.level).to_bytes()),
            demanded=lambda: self.allows(DEMANDED_GREETING),
            refusal=self._refusal,
            missing=lambda name: self._below(name, SILENT),
            met=self._met,
            greeted=lambda name: self.of(name) is not SILENT,
        )

    def _met(self, name: str) -> None:
        self._heard.pop(name, None)

    def _refusal(self, name: str, data: bytes) -> str:
        announced = self._read(data)
        if announced is None:
            return self._below(name, SILENT)
        self._check_beyond(name, announced)
        return "" if announced.runs(self.level) else self._below(name, announced)

    def _below(self, name: str, announced: Announced) -> str:
        level = self.level
        what = f"raftdb {announced.version}" if announced.version else "raftdb 0.1.0"
        return (
            f"{name} runs {what}, which runs feature level "
            f"{range_text(announced.level_min, announced.level_max)}, and this cluster has "
            f"feature level {level}: install {version_for(level)} there"
        )

    def _read(self, data: bytes) -> Announced | None:
        told = read_greeting(data)
        if told is None:
            return None
        try:
            return Announced.from_bytes(told)
        except ValueError as error:
            self._log.warning("greeting_unreadable", error=str(error))
            return None

    def on_note(self, peer: NodeId, data: bytes) -> bool:
        """Another member's greeting; False: it is none."""
        if read_greeting(data) is None:
            return False
        announced = self._read(data)
        if announced is not None:
            if self._heard.get(str(peer)) != announced:
                self._log.info("peer_release", peer=str(peer), version=announced.version)
            self._heard[str(peer)] = announced
            self._check_beyond(str(peer), announced)
            self._turn_away(str(peer), announced)
        return True

    def _check_beyond(self, name: str, announced: Announced) -> None:
        """The cluster went on without this node, which was away or went back too late: it would
        be turned away by all others, and ends with what to do instead."""
        try:
            check_level(announced.level, f"the cluster, as {name} says,")
        except ConfigError as error:
            if announced.level > self._own.level_max:
                self._executor.call_soon(self._give_up, error)

    def look(self) -> None:
        """The level may have been raised: who is below it is a peer no more."""
        level = level_of(self._stored())
        if level == self._level:
            return
        self._level = level
        self._log.info("feature_level", level=level)
        if self._engine is not None:
            for peer in self._engine.status().peers:
                self._turn_away(str(peer.node_id), self.of(str(peer.node_id)))

    def _turn_away(self, name: str, announced: Announced) -> None:
        if not announced.runs(self._level) and self._engine is not None:
            reason = self._below(name, announced)
            self._log.warning("peer_refused", peer=name, error=reason)
            self._engine.disconnect(NodeId(name), reason)

    # ---- raising the level

    def ask(self, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
        """`raise_to` (a level; none: only tell). The answer's body: as `told`. Raises what is wrong
        with the arguments; OperationalError `upgrade_incomplete` names who does not run it."""
        wanted = arguments.get("raise_to")
        replica = self._replica
        assert replica is not None
        if wanted is None:
            replica.confirm(lambda _index, error: self._tell(error, done))
            return
        if type(wanted) is not int:
            raise InterfaceError("raise_to is a feature level, a number")
        refused = replica.refuse()
        if refused is not None:
            raise refused
        self._check_raise(wanted)
        if wanted == self.level:
            replica.confirm(lambda _index, error: self._tell(error, done))
            return
        payload = encode_request(Configure(replica.stamp(), {SETTING: wanted}))
        replica.propose(payload, timeout_s, lambda a, e: self._raised(a, e, wanted, done))

    def _check_raise(self, wanted: int) -> None:
        level = self.level
        if wanted < level:
            raise ConfigError(
                f"the feature level is {level}, and it is never lowered",
                code=SETTING,
                hint="what was written since may be unreadable for older releases: restore a copy "
                "from before (raftdb restore) into a cluster of the older release",
            )
        if wanted > self._own.level_max:
            raise ConfigError(
                f"the leader runs raftdb {self._own.version}, which knows feature levels up to "
                f"{self._own.level_max}",
                code=SETTING,
                hint=f"install {version_for(wanted)} on every node first",
            )
        not_there = self.pending(wanted)
        if not_there:
            raise OperationalError(
                f"not every member runs feature level {wanted}: {'; '.join(not_there)}",
                code="upgrade_incomplete",
                hint=f"install {version_for(wanted)} there, start it, and try again; who is gone "
                "for good has to be removed first (raftdb member remove)",
            )

    def pending(self, level: int) -> list[str]:
        """Who of the members, learners too, does not run that level now, and why not."""
        assert self._engine is not None
        status = self._engine.status()
        up = {str(peer.node_id) for peer in status.peers if peer.connected}
        found = []
        for member in status.members:
            name = str(member.node_id)
            if member.node_id == status.node_id:
                continue
            announced = self.of(name)
            if name not in up:
                found.append(f"{name} is not connected")
            elif not announced.runs(level):
                found.append(f"{name} runs raftdb {announced.version or '0.1.0'}")
        return found

    def _raised(self, answer: Answer | None, error: Error | None, wanted: int, done: Done) -> None:
        if answer is None:
            done(None, error)
            return
        reply = decode_reply(answer.body)
        if not isinstance(reply, Results):
            done(None, OperationalError("the feature level was not raised", code=SETTING))
            return
        self._log.info("feature_level_raised", level=wanted)
        done(Answer(self.told(), answer.index), None)

    def _tell(self, error: Error | None, done: Done) -> None:
        if error is not None:
            done(None, error)
        else:
            assert self._replica is not None
            done(Answer(self.told(), int(self._replica.applied_index())), None)

    def told(self) -> dict[str, Any]:
        """For people and programs."""
        level = self.level
        following = level + 1 if level < self._own.level_max else level
        return {
            **self.facts(),
            "pending": tuple(self.pending(following)) if following > level else (),
        }

    # ---- what it says of itself

    def facts(self) -> dict[str, Any]:
        """For the status."""
        return {
            "feature_level": self.level,
            "feature_level_min": self._own.level_min,
            "feature_level_max": self._own.level_max,
        }

    def member_facts(self, node_id: str) -> dict[str, Any]:
        """Of one member: nothing, where it is not known."""
        own = self._replica is not None and node_id == str(self._replica.identity.node_id)
        announced = self._own if own else self._heard.get(node_id)
        if announced is None:
            return {}
        return {
            "version": announced.version,
            "feature_level_min": announced.level_min,
            "feature_level_max": announced.level_max,
        }

    def joining(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What somebody who wants to join is told beside what is compared word by word: nothing, as
        long as 0.1.0 may join, which asks without `release` and compares whatever it is told."""
        if "release" in arguments or self.level > 1:
            return {
                "release": self._own.version,
                "entry_format": ENTRY_FORMAT,
                SAMPLE: arithmetic_sample(),
                **self.facts(),
            }
        return {}


def _ignore(_error: BaseException) -> None:
    pass
