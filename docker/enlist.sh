#!/bin/sh
# Makes one more node a member of the running cluster of docker-compose.yml, as docs/operations.md says:
# a token, `raftdb join`, and it is a learner, which holds all data and counts in no majority. Once; runs
# again harmlessly, and goes on after an interruption.
#   enlist.sh ID LOCATION PEER CLIENT       (volumes: /cluster/ca, /cluster/<ID>, and /cluster/ca/client)
set -eu
umask 077
id=$1 location=$2 peer=$3 client=$4
home=/cluster/$id
token=/cluster/ca/$id.token
if [ -f "$home/enlisted" ]; then
    echo "$id is a member already"
    exit 0
fi
if [ ! -f "$home/raftdb.toml" ]; then
    # Added nowhere yet: what an interrupted joining left is worth nothing, and neither is its token.
    find "$home" -mindepth 1 -delete
    rm -f "$token"
    raftdb member token "$id" --dir /cluster/ca --to "$token" --timeout 120
fi
raftdb join "$token" --data "$home" --location "$location" --peer "$peer" --client "$client" --timeout 120
rm -f "$token"
cp /cluster/ca/client/archive.keys "$home/archive.keys"
# A client of the node's own, which asks only this node: for the health check.
rm -rf "$home/client"
raftdb cert issue "health-$id" --dir /cluster/ca --to "$home/client" > /dev/null
sed -i "s|^url = .*|url = \"raftdb://$client/\"|" "$home/client/client.toml"
# A directory for --dir: this node answers reads, whoever leads takes writes, and when this node is gone
# the others answer.
others=$(sed -n 's|^url = "raftdb://\(.*\)/"|\1|p' /cluster/ca/client/client.toml)
rm -rf "/cluster/ca/client/$id"
raftdb cert issue "reader-$id" --dir /cluster/ca --to "/cluster/ca/client/$id" > /dev/null
sed -i "s|^url = .*|url = \"raftdb://$client,$others/?prefer=$id\"|" "/cluster/ca/client/$id/client.toml"
touch "$home/enlisted"
chown -R raftdb:raftdb "$home" /cluster/ca/client
sync
