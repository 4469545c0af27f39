"""The vocabulary that every other room shares.

Owns: ids, errors, limits, configuration, the ports (Clock, Random, Files, Network, Executor).
Promises: pure values and protocols; importing it opens nothing and starts nothing.
May import: the standard library.
Never: a socket, a thread, a clock or a random number of its own.
"""

__all__: list[str] = []
"""Nothing: its modules are imported by name, so that each costs only those who need it."""
