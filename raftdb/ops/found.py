"""Founding a cluster: ids, certificates, and one directory per node with its configuration.

    DIR/ca/                 the cluster's authority: keep it off the nodes
    DIR/<node>/raftdb.toml  the node's configuration
    DIR/<node>/tls/         its certificate and key
    DIR/<node>/data/        node.json, an empty journal and an empty database
    DIR/client/             client.toml, and a client's certificate and key

Either all of it is there at the end, or nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from raftdb.base.atomic import make_directory_durably, replace_file
from raftdb.base.config import ArchiveConfig, NodeConfig, TlsConfig
from raftdb.base.config_text import render_toml
from raftdb.base.errors import ConfigError
from raftdb.base.ids import (
    Address,
    ClusterId,
    HistoryId,
    NodeId,
    parse_location,
    parse_node_id,
    parse_reachable,
)
from raftdb.base.layout import database_path, journal_path
from raftdb.base.ports import Clock, Files, Random
from raftdb.base.settings import MemberConfig
from raftdb.base.startup import NodeIdentity, time_text, write_identity
from raftdb.journal import Journal
from raftdb.machine import Machine
from raftdb.ops.making import making
from raftdb.ops.ports import free_ports
from raftdb.ops.target import CLIENT_DIRECTORY, CLIENT_FILE, cluster_url, render_client_file
from raftdb.runtime.clock import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.random import RealRandom
from raftdb.security import CERTIFICATE_DAYS, found_certificates

CONFIG_FILE = "raftdb.toml"
DATA_DIRECTORY = "data"
RESERVED_NAMES = frozenset({"ca", CLIENT_DIRECTORY})
LOCAL_NODES_MAX = 9
PORTS_PER_NODE = 2


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """What `found_cluster` made, with its files on this machine."""

    directory: Path
    cluster_id: ClusterId
    history: HistoryId
    members: tuple[MemberConfig, ...]
    insecure: bool
    created: str
    """ISO 8601, UTC."""

    @property
    def url(self) -> str:
        """Connects to the cluster from here, certificates included."""
        return self._url(self.members)

    def node_url(self, node_id: str) -> str:
        """Connects to one node from here."""
        return self._url([one for one in self.members if one.node_id == node_id])

    def _url(self, members: Sequence[MemberConfig]) -> str:
        certificates = None if self.insecure else self.directory / CLIENT_DIRECTORY
        return cluster_url([one.client_address for one in members], certificates)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a cluster that is restored begins with, instead of nothing."""

    cluster_id: ClusterId
    history: HistoryId
    fill: Callable[[NodeConfig], None]
    """Makes a node's journal and database, in directories that exist."""
    archive: ArchiveConfig
    """Goes into the nodes' configuration."""
    authority: str | None = None
    """Directory of the CA that the cluster had before, to go on with."""


def parse_member(text: str) -> MemberConfig:
    """Read `ID,location=eu/madrid,peer=HOST:PORT,client=HOST:PORT`. Raises ConfigError."""
    name, *rest = [part.strip() for part in text.split(",")]
    values: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals or key not in ("location", "peer", "client") or key in values:
            raise ConfigError(
                f"{part!r} in the node {text!r} is not understood",
                hint="write ID,location=eu/madrid,peer=HOST:PORT,client=HOST:PORT",
            )
        values[key] = value
    for key in ("location", "peer", "client"):
        if key not in values:
            raise ConfigError(
                f"the node {name!r} has no {key}",
                hint="write ID,location=eu/madrid,peer=HOST:PORT,client=HOST:PORT",
            )
    return MemberConfig(
        parse_node_id(name),
        parse_location(values["location"]),
        parse_reachable(values["peer"]),
        parse_reachable(values["client"]),
    )


def local_members(count: int, base_port: int) -> tuple[MemberConfig, ...]:
    """Nodes n1, n2, … on the loopback: two neighbouring ports each, from `base_port` on."""
    if not 1 <= count <= LOCAL_NODES_MAX:
        raise ConfigError(f"{count} local nodes", hint=f"give 1 to {LOCAL_NODES_MAX}")
    last = base_port + PORTS_PER_NODE * count - 1
    if base_port < 1 or last > 65_535:
        raise ConfigError(f"ports {base_port} to {last} are not all between 1 and 65535")
    members = []
    for number in range(count):
        port = base_port + PORTS_PER_NODE * number
        members.append(
            MemberConfig(
                NodeId(f"n{number + 1}"),
                f"local/rack{number + 1}",
                Address("127.0.0.1", port),
                Address("127.0.0.1", port + 1),
            )
        )
    return tuple(members)


def check_members(members: Sequence[MemberConfig]) -> None:
    """Refuse what no cluster can be made of. Raises ConfigError."""
    if not members:
        raise ConfigError("a cluster without nodes", hint="give --node for each, or --local 3")
    seen: dict[str, str] = {}
    for member in members:
        if member.node_id in RESERVED_NAMES:
            raise ConfigError(f"a node cannot be called {member.node_id}", hint="such as n1")
        for what in (member.node_id, str(member.peer_address), str(member.client_address)):
            if what in seen:
                raise ConfigError(
                    f"{what} is given twice: for {seen[what]} and for {member.node_id}",
                    hint="each node has a name and two addresses of its own",
                )
            seen[what] = member.node_id


def warnings_about(members: Sequence[MemberConfig]) -> list[str]:
    """What is allowed, but rarely meant."""
    count = len(members)
    found = []
    if count < 3:
        found.append(
            f"{count} node{'s' if count > 1 else ''} cannot lose any: with three, one may fail"
        )
    elif count % 2 == 0:
        found.append(
            f"{count} nodes survive the loss of {(count - 1) // 2}, as {count - 1} would do"
        )
    for level, word in ((1, "region"), (4, "place")):
        places: dict[str, int] = {}
        for member in members:
            place = "/".join(member.location.split("/")[:level])
            places[place] = places.get(place, 0) + 1
        for place, inside in places.items():
            if count >= 3 and len(places) > 1 and inside > (count - 1) // 2:
                found.append(
                    f"the loss of the {word} {place} ({inside} of {count} nodes) stops all"
                )
    return found


def found_cluster(
    directory: Path,
    members: Sequence[MemberConfig],
    files: Files,
    random: Random,
    clock: Clock,
    *,
    insecure: bool = False,
    days: float = CERTIFICATE_DAYS,
    progress: Callable[[str], None] = lambda text: None,
    origin: Origin | None = None,
) -> LocalCluster:
    """Make everything under `directory`, which must be empty or missing. Raises ConfigError."""
    check_members(members)
    directory = directory.absolute()
    existed = _require_empty(directory)
    founded = LocalCluster(
        directory,
        ClusterId(random.randbytes(16).hex()) if origin is None else origin.cluster_id,
        HistoryId(random.randbytes(16).hex()) if origin is None else origin.history,
        tuple(members),
        insecure,
        time_text(clock.wall_ms()),
    )
    try:
        make_directory_durably(files, str(directory))
        if not insecure:
            progress("certificates")
            names = [member.node_id for member in members]
            former = None if origin is None else origin.authority
            found_certificates(str(directory), founded.cluster_id, names, days=days, former=former)
        for member in members:
            progress(str(member.node_id))
            found_node(founded, member, files, random, origin)
        _found_client(founded, files)
        files.sync_directory(str(directory))
    except BaseException:
        _remove(directory, keep=existed)
        raise
    return founded


def found_local(
    directory: Path,
    *,
    locations: Sequence[str] = ("local/rack1", "local/rack2", "local/rack3"),
    base_port: int | None = None,
    insecure: bool = False,
) -> LocalCluster:
    """Found a cluster of nodes n1, n2, … on this machine's loopback, one per location."""
    first = free_ports(PORTS_PER_NODE * len(locations)) if base_port is None else base_port
    members = [
        replace(member, location=parse_location(location))
        for member, location in zip(local_members(len(locations), first), locations, strict=True)
    ]
    return found_cluster(
        directory, members, RealFiles(), RealRandom(), RealClock(), insecure=insecure
    )


def _require_empty(directory: Path) -> bool:
    """Whether it exists. Raises ConfigError when it is not an empty directory."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise ConfigError(f"{directory} is not a directory") from None
    except OSError as error:
        raise ConfigError(f"cannot read {directory}: {error.strerror}") from error
    if names:
        raise ConfigError(
            f"{directory} is not empty: it holds {names[0]!r}",
            hint="give a new directory: founding a cluster never overwrites anything",
            code="not_empty",
        )
    return True


def _remove(directory: Path, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for name in os.listdir(directory):
        shutil.rmtree(directory / name, ignore_errors=True)


def node_config(
    founded: LocalCluster, member: MemberConfig, place: Path | None = None
) -> NodeConfig:
    """The configuration of one node; `place`: its directory, where it is not the cluster's own."""
    directory = str(place or founded.directory / member.node_id)
    tls = TlsConfig(
        **{one.name: os.path.join(directory, str(one.default)) for one in fields(TlsConfig)}
    )
    return NodeConfig(
        cluster_id=founded.cluster_id,
        history=founded.history,
        node_id=member.node_id,
        members=founded.members,
        data_dir=os.path.join(directory, DATA_DIRECTORY),
        peer_listen=member.peer_address,
        client_listen=member.client_address,
        insecure=founded.insecure,
        tls=None if founded.insecure else tls,
    )


def found_node(
    founded: LocalCluster,
    member: MemberConfig,
    files: Files,
    random: Random,
    origin: Origin | None = None,
) -> None:
    """Directory, configuration, an empty log and database (or what `origin` fills in)."""
    directory = os.path.join(founded.directory, member.node_id)
    config = node_config(founded, member)
    if origin is not None:
        config = replace(config, archive=origin.archive)
    make_directory_durably(files, directory)
    write_config(config, directory, files)
    found_data(config, founded.created, files, random, origin)


def write_config(config: NodeConfig, directory: str, files: Files) -> None:
    """The raftdb.toml of a node in its directory."""
    text = render_toml(config, relative_to=directory, only_changed=True)
    replace_file(files, os.path.join(directory, CONFIG_FILE), text.encode())


def found_data(
    config: NodeConfig,
    created: str,
    files: Files,
    random: Random,
    origin: Origin | None = None,
) -> None:
    """Identity, an empty log and database (or what `origin` fills in)."""
    write_identity(
        files,
        config.data_dir,
        NodeIdentity(config.cluster_id, config.history, config.node_id, created),
    )
    make_directory_durably(files, journal_path(config.data_dir))
    make_directory_durably(files, database_path(config.data_dir))
    with making():
        if origin is not None:
            origin.fill(config)
            return
        Journal.create(files, journal_path(config.data_dir), random)
        Machine.create(database_path(config.data_dir), config.history, files=files)


def _found_client(founded: LocalCluster, files: Files) -> None:
    directory = str(founded.directory / CLIENT_DIRECTORY)
    make_directory_durably(files, directory)
    addresses = [member.client_address for member in founded.members]
    text = render_client_file(addresses, founded.cluster_id, insecure=founded.insecure)
    replace_file(files, os.path.join(directory, CLIENT_FILE), text.encode())
