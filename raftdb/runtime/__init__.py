"""The real ports: clock, randomness, threads, network, files and log of this machine.

Owns: every clock, thread, socket and file that a node uses; TLS and who is at the other end.
Promises: the ports of raftdb.base.ports to the letter; no exception of a callback is lost; a
stranger costs bounded memory and time and reaches no handler; no secret in a log line.
May import: base; uvloop; the standard library.
Never: the meaning of a byte that is sent or stored; cryptography (the library).
"""

from raftdb.runtime.clock import RealClock
from raftdb.runtime.credentials import EXPIRY_ALARM_DAYS, Credentials
from raftdb.runtime.executor import LoopExecutor
from raftdb.runtime.log import StreamLog
from raftdb.runtime.loop import new_event_loop, real_ports, tune_switching
from raftdb.runtime.malloc import tune_malloc
from raftdb.runtime.network import RealNetwork
from raftdb.runtime.random import RealRandom
from raftdb.runtime.tls import TlsPaths, check_peer, client_context, peer_from_certificate

__all__ = [
    "EXPIRY_ALARM_DAYS",
    "Credentials",
    "LoopExecutor",
    "RealClock",
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
