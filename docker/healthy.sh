#!/bin/sh
# HEALTHCHECK of the image: 0 if this node answers and a majority follows a leader, else 1.
# A container without a node (the client, a one-shot) has nothing to check.
[ -f /var/lib/raftdb/raftdb.toml ] || exit 0
raftdb status --dir /var/lib/raftdb/client --timeout 5 > /dev/null 2>&1 || exit 1
