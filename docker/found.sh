#!/bin/sh
# Founds the cluster of docker-compose.yml, once: certificates, and each node's directory into its own
# volume, so that no node sees another's key, or the authority's. Runs again harmlessly.
#   found.sh ID,location=L,peer=H:P,client=H:P ...       (volumes: /cluster/<ID>, /cluster/client, /cluster/ca)
set -eu
done_file=/cluster/ca/founded
if [ -f "$done_file" ]; then
    echo "the cluster is founded already"
    exit 0
fi
umask 077
work=/cluster/ca/work
rm -rf "$work"
# A node behind "PROFILE:" counts only when that profile is on (COMPOSE_PROFILES, given as PROFILES).
set -- $(for node in "$@"; do
    case $node in
        *:n[0-9]*,*) case ",${PROFILES:-}," in *",${node%%:*},"*) printf -- '--node %s ' "${node#*:}" ;; esac ;;
        *) printf -- '--node %s ' "$node" ;;
    esac
done)
raftdb init "$work" "$@" > "$work.said" || { cat "$work.said"; exit 1; }
head -1 "$work.said"
raftdb archive keygen "$work/archive.keys"
for path in "$work"/*/raftdb.toml; do
    node=$(basename "$(dirname "$path")")
    # A client of the node's own, which asks only this node: for the health check.
    raftdb cert issue "health-$node" --dir "$work" --to "$work/$node/client" > /dev/null
    address=$(sed -n "/node_id = \"$node\"/,/client_address/s/client_address = \"\(.*\)\"/\1/p" "$path" | tail -1)
    sed -i "s|^url = .*|url = \"raftdb://$address/\"|" "$work/$node/client/client.toml"
    # What an interrupted founding left belongs to another cluster; no node has started yet.
    find "/cluster/$node" -mindepth 1 -delete
    cp "$work/archive.keys" "$work/$node/archive.keys"
    cp -a "$work/$node/." "/cluster/$node/"
    chown -R raftdb:raftdb "/cluster/$node"
done
cp "$work/archive.keys" "$work/client/archive.keys"
cp -a "$work/client/." /cluster/client/
chown -R raftdb:raftdb /cluster/client
cp -a "$work/ca" /cluster/ca/
rm -rf "$work" "$work.said"
sync
touch "$done_file"
