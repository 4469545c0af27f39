"""Side-by-side measurements of raftdb and its peers: `python -m bench --help`.

Owns: starting three-node clusters of each system on loopback, load processes, sampling, recorded
results. Promises: everything it starts is stopped and every file it makes is removed, whatever
happens; a peer that is missing is an error, never a silent gap; a run whose acknowledged writes
can't all be read back is a failure. Never: part of the installed package or of a timed test.
"""
