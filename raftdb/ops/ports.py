"""Free ports on the loopback, for clusters on one machine."""

from __future__ import annotations

import os
import socket

from raftdb.base.errors import ConfigError

PORT_FIRST, PORT_LAST = 20_000, 32_000
"""Below the range from which systems take ports for outgoing connections."""
_STEP = 32


def free_ports(count: int, start: int | None = None) -> int:
    """The first of `count` neighbouring ports that nobody listens on now. Raises ConfigError.

    The search starts at a place that differs from process to process, so that two clusters that
    are made at the same moment do not meet.
    """
    places = (PORT_LAST - PORT_FIRST - count) // _STEP
    begin = os.getpid() * 7 if start is None else (start - PORT_FIRST) // _STEP
    for number in range(places):
        first = PORT_FIRST + (begin + number) % places * _STEP
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise ConfigError(
        f"found no {count} neighbouring free ports between {PORT_FIRST} and {PORT_LAST}",
        hint="stop what listens there, or give --base-port",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
