"""Members that come and go, asked of the leader from anywhere.

with raftdb.connect(url) as connection:
    add_member(connection, new)
    change_member(connection, "promote", "n4", timeout_s=60.0, clock=clock)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raftdb.base.config import NodeConfig
from raftdb.base.errors import UNKNOWN, ConfigError, DeadlineError, Error
from raftdb.base.ids import ClusterId, HistoryId, parse_address, parse_location, parse_node_id
from raftdb.base.layout import database_path
from raftdb.base.ports import Clock, Files, Random
from raftdb.base.settings import MemberConfig
from raftdb.base.startup import time_text
from raftdb.machine import Machine
from raftdb.ops.certificates import TLS, authority_directory
from raftdb.ops.found import (
    CONFIG_FILE,
    LocalCluster,
    found_data,
    node_config,
    write_config,
)
from raftdb.ops.making import making
from raftdb.runtime.log import StreamLog
from raftdb.security import issue_node, load_authority

__all__ = [
    "add_member",
    "change_member",
    "check_address",
    "list_members",
    "member_config",
    "note_members",
    "prepare_member",
    "replace_member",
]

ASK_S = 15.0
"""One question takes so long at most; a longer wait is several."""


class Connection(Protocol):
    """What is needed of a connection to the cluster."""

    def ask(
        self, what: str, /, *, timeout: float | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """A question or an order, to the leader."""


def list_members(connection: Connection) -> dict[str, Any]:
    """`members` (node_id, role, location, peer_address, client_address), `removed`, `index`."""
    return connection.ask("members")


def add_member(connection: Connection, member: MemberConfig, *, timeout_s: float) -> dict[str, Any]:
    """As a learner. What was added already is fine. Raises ConfigError, OperationalError."""
    return connection.ask(
        "members",
        timeout=timeout_s,
        change="add",
        node=member.node_id,
        location=member.location,
        peer=str(member.peer_address),
        client=str(member.client_address),
    )


def change_member(
    connection: Connection,
    change: str,
    node_id: str,
    *,
    timeout_s: float,
    clock: Clock,
    **more: Any,
) -> dict[str, Any]:
    """`promote`, `demote`, `remove` or `move`, asked again until `timeout_s` has passed while a
    learner has not caught up yet or the outcome is unknown: what is done already is answered so."""
    end_s = clock.monotonic_s() + timeout_s
    doubt = False
    while True:
        left_s = end_s - clock.monotonic_s()
        ask_s = max(0.1, min(ASK_S, left_s))
        try:
            return connection.ask("members", timeout=ask_s, change=change, node=node_id, **more)
        except Error as error:
            doubt = doubt or error.outcome == UNKNOWN
            if not _worth_another(error, doubt) or left_s <= ASK_S / 100:
                raise _in_doubt(error, doubt) from None
        try:
            # One round to the leader, so that nobody is asked without a pause.
            connection.ask("members", timeout=ask_s)
        except Error as error:
            if not (doubt and isinstance(error, DeadlineError)):
                raise _in_doubt(error, doubt) from None


def check_address(node_id: str, address: str, connect_to: Callable[[str], Any]) -> None:
    """That the node answers clients at that address, before all of them are sent there.
    `connect_to`: a connection to one address. Raises ConfigError."""
    try:
        connection = connect_to(address)
        try:
            found = connection.status()["node_id"]
        finally:
            connection.close()
    except Error as error:
        raise ConfigError(
            f"{node_id} does not answer at {address}: {error.message}",
            code="address_unreachable",
            hint="have it listen there first, or say --force where only this machine cannot reach "
            "it: clients will be sent there",
        ) from error
    if found != node_id:
        raise ConfigError(
            f"who answers at {address} is {found}, and not {node_id}",
            code="address_taken",
            hint=f"give the address of {node_id}",
        )


def _worth_another(error: Error, doubt: bool) -> bool:
    if error.code == "not_caught_up" or error.outcome == UNKNOWN:
        return True
    return doubt and isinstance(error, DeadlineError)


def _in_doubt(error: Error, doubt: bool) -> Error:
    """The error to end with. `doubt`: an earlier try may be done, whatever became of this one."""
    if doubt:
        error.outcome = UNKNOWN
        error.hint = "ask again: what is done already is answered as done (raftdb member list)"
    return error


def replace_member(
    connection: Connection, old: str, new: MemberConfig, *, timeout_s: float, clock: Clock
) -> dict[str, Any]:
    """`new` in the place of `old`: added, promoted, and only then is `old` removed, so that the
    cluster is never smaller. Where `new` takes over addresses of `old`, that has to go first. What
    is done already is answered so. Raises ConfigError, OperationalError."""
    told = list_members(connection)
    there = next((one for one in told["members"] if one["node_id"] == old), None)
    if there is None:
        return _replaced(told, old, new)
    in_its_way = {there["peer_address"], there["client_address"]} & {
        str(new.peer_address),
        str(new.client_address),
    }
    if in_its_way:
        change_member(connection, "remove", old, timeout_s=timeout_s, clock=clock)
    add_member(connection, new, timeout_s=timeout_s)
    told = list_members(connection)
    if there["role"] == "voter":
        told = change_member(connection, "promote", new.node_id, timeout_s=timeout_s, clock=clock)
    if not in_its_way:
        told = change_member(connection, "remove", old, timeout_s=timeout_s, clock=clock)
    return told


def _replaced(told: dict[str, Any], old: str, new: MemberConfig) -> dict[str, Any]:
    """`told`, when `old` was replaced by `new` before. Raises ConfigError, with what is left."""
    hint = "members are " + ", ".join(str(one["node_id"]) for one in told["members"])
    if old not in told["removed"]:
        raise ConfigError(f"{old} is no member", code="no_member", hint=hint)
    there = next((one for one in told["members"] if one["node_id"] == new.node_id), None)
    if there is not None and there["role"] == "voter" and member_config(there) == new:
        return told
    if there is None:
        state = "no member"
        left = f"raftdb member add {new.node_id}, and promote it where {old} was a voter; "
    elif member_config(there) == new:
        # Nobody knows any more whether `old` counted: a voter is not made by a guess.
        state = f"a {there['role']}"
        left = f"where {old} was a voter: raftdb member promote {new.node_id}; "
    else:
        state, left = f"a {there['role']} at {there['peer_address']}", ""
    raise ConfigError(
        f"{old} was removed before, and {new.node_id} is {state}",
        code="no_member",
        hint=left + hint,
    )


def prepare_member(
    directory: Path,
    member: MemberConfig,
    status: Mapping[str, Any],
    members: Sequence[Mapping[str, Any]],
    files: Files,
    random: Random,
    clock: Clock,
    encode: Callable[[Sequence[MemberConfig], MemberConfig], bytes],
    *,
    insecure: bool,
) -> Path:
    """A directory for a node that is to be added, below that of its cluster: configuration, an
    empty log and database, and (unless the cluster is `insecure`) a certificate by its authority,
    which has to lie there.
    `status`: what a member says of itself; `members`: as listed now; `encode`: these members and
    the new one, as a learner, as a configuration's bytes. Returns the path of its raftdb.toml.
    Raises ConfigError.
    """
    known = [member_config(one) for one in members]
    if any(one.node_id == member.node_id for one in known):
        raise ConfigError(f"{member.node_id} is a member already", code="member_exists")
    ca = "" if insecure else _authority_of(directory, str(status["cluster_id"]))
    # Whose address it takes over is on its way out.
    taken = {member.peer_address, member.client_address}
    known = [one for one in known if not taken & {one.peer_address, one.client_address}]
    founded = LocalCluster(
        directory.absolute(),
        ClusterId(str(status["cluster_id"])),
        HistoryId(str(status["history"])),
        (*known, member),
        insecure,
        time_text(clock.wall_ms()),
    )
    target = directory / member.node_id
    if target.exists():
        raise ConfigError(
            f"{target} exists",
            hint="a new node begins in a directory of its own. What an interrupted `raftdb member "
            "prepare` left without a raftdb.toml was added nowhere, and may be deleted",
            code="not_empty",
        )
    config = node_config(founded, member)
    try:
        found_data(config, founded.created, files, random)
        note_members(config, encode(known, member), files)
        if ca:
            issue_node(ca, member.node_id, str(target / TLS))
        # Last: where it is, the node takes itself for a learner (rule J5).
        write_config(config, str(target.absolute()), files)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target / CONFIG_FILE


def _authority_of(directory: Path, cluster_id: str) -> str:
    """The directory of the cluster's authority. Raises ConfigError for another cluster's."""
    ca = authority_directory(directory)
    found = load_authority(ca).cluster_id
    if found != cluster_id:
        raise ConfigError(
            f"{directory} has the authority of cluster {found}, and the members that answer are of "
            f"{cluster_id}",
            code="wrong_authority",
            hint="give the directory of that cluster",
        )
    return ca


def note_members(config: NodeConfig, body: bytes, files: Files) -> None:
    """It takes itself for a learner until the log says otherwise: a node that holds nothing counts
    nowhere (rule J5)."""
    with making():
        machine = Machine.open(
            database_path(config.data_dir),
            history=config.history,
            limits=config.limits,
            files=files,
            log=StreamLog(level="error"),
        )
        try:
            machine.seed_configuration(body)
        finally:
            machine.close()


def member_config(facts: Mapping[str, Any]) -> MemberConfig:
    """One of those that `list_members` tells."""
    return MemberConfig(
        parse_node_id(str(facts["node_id"])),
        parse_location(str(facts["location"])),
        parse_address(str(facts["peer_address"])),
        parse_address(str(facts["client_address"])),
    )
