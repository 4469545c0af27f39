"""All planted bugs, and the rules whose breach other tests show."""

from __future__ import annotations

from dataclasses import replace

from tests.sim.planted import (
    archive,
    archive_rules,
    clients,
    content,
    copies,
    disasters,
    forgetting,
    full_disks,
    given_up,
    invariants,
    journal,
    locations,
    machine,
    members,
    node,
    recovery,
    requests,
    scenarios_content,
    scenarios_copies,
    scenarios_requests,
    sessions,
    threads,
    transacting,
    verdicts,
    wall,
)
from tests.sim.planted.bug import Bug

SCRIPTED = {
    "acks-of-any-term": "late-acknowledgements",
    "old-connections-and-terms": "late-acknowledgements",
    "acknowledges-its-tail": "tail-of-a-shared-term",
    "reads-without-a-round": "deposed-leader",
    "reads-before-applied": "slow-machine",
    "retry-is-a-new-write": "lost-reply",
    "incomplete-checkpoint-counts": "cut-by-the-database",
    "applied-taken-for-durable": "cut-by-the-database",
    "applied-outside-the-transaction": "killed-in-writes",
    "entry-started-over": "killed-in-entries",
    "reply-outside-the-transaction": "killed-in-writes",
    "reads-before-the-no-op": "before-the-no-op",
    "torn-tail-taken-for-data": "torn-writes",
    "failed-fsync-retried": "failing-sync",
    "recovery-trusts-the-page-cache": "killed-in-writes",
    "hint-is-one-back": "long-divergence",
    "no-stickiness": "member-comes-back",
    "leads-without-quorum": "leader-alone",
    "corruption-taken-for-a-torn-tail": "rot",
    "entries-not-verified": "rot-of-sealed",
    **scenarios_requests.SCRIPTED,
    **scenarios_copies.SCRIPTED,
    **locations.SCRIPTED,
    **scenarios_content.SCRIPTED,
    **archive.SCRIPTED,
    **archive_rules.SCRIPTED,
    **forgetting.SCRIPTED,
    **disasters.SCRIPTED,
    **invariants.SCRIPTED,
    **members.SCRIPTED,
    **recovery.SCRIPTED,
    **sessions.SCRIPTED,
    **threads.SCRIPTED,
    **clients.SCRIPTED,
    **transacting.SCRIPTED,
    **verdicts.SCRIPTED,
    **full_disks.SCRIPTED,
    **given_up.SCRIPTED,
}
"""Bugs that ordinary seeds reach too seldom, and the script that reaches them."""

SHOWN = {
    "own-copy-counts-at-once": "unwritten-leader",
    "own-copy-counts-and-applies": "unwritten-leader",
    "reads-are-local": "deposed-leader",
    "applies-before-durable": "slow-follower-disk",
    "one-reply-for-the-entry": "shared-entry",
    "sequence-used-again": "lost-reply",
    "silence-taken-for-refusal": "lost-reply",
    "commits-older-terms": "older-term",
    "empty-directory-is-a-member": "empty-disk",
}
"""Bugs that fall to ordinary seeds, and have a script that shows what they do."""

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
        *content.BUGS,
        *archive.BUGS,
        *archive_rules.BUGS,
        *forgetting.BUGS,
        *disasters.BUGS,
        *members.BUGS,
        *invariants.BUGS,
        *recovery.BUGS,
        *sessions.BUGS,
        *threads.BUGS,
        *clients.BUGS,
        *transacting.BUGS,
        *verdicts.BUGS,
        *full_disks.BUGS,
        *given_up.BUGS,
    )
)

ELSEWHERE = {
    "row 7": "a vote that comes twice needs a network that doubles: transcript row07",
    "row 8, late refusals": "tests/consensus/test_rows.py",
    "row 15": "nothing is unpickled: tests/meta, tests/consensus/test_seams.py",
    "row 17": "what raises in apply or in a callback: tests/consensus/test_engine.py",
    "row 18": "speed and bounds: tests/consensus, bench",
    "row 20": "the library's request ids are not used: tests/consensus/test_seams.py",
    "row 21": "one seed is one run: tests/sim/test_sim.py",
    "M5, M6": "planner state, arithmetic: tests/machine",
    "T1 to T3": "rules of the simulation itself",
}
"""Rules whose breach is shown by other tests than this simulation."""
