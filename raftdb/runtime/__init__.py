"""The real ports: clock, randomness, threads, network, files and log of this machine.

Owns: every clock, thread, socket and file that a node uses; TLS and who is at the other end.
Promises: the ports of raftdb.base.ports to the letter; no exception of a callback is lost; a
stranger costs bounded memory and time and reaches no handler; no secret in a log line.
May import: base; uvloop; the standard library.
Never: the meaning of a byte that is sent or stored; cryptography (the library).

What is named here is loaded when it is first used: a blocking client takes its clock and its TLS
rules from this room, and should not pay for asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftdb.runtime.clock import RealClock
    from raftdb.runtime.credentials import EXPIRY_ALARM_DAYS, Credentials
    from raftdb.runtime.executor import LoopExecutor
    from raftdb.runtime.files import RealFiles
    from raftdb.runtime.log import StreamLog
    from raftdb.runtime.loop import new_event_loop, real_ports, tune_switching
    from raftdb.runtime.malloc import tune_malloc
    from raftdb.runtime.network import RealNetwork
    from raftdb.runtime.random import RealRandom
    from raftdb.runtime.tls import TlsPaths, check_peer, client_context, peer_from_certificate

_PLACES = {
    "EXPIRY_ALARM_DAYS": "credentials",
    "Credentials": "credentials",
    "LoopExecutor": "executor",
    "RealClock": "clock",
    "RealFiles": "files",
    "RealNetwork": "network",
    "RealRandom": "random",
    "StreamLog": "log",
    "TlsPaths": "tls",
    "check_peer": "tls",
    "client_context": "tls",
    "new_event_loop": "loop",
    "peer_from_certificate": "tls",
    "real_ports": "loop",
    "tune_malloc": "malloc",
    "tune_switching": "loop",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{place}"), name)
    globals()[name] = value
    return value


__all__ = [
    "EXPIRY_ALARM_DAYS",
    "Credentials",
    "LoopExecutor",
    "RealClock",
    "RealFiles",
    "RealNetwork",
    "RealRandom",
    "StreamLog",
    "TlsPaths",
    "check_peer",
    "client_context",
    "new_event_loop",
    "peer_from_certificate",
    "real_ports",
    "tune_malloc",
    "tune_switching",
]
