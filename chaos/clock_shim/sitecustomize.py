"""In a node's process under chaos: its wall clock is off by what a file says.

Python imports this module by its name at start, since its directory is first on PYTHONPATH. Only
the wall clock is moved (raftdb asks `time.time_ns` for it); monotonic clocks don't jump in reality.
"""

import mmap
import os
import struct
import time


def _move(path: str) -> None:
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time_ns
    offset = struct.Struct("<q")

    def time_ns() -> int:
        return real() + int(offset.unpack_from(shared, 0)[0])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if os.environ.get("CHAOS_CLOCK"):
    _move(os.environ["CHAOS_CLOCK"])
