"""The client protocol's listener, and the dispatcher that it shares with in-process links.

Owns: the client port, one handler for each connection, the way from a message to the replica and
back.
Promises: malformed, unauthenticated or greedy clients lose their own connection and nothing else;
every request that was understood gets exactly one final answer while its connection lives.
May import: node, wire, command, base.
Never: SQL, consensus, a thread or a socket of its own (the Network port brings streams).
"""

from raftdb.server.dispatcher import Dispatcher
from raftdb.server.greeting import greet
from raftdb.server.listener import ClientListener
from raftdb.server.prepare import prepared

__all__ = ["ClientListener", "Dispatcher", "greet", "prepared"]
