"""What a node makes sure of before it takes part: that the data is its own, and the clock is sane.

`node.json` in the data directory says whose data it is; `raftdb init` (or, later, a join) writes
it, and nothing else does. A directory without it is never made into a member's by `start`: an
empty voter in a member's place would vote that member's entries away.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from raftdb.base.atomic import make_directory_durably, replace_file
from raftdb.base.config import NodeConfig
from raftdb.base.errors import ConfigError
from raftdb.base.ids import ClusterId, HistoryId, NodeId, parse_cluster_id, parse_node_id
from raftdb.base.layout import removed_path, superseded_path
from raftdb.base.ports import Files, Log
from raftdb.base.settings import parse_history_id

IDENTITY_FILE = "node.json"
COPY_FILE = "node.json.copy"
"""The same once more, behind a line with its SHA-256."""
IDENTITY_FORMAT = 1
RELEASED = datetime(2025, 1, 1, tzinfo=UTC)
"""No clock of a machine that runs this release can be before this."""
BACKWARDS_ALARM_MS = 3_600_000
FORWARDS_ALARM_MS = 366 * 86_400_000
_CREATED = re.compile(r"[0-9TZ:.+-]{10,40}")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Whose data a directory holds."""

    cluster_id: ClusterId
    history: HistoryId
    node_id: NodeId
    created: str
    """ISO 8601, UTC; for people."""


def time_text(wall_ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC; years beyond 9999 as the bare number."""
    try:
        return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{wall_ms} ms"


def logged_time(time_ms: int) -> str | None:
    """A request's stamp as `time_text`; None for 0, when no request was logged yet."""
    return time_text(time_ms) if time_ms else None


def render_identity(identity: NodeIdentity) -> bytes:
    """node.json."""
    value = {
        "format": IDENTITY_FORMAT,
        "cluster_id": identity.cluster_id,
        "history": identity.history,
        "node_id": identity.node_id,
        "created": identity.created,
    }
    return (json.dumps(value, indent=2) + "\n").encode()


def parse_identity(data: bytes, where: str) -> NodeIdentity:
    """Read node.json; `where` is its path. Raises ConfigError."""
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        if value.get("format") != IDENTITY_FORMAT:
            raise ValueError(
                f"its format is {value.get('format')!r}, this release knows {IDENTITY_FORMAT}"
            )
        texts = {key: value.get(key) for key in ("cluster_id", "history", "node_id", "created")}
        for key, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"{key} is missing")
        if not _CREATED.fullmatch(str(texts["created"])):
            raise ValueError("created is not a time")
        return NodeIdentity(
            parse_cluster_id(str(texts["cluster_id"])),
            parse_history_id(str(texts["history"])),
            parse_node_id(str(texts["node_id"])),
            str(texts["created"]),
        )
    except (ValueError, RecursionError, ConfigError) as error:
        raise ConfigError(
            f"{where} is damaged: {error}",
            hint="restore this node's directory from before, or replace the node by a new member",
        ) from error


def write_identity(files: Files, data_dir: str, identity: NodeIdentity) -> None:
    """Make `data_dir` that node's, durably. ConfigError when it holds anything already."""
    if files.exists(data_dir) and files.list_directory(data_dir):
        raise ConfigError(
            f"{data_dir} is not empty",
            hint="a new node begins in a directory of its own: choose another, or empty this one",
        )
    make_directory_durably(files, data_dir)
    replace_file(files, posixpath.join(data_dir, IDENTITY_FILE), render_identity(identity))
    _write_copy(files, data_dir, identity)


def _write_copy(files: Files, data_dir: str, identity: NodeIdentity) -> None:
    text = render_identity(identity)
    digest = hashlib.sha256(text).hexdigest().encode()
    replace_file(files, posixpath.join(data_dir, COPY_FILE), digest + b"\n" + text)


def _copied_identity(files: Files, data_dir: str) -> NodeIdentity | None:
    """What the copy says; None where there is none that verifies."""
    path = posixpath.join(data_dir, COPY_FILE)
    if not files.exists(path):
        return None
    digest, _line, text = files.read_file(path).partition(b"\n")
    if digest != hashlib.sha256(text).hexdigest().encode():
        return None
    try:
        return parse_identity(text, path)
    except ConfigError:
        return None


def look_at_identity(files: Files, data_dir: str) -> tuple[NodeIdentity | None, list[str]]:
    """Whose data these are, by node.json or its copy, and what is wrong with the two; changes
    nothing. The copy has a checksum: where they differ it is believed."""
    path, copy = (posixpath.join(data_dir, name) for name in (IDENTITY_FILE, COPY_FILE))
    found, damage = None, []
    try:
        found = parse_identity(files.read_file(path), path)
    except ConfigError as error:
        damage.append(error.message)
    except OSError as error:
        damage.append(f"{path} cannot be read: {error.strerror}")
    try:
        copied = _copied_identity(files, data_dir)
        if copied is None and files.exists(copy):
            damage.append(f"{copy} is damaged: its checksum does not match")
    except OSError as error:
        copied = None
        damage.append(f"{copy} cannot be read: {error.strerror}")
    if found is not None and copied is not None and found != copied:
        damage.append(f"{path} is damaged: it is not what {COPY_FILE}, which verifies, says")
    return copied or found, damage


def _names_in(files: Files, data_dir: str) -> list[str] | None:
    """None: it is not there. Raises ConfigError where it may be there, and cannot be read: that is
    no lost disk."""
    try:
        return files.list_directory(data_dir)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"cannot read the data directory {data_dir}: {error.strerror}",
            hint="check data_dir in the configuration, the mount, and that it and what is in it "
            "belong to the user that runs the node",
        ) from error


def check_identity(files: Files, config: NodeConfig, log: Log | None = None) -> NodeIdentity:
    """Whose data `config.data_dir` holds: this node's, a member's, or ConfigError with what to
    do. A damaged node.json is made anew when its copy says that it was this node's."""
    data_dir = config.data_dir
    path = posixpath.join(data_dir, IDENTITY_FILE)
    names = _names_in(files, data_dir)
    if not names:
        problem = "does not exist" if names is None else "is empty"
        raise ConfigError(
            f"the data directory {data_dir} {problem}, and node {config.node_id} is a member of "
            "the cluster: starting without its data could lose acknowledged writes",
            hint="if the path or a mount is wrong, mend it; if the disk is lost, replace the node "
            "by a new member with another node id; for a new cluster, use `raftdb init`",
        )
    copied = _copied_identity(files, data_dir)
    ours = (config.cluster_id, config.node_id, config.history)
    if copied is not None and (copied.cluster_id, copied.node_id, copied.history) == ours:
        # It stands in the same directory and verifies: so these data are this node's.
        text = render_identity(copied)
        if not files.exists(path) or files.read_file(path) != text:
            replace_file(files, path, text)
            if log is not None:
                log.warning("identity_healed", file=path, source=COPY_FILE)
    if not files.exists(path):
        raise ConfigError(
            f"{data_dir} is not the data directory of a raftdb node: it has no {IDENTITY_FILE}",
            hint="check data_dir in the configuration",
        )
    try:
        found = parse_identity(files.read_file(path), path)
    except ConfigError as error:
        # That it is this node's directory cannot be shown any more, so it is not made up either.
        raise ConfigError(
            error.message,
            hint="put the file back from a backup, or give this node up: raftdb member replace "
            f"{config.node_id} NEW,location=…,peer=HOST:PORT,client=HOST:PORT",
        ) from error
    for what, there, here in (
        ("cluster", found.cluster_id, config.cluster_id),
        ("node", found.node_id, config.node_id),
        ("history", found.history, config.history),
    ):
        if there != here:
            raise ConfigError(
                f"{data_dir} holds the data of {what} {there}, and this is {what} {here}",
                hint="each node has its own directory and configuration: check data_dir",
            )
    if copied != found:
        # Of an earlier release. A full disk does not stand against a start.
        with suppress(OSError):
            _write_copy(files, data_dir, found)
    _check_not_removed(files, config)
    _check_not_superseded(files, config)
    return found


def removed_error(config: NodeConfig, index: int) -> ConfigError:
    """Why such a node does not run."""
    return ConfigError(
        f"node {config.node_id} was removed from the cluster, by entry {index} of its log",
        code="removed",
        hint="an id is never used again: to bring this machine back, make it a new node of another "
        "id (raftdb member token); what is left here may be deleted",
    )


def _check_not_removed(files: Files, config: NodeConfig) -> None:
    """A removed node stays removed. Raises ConfigError."""
    path = removed_path(config.data_dir)
    if files.exists(path):
        try:
            index = int(json.loads(files.read_file(path)[:4096])["index"])
        except (ValueError, KeyError, TypeError):
            index = 0
        raise removed_error(config, index)


def superseded_error(config: NodeConfig, history: str, peer: str) -> ConfigError:
    """Why a node of a history that was left does not run."""
    return ConfigError(
        f"the cluster was recovered or restored, and goes on in history {history}, as {peer} says: "
        f"what {config.node_id} has of history {config.history} counts no more",
        code="superseded",
        hint="bring it back by `raftdb rejoin BUNDLE DIR`, with the bundle that `raftdb recover` "
        "made, or as a new member; its data stay as they are until then",
    )


def note_superseded(files: Files, config: NodeConfig, history: str, peer: str) -> ConfigError:
    """Remember it, so that a restart does not serve; gives the error to end with."""
    note = {"history": history, "former": config.history, "told_by": peer}
    text = json.dumps(note) + "\n"
    replace_file(files, superseded_path(config.data_dir), text.encode())
    return superseded_error(config, history, peer)


def _check_not_superseded(files: Files, config: NodeConfig) -> None:
    """Data of a history that was left serve nobody. Raises ConfigError."""
    path = superseded_path(config.data_dir)
    if files.exists(path):
        history, peer = "unknown", "another node"
        try:
            note = json.loads(files.read_file(path)[:4096])
            history, peer = str(note["history"]), str(note["told_by"])
        except (ValueError, KeyError, TypeError):
            pass
        raise superseded_error(config, history, peer)


def check_clock(wall_ms: int, last_logged_ms: int | None, log: Log) -> None:
    """Refuse a clock that cannot be right, and give an alarm for one that is hardly.

    raftdb's order and durability do not rest on wall clocks, and logged time never runs back, so a
    doubtful clock is no reason to take a node away from its cluster. Before the release, though,
    even certificates cannot be judged: ConfigError.
    """
    if wall_ms < RELEASED.timestamp() * 1000:
        raise ConfigError(
            f"the clock of this machine says {time_text(wall_ms)}, which is before this release "
            "was made",
            hint="set the clock (timedatectl, chrony), then start again",
        )
    if last_logged_ms is None or last_logged_ms <= 0:
        return
    ahead_ms = wall_ms - last_logged_ms
    if ahead_ms < -BACKWARDS_ALARM_MS or ahead_ms > FORWARDS_ALARM_MS:
        log.warning(
            "clock_far_off",
            clock=time_text(wall_ms),
            last_write=time_text(last_logged_ms),
            hint="set the clock of this machine; until then datetime('now') stands still"
            if ahead_ms < 0
            else "if nothing was written for a year, all is well; else set the clock now",
        )
