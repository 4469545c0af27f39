"""Members that lose the end of their logs, and bugs in what becomes of them (row 22)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftdb.consensus.membership import VOTER
from raftdb.consensus.messages import Append, Heartbeat, PreVote, RequestVote
from raftdb.consensus.wall import Wall
from raftdb.embedded import forgetting, opening
from raftdb.node.amnesia import Reliever
from tests.sim.planted.bug import Bug, Patch
from tests.sim.planted.script import Script

BATCH = b"\xf7RJb"


class VotesWithoutMemory(Wall):
    """Row 22: it votes before it is caught up."""

    def heeds_forgotten(self, message: object) -> bool:
        return isinstance(message, PreVote | RequestVote) or super().heeds_forgotten(message)


class AcksWithoutMemory(Wall):
    """Row 22: it acknowledges, and answers heartbeats, before it is caught up."""

    def heeds_forgotten(self, message: object) -> bool:
        return isinstance(message, Append | Heartbeat) or super().heeds_forgotten(message)


def _goes_on() -> list[Patch]:
    """What is left of the log is given up, and the node is the voter that it was."""

    def founds_anew(
        kind: Any,
        config: Any,
        ports: Any,
        note: Any,
        memory: Any,
        error: Any,
        database: Callable[[], Any],
    ) -> Any:
        machine = database()
        index, term = machine.applied()
        forgetting.refound_journal(
            ports.files, forgetting.journal_path(config.data_dir), ports.random, (index, term)
        )
        journal = opening._open_journal(kind, config, ports, None)
        return opening.Opened(journal, machine, replace(note, damage=None), None)

    return [(opening, "_without_memory", founds_anew)]


def _relieved_by_word() -> list[Patch]:
    """The leader says that it may go on, and makes no learner of it."""

    def at_once(self: Any, peer: Any, nonce: bytes, role: str) -> None:
        self._answer(peer, nonce, int(self._engine.status().commit_index))

    return [(Reliever, "_relieve", at_once)]


def _own_database_will_do() -> list[Patch]:
    """It does not wait for a copy from after its relief."""
    begin_anew = forgetting.begin_anew

    def impatient(config: Any, ports: Any, memory: Any, *rest: Any) -> Any:
        return begin_anew(config, ports, replace(memory, relieved_index=1), *rest)

    def relieved(self: Any, index: int) -> None:
        self.start_again("the database will do")

    from raftdb.embedded.assembly import Assembly

    return [(opening, "begin_anew", impatient), (Assembly, "_relieved", relieved)]


def lose_end(s: Script, name: str, *, keep: float = 0.5) -> None:
    """Of a node that is down: the last segment is shorter, and the mark is damaged."""
    files, data = s.host(name).files, s.host(name).config.data_dir
    s.host(name).damaged = True
    path = max(path for path in files.paths() if path.startswith(data) and "segment" in path)
    content = files.durable_content(path)
    cut = content.rfind(BATCH, 0, 256 + max(8, int(len(content) * keep)))
    files.set_content(path, content[: max(cut, 256)])
    files.flip_bit(f"{data}/journal/mark", 20, 3)


def whole_again(s: Script, name: str) -> None:
    """It has a vote again, and all entries."""

    def votes() -> bool:
        node = s.host(name).node
        leaders = s.cluster.leaders()
        if node is None or node.forgotten or len(leaders) != 1:
            return False
        roles = {one.node_id: one.role for one in leaders[0].engine.status().members}
        return roles.get(name) == VOTER and node.applied_index == leaders[0].commit_index

    s.within(40.0, votes, "healing", f"{name} is not what it was")


def lost_end(s: Script) -> None:
    """What two have acknowledged, one of them forgets; the third, which never had it, asks it."""
    leader = s.leader()
    lost, cut = s.others(leader)
    for keep in (0.0, 0.6):
        s.only([leader, lost])
        s.written(6)
        s.run_for(0.3)
        s.down(lost)
        lose_end(s, lost, keep=keep)
        s.down(leader)
        s.heal()
        s.only([lost, cut])
        s.up(lost)
        s.run_for(4.0)
        s.heal()
        s.up(leader)
        whole_again(s, lost)
        s.written(3)
        leader = s.leader()
        lost, cut = s.others(leader)[::-1]
        s.host(lost).damaged = False


def forgotten_vote(s: Script) -> None:
    """A vote is forgotten right after it was given: whoever got it must not have a rival in its
    term, and the leader of a term before must not go on with that one's help."""
    leader = s.leader()
    lost, other = s.others(leader)
    s.written(3)
    s.only([lost, other])
    s.until(lambda: any(one.name != leader for one in s.cluster.leaders()))
    s.written(2)
    s.down(lost)
    lose_end(s, lost)
    s.only([leader, lost])
    s.up(lost)
    found = [s.write() for _ in range(3)]
    s.run_for(4.0)
    s.heal()
    whole_again(s, lost)
    s.until(lambda: all(found))
    s.written(3)


def killed_while_healing(s: Script) -> None:
    """The power goes again and again, at the one that heals and at the one that helps."""
    leader = s.leader()
    lost = s.others(leader)[0]
    s.written(6)
    s.down(lost)
    lose_end(s, lost)
    s.up(lost)
    for number in range(12):
        s.run_for(0.15 + 0.23 * number)
        name = lost if number % 3 else s.others(lost)[number % 2]
        if s.host(name).life is not None:
            s.cluster.kill(name, power=number % 2 == 0)
        s.run_for(0.05)
        s.cluster.start(name)
    whole_again(s, lost)
    s.written(3)


PLAYS: dict[str, Any] = {
    "lost-end": (lost_end, {}),
    "forgotten-vote": (forgotten_vote, {}),
    "killed-while-healing": (killed_while_healing, {}),
}

BUGS = [
    Bug(
        "votes-without-memory",
        "row 22",
        "a member that lost its log votes before it is caught up",
        VotesWithoutMemory,
    ),
    Bug(
        "acks-without-memory",
        "row 22",
        "and acknowledges, and confirms leaders",
        AcksWithoutMemory,
    ),
    Bug(
        "goes-on-without-memory",
        "row 22",
        "it founds a new log behind its database, and is the voter that it was",
        make=_goes_on,
    ),
    Bug(
        "relieved-by-word",
        "row 22",
        "it is told that it may go on, and keeps its vote",
        make=_relieved_by_word,
    ),
    Bug(
        "own-database-will-do",
        "row 22",
        "it goes on from before its relief",
        make=_own_database_will_do,
    ),
]

SCRIPTED = {
    "votes-without-memory": "lost-end",
    "acks-without-memory": "forgotten-vote",
    "goes-on-without-memory": "lost-end",
    "relieved-by-word": "killed-while-healing",
    "own-database-will-do": "lost-end",
}
