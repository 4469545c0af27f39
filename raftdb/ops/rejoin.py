"""A node's directory becomes a member's of a recovered cluster: its former data are set aside.

Once per node: who has joined and then lost its disk has voted in the new history, and would vote
its entries away if it came back empty.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raftdb.base.atomic import make_directory_durably, replace_file
from raftdb.base.config import ArchiveConfig, NodeConfig, load_config
from raftdb.base.config_text import render_toml
from raftdb.base.errors import ConfigError
from raftdb.base.ids import (
    ClusterId,
    HistoryId,
    parse_address,
    parse_cluster_id,
    parse_location,
    parse_node_id,
)
from raftdb.base.layout import database_path, journal_path
from raftdb.base.ports import Files, Random
from raftdb.base.settings import MemberConfig, parse_history_id
from raftdb.base.startup import IDENTITY_FILE, NodeIdentity, look_at_identity, write_identity
from raftdb.journal import Journal
from raftdb.ops.inspect import CONFIG_FILE
from raftdb.ops.making import making
from raftdb.ops.recover import BUNDLE_FILE, BUNDLE_FORMAT, fill_from
from raftdb.ops.survivors import data_set_aside

__all__ = ["Bundle", "has_data", "join_from", "read_bundle"]

BUNDLE_BYTES_MAX = 1 << 20
NEW_DATA = ".recovered"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a recovery made, to join from."""

    directory: Path
    cluster_id: ClusterId
    history: HistoryId
    former: HistoryId
    index: int
    term: int
    voters: tuple[MemberConfig, ...]
    made: str
    archive: bool
    facts: Mapping[str, Any]


def read_bundle(directory: Path, files: Files) -> Bundle:
    """Raises ConfigError."""
    path = directory / BUNDLE_FILE
    try:
        data = files.read_file(str(path))
        if len(data) > BUNDLE_BYTES_MAX:
            raise ValueError(f"it has {len(data)} bytes")
        facts = json.loads(data)
        if facts["format"] != BUNDLE_FORMAT:
            raise ValueError(f"its format is {facts['format']!r}")
        return Bundle(
            directory=directory,
            cluster_id=parse_cluster_id(str(facts["cluster_id"])),
            history=parse_history_id(str(facts["history"])),
            former=parse_history_id(str(facts["former"])),
            index=int(facts["index"]),
            term=int(facts["term"]),
            voters=tuple(_member(one) for one in facts["voters"]),
            made=str(facts["made"]),
            archive=bool(facts["archive"]),
            facts=facts,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not the description of a recovery: {error}",
            hint="give the bundle that `raftdb recover` made, copied whole",
        ) from error


def _member(one: Mapping[str, Any]) -> MemberConfig:
    return MemberConfig(
        parse_node_id(str(one["node_id"])),
        parse_location(str(one["location"])),
        parse_address(str(one["peer_address"])),
        parse_address(str(one["client_address"])),
    )


def join_from(
    bundle: Bundle, directory: Path, files: Files, random: Random, *, lost_disk: bool = False
) -> str:
    """Make the stopped node in `directory` a member of the recovered cluster. Returns where its
    former data are; `` if it had none. May be repeated after an interruption. Raises ConfigError.

    `lost_disk`: its former data are gone, and it has not joined the recovered cluster before.
    """
    path = directory.absolute() / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(
            f"{directory} has no {CONFIG_FILE}",
            hint="give the node's directory, as `raftdb init` made it",
        )
    config = load_config(str(path))
    _check_belongs(bundle, config)
    identity = _identity(config, files)
    aside = data_set_aside(config.data_dir, bundle.history)
    if identity is None or identity.history != bundle.history:
        _check_data(bundle, config, identity, aside, files, lost_disk)
        fresh = os.path.normpath(config.data_dir) + NEW_DATA
        with making():
            _make_data(bundle, config, fresh, files, random)
        if files.exists(config.data_dir):
            if files.list_directory(config.data_dir):
                files.rename(config.data_dir, aside)
            else:
                os.rmdir(config.data_dir)
        files.rename(fresh, config.data_dir)
        files.sync_directory(os.path.dirname(config.data_dir))
    elif config.history == bundle.history:
        raise ConfigError(
            f"{config.node_id} has joined the recovered cluster already",
            code="joined_already",
            hint="start it. If its disk was lost since, it needs to come back as a new member",
        )
    _write_config(bundle, config, path, files)
    return aside if files.exists(aside) else ""


def has_data(directory: Path, files: Files) -> bool:
    """Whether the node in `directory` has any. Raises ConfigError."""
    path = directory.absolute() / CONFIG_FILE
    return path.is_file() and _identity(load_config(str(path)), files) is not None


def _check_belongs(bundle: Bundle, config: NodeConfig) -> None:
    if config.cluster_id != bundle.cluster_id:
        raise ConfigError(
            f"{config.node_id} belongs to cluster {config.cluster_id}, and the bundle is of "
            f"{bundle.cluster_id}",
            hint="check both paths",
        )
    names = [one.node_id for one in bundle.voters]
    if config.node_id not in names:
        raise ConfigError(
            f"{config.node_id} is no member of the recovered cluster; its members are "
            f"{', '.join(names)}",
            code="not_a_member",
            hint="set its directory aside and add it as a new member; or recover again from the "
            f"survivors' former data with --keep {config.node_id}",
        )


def _identity(config: NodeConfig, files: Files) -> NodeIdentity | None:
    found, damage = look_at_identity(files, config.data_dir)
    if found is None and files.exists(os.path.join(config.data_dir, IDENTITY_FILE)):
        raise ConfigError(
            "; ".join(damage),
            hint="it cannot be told whose data these are: move them aside, and if this node had "
            "not joined the recovered cluster yet, give --lost-disk",
        )
    return found


def _check_data(
    bundle: Bundle,
    config: NodeConfig,
    identity: NodeIdentity | None,
    aside: str,
    files: Files,
    lost_disk: bool,
) -> None:
    if identity is not None:
        if identity.node_id != config.node_id:
            raise ConfigError(
                f"{config.data_dir} holds the data of {identity.node_id}",
                hint="check data_dir in the configuration",
            )
        if files.exists(aside):
            raise ConfigError(
                f"{aside} is there, and {config.data_dir} follows another history",
                hint="look at both by `raftdb inspect`, and move one of them away",
            )
        return
    if files.exists(aside) or lost_disk:
        return
    raise ConfigError(
        f"{config.node_id} has no data in {config.data_dir}",
        code="disk_lost",
        hint="check the path and the mount. If the disk was lost before the recovery, give "
        "--lost-disk; if it was lost after this node had joined, it must not join again: it would "
        "vote its entries away. Add a new member instead",
    )


def _make_data(
    bundle: Bundle, config: NodeConfig, fresh: str, files: Files, random: Random
) -> None:
    """All that the node begins with, in a directory of its own."""
    shutil.rmtree(fresh, ignore_errors=True)
    identity = NodeIdentity(bundle.cluster_id, bundle.history, config.node_id, bundle.made)
    write_identity(files, fresh, identity)
    make_directory_durably(files, journal_path(fresh))
    make_directory_durably(files, database_path(fresh))
    fill_from(bundle.directory, dict(bundle.facts), database_path(fresh), files)
    Journal.create(files, journal_path(fresh), random, (bundle.index, bundle.term))


def _write_config(bundle: Bundle, config: NodeConfig, path: Path, files: Files) -> None:
    changed = replace(
        config,
        history=bundle.history,
        members=bundle.voters,
        archive=config.archive if bundle.archive else ArchiveConfig(),
    )
    keep = f"{path}.before-{bundle.history[:8]}"
    if not files.exists(keep):
        replace_file(files, keep, files.read_file(str(path)))
    text = render_toml(changed, relative_to=str(path.parent), only_changed=True)
    replace_file(files, str(path), text.encode())
