"""Scripts about copies: a follower that the log has outrun, and what may happen meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.ids import NodeId
from raftdb.base.layout import copies_path, database_path
from raftdb.wire import BOUNDED
from tests.sim.checkers import Broken
from tests.sim.planted.scenarios_requests import (
    client_of,
    keep_writing,
    reader,
    register_in,
    run,
)
from tests.sim.planted.script import Script

SIZES: dict[str, Any] = {
    "limits": {"journal_segment_bytes": 2048, "peer_part_bytes": 1000},
    "wal_bytes": 1,
    "keep_bytes": 1,
}
"""Little of the log is kept, and copies come in many pieces."""
MARK = 0x11_22_33_44_00
"""Register values from here on are found in a file."""


def outrun(s: Script) -> tuple[str, str]:
    """The leader, and a follower that is down and that the log has outrun."""
    leader = s.leader()
    follower = s.others(leader)[0]
    last = s.node(follower).journal.last_index
    s.down(follower)
    s.written(30)
    s.until(lambda: s.node(leader).journal.first_index > last + 1)
    return leader, follower


def fetched(s: Script, follower: str, count: int = 20_000) -> None:
    """Wait until the follower has so many bytes of a copy."""
    s.until(lambda: s.node(follower).engine.copies.fetcher.received_bytes >= count)


def rotten_copy(s: Script) -> None:
    """What was fetched of a copy changes on the follower's disk before all of it is there."""
    _leader, follower = outrun(s)
    s.up(follower)
    fetched(s, follower)
    path = f"{copies_path(s.host(follower).config.data_dir)}/incoming/data"
    for offset in range(1000, 20_000, 1500):
        s.host(follower).files.flip_bit(path, offset, 3)
    s.until(lambda: s.cluster.copies_installed > 0)
    s.run_for(1.0)
    if s.cluster.copies_installed > 1:
        raise Broken("a copy is verified", f"{follower} installed one that was damaged")


def another_copy(s: Script) -> None:
    """In the midst of a copy its source starts anew, and then has another one to offer."""
    leader, follower = outrun(s)
    s.up(follower)
    fetched(s, follower)
    s.only(s.others(follower))
    s.run_for(0.1)
    s.down(leader, power=False)
    s.up(leader)
    s.run_for(2.0)
    s.written(20)
    s.cluster.fabric.block(set())
    s.until(lambda: s.cluster.copies_installed > 0)
    s.run_for(1.0)


def late_word(s: Script) -> None:
    """A member that lacks nothing any more hears late that it needs a copy."""
    leader = s.leader()
    follower = s.others(leader)[0]
    s.written(5)
    copies = s.node(follower).engine.copies
    s.cluster.call(follower, copies.need, (NodeId(leader),), 0)
    stop = keep_writing(s, [])
    most = 0
    for _ in range(200):
        s.run_for(0.02)
        node = s.host(follower).node
        if node is not None:
            if node.applied_index < most:
                raise Broken(
                    "applied never goes back",
                    f"{follower} has applied {node.applied_index}, it had {most}",
                )
            most = node.applied_index
    stop()


def killed_after_install(s: Script) -> None:
    """The power goes when a copy was just installed, with the old database still open."""
    _leader, follower = outrun(s)
    s.up(follower)
    s.until(lambda: s.node(follower).engine.copies.fetcher.state == "installed")
    s.cluster.kill(follower, power=True)
    s.cluster.start(follower)
    s.run_for(1.0)


def copy_under_load(s: Script) -> None:
    """A follower that was outrun catches up though writing goes on."""
    leader, follower = outrun(s)
    stop = [keep_writing(s, [], every_s=0.001) for _ in range(4)]
    s.up(follower)
    s.within(
        6.0,
        lambda: (
            s.host(follower).node is not None
            and s.node(follower).applied_index > s.node(leader).commit_index - 30
        ),
        "convergence",
        f"{follower} never catches up: {s.cluster.copies_installed} copies were installed",
    )
    for one in stop:
        one()


def copy_beside_a_reader(s: Script) -> None:
    """A reader of an older state holds up checkpoints where a copy is to be made."""
    leader, follower = outrun(s)
    s.run_for(0.5)
    s.cluster.call(leader, s.node(leader).pin)
    s.written(10)
    s.up(follower)
    s.run_for(3.0)
    s.cluster.call(leader, s.node(leader).unpin)
    s.run_for(2.0)


def rotten_page(s: Script) -> None:
    """A value changes on the disk: the member that has it never answers with it."""
    s._value = MARK
    s.written(3)
    name = s.others(s.leader())[0]
    host = s.host(name)
    s.run_for(1.0)
    # The write-ahead log begins anew, without the page that will rot.
    made = s.create("later", s.new_client())
    s.until(lambda: bool(made))
    host.held_down = True
    s.cluster.terminate(name)
    s.until(lambda: host.life is None)
    host.damaged = True
    directory = database_path(host.config.data_dir)
    value, places = s._value.to_bytes(6, "big"), 0
    for path in host.files.paths():
        if path.startswith(directory) and path.endswith(".sqlite"):
            content = host.files.durable_content(path)
            at = content.find(value)
            while at >= 0:
                host.files.flip_bit(path, at + 5, 6)
                at = content.find(value, at + 1)
                places += 1
    assert places, "the value is in the database's file"
    s.up(name)
    s.run_for(1.0)
    client = client_of(s, name)
    found, error = run(s, client, reader(client, BOUNDED, 10_000)())
    if error is None and register_in(found) != s._value:
        raise Broken(
            "a damaged page is no answer",
            f"{name} reads {register_in(found)}, written was {s._value}",
        )


PLAYS: dict[str, tuple[Callable[[Script], None], dict[str, Any]]] = {
    "rotten-copy": (rotten_copy, SIZES),
    "another-copy": (another_copy, SIZES),
    "late-word-of-a-copy": (late_word, SIZES),
    "killed-after-install": (killed_after_install, SIZES),
    "copy-under-load": (copy_under_load, SIZES),
    "copy-beside-a-reader": (copy_beside_a_reader, SIZES),
    "rotten-page": (rotten_page, {"wal_bytes": 1}),
}
"""By name: the script, and the options of its run."""

SCRIPTED = {
    "copy-not-verified": "rotten-copy",
    "copies-mixed": "another-copy",
    "old-copy-installed": "late-word-of-a-copy",
    "copy-beside-the-old-log": "killed-after-install",
    "log-not-pinned-for-a-copy": "copy-under-load",
    "copy-of-an-incomplete-checkpoint": "copy-beside-a-reader",
    "pages-not-checked": "rotten-page",
}
