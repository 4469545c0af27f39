"""Clients of another release: this file is run as a program, with that release's tree on its path.

    PYTHONPATH=TREE python -P other_clients.py CLIENT.TOML HISTORY SEED CLIENTS PAUSE_S

Everything that it imports is of that tree: its client library, and its copy of the workloads. It
writes the names of its workloads when the clients have begun. Then it takes commands, a line each,
and answers each by a line of JSON:

    again KEY SQL   execute under an idempotency key; its rows, or the error
    stop            the clients end; what went wrong
    (end of input)  the last reads, of the keys that these clients know of; the history is written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import raftdb
from chaos.traffic import Traffic
from raftdb.base.errors import Error
from raftdb.ops.target import read_client_file
from raftdb.runtime.clock import RealClock
from tests.workloads import WORKLOADS, Mix, write_history


def main(client_file: str, history: str, seed: str, clients: str, pause_s: str) -> None:
    """Until the input ends."""
    target = read_client_file(Path(client_file))
    workload = Mix([(kind(), 1.0) for kind in WORKLOADS])
    traffic = Traffic(
        target, RealClock(), workload, seed, clients=int(clients), pause_s=float(pause_s)
    )
    traffic.start()
    print(json.dumps(sorted(workload.parts)), flush=True)
    connection = raftdb.connect(target.url, **{**target.options, "timeout": 20.0})
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "stop":
            hanging = [f"{name} hangs" for name in traffic.stop()]
            print(json.dumps(hanging + traffic.crashes), flush=True)
            continue
        key, _, sql = rest.partition(" ")
        print(json.dumps(again(connection, key, sql)), flush=True)
    connection.close()
    traffic.final()
    write_history(traffic.history.records, Path(history))


def again(connection: raftdb.Connection, key: str, sql: str) -> object:
    """Rows, or what went wrong."""
    try:
        return [list(row) for row in connection.execute(sql, idempotency_key=key).fetchall()]
    except Error as error:
        return f"{error.code}: {error}"


if __name__ == "__main__":
    main(*sys.argv[1:])
