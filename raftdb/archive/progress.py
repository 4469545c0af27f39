"""How far each destination is, as known on this node: by its own uploads, and from the others.

A leader's replies may wait for the archive (rule A1), and the uploader is preferably a follower. So
nodes tell each other how far they know each destination to be, at once when that has moved and
somebody waits, and once a second anyway. What is archived of a history stays true whoever says it
first, so the highest word counts; whether a destination answers is as old as the last word.

An upload that is due asks all nodes to agree upon the newest entries: `agree`.

A note's bytes: `A`, then JSON: `{"destinations": {id: [archived, state]}, "wanted": index}`, and
`"agree": index` where that is asked; who does not know a key ignores it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raftdb.base.config import DESTINATIONS_MAX
from raftdb.base.ports import Ports

__all__ = ["NOTE_MARK", "Known", "Progress", "destination_id", "state_of"]

NOTE_MARK = b"A"
"""The first byte of these notes; others between nodes begin otherwise."""
NOTE_BYTES_MAX = 4096
EVERY_S = 1.0
STALE_S = 5.0
"""A word older than this says nothing of whether a destination answers."""
WANT_S = 0.01
"""Wishes of this long are told together."""
_INDEX_MAX = (1 << 63) - 1
_ID_CHARACTERS = 16
NOTED_MAX = 64
"""Members whose word is kept."""

ACTIVE, STANDBY, FAILING, STARTING = "active", "standby", "failing", "starting"
STATES = (ACTIVE, STANDBY, FAILING, STARTING)
_NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Known:
    """One node's word on one destination."""

    archived: int
    """A restore from there would find all entries up to here; 0 while it has no base."""
    state: str


def destination_id(url: str) -> str:
    """How nodes name a destination to each other: options of the URL may differ."""
    return hashlib.blake2b(url.partition("?")[0].encode(), digest_size=8).hexdigest()


def state_of(*, active: bool, failing: bool, begun: bool) -> str:
    """What a node says of a destination."""
    if failing:
        return FAILING
    if not begun:
        return STARTING
    return ACTIVE if active else STANDBY


class Progress:
    """All destinations. On the loop."""

    def __init__(
        self,
        destinations: Sequence[str],
        own: Callable[[], Mapping[str, Known]],
        ports: Ports,
    ) -> None:
        """`destinations` are ids; `own` gives what this node itself knows of each."""
        self._destinations = tuple(destinations)
        self._own = own
        self._ports = ports
        self._archived = dict.fromkeys(self._destinations, 0)
        self._heard: dict[str, tuple[float, Mapping[str, Known]]] = {}
        self._told: Mapping[str, Known] = {}
        self._told_s = float("-inf")
        self._wanted = 0
        self._want_told = 0
        self._want_timer = False
        self.tell: Callable[[bytes], None] = _unheard
        """Says something to all other members."""
        self.moved: Callable[[], None] = _nothing
        """Called when more is archived than was known."""
        self.hurry: Callable[[int], None] = _ignore
        """Called with an index that somebody waits for."""
        self.agree: Callable[[int], None] = _ignore
        """Called with an index that all are to agree upon, when this or another node asks."""

    # ---- what is known

    def upto(self, count: int) -> int:
        """Up to which index `count` destinations would restore; 0 when there are fewer."""
        if not 1 <= count <= len(self._destinations):
            return 0
        return sorted(self._archived.values(), reverse=True)[count - 1]

    @property
    def count(self) -> int:
        """How many destinations there are."""
        return len(self._destinations)

    def answering(self) -> int:
        """How many destinations answer, as far as is known: some node uploads there, or could
        begin to, and none is in trouble with it."""
        return sum(1 for one in self._destinations if self._answers(one))

    def _answers(self, destination: str) -> bool:
        now_s = self._ports.clock.monotonic_s()
        words = [self._own().get(destination)]
        words += [
            known.get(destination)
            for heard_s, known in self._heard.values()
            if now_s - heard_s <= STALE_S
        ]
        states = {one.state for one in words if one is not None}
        return ACTIVE in states or (STANDBY in states and FAILING not in states)

    # ---- what is told and heard

    def changed(self) -> None:
        """This node's own knowledge may have changed; also called now and then without."""
        own = self._own()
        self._learn(own)
        now_s = self._ports.clock.monotonic_s()
        news = any(
            own[one].state != self._told[one].state if one in self._told else True for one in own
        )
        waited = any(
            own[one].archived > (self._told[one].archived if one in self._told else 0)
            for one in own
            if self._wanted > self._archived_before(one)
        )
        if news or waited or now_s - self._told_s >= EVERY_S:
            self._tell(own)

    def _archived_before(self, destination: str) -> int:
        told = self._told.get(destination)
        return 0 if told is None else told.archived

    def want(self, index: int) -> None:
        """Somebody waits here until `index` is archived: all are told, some at a time."""
        self._wish(index)
        if index > self._want_told and not self._want_timer:
            self._want_timer = True
            self._ports.executor.call_later(WANT_S, self._tell_want)

    def _tell_want(self) -> None:
        self._want_timer = False
        if self._wanted > self._want_told:
            self._want_told = self._wanted
            self._tell(self._own())

    def ask(self, index: int) -> None:
        """All are to agree upon what they hold as of that entry, as soon as they have it."""
        self._tell(self._own(), {"agree": index})
        self.agree(index)

    def _tell(self, own: Mapping[str, Known], asked: Mapping[str, int] = _NOTHING) -> None:
        self._told, self._told_s = own, self._ports.clock.monotonic_s()
        words = {name: [one.archived, one.state] for name, one in own.items()}
        note = {"destinations": words, "wanted": self._want_told, **asked}
        self.tell(NOTE_MARK + json.dumps(note, separators=(",", ":")).encode())

    def on_note(self, peer: str, data: bytes) -> None:
        """Another member's word. What does not read is dropped, and logged."""
        try:
            known, wanted, agree = _parse(data)
        except ValueError as error:
            self._ports.log.warning("archive_note_unreadable", peer=peer, error=str(error))
            return
        if peer not in self._heard and len(self._heard) >= NOTED_MAX:
            return
        self._heard[peer] = self._ports.clock.monotonic_s(), known
        self._learn(known)
        self._wish(wanted)
        if agree:
            self.agree(agree)

    def _learn(self, known: Mapping[str, Known]) -> None:
        before = dict(self._archived)
        for name, one in known.items():
            if name in self._archived:
                self._archived[name] = max(self._archived[name], one.archived)
        if self._archived != before:
            self.moved()

    def _wish(self, index: int) -> None:
        if index > self._wanted:
            self._wanted = index
            self.hurry(index)


def _parse(data: bytes) -> tuple[dict[str, Known], int, int]:
    if len(data) > NOTE_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes")
    try:
        value = json.loads(data[len(NOTE_MARK) :])
        words = value["destinations"]
        if len(words) > DESTINATIONS_MAX:
            raise ValueError("destinations")
        found = {}
        for name, (archived, state) in words.items():
            if len(name) != _ID_CHARACTERS or state not in STATES:
                raise ValueError(f"{name!r:.40} is {state!r:.40}")
            found[name] = Known(_index(archived), state)
        return found, _index(value["wanted"]), _index(value.get("agree", 0))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(repr(error)) from error


def _index(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INDEX_MAX:
        raise ValueError(f"index {value!r:.40}")
    return value


def _unheard(_data: bytes) -> None:
    pass


def _nothing() -> None:
    pass


def _ignore(_index: int) -> None:
    pass
