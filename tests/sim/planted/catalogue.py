"""All planted bugs, and the rules that have no code here yet."""

from __future__ import annotations

from dataclasses import replace

from tests.sim.planted import (
    copies,
    journal,
    locations,
    machine,
    node,
    requests,
    scenarios_copies,
    scenarios_requests,
    wall,
)
from tests.sim.planted.bug import Bug

SCRIPTED = {
    "own-copy-counts-at-once": "unwritten-leader",
    "own-copy-counts-and-applies": "unwritten-leader",
    "acks-of-any-term": "late-acknowledgements",
    "old-connections-and-terms": "late-acknowledgements",
    "acknowledges-its-tail": "tail-of-a-shared-term",
    "reads-are-local": "deposed-leader",
    "reads-without-a-round": "deposed-leader",
    "reads-before-applied": "slow-machine",
    "applies-before-durable": "slow-follower-disk",
    "one-reply-for-the-entry": "shared-entry",
    "sequence-used-again": "lost-reply",
    "silence-taken-for-refusal": "lost-reply",
    "retry-is-a-new-write": "lost-reply",
    "incomplete-checkpoint-counts": "cut-by-the-database",
    "applied-taken-for-durable": "cut-by-the-database",
    "applied-outside-the-transaction": "killed-in-writes",
    "failed-fsync-retried": "failing-sync",
    "recovery-trusts-the-page-cache": "killed-in-writes",
    "hint-is-one-back": "long-divergence",
    "no-stickiness": "member-comes-back",
    "leads-without-quorum": "leader-alone",
    "commits-older-terms": "older-term",
    "corruption-taken-for-a-torn-tail": "rot",
    "entries-not-verified": "rot-of-sealed",
    "empty-directory-is-a-member": "empty-disk",
    **scenarios_requests.SCRIPTED,
    **scenarios_copies.SCRIPTED,
    **locations.SCRIPTED,
}
"""Bugs that ordinary seeds reach too seldom, and the script that reaches them."""

BUGS: tuple[Bug, ...] = tuple(
    replace(bug, scenario=SCRIPTED.get(bug.name, ""))
    for bug in (
        *wall.BUGS,
        *journal.BUGS,
        *machine.BUGS,
        *node.BUGS,
        *requests.BUGS,
        *copies.BUGS,
        *locations.BUGS,
    )
)

NOT_YET = {
    "row 19": "membership is fixed: no code yet",
    "M4's verdicts": "held requests are not part of the simulated workloads yet",
    "row 12's log behind a copy": "tests/consensus/test_copies.py; no script of whole nodes yet",
    "D1": "comparing content is new: bugs still to be planted (tests/node/test_comparison.py)",
    "A1 to A7": "archive and restore are not simulated",
    "S3's horizon, S4's lineage": "nothing in a run is as old as what is kept, or restored",
}
"""Rules without a planted bug, and why."""

ELSEWHERE = {
    "row 7": "a vote that comes twice needs a network that doubles: transcript row07",
    "row 8, late refusals": "tests/consensus/test_rows.py",
    "row 15": "nothing is unpickled: tests/meta, tests/consensus/test_seams.py",
    "row 17": "what raises in apply or in a callback: tests/consensus/test_engine.py",
    "row 18": "speed and bounds: tests/consensus, bench",
    "row 20": "the library's request ids are not used: tests/consensus/test_seams.py",
    "row 21": "one seed is one run: tests/sim/test_sim.py",
    "a torn tail taken for data": "python -m tests.powerloss planted",
    "a vote or a term forgotten": "transcript row01_two_votes; tests/powerloss",
    "J4": "a start reads the last segment only: tests/journal",
    "M5, M6": "planner state, arithmetic: tests/machine",
    "T1 to T3": "rules of the simulation itself",
}
"""Rules whose breach is shown by other tests than this simulation."""
