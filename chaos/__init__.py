"""Chaos: real nodes as processes behind toxiproxy, faults by seed, judged like the simulation.

Owns: the toxiproxy server and its proxies, a cluster whose every path runs through them, faults,
traffic by the workloads of tests/workloads, validation by their judges and by the simulator's
checkers, the matrix, the distribution of failover times.
Promises: a seed decides which faults come in which order (real processes decide the rest); what
is reported was seen on real processes; a fault that this machine does not allow is named in the
report, never left out in silence; everything that is started is stopped, everything that is made
is removed.
Never: part of the installed package; a change to what it tests: nodes run as `raftdb start`.
"""
