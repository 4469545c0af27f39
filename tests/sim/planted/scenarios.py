"""The scripts that show what ordinary seeds reach too seldom. Each passes with the bug out."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

from raftdb.base.ids import NodeId
from tests.sim.checkers import Broken
from tests.sim.disk import Fault, SimFiles
from tests.sim.planted import (
    archive,
    archive_rules,
    clients,
    disasters,
    forgetting,
    full_disks,
    given_up,
    invariants,
    locations,
    members,
    recovery,
    scenarios_content,
    scenarios_copies,
    scenarios_requests,
    sessions,
    threads,
    transacting,
    verdicts,
)
from tests.sim.planted.script import Script

Play = Callable[[Script], None]


def leader_alone(s: Script) -> None:
    """A leader that is cut off must step down: its clients would wait for nothing."""
    leader = s.leader()
    s.only(s.others(leader))
    s.within(
        3.0,
        lambda: s.node(leader).role != "leader",
        "check-quorum",
        f"{leader} still leads 3 s after nobody answers it",
    )


def member_comes_back(s: Script) -> None:
    """A member that was cut off comes back: the healthy leader stays."""
    leader = s.leader()
    cut = s.others(leader)[0]
    term = s.node(leader).term
    s.only(s.others(cut))
    s.run_for(4.0)
    s.heal()
    s.run_for(1.5)
    if s.node(leader).role != "leader" or s.node(leader).term != term:
        raise Broken("healthy leader stays", f"{leader} led term {term} and was deposed")


def long_divergence(s: Script) -> None:
    """A deposed leader's long tail is replaced within a few round trips."""
    leader = s.leader()
    s.only([leader], s.others(leader))
    ticks(s, leader, 400)
    s.run_for(1.5)
    other = next(n.name for n in s.cluster.leaders() if n.name != leader)
    ticks(s, other, 1500)
    s.only(s.others(leader))
    last = next(name for name in s.others(leader) if name != other)
    s.cluster.call(
        other, s.node(other).engine.transfer_leadership, NodeId(last), lambda _reason: None
    )
    s.until(lambda: s.node(last).role == "leader")
    for name in s.others(leader):
        s.cluster.fabric.slow[leader, name] = s.cluster.fabric.slow[name, leader] = 0.02
    s.heal()
    s.within(
        3.0,
        lambda: s.node(leader).applied_index >= s.node(last).commit_index,
        "convergence",
        f"{leader} has not caught up after 3 s",
    )
    s.cluster.fabric.slow.clear()


def ticks(s: Script, name: str, count: int) -> None:
    """Entries at a leader, whether it can commit them or not."""
    node = s.node(name)
    for _ in range(count):
        s.cluster.call(name, node.assembly.replica.tick)
        s.run_for(0.001)


def older_term(s: Script) -> None:
    """Figure 3.7 of the thesis: an entry of an older term on a majority is not committed."""
    one, two, three, four, five = s.cluster.hosts
    s.make_leader(one)
    s.only([one, two])
    before = s.node(one).journal.last_index
    s.write()
    s.cluster.call(one, s.node(one).assembly.replica.tick)
    s.until(lambda: s.node(two).journal.durable_index > before)
    lost = s.node(two).journal.last_index
    s.down(one)
    s.down(two)
    # Term 2: another leads, and has its no-op on its own disk alone.
    s.only([three, four, five])
    s.until(lambda: any(n.role == "candidate" for n in s.cluster.live()))
    leads = next(n.name for n in s.cluster.live() if n.role == "candidate")
    rest = [name for name in (three, four, five) if name != leads]
    s.until(lambda: all(s.node(name)._library.term == s.node(leads).term for name in rest))
    s.cluster.fabric.block({(leads, other) for other in s.others(leads)})
    s.until(lambda: s.node(leads).role == "leader")
    last = s.node(leads).journal.last_index
    s.until(lambda: s.node(leads).journal.durable_index >= last)
    s.down(leads)
    # Term 3: the first two again; the entry of term 1 comes on a third disk.
    s.only([one, two, rest[0]])
    s.up(one, two)
    s.until(lambda: _held_by(s, (one, two), rest[0], lost))
    # What is on its way to it now (the no-op that would make it safe) does not arrive.
    for name in (one, two):
        s.reset(name, rest[0])
    s.down(one)
    s.down(two)
    # And the second one again: it replaces the entry.
    s.only([leads, *rest])
    s.up(leads)
    s.run_for(3.0)
    s.up(one, two)


def _held_by(s: Script, pair: tuple[str, str], third: str, index: int) -> bool:
    """One of the two leads, and knows that both others have the entry."""
    for node in s.cluster.leaders():
        if node.name in pair:
            peers = {*pair, third} - {node.name}
            return all(node._library.match_index(peer) >= index for peer in peers)
    return False


def tail_of_a_shared_term(s: Script) -> None:
    """A deposed leader has a tail of the same term as what it shares with the others. A message
    that verifies a part of that term must not be answered for the tail."""
    old = s.leader()
    new, third = s.others(old)
    s.cluster.fabric.slow[new, old] = 30.0
    s.only([old, new], besides=(new, old))
    before = s.node(new).journal.last_index
    ticks(s, old, 12)
    s.until(lambda: s.node(new).journal.durable_index >= before + 3)
    s.only()
    s.cluster.fabric.slow.clear()
    ticks(s, old, 40)
    s.only([new, third])
    s.until(lambda: s.node(new).role == "leader")
    s.only()
    ticks(s, new, 120)
    s.until(lambda: s.node(new).role != "leader")
    s.only([new, third])
    s.until(lambda: s.node(new).role == "leader")
    s.reset(old, new)
    s.only([old, new])
    s.within(
        4.0,
        lambda: s.node(old).applied_index >= s.node(new).journal.last_index - 2,
        "convergence",
        f"{old} never gets what {new} has",
    )


def unwritten_leader(s: Script) -> None:
    """The leader's disk is slow, one follower has the entry: that is one copy of three."""
    leader = s.leader()
    quick, cut = s.others(leader)
    s.only([leader, quick])
    s.run_for(0.2)
    s.slow_disk(2.0, leader)
    node, before = s.node(quick), s.node(quick).journal.durable_index
    s.write()
    s.until(lambda: node.journal.durable_index > before)
    s.run_for(0.3)
    s.down(leader)
    s.slow_disk(0.0, leader)
    s.only([leader, cut])
    s.up(leader)
    s.run_for(3.0)
    s.heal()


def deposed_leader(s: Script) -> None:
    """A leader that does not know yet that it was replaced is asked for what was written since."""
    old = s.leader()
    s.written()
    near = s.new_client()
    before = s.read(client=near)
    s.until(lambda: bool(before))
    far = [s.new_client() for _ in range(8)]
    s.only([old, near.name], [*s.others(old), *(one.name for one in far)])
    s.until(lambda: any(n.role == "leader" and n.name != old for n in s.cluster.live()))
    writes = [s.write(client=one) for one in far]
    s.until(lambda: any(found and found[0].status == "ok" for found in writes))
    s.run_for(0.001)
    late = s.read(client=near)
    s.run_for(0.1)
    s.heal()
    s.until(lambda: bool(late))


def slow_machine(s: Script) -> None:
    """A new leader whose machine is behind is asked for what its predecessor acknowledged. (What
    changes the schema is applied on its lane, which takes its time here.)"""
    for number in range(10):
        leader = s.leader()
        target = s.others(leader)[number % 2]
        maker, writer = s.new_client(), s.new_client()
        made = s.create(f"slow_{number}", maker)
        written = s.write(client=writer)
        s.until(lambda written=written: bool(written))
        s.cluster.call(
            leader, s.node(leader).engine.transfer_leadership, NodeId(target), lambda _reason: None
        )
        new = s.node(target)
        try:
            s.until(lambda new=new: new.role == "leader", within_s=1.0)
        except AssertionError:
            continue
        s.until(lambda new=new: new.commit_index >= new._library.noop_index > 0)
        late = [s.read() for _ in range(3)]
        s.until(lambda late=late, made=made: all(late) and bool(made))
        s.run_for(0.3)


def slow_follower_disk(s: Script) -> None:
    """A follower's disk is far behind what the others have committed; then it is killed."""
    leader = s.leader()
    follower = s.others(leader)[0]
    s.slow_disk(1.5, follower)
    ticks(s, leader, 200)
    s.run_for(0.3)
    s.cluster.kill(follower, power=False)
    s.slow_disk(0.0, follower)
    s.cluster.start(follower)
    s.run_for(1.0)


def shared_entry(s: Script) -> None:
    """Several clients swap the same value at the same moment: one of them succeeds."""
    leader = s.leader()
    clients = [s.new_client() for _ in range(6)]
    for number, one in enumerate(clients):
        found = s.write(key=1 + number % 2, client=one)  # Its session is open then.
        s.until(lambda found=found: bool(found))
    first = s.write(key=0)
    s.until(lambda: bool(first))
    value = s._value
    # While the disk takes this one, the others gather for the next entry.
    s.slow_disk(0.1, leader)
    filler = s.write(key=1)
    s.run_for(0.02)
    swaps = [s.swap(0, value, 1000 + n, one) for n, one in enumerate(clients)]
    s.until(lambda: all(swaps) and bool(filler))
    s.slow_disk(0.0, leader)


def lost_reply(s: Script) -> None:
    """A client's write takes effect and its reply is lost for as long as the client waits."""
    client = s.new_client()
    first = s.write(key=1, client=client)
    s.until(lambda: bool(first))
    second = s.write(key=1, client=client)
    s.cluster.fabric.block({(name, client.name) for name in s.cluster.hosts})
    s.until(lambda: bool(second))
    s.heal()
    third = s.write(key=0, client=client)
    s.until(lambda: bool(third))
    # And once more, with a client that asks again until it knows.
    swap = s.swap(0, s._value, 1000, client, resume=True)
    s.cluster.fabric.block({(name, client.name) for name in s.cluster.hosts})
    s.run_for(6.0)
    s.heal()
    s.until(lambda: bool(swap))


def cut_by_the_database(s: Script) -> None:
    """A reader holds up checkpoints while the journal is cut; then the power goes."""
    follower = s.others(s.leader())[0]
    s.written(2)
    s.run_for(1.0)
    s.cluster.call(follower, s.node(follower).pin)
    s.written(60)
    s.run_for(2.0)
    s.down(follower)
    s.up(follower)
    s.run_for(2.0)


def killed_in_writes(s: Script) -> None:
    """A follower is killed at one disk call after the other while it applies."""
    follower = s.others(s.leader())[0]
    for call in range(40):
        clients = [s.new_client() for _ in range(2)]
        found = [s.create(f"k_{call}_{one.number}", one) for one in clients]
        found.append(s.write())
        s.cluster.die_in_write(follower, call % 14, power=False)
        s.until(lambda found=found: all(found))
        s.run_for(0.3)
        s.cluster.kill(follower, power=False)
        s.cluster.start(follower)
        s.run_for(0.2)


def killed_in_entries(s: Script) -> None:
    """The same, with entries of several requests that need a transaction each."""
    leader, follower, clients = _crowd(s, 5)
    for call in range(28):
        # While the disk takes this one, the others gather for the next entry.
        s.slow_disk(0.03, leader)
        waiting = [s.write(key=2)]
        s.run_for(0.01)
        waiting += [s.write(key=n, client=one) for n, one in enumerate(clients[:2])]
        waiting += [s.create(f"e_{call}_{n}", one) for n, one in enumerate(clients[2:])]
        s.slow_disk(0.0, leader)
        s.cluster.die_in_write(follower, call % 14, power=False)
        s.until(lambda waiting=waiting: all(waiting))
        s.run_for(0.2)
        s.cluster.kill(follower, power=False)
        s.cluster.start(follower)
        s.run_for(0.2)


def _crowd(s: Script, count: int) -> tuple[str, str, list[Any]]:
    """The leader, a follower, and clients whose sessions are open."""
    leader = s.leader()
    clients = [s.new_client() for _ in range(count)]
    for one in clients:
        found = s.write(key=1, client=one)
        s.until(lambda found=found: bool(found))
    return leader, s.others(leader)[0], clients


def torn_writes(s: Script) -> None:
    """A follower loses power when a long batch is written and not synced yet."""
    leader, follower, clients = _crowd(s, 10)
    for number in range(30):
        s.slow_disk(0.03, leader)
        waiting = [s.write(key=2)]
        s.run_for(0.01)
        waiting += [s.write(key=n % 3, client=one) for n, one in enumerate(clients)]
        last = s.node(leader).journal.last_index
        s.until(lambda last=last: s.node(leader).journal.last_index > last)
        s.slow_disk(0.0, leader)
        s.cluster.die_in_write(follower, 1 + number % 3, power=True)
        s.until(lambda waiting=waiting: all(waiting))
        s.run_for(0.1)
        s.cluster.kill(follower, power=True)
        s.cluster.start(follower)
        end = s.node(leader).commit_index
        s.until(lambda end=end: s.node(follower).applied_index >= end)


def before_the_no_op(s: Script) -> None:
    """A new leader does not know yet what its predecessor acknowledged, and is asked for it."""
    leader = s.leader()
    s.written(2)
    near = s.new_client()
    known = s.read(client=near)
    s.until(lambda: bool(known))
    # Acknowledged this moment: the others have the entry, and not the word that it is committed.
    last = s.write()
    s.until(lambda: bool(last))
    s.down(leader)
    s.until(lambda: any(node.role == "leader" for node in s.cluster.live()))
    s.slow_disk(1.0, *s.others(leader))
    late = [s.read(client=one) for one in (near, s.new_client(), s.new_client())]
    s.until(lambda: all(late))
    s.slow_disk(0.0, *s.others(leader))
    s.up(leader)


def failing_sync(s: Script) -> None:
    """Syncs of the journal fail, and the page cache goes on to show what it lost."""
    follower = s.others(s.leader())[0]
    s.written()
    host = s.host(follower)
    host.excused = True
    for nth in range(1, 7):
        host.files.inject(Fault("sync", nth, errno.EIO, "journal", keep_cache=True))
    s.written(8)
    s.run_for(0.5)
    s.down(follower)
    s.up(follower)
    s.run_for(1.0)


def rot(s: Script) -> None:
    """Damage to what was durable: the node that has it must not come back as if it were less."""
    leader = s.leader()
    good, cut = s.others(leader)
    s.only([leader, good])
    s.written(6)
    s.run_for(0.3)
    s.down(good)
    s.host(good).damaged = True
    files = s.host(good).files
    path = _last_segment(files, f"/{good}/data")
    size = len(files.durable_content(path))
    files.overwrite(path, size - 700, bytes(300))
    s.down(leader)
    s.heal()
    s.only([good, cut])
    s.up(good)
    s.run_for(4.0)
    s.heal()
    s.up(leader)


def rot_of_sealed(s: Script) -> None:
    """Damage in an old segment: what is sent from it is what was written, or nothing."""
    leader = s.leader()
    cut = s.others(leader)[0]
    s.only(s.others(cut))
    s.written(60)
    # Long enough for the connection to be given up, with all that was on its way.
    s.run_for(3.0)
    files, data = s.host(leader).files, f"/{leader}/data"
    s.host(leader).damaged = True
    for path in _segments(files, data)[:-1]:
        content = files.durable_content(path)
        at = content.find(b"w_register")
        if at >= 0:
            files.flip_bit(path, at + 3, 1)
    s.heal()
    s.run_for(5.0)


def empty_disk(s: Script) -> None:
    """A member's disk is replaced by an empty one: it is no member any more."""
    leader = s.leader()
    lost, cut = s.others(leader)
    s.only([leader, lost])
    s.written(3)
    s.down(lost)
    s.host(lost).damaged = True
    s.host(lost).files = SimFiles(random.Random("a new disk"))
    s.down(leader)
    s.only([lost, cut])
    s.up(lost)
    s.run_for(4.0)
    s.heal()
    s.up(leader)


def late_acknowledgements(s: Script) -> None:
    """Acknowledgements of an old term come late, to a leader that leads again and has other
    entries under the same numbers."""
    one, two, three, four, five = s.cluster.hosts
    fabric = s.cluster.fabric
    s.make_leader(one)
    fabric.slow[two, one] = 0.6
    s.only([one, two], [three, four, five])
    ticks(s, one, 12)
    s.run_for(0.03)
    s.until(lambda: any(n.role == "leader" and n.name != one for n in s.cluster.live()))
    other = next(n.name for n in s.cluster.leaders() if n.name != one)
    s.only([one, three, four, five], [one, two], besides=(one, two))
    s.until(lambda: s.node(one)._library.leader == other)
    s.run_for(0.02)
    s.cluster.call(
        other, s.node(other).engine.transfer_leadership, NodeId(one), lambda _reason: None
    )
    s.until(lambda: s.node(one).role == "leader")
    s.only([one, four], [one, two], besides=(one, two))
    ticks(s, one, 40)
    s.run_for(1.2)
    fabric.slow.clear()
    s.only([two, three, five])
    s.run_for(3.0)
    s.heal()


def _segments(files: Any, data: str) -> list[str]:
    return sorted(
        path for path in files._names if path.startswith(data) and "segment" in path.split("/")[-1]
    )


def _last_segment(files: Any, data: str) -> str:
    return _segments(files, data)[-1]


PLAYS: dict[str, tuple[Play, dict[str, Any]]] = {
    "leader-alone": (leader_alone, {}),
    "member-comes-back": (member_comes_back, {}),
    "long-divergence": (long_divergence, {"limits": {"entry_requests_max": 1}}),
    "older-term": (older_term, {"nodes": 5, "limits": {"append_bytes_max": 1}}),
    "tail-of-a-shared-term": (tail_of_a_shared_term, {"limits": {"append_bytes_max": 1}}),
    "unwritten-leader": (unwritten_leader, {}),
    "deposed-leader": (deposed_leader, {}),
    "slow-machine": (slow_machine, {"slow_apply_chance": 1.0}),
    "slow-follower-disk": (slow_follower_disk, {"limits": {"entry_requests_max": 1}}),
    "shared-entry": (shared_entry, {}),
    "lost-reply": (lost_reply, {}),
    "cut-by-the-database": (
        cut_by_the_database,
        {"limits": {"journal_segment_bytes": 2048}, "wal_bytes": 1, "keep_bytes": 4096},
    ),
    "killed-in-writes": (killed_in_writes, {}),
    "killed-in-entries": (killed_in_entries, {}),
    "torn-writes": (torn_writes, {}),
    "before-the-no-op": (before_the_no_op, {}),
    "failing-sync": (failing_sync, {}),
    "rot": (rot, {}),
    "rot-of-sealed": (
        rot_of_sealed,
        {"limits": {"journal_segment_bytes": 2048, "journal_cache_bytes_max": 2000}},
    ),
    "empty-disk": (empty_disk, {}),
    "late-acknowledgements": (late_acknowledgements, {"nodes": 5}),
    **scenarios_requests.PLAYS,
    **scenarios_copies.PLAYS,
    **locations.PLAYS,
    **invariants.PLAYS,
    **scenarios_content.PLAYS,
    **archive.PLAYS,
    **archive_rules.PLAYS,
    **forgetting.PLAYS,
    **disasters.PLAYS,
    **threads.PLAYS,
    **members.PLAYS,
    **recovery.PLAYS,
    **sessions.PLAYS,
    **clients.PLAYS,
    **transacting.PLAYS,
    **verdicts.PLAYS,
    **full_disks.PLAYS,
    **given_up.PLAYS,
}
