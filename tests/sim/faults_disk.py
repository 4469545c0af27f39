"""Faults of the disk: calls that fail, power that goes in the midst of a write, stalls, rot."""

from __future__ import annotations

import errno
import random

from tests.sim.disk import Fault
from tests.sim.faults import Kind, Nemesis

ERRORS = {
    "sync": (errno.EIO, errno.EIO, errno.ENOSPC, errno.EINTR),
    "write": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "create": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.ENOSPC),
    "truncate": (errno.EIO,),
    "remove": (errno.EIO,),
    "sync_directory": (errno.EIO,),
    "read": (errno.EIO,),
    "open": (errno.EIO,),
}


def failing_call(n: Nemesis, draw: random.Random, number: int) -> None:
    """One of the next calls fails. Then the node must stop by itself; it comes back when the device
    does, with or without what the page cache held."""
    host = n.some_host(draw)
    if host.life is None:
        return
    kind = draw.choice(("sync", "sync", "sync", "write", "write", *sorted(ERRORS)))
    contains = draw.choice(("", "", "journal", "database", "-wal", ".sqlite"))
    code = draw.choice(ERRORS[kind])
    nth = draw.randint(1, 6)
    n.note(f"{host.name}: {nth}. {kind} of {contains or 'any file'} fails: {code}", number)
    host.excused = True
    host.files.inject(Fault(kind, nth, code, contains, partial=draw.random()))
    lives = host.lives
    n.after(
        n.seconds(draw, (0.1, 1.0), (1.0, 3.0)),
        lambda: n.stop_if_same(host, lives, draw, power=draw.random() < 0.5),
    )


def power_in_write(n: Nemesis, draw: random.Random, number: int) -> None:
    """The power goes, or the process is killed, between two of the next disk calls."""
    host = n.some_host(draw)
    if host.life is None:
        return
    power = draw.random() < 0.7
    count = draw.choice((draw.randrange(6), draw.randrange(60)))
    n.note(f"{host.name}: {'power' if power else 'process'} ends in {count} disk calls", number)
    n.cluster.die_in_write(host.name, count, power=power)
    lives = host.lives
    n.after(n.seconds(draw, (0.05, 0.5)), lambda: n.stop_if_same(host, lives, draw, power=power))


def slow_disk(n: Nemesis, draw: random.Random, number: int) -> None:
    """Every sync takes longer for a while; perhaps the power goes meanwhile."""
    host = n.some_host(draw)
    host.disk_slow_s = n.seconds(draw, (0.01, 0.1), (0.1, 1.0))
    n.note(f"{host.name}: disk +{host.disk_slow_s:.3f} s", number)
    n.after(n.seconds(draw, (0.5, 2.0)), setattr, host, "disk_slow_s", 0.0)
    if draw.random() < 0.3:
        # What hangs on this disk now is what a power cut takes.
        lives = host.lives
        n.after(
            n.seconds(draw, (0.05, 1.0)),
            lambda: n.stop_if_same(host, lives, draw, power=True),
        )


def stall(n: Nemesis, draw: random.Random, number: int) -> None:
    """The disk answers nothing for 0.1 to 60 seconds."""
    host = n.some_host(draw, leader_chance=0.6)
    for_s = draw.choice((draw.uniform(0.1, 1.0), draw.uniform(1.0, 10.0), draw.uniform(10, 60)))
    host.stalled_until_s = n.world.now_s + for_s
    n.note(f"{host.name}: disk stalls for {for_s:.1f} s", number)


BATCH = b"\xf7RJb"
"""How a batch of the journal begins (raftdb/journal/DESIGN.md)."""
BLOCK = 512


def rot(n: Nemesis, draw: random.Random, number: int) -> None:
    """The device changes what was durable: a flipped bit, a zeroed block, a block that was meant
    for another place. The node may never come back, and must never say anything wrong.

    Not where rot cannot be told from a torn write: in the journal's last batch, and in SQLite's
    write-ahead log.
    """
    host = n.some_host(draw)
    if not n.may_damage(host):
        return
    files = host.files
    found = [(path, _rottable(path, files.read_file(path))) for path in files.paths()]
    found = [(path, size) for path, size in found if size > 0]
    if not found:
        return
    path, size = draw.choice(found)
    offset = draw.randrange(size)
    how = draw.choice(("bit", "bit", "zeroes", "misdirected"))
    host.damaged = True
    n.note(f"{host.name}: rot ({how}) in {path} at byte {offset}", number)
    if how == "bit":
        files.flip_bit(path, offset, draw.randrange(8))
        return
    start = offset - offset % BLOCK
    end = min(start + BLOCK, size)
    content = files.read_file(path)
    other = draw.randrange(0, max(len(content) - BLOCK, 1)) // BLOCK * BLOCK
    block = bytes(BLOCK) if how == "zeroes" else content[other : other + BLOCK].ljust(BLOCK, b"\0")
    files.overwrite(path, start, block[: end - start])


def _rottable(path: str, content: bytes) -> int:
    """How many bytes from a file's beginning on the node is able to vouch for."""
    if path.endswith("-wal"):
        return 0
    if path.endswith(".segment"):
        # The last batch may look torn, and so may the one before it when that one is not synced
        # and never will be. In a sealed segment that is too careful, which does no harm.
        last = max(content.rfind(BATCH), 0)
        return max(content.rfind(BATCH, 0, last), 0)
    return len(content)


KINDS = {
    "failing-call": Kind(failing_call, 1.5),
    "power-in-write": Kind(power_in_write, 3.0),
    "slow-disk": Kind(slow_disk, 1.5),
    "stall": Kind(stall, 0.5),
    "rot": Kind(rot, 1.0),
}
