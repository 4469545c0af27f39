"""Faults that some runs have: a processor that is given away in the midst of work, and writes that
go astray into a write-ahead log that is in use."""

from __future__ import annotations

import random

from raftdb.machine.format import PAGE_BYTES
from tests.sim.faults import Kind, Nemesis
from tests.sim.hosts import Host

HEADER_BYTES, FRAME_BYTES = 32, PAGE_BYTES + 24
"""Of a write-ahead log (https://www.sqlite.org/walformat.html)."""
BLOCK = 512


def stolen_time(n: Nemesis, draw: random.Random, number: int) -> None:
    """Calls of the disk take long by the node's own clock, and nothing else happens there."""
    host = n.some_host(draw)
    host.call_s = draw.choice((0.003, 0.01, 0.03))
    n.note(f"{host.name}: up to {host.call_s * 1000:g} ms in each call of the disk", number)
    _set_calls(host)

    def end() -> None:
        host.call_s = 0.0
        _set_calls(host)

    n.after(n.seconds(draw, (1.0, 5.0)), end)


def _set_calls(host: Host) -> None:
    if host.node is not None:
        host.node.assembly.cpu_clock.call_s = host.call_s


def stray_write(n: Nemesis, draw: random.Random, number: int) -> None:
    """Something writes into the write-ahead log of a database that is in use: one bit, zeros, or a
    block of another place. Until the node sees it, at its next look, what it reads there may be
    wrong (see `Host.strays`); nothing of it may reach anybody's content, or outlive the process.

    Only into committed frames that this process has written and that nobody has synced: its writer
    has those pages in memory, and no checkpoint has begun to move them.
    """
    host = n.some_host(draw)
    node = host.node
    if node is None or node.machine.absent or not n.may_damage(host):
        return
    path, files = f"{node.machine.path}-wal", host.files
    end = HEADER_BYTES + node.machine.wal_pages * FRAME_BYTES
    written = [
        (at, count)
        for at, count in files.unsynced_writes(path)
        if at >= HEADER_BYTES and at + count <= end
    ]
    if not written or node.machine._checkpointer.lock.locked():
        return
    shown = files._inode(path).cached
    begin, count = draw.choice(written)
    at = draw.randrange(begin, begin + count)
    how = draw.choice(("bit", "bit", "zeroes", "misdirected"))
    if how == "bit":
        data = bytes([shown[at] ^ 1 << draw.randrange(8)])
    else:
        block = at - at % BLOCK
        at = max(block, begin)
        other = draw.randrange(block + 1) // BLOCK * BLOCK
        data = bytes(BLOCK if how == "zeroes" else shown[other : other + BLOCK])
        data = data[: min(block + BLOCK, begin + count) - at]
    if shown[at : at + len(data)] == data:
        return
    host.damaged = host.strays = True
    n.note(f"{host.name}: a stray write ({how}) at byte {at} of its write-ahead log", number)
    n.cluster.note("log written into", host.name)
    files.stray_write(path, at, data)


KINDS = {"stolen-time": Kind(stolen_time, 5.0), "stray-write": Kind(stray_write, 2.0)}
