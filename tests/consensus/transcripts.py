"""Transcripts: prose, commands, and what they print, checked word for word.

    # Prose stands behind a hash.
    deadline n1
    ----
    n1 -> n2 PreVote(term 0, last index 1, last term 0)

Record them anew with `python -m tests.consensus.transcripts --rewrite`, and read the difference:
it is what changed in how members behave.

    members COUNT [n1=1,1,2 …]   begin, with logs of these terms from entry 2 on; [batch=BYTES]
    without RULE …               the next `members` has the library's behaviour for these rules
    deadline NAME                its election deadline passes
    beat NAME                    it sends heartbeats; `quorum NAME`: it checks its quorum
    pass SECONDS                 time passes
    deliver [FROM [TO [KIND]]]   what waits on the wires, in order; `first …`: only one;
                                 `again …`: one, which comes once more, after the others
    drop [FROM [TO [KIND]]]      lose it instead
    sync NAME … | all            the disk has what was queued
    power NAME                   power cut and restart
    forget NAME                  it loses its log and its votes, and knows that
    lost NAME LEADER             it says so to the leader
    cut NAME NAME, heal          the network
    propose NAME [COUNT]         the leader makes entries
    read NAME                    a linearizable read comes in
    transfer NAME TO             the leader asks TO to stand
    newcomer NAME                another node, with an empty log
    change NAME KIND WHO         it is asked to add, promote, demote or remove WHO
    voters                       who counts, by everybody's own log
    wires, status                what waits; where everybody is
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from raftdb.consensus.messages import TimeoutNow
from raftdb.consensus.wall import Wall
from tests.consensus.stage import Stage, describe, show

FOLDER = Path(__file__).parent / "transcripts"
RULE = "----"


class Block(NamedTuple):
    """Prose and commands before the rule; what they print after it."""

    head: tuple[str, ...]
    output: tuple[str, ...]


def parse(text: str) -> Iterator[Block]:
    """Blocks are set apart by an empty line after the output. Raises ValueError."""
    head: list[str] = []
    output: list[str] = []
    after_rule = False
    for line in [*text.splitlines(), ""]:
        if after_rule and not line:
            yield Block(tuple(head), tuple(output))
            head, output, after_rule = [], [], False
        elif after_rule:
            output.append(line)
        elif line == RULE:
            after_rule = True
        else:
            head.append(line)
    if any(head):
        raise ValueError(f"commands without {RULE} at the end: {head}")


class Play:
    """One transcript's state."""

    def __init__(self, walls: dict[str, type[Wall]]) -> None:
        self._walls = walls
        self._wall: Wall = Wall()
        self._newcomers: Wall = Wall()
        self._stage: Stage | None = None

    @property
    def stage(self) -> Stage:
        if self._stage is None:
            raise ValueError("begin with `members`")
        return self._stage

    def block(self, block: Block) -> list[str]:
        """Do the commands of a block; what they print."""
        printed: list[str] = []
        for line in block.head:
            if line.strip() and not line.startswith("#"):
                name, *words = line.split()
                self._do(name, words)
                if self._stage is not None:
                    self._stage.changes()
                    printed += self._stage.lines
                    self._stage.lines.clear()
        return printed

    def _do(self, name: str, words: list[str]) -> None:
        command = getattr(self, f"_{name}", None)
        if command is None:
            raise ValueError(f"unknown command {name!r}")
        command(*words)

    def _without(self, *rules: str) -> None:
        kinds = tuple(self._walls[rule] for rule in rules)
        self._wall = type("Without", kinds, {})()

    def _members(self, count: str, *logs: str) -> None:
        given = dict(word.split("=") for word in logs)
        batch = int(given.pop("batch", 1 << 16))
        self._stage = Stage(int(count), append_bytes_max=batch)
        for member in self.stage.names:
            terms = [int(term) for term in given.pop(member, "").split(",") if term]
            self.stage.join(member, terms, self._wall)
        assert not given, f"unknown members {given}"
        self._newcomers = self._wall
        self._wall = Wall()

    def _deadline(self, name: str) -> None:
        player = self.stage.members[name]
        player.act(player.core.on_election_deadline)

    def _beat(self, name: str) -> None:
        player = self.stage.members[name]
        player.act(player.core.send_heartbeats)

    def _quorum(self, name: str) -> None:
        player = self.stage.members[name]
        player.act(player.core.check_quorum)

    def _pass(self, seconds: str) -> None:
        self.stage.clock.now_s += float(seconds)

    def _deliver(self, source: str = "", target: str = "", kind: str = "") -> None:
        self.stage.deliver(source, target, kind, once=False, keep=False)

    def _first(self, source: str = "", target: str = "", kind: str = "") -> None:
        self.stage.deliver(source, target, kind, once=True, keep=False)

    def _again(self, source: str = "", target: str = "", kind: str = "") -> None:
        self.stage.deliver(source, target, kind, once=True, keep=True)

    def _drop(self, source: str = "", target: str = "", kind: str = "") -> None:
        self.stage.drop(source, target, kind)

    def _sync(self, *names: str) -> None:
        for name in self.stage.names if names == ("all",) else names:
            player = self.stage.members[name]
            player.act(player.journal.sync)

    def _power(self, name: str) -> None:
        self.stage.power(name)

    def _forget(self, name: str) -> None:
        self.stage.forget(name)

    def _lost(self, name: str, leader: str) -> None:
        player = self.stage.members[leader]
        player.act(player.core.replicator.forget, name)

    def _cut(self, one: str, other: str) -> None:
        self.stage.cut(one, other)

    def _heal(self) -> None:
        self.stage.heal()

    def _propose(self, name: str, count: str = "1") -> None:
        player = self.stage.members[name]
        for _ in range(int(count)):
            player.act(player.core.append_own, b"\x10\x90")

    def _read(self, name: str) -> None:
        self.stage.read(name)

    def _transfer(self, name: str, target: str) -> None:
        self.stage.send(name, target, TimeoutNow(self.stage.members[name].core.library.term))

    def _newcomer(self, name: str) -> None:
        self.stage.names.append(name)
        self.stage.join(name, [], self._newcomers)

    def _change(self, name: str, kind: str, who: str) -> None:
        self.stage.change(name, kind, who)

    def _voters(self) -> None:
        for player in self.stage.members.values():
            known = player.core.electorate.configurations
            voters, learners = " ".join(known.latest.voters), " ".join(known.latest.learners)
            more = f", learners {learners}" if learners else ""
            self.stage.say(f"{player.name}: by entry {known.latest_index} voters {voters}{more}")

    def _wires(self) -> None:
        for source, target, message in self.stage.wires:
            self.stage.say(f"{source} -> {target} {show(message)}")

    def _status(self) -> None:
        for player in self.stage.members.values():
            self.stage.say(describe(player))


def perform(text: str, walls: dict[str, type[Wall]]) -> str:
    """The transcript with what its commands print now."""
    play = Play(walls)
    parts = []
    for block in parse(text):
        parts.append("\n".join((*block.head, RULE, *play.block(block))))
    return "\n\n".join(parts) + "\n"


def transcripts() -> list[Path]:
    """All of them."""
    return sorted(FOLDER.glob("*.txt"))


def known_walls() -> dict[str, type[Wall]]:
    """Rules that can be left out, by the name of the planted bug."""
    from tests.sim.planted import forgetting, rules

    return {
        name: value
        for name, value in (vars(rules) | vars(forgetting)).items()
        if isinstance(value, type) and issubclass(value, Wall) and value is not Wall
    }


def main(arguments: list[str]) -> int:
    """Compare, or with --rewrite record anew. Exit code 1: they differ."""
    differ = 0
    for path in transcripts():
        text = path.read_text(encoding="utf-8")
        now = perform(text, known_walls())
        if now != text:
            differ += 1
            print(f"{path.name} differs")
            if "--rewrite" in arguments:
                path.write_text(now, encoding="utf-8")
    return 0 if "--rewrite" in arguments else min(differ, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
