"""Operations: founding, loading, looking at a cluster, certificates, inspecting a stopped node.

Owns: everything that an operator does to a cluster, as functions; the commands only call them.
Promises: online work goes through the client as any user's would; offline work holds the node's
lock; nothing that exists is overwritten; what was done and what was not is said.
May import: client, journal, machine, security, runtime, command, base; sqlite-utils.
Never: node, consensus, server; a back door into a running node; printing.

Its modules are imported one by one, so that a command pays only for what it uses.
"""

from raftdb.ops.target import Target, find_target

__all__ = ["Target", "find_target"]
