"""A new node joins a running cluster by a token that the holder of its authority made.

token checked -> certificate -> release and build compared -> directory made -> added as a learner
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftdb._version import __version__
from raftdb.base.config import NodeConfig, load_config
from raftdb.base.errors import UNKNOWN, ConfigError, NotSupportedError
from raftdb.base.ids import Address, NodeId, parse_address
from raftdb.base.ports import Clock, Files, Random
from raftdb.base.release import SAMPLE, SETTING, check_level
from raftdb.base.settings import MemberConfig, parse_history_id
from raftdb.base.startup import time_text
from raftdb.command import ENTRY_FORMAT
from raftdb.ops.certificates import TLS, authority_directory
from raftdb.ops.found import (
    CONFIG_FILE,
    RESERVED_NAMES,
    LocalCluster,
    found_data,
    node_config,
    write_config,
)
from raftdb.ops.member import (
    Connection,
    add_member,
    list_members,
    member_config,
    note_members,
)
from raftdb.ops.target import SCHEME, Target
from raftdb.security import JoinToken, issue_token, write_enrolment

__all__ = [
    "Joining",
    "check_compatible",
    "check_release",
    "discard",
    "join_cluster",
    "make_token",
    "prepare_directory",
    "token_target",
]

QUESTION = "compatibility"
_ENTRIES = "entry_format"
_RELEASE = ("release", _ENTRIES, SETTING, f"{SETTING}_min", f"{SETTING}_max")
"""What 0.2.0 tells besides, to whoever says its own release: judged in `check_release`."""
_OLDER = (
    "replicas compute everything themselves, so all need one release on machines of one kind: "
    "install the cluster's release here, or take the cluster to this one first"
)


@dataclass(frozen=True, slots=True)
class Joining:
    """A node's directory while it joins."""

    token: JoinToken
    directory: Path
    again: bool
    """It was made before, by a joining that was interrupted."""

    @property
    def config_file(self) -> Path:
        """For `raftdb start`."""
        return self.directory / CONFIG_FILE


def make_token(
    directory: Path,
    node_id: NodeId,
    status: Mapping[str, Any],
    told: Mapping[str, Any],
    *,
    minutes: float,
    days: float,
) -> tuple[str, JoinToken]:
    """A token for a new node of the cluster whose `ca` is in `directory`. `status`: what a member
    says of itself; `told`: the members, as listed now. Raises ConfigError."""
    members = [str(one["node_id"]) for one in told["members"]]
    if node_id in members or node_id in told["removed"] or node_id in RESERVED_NAMES:
        raise ConfigError(
            f"a new node cannot be called {node_id}",
            code="member_exists",
            hint=f"members are {', '.join(members)}; the id of a former one is never used again",
        )
    text, token, _issued = issue_token(
        authority_directory(directory),
        node_id,
        parse_history_id(str(status["history"])),
        [parse_address(str(one["client_address"])) for one in told["members"]],
        minutes=minutes,
        days=days,
    )
    if token.cluster_id != status["cluster_id"]:
        raise ConfigError(
            f"{directory} has the authority of cluster {token.cluster_id}, and the members that "
            f"answer are of {status['cluster_id']}",
            hint="give the directory of that cluster",
        )
    return text, token


def prepare_directory(token: JoinToken, directory: Path) -> Joining:
    """The node's certificate, in a new directory; or what an interrupted joining by this token
    left, to go on with. Raises ConfigError."""
    directory = directory.absolute()
    again = (directory / CONFIG_FILE).is_file()
    if again:
        _check_again(token, load_config(str(directory / CONFIG_FILE)), directory)
    elif directory.exists() and os.listdir(directory):
        raise ConfigError(
            f"{directory} is not empty",
            code="not_empty",
            hint="a new node begins in a directory of its own: give a new one. What an interrupted "
            "joining left without a raftdb.toml was added nowhere, and may be deleted",
        )
    else:
        write_enrolment(token, str(directory / TLS))
    return Joining(token, directory, again)


def _check_again(token: JoinToken, config: NodeConfig, directory: Path) -> None:
    own = config.tls is not None and Path(config.tls.certificate)
    same = own and own.is_file() and own.read_bytes() == token.certificate
    if config.cluster_id != token.cluster_id or config.node_id != token.node_id or not same:
        raise ConfigError(
            f"{directory} belongs to node {config.node_id} of cluster {config.cluster_id}, "
            "and not to this token",
            code="not_empty",
            hint="a new node begins in a directory of its own: give a new one",
        )


def discard(joining: Joining) -> None:
    """Nothing was changed elsewhere: leave nothing here."""
    if not joining.again:
        shutil.rmtree(joining.directory, ignore_errors=True)


def token_target(joining: Joining) -> Target:
    """The cluster, as the token names it, with the node's new certificate."""
    token, tls = joining.token, joining.directory / TLS
    hosts = ",".join(str(one) for one in token.addresses)
    options = {
        "cluster": token.cluster_id,
        "ca": str(tls / "ca.crt"),
        "cert": str(tls / "node.crt"),
        "key": str(tls / "node.key"),
    }
    return Target(f"{SCHEME}{hosts}/", options, f"the join token for {token.node_id}")


def check_compatible(here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Refuse what could diverge. Raises ConfigError, with each difference and what to do."""
    differences = [
        f"{name} is {str(there.get(name))[:80]} there, {str(here.get(name))[:80]} here"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
        and (name != SAMPLE or (name in here and name in there))
    ]
    if differences:
        raise ConfigError(
            f"this machine does not fit the cluster: {'; '.join(differences)}",
            code="incompatible",
            hint=_OLDER,
        )


def check_release(told: Mapping[str, Any], entry_format: int) -> None:
    """Refuse a cluster whose feature level this release does not run, or whose log it could not
    read. What 0.1.0 does not tell is 1. Raises ConfigError."""
    check_level(int(told.get(SETTING, 1)), "the cluster")
    check_compatible({_ENTRIES: entry_format}, {_ENTRIES: told.get(_ENTRIES, 1)})


def join_cluster(
    joining: Joining,
    connection: Connection,
    here: Mapping[str, Any],
    place: tuple[str, Address, Address],
    files: Files,
    random: Random,
    clock: Clock,
    encode: Callable[[Sequence[MemberConfig], MemberConfig], bytes],
    *,
    timeout_s: float,
) -> dict[str, Any]:
    """Compare, make the rest of the directory, and have the cluster add the node as a learner.
    Returns what `list_members` does.

    `here`: what this release computes with. `place`: location, peer and client address. Refused
    with ConfigError (nothing is left then) where the cluster computes differently, where the
    token was used, or where the cluster does not take the node. Where the outcome is not known
    (or a later step fails) the directory stays, and the same call goes on.
    """
    token = joining.token
    member = _own(joining) if joining.again else MemberConfig(token.node_id, *place)
    try:
        there = _asked(connection)
        check_release(there, ENTRY_FORMAT)
        check_compatible(here, {name: there[name] for name in there if name not in _RELEASE})
        told = list_members(connection)
        _check_unused(joining, told)
        if not joining.again:
            known = [member_config(one) for one in told["members"]]
            _make(joining, member, known, files, random, clock, encode)
    except BaseException:
        discard(joining)
        raise
    if any(one["node_id"] == token.node_id for one in told["members"]):
        return told
    try:
        return add_member(connection, member, timeout_s=timeout_s)
    except ConfigError as error:
        # Refused. Whatever else went wrong, or where an earlier try was sent, the outcome may come
        # yet: then the directory is needed.
        if error.outcome != UNKNOWN:
            discard(joining)
        raise


def _own(joining: Joining) -> MemberConfig:
    config = load_config(str(joining.config_file))
    return next(one for one in config.members if one.node_id == config.node_id)


def _asked(connection: Connection) -> dict[str, Any]:
    try:
        return connection.ask(QUESTION, release=__version__)
    except NotSupportedError as error:
        raise ConfigError(
            "the cluster runs an older release, which cannot be compared with this one",
            code="incompatible",
            hint=_OLDER,
        ) from error


def _check_unused(joining: Joining, told: Mapping[str, Any]) -> None:
    node_id = joining.token.node_id
    there = any(one["node_id"] == node_id for one in told["members"])
    if node_id in told["removed"] or (there and not joining.again):
        raise ConfigError(
            f"the join token for {node_id} was used: {node_id} "
            f"{'is a member' if there else 'was a member once'}",
            code="token_used",
            hint="a token is good for one node: have one made for another id (raftdb member "
            f"token). If you did not use it, somebody else has it: raftdb cert revoke {node_id} "
            f"and raftdb member remove {node_id}",
        )


def _make(
    joining: Joining,
    member: MemberConfig,
    known: Sequence[MemberConfig],
    files: Files,
    random: Random,
    clock: Clock,
    encode: Callable[[Sequence[MemberConfig], MemberConfig], bytes],
) -> None:
    token = joining.token
    founded = LocalCluster(
        joining.directory,
        token.cluster_id,
        token.history,
        (*known, member),
        False,
        time_text(clock.wall_ms()),
    )
    config = node_config(founded, member, joining.directory)
    found_data(config, founded.created, files, random)
    note_members(config, encode(known, member), files)
    # Last: where it is, the node takes itself for a learner (rule J5), and a joining can go on.
    write_config(config, str(joining.directory), files)
