"""A run's story in plain words: the lines of nodes' logs, of faults and of clients, for a reader.

A line that has no words here stays as it was noted.
"""

from __future__ import annotations

import re

from tests.workloads import Record

STARTED_S = 1000.0
"""Where virtual time begins; stories count from there."""
_TIME = 9
"""Characters of a line's time."""

_WORDS = (
    (
        r"(\S+) raft_role role=leader term=(\d+) .*",
        r"\1 leads term \2",
    ),
    (
        r"(\S+) raft_role role=candidate term=(\d+) .*",
        r"\1 asks for votes for term \2",
    ),
    (
        r"(\S+) raft_role role=follower term=(\d+) leader=None",
        r"\1 is in term \2 and knows no leader",
    ),
    (
        r"(\S+) raft_role role=follower term=(\d+) leader=(\S+)",
        r"\1 follows \3 in term \2",
    ),
    (r"(\S+) peer_lost peer=(\S+) reason=(.*)", r"\1 lost its connection to \2: \3"),
    (r"(\S+) peer_connected peer=(\S+) .*", r"\1 is connected to \2"),
    (r"(\S+) start life=(\d+)", r"\1 is started (its process number \2)"),
    (r"(\S+) started .*applied_index=(\d+) .*", r"\1 is up, its database at index \2"),
    (r"(\S+) starting_again reason=(.*)", r"\1 is to start again: \2"),
    (r"(\S+) starts again ?", r"\1 ends, and is started again at once"),
    (r"(\S+) stopped error=(.+)", r"\1 stopped by itself: \2"),
    (r"(\S+) stopped (error=)?", r"\1 has ended in order"),
    (r"(\S+) killed ?", r"\1 is killed"),
    (r"(\S+) killed in a write ?", r"\1 is killed between two disk calls"),
    (r"(\S+) power lost ?", r"\1 loses power"),
    (r"(\S+) power lost in a write ?", r"\1 loses power between two disk calls"),
    (r"(\S+) terminated ?", r"\1 is asked to stop"),
    (r"(\S+) handing_over term=(\d+)", r"\1 hands leadership over, in term \2"),
)
_RULES = tuple((re.compile(pattern), words) for pattern, words in _WORDS)


def plain(line: str) -> str:
    """One line of the story, as a sentence where there is one."""
    at, text = line[:_TIME], line[_TIME + 1 :]
    for pattern, words in _RULES:
        found = pattern.fullmatch(text)
        if found:
            return f"{at} {found.expand(words)}"
    return line


def answered(at_s: float, record: Record) -> str:
    """One operation of a client, when it ended or was given up."""
    got = record.error or (record.result if record.is_ok else record.outcome)
    begun_s = record.invoke_ns / 1e9 - STARTED_S
    where = f" at index {record.index}" if record.index else ""
    return (
        f"{at_s - STARTED_S:{_TIME}.4f} c{record.client} {record.workload} {record.operation} "
        f"{record.arguments}, begun at {begun_s:.4f}: {got}{where}"
    )
