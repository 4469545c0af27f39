"""Scenarios in which no majority is left that could elect: `raftdb recover` and `raftdb rejoin`."""

from __future__ import annotations

from pathlib import Path

from raftdb.drill.cluster import command
from raftdb.drill.stage import Stage
from raftdb.ops.inspect import DATA_DIRECTORY
from raftdb.ops.status import cluster_status
from raftdb.ops.target import Target, read_client_file

ENDS_S = 120.0
EXIT_USAGE, EXIT_BROKEN = 2, 4
SAID_LINES = 12


def majority_loss(stage: Stage) -> None:
    """More than half of the voters are gone, the leader among them, some with their disks: the
    others go on as a new fork of the history, and the lost ones rejoin it."""
    stage.begin()
    cluster = stage.cluster
    leader = cluster.wait_for_leader()
    names = [leader, *(name for name in cluster.node_ids if name != leader)]
    lost, left = names[: len(names) // 2 + 1], names[len(names) // 2 + 1 :]
    returns, *without_disk = lost
    told = f"{', '.join(lost)} killed, and the data of {', '.join(without_disk)} deleted"
    with stage.disaster(told):
        cluster.kill(*lost)
        for name in without_disk:
            cluster.delete_data(name)
    _recover(stage, left, lost, may_be_lost=True)
    for name in without_disk:
        _rejoin(stage, name, "--lost-disk")
    stage.until_committed()
    stage.run_for(stage.seconds)
    stage.phase(f"{returns} comes back with what it had, which counts no more")
    cluster.start(returns)
    code = cluster.until_ended(returns, ENDS_S)
    said = cluster.node(returns).log_tail(SAID_LINES)
    told_so = code == EXIT_USAGE and "raftdb rejoin" in said
    stage.result.check(f"{returns} is told so, and ends", told_so, f"exit code {code}: {said}")
    _rejoin(stage, returns)
    stage.until_full()
    stage.end()


def log_end_loss(stage: Stage) -> None:
    """One of two voters loses the end of its log: without it nobody can be elected, and with it
    nobody safely. Both say so, and what helps."""
    stage.begin()
    cluster = stage.cluster
    lost = cluster.wait_for_leader()
    sound, *others = [name for name in cluster.node_ids if name != lost]
    for name in others:
        stage.phase(f"raftdb member remove {name}")
        command("member", "remove", name, "--dir", cluster.directory, "--force")
        cluster.lose(name)
    stage.run_for(stage.seconds)
    with stage.disaster(f"{lost} is killed, and a bit of its log's last segment is flipped"):
        cluster.kill(lost)
        _damage_end(cluster.node(lost).directory / DATA_DIRECTORY / "journal")
    cluster.start(lost)
    code = cluster.until_ended(lost, ENDS_S)
    said = cluster.node(lost).log_tail(SAID_LINES)
    told_so = code == EXIT_BROKEN and "raftdb recover" in said
    stage.result.check(f"{lost} says what helps, and ends", told_so, f"exit code {code}: {said}")
    problems = _problems(stage, sound)
    told_so = any("raftdb recover" in one and f"--keep {lost}" in one for one in problems)
    stage.result.check("raftdb status says it as well", told_so, "; ".join(problems))
    _recover(stage, [sound], [lost], may_be_lost=False)
    _rejoin(stage, lost)
    stage.until_committed()
    stage.until_full()
    stage.end()


def _recover(stage: Stage, left: list[str], keep: list[str], *, may_be_lost: bool) -> None:
    """Those that are left are stopped, and begin the new fork."""
    cluster = stage.cluster
    for name in left:
        cluster.stop(name)
    stage.phase(f"raftdb recover {' '.join(left)} {' '.join(f'--keep {name}' for name in keep)}")
    kept = [part for name in keep for part in ("--keep", name)]
    done = command(
        "recover",
        *(cluster.node(name).directory for name in left),
        *kept,
        *("--bundle", _bundle(stage), "--yes"),
    )
    facts = {name: done[name] for name in ("may_be_lost", "last_index", "voters", "fork_index")}
    stage.result.facts["recover"] = facts
    said = done["may_be_lost"] is may_be_lost
    stage.result.check("recover says whether anything may be lost", said, str(facts))
    cluster.start(*left)


def _rejoin(stage: Stage, name: str, *options: str) -> None:
    stage.phase(f"raftdb rejoin {name}{''.join(f' {one}' for one in options)}; raftdb start")
    command("rejoin", _bundle(stage), stage.cluster.node(name).directory, *options)
    stage.cluster.start(name)


def _bundle(stage: Stage) -> Path:
    return stage.home / "bundle"


def _damage_end(journal: Path) -> None:
    """Flip a bit in the middle of what its last segment holds (the zeros behind are room): it is
    known that this was durable, so it is not what a crash tears off."""
    path = max(journal.glob("*.segment"))
    end = len(path.read_bytes().rstrip(b"\0"))
    with path.open("r+b") as file:
        file.seek(end // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x10]))


def _problems(stage: Stage, node_id: str) -> list[str]:
    """What `raftdb status` says of a cluster that is not available."""
    cluster = stage.cluster
    known = read_client_file(cluster.directory / "client" / "client.toml")
    target = Target(f"raftdb://{cluster.address(node_id)}/", known.options)
    return cluster_status(target).problems
