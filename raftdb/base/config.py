"""The configuration of one node: its keys, and how it is put together.

Flags win over `RAFTDB_*` variables, those over the file, that over the defaults. Whatever is not
understood is an error that names the key, where it came from, and the nearest key there is.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from raftdb.base.errors import ConfigError
from raftdb.base.ids import Address, ClusterId, HistoryId, NodeId
from raftdb.base.limits import DEFAULT_LIMITS, MIB, Limits
from raftdb.base.limits_docs import LIMIT_DOCS
from raftdb.base.settings import (
    ADDRESS,
    BOOLEAN,
    CLUSTER_ID,
    HISTORY_ID,
    INTEGER,
    MEMBERS,
    NODE_ID,
    NUMBER,
    OPTIONAL_PATH,
    PATH,
    ROUTES,
    TEXTS,
    Kind,
    MemberConfig,
    Setting,
    choice,
    nearest,
)

FILE_BYTES_MAX = 1 * MIB
MEMBERS_MAX = 64
REQUIRED = object()
"""Default of a setting that has none."""
RESERVED_VARIABLES = frozenset(
    {
        "RAFTDB_CONFIG",
        "RAFTDB_URL",
        "RAFTDB_DIR",
        "RAFTDB_JSON",
        "RAFTDB_HISTORY",
        "RAFTDB_ARCHIVE_KEYS",
        "RAFTDB_DRILLS",
    }
)
"""Variables of the commands, which are no settings of a node."""
_SERVICE_VARIABLE = re.compile(
    r"RAFTDB(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT(_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into every container beside a service called raftdb or raftdb-something."""


def _about(kind: Kind, doc: str, default: Any = REQUIRED) -> dict[str, Any]:
    """Metadata of a field: `default` is for loading, where it differs from the dataclass's."""
    return {"kind": kind, "doc": doc, "default": default}


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Paths of PEM files, and of the list of revoked certificates."""

    ca: str = field(default="tls/ca.crt", metadata=_about(PATH, "The cluster's CA certificate."))
    certificate: str = field(
        default="tls/node.crt", metadata=_about(PATH, "This node's certificate.")
    )
    key: str = field(
        default="tls/node.key",
        metadata=_about(PATH, "Its private key; readable by the node's user only."),
    )
    revoked: str = field(
        default="tls/revoked.json",
        metadata=_about(PATH, "Certificates that are trusted no more; may be missing."),
    )


@dataclass(frozen=True, slots=True)
class TimingConfig:
    """Milliseconds. The defaults suit a LAN, and grow with the measured distances."""

    election_min_ms: float = field(
        default=300.0,
        metadata=_about(
            NUMBER, "A follower stands for election after this long without a leader, at least."
        ),
    )
    election_max_ms: float = field(
        default=600.0,
        metadata=_about(NUMBER, "The same, at most: each wait is drawn between the two."),
    )
    heartbeat_ms: float = field(
        default=50.0, metadata=_about(NUMBER, "How often an idle leader says that it is there.")
    )
    leader_timeout_ms: float = field(
        default=600.0,
        metadata=_about(NUMBER, "A leader that heard no majority for this long steps down."),
    )
    connect_timeout_ms: float = field(
        default=1000.0, metadata=_about(NUMBER, "How long connecting to another node may take.")
    )
    reconnect_ms: float = field(
        default=100.0, metadata=_about(NUMBER, "Pause before connecting again.")
    )
    measured: bool = field(
        default=True,
        metadata=_about(BOOLEAN, "Times grow with the round trips that are measured."),
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log goes to stderr."""

    level: str = field(
        default="info",
        metadata=_about(
            choice("debug", "info", "warning", "error"), "The least important lines to write."
        ),
    )
    format: str = field(
        default="text",
        metadata=_about(choice("text", "json"), "Lines of text, or JSON objects."),
    )


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """When SQLite's write-ahead log is folded into the database file."""

    wal_bytes: int = field(
        default=8 * MIB, metadata=_about(INTEGER, "Begin when the WAL file holds this much.")
    )


@dataclass(frozen=True, slots=True)
class JournalConfig:
    """How much of the log stays on disk once the database holds it."""

    keep_bytes: int = field(
        default=256 * MIB,
        metadata=_about(INTEGER, "Log that stays for nodes that were away; older log is dropped."),
    )
    pinned_bytes_max: int = field(
        default=1024 * MIB,
        metadata=_about(
            INTEGER, "Log beyond it that stays while a copy of the database is on its way."
        ),
    )
    stall_ms: int = field(
        default=1000,
        metadata=_about(INTEGER, "A leader whose disk takes longer for a write steps down."),
    )


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """Room on the disk."""

    reserve_bytes: int = field(
        default=32 * MIB,
        metadata=_about(
            INTEGER, "Room that is kept: with less, the node takes no writes. 0: no such watch."
        ),
    )


DESTINATIONS_MAX = 4


@dataclass(frozen=True, slots=True)
class ArchiveConfig:
    """Where and how the log and copies of the database go off-site."""

    destinations: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            TEXTS, "Where to: file:///directory, s3://bucket/prefix, gs://…, az://…; up to four."
        ),
    )
    key_file: str = field(
        default="",
        metadata=_about(
            OPTIONAL_PATH,
            "Keys, by `raftdb archive keygen`; empty: RAFTDB_ARCHIVE_KEYS, or no encryption.",
        ),
    )
    cipher: str = field(
        default="aes-256-gcm",
        metadata=_about(choice("aes-256-gcm", "chacha20-poly1305"), "How new objects are sealed."),
    )
    interval_ms: int = field(
        default=500, metadata=_about(INTEGER, "How often committed entries are uploaded.")
    )
    hurry_ms: int = field(
        default=50,
        metadata=_about(
            INTEGER, "Pause between two uploads while a write waits to be archived, at least."
        ),
    )
    segment_bytes: int = field(
        default=4 * MIB, metadata=_about(INTEGER, "Bytes of log in one object, about.")
    )
    base_log_bytes: int = field(
        default=64 * MIB,
        metadata=_about(INTEGER, "A new base copy after this much log (compressed), at least."),
    )
    base_requests: int = field(
        default=200_000,
        metadata=_about(INTEGER, "A new base copy after this many requests: they are replayed."),
    )
    base_replay_s: int = field(
        default=25,
        metadata=_about(
            INTEGER, "A new base copy when replaying the log since the last would take so long."
        ),
    )
    base_hours: int = field(
        default=24, metadata=_about(INTEGER, "A new base copy after this many hours with writes.")
    )
    rate_bytes_per_s: int = field(
        default=0, metadata=_about(INTEGER, "Bytes per second to each destination; 0: no bound.")
    )
    alarm_ms: int = field(
        default=30_000,
        metadata=_about(INTEGER, "An alarm when an entry is not archived after this long."),
    )
    verify_minutes: int = field(
        default=1_440,
        metadata=_about(
            INTEGER,
            "The newest moment is restored on trial this often, by one node; 0: never.",
        ),
    )
    hash_log_bytes: int = field(
        default=256 * MIB,
        metadata=_about(INTEGER, "Bytes of content hashes kept until they are archived."),
    )

    def __post_init__(self) -> None:
        if len(self.destinations) > DESTINATIONS_MAX:
            raise ConfigError(
                f"archive.destinations has {len(self.destinations)} entries",
                hint=f"give {DESTINATIONS_MAX} at most",
            )
        if len(set(self.destinations)) < len(self.destinations):
            raise ConfigError("archive.destinations names one twice")
        for one in fields(self):
            value = getattr(self, one.name)
            least = 0 if one.name in ("rate_bytes_per_s", "verify_minutes") else 1
            if isinstance(value, int) and value < least:
                raise ConfigError(f"archive.{one.name} is {value}, below {least}")


@dataclass(frozen=True, slots=True)
class CopyConfig:
    """Copies of the database for nodes that are too far behind."""

    rate_bytes_per_s: int = field(
        default=64 * MIB,
        metadata=_about(INTEGER, "How fast a copy is made, and how fast one is fetched."),
    )


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    """What is read again in the background, to find what changed on the disk since."""

    content_hours: int = field(
        default=24,
        metadata=_about(
            INTEGER, "The content hash is computed from the rows again so often; 0: never."
        ),
    )
    content_share_percent: int = field(
        default=5, metadata=_about(INTEGER, "Of one core's time that this takes, as a rule.")
    )
    file_hours: int = field(
        default=6, metadata=_about(INTEGER, "All files are read for damage so often; 0: never.")
    )
    file_bytes_per_s: int = field(
        default=4 * MIB, metadata=_about(INTEGER, "How fast these files are read.")
    )

    def __post_init__(self) -> None:
        for name, least in (("content_hours", 0), ("file_hours", 0), ("file_bytes_per_s", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"scrub.{name} is {getattr(self, name)}, below {least}")
        if not 1 <= self.content_share_percent <= 100:
            raise ConfigError(
                f"scrub.content_share_percent is {self.content_share_percent}",
                hint="give 1 to 100",
            )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything a node is told. Paths are absolute."""

    cluster_id: ClusterId = field(
        metadata=_about(CLUSTER_ID, "Drawn by `raftdb init`; the same on all nodes.")
    )
    history: HistoryId = field(
        metadata=_about(
            HISTORY_ID, "Drawn by `raftdb init`: names the line of data that the cluster holds."
        )
    )
    node_id: NodeId = field(metadata=_about(NODE_ID, "Which of the members this node is."))
    data_dir: str = field(metadata=_about(PATH, "Journal and database; one node's alone.", "data"))
    peer_listen: Address = field(
        metadata=_about(
            ADDRESS, "Where to listen for other nodes. Default: the member's peer_address.", None
        )
    )
    client_listen: Address = field(
        metadata=_about(
            ADDRESS, "Where to listen for clients. Default: the member's client_address.", None
        )
    )
    members: tuple[MemberConfig, ...] = field(
        metadata=_about(
            MEMBERS,
            "The founding members; after the first start the cluster itself knows who they are.",
        )
    )
    routes: tuple[tuple[NodeId, Address], ...] = field(
        default=(),
        metadata=_about(
            ROUTES, "Other ways of this node to other nodes: a proxy, a tunnel (`n2=HOST:PORT`)."
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=_about(
            BOOLEAN, "Plain TCP, no certificates: anybody who reaches a port is let in."
        ),
    )
    tls: TlsConfig | None = None
    """None when insecure."""
    timing: TimingConfig = TimingConfig()
    limits: Limits = DEFAULT_LIMITS
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    journal: JournalConfig = JournalConfig()
    archive: ArchiveConfig = ArchiveConfig()
    copy: CopyConfig = CopyConfig()
    scrub: ScrubConfig = ScrubConfig()
    disk: DiskConfig = DiskConfig()

    def __post_init__(self) -> None:
        _check_members(self.node_id, self.members)
        _check_timing(self.timing)
        if (self.tls is None) != self.insecure:
            raise ConfigError("give either [tls] or insecure = true")
        if self.peer_listen == self.client_listen:
            raise ConfigError(
                f"peer_listen and client_listen are both {self.peer_listen}",
                hint="nodes and clients have a port each",
            )
        if self.checkpoint.wal_bytes < 1:
            raise ConfigError(f"checkpoint.wal_bytes is {self.checkpoint.wal_bytes}, below 1")
        if self.copy.rate_bytes_per_s < 1:
            raise ConfigError(f"copy.rate_bytes_per_s is {self.copy.rate_bytes_per_s}, below 1")
        for name in ("keep_bytes", "pinned_bytes_max", "stall_ms"):
            if getattr(self.journal, name) < 0:
                raise ConfigError(f"journal.{name} is {getattr(self.journal, name)}, below 0")
        if self.disk.reserve_bytes < 0:
            raise ConfigError(f"disk.reserve_bytes is {self.disk.reserve_bytes}, below 0")

    @property
    def member(self) -> MemberConfig:
        """This node among the members."""
        return next(member for member in self.members if member.node_id == self.node_id)

    @property
    def location(self) -> str:
        """Where this node stands."""
        return self.member.location


SECTIONS: dict[str, type[Any]] = {
    "tls": TlsConfig,
    "timing": TimingConfig,
    "limits": Limits,
    "log": LogConfig,
    "checkpoint": CheckpointConfig,
    "journal": JournalConfig,
    "archive": ArchiveConfig,
    "copy": CopyConfig,
    "scrub": ScrubConfig,
    "disk": DiskConfig,
}

SECTION_DOCS = {
    "tls": "PEM files of this node. Changed files are taken up without a restart.",
    "timing": "Milliseconds. The defaults suit a LAN; for a WAN multiply all by the same factor.",
    "limits": "Bounds on everything. Keep them the same on all nodes.",
    "log": "The log goes to stderr.",
    "checkpoint": "When SQLite's write-ahead log is folded into the database file.",
    "journal": "How much of the log stays on disk once the database holds it.",
    "archive": "Continuous copies off-site: docs/archive.md. The same on all nodes.",
    "copy": "Copies of the database for nodes that are too far behind.",
    "scrub": "What is read again in the background, to find what changed on the disk since.",
    "disk": "Room on the disk.",
}


def _table() -> dict[str, Setting]:
    found: list[Setting] = []
    for section, cls in [("", NodeConfig), *SECTIONS.items()]:
        for one in fields(cls):
            if cls is NodeConfig and one.name in SECTIONS:
                continue
            about = one.metadata or _about(INTEGER, LIMIT_DOCS.get(one.name, ""))
            default = about["default"] if one.default is MISSING else one.default
            key = f"{section}.{one.name}" if section else one.name
            found.append(Setting(key, about["kind"], about["doc"], default))
    return {setting.key: setting for setting in found}


SETTINGS: dict[str, Setting] = _table()
"""Every key, in the order in which it is written."""

_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS.values()}


def load_config(
    path: str | None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> NodeConfig:
    """Put a configuration together. Raises ConfigError.

    `path`: the TOML file; relative paths in it are relative to its directory. None: no file, and
    paths are relative to the working directory. `environ`: usually os.environ; empty variables
    count as unset. `overrides`: dotted keys to values or text, from flags; None counts as unset.
    """
    base = os.path.dirname(os.path.abspath(path)) if path is not None else os.getcwd()
    values: dict[str, Any] = {}
    if path is not None:
        values.update(_from_file(path))
    values.update(_from_environment(environ or {}))
    values.update(_from_overrides(overrides or {}))
    for key, setting in SETTINGS.items():
        if key not in values:
            if setting.default is REQUIRED:
                raise ConfigError(
                    f"{key} is missing{f' in {path}' if path else ''}",
                    hint=f"set it in the file or by {setting.variable}; "
                    "`raftdb init` writes a complete file",
                )
            values[key] = setting.default
        if setting.kind.is_path and values[key]:
            values[key] = os.path.normpath(os.path.join(base, values[key]))
    return _build(values)


def _build(values: dict[str, Any]) -> NodeConfig:
    sections: dict[str, Any] = {
        section: cls(**{one.name: values.pop(f"{section}.{one.name}") for one in fields(cls)})
        for section, cls in SECTIONS.items()
    }
    if values["insecure"]:
        sections["tls"] = None
    _check_members(values["node_id"], values["members"])
    own = next(one for one in values["members"] if one.node_id == values["node_id"])
    values["peer_listen"] = values["peer_listen"] or own.peer_address
    values["client_listen"] = values["client_listen"] or own.client_address
    return NodeConfig(**values, **sections)


def _from_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}",
            hint="name the raftdb.toml that `raftdb init` wrote",
        ) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} has more than {FILE_BYTES_MAX} bytes: that is no configuration")
    try:
        tree = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="https://toml.io") from error
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {name} is a section", hint=f"write [{name}]")
            for inner, one in value.items():
                values[f"{name}.{inner}"] = _read(path, f"{name}.{inner}", one)
        elif "." in name:
            raise ConfigError(f"{path}: unknown key {name!r}", hint="write sections as [section]")
        else:
            values[name] = _read(path, name, value)
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable in sorted(environ):
        if not variable.startswith("RAFTDB_") or variable in RESERVED_VARIABLES:
            continue
        setting = _BY_VARIABLE.get(variable)
        if setting is None:
            if _SERVICE_VARIABLE.fullmatch(variable):
                continue
            raise ConfigError(
                f"the environment variable {variable} is no setting of raftdb",
                hint=nearest(variable, _BY_VARIABLE),
            )
        if environ[variable]:
            values[setting.key] = _read(variable, setting.key, environ[variable], text=True)
    return values


def _from_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _read("command line", key, value, text=isinstance(value, str))
        for key, value in overrides.items()
        if value is not None
    }


def _read(where: str, key: str, value: Any, *, text: bool = False) -> Any:
    setting = SETTINGS.get(key)
    if setting is None:
        raise ConfigError(f"{where}: unknown key {key!r}", hint=nearest(key, SETTINGS))
    try:
        return setting.kind.from_text(value) if text else setting.kind.from_toml(value)
    except ConfigError as error:
        raise ConfigError(
            f"{where}: {key}: {error.message}", hint=error.hint or setting.doc
        ) from error
    except (ValueError, OverflowError) as error:
        shown = repr(value) if len(repr(value)) <= 100 else repr(value)[:100] + "…"
        raise ConfigError(
            f"{where}: {key} is {shown}, and should be {setting.kind.wanted}", hint=setting.doc
        ) from error


def _check_members(node_id: NodeId, members: tuple[MemberConfig, ...]) -> None:
    if not 1 <= len(members) <= MEMBERS_MAX:
        raise ConfigError(
            f"there are {len(members)} members", hint=f"list between 1 and {MEMBERS_MAX}"
        )
    seen: dict[object, NodeId] = {}
    for member in members:
        for what in (member.node_id, member.peer_address, member.client_address):
            if what in seen:
                raise ConfigError(
                    f"{what} is used twice among the members: by {seen[what]} and {member.node_id}",
                    hint="every member has a name and two addresses of its own",
                )
            seen[what] = member.node_id
    if node_id not in [member.node_id for member in members]:
        raise ConfigError(
            f"node_id is {node_id}, and the members are "
            f"{', '.join(member.node_id for member in members)}",
            hint="a node is one of the members",
        )


def _check_timing(timing: TimingConfig) -> None:
    for one in fields(timing):
        value = getattr(timing, one.name)
        if type(value) is bool:
            continue
        if not 1 <= value <= 600_000:
            raise ConfigError(
                f"timing.{one.name} is {value:g}", hint="give between 1 and 600000 milliseconds"
            )
    if timing.election_max_ms < timing.election_min_ms * 1.2:
        raise ConfigError(
            f"timing.election_max_ms ({timing.election_max_ms:g}) is too close to election_min_ms "
            f"({timing.election_min_ms:g})",
            hint="leave a wide range, such as 300 to 600: equal waits make elections collide",
        )
    if timing.heartbeat_ms * 3 > timing.election_min_ms:
        raise ConfigError(
            f"timing.heartbeat_ms ({timing.heartbeat_ms:g}) is too long for election_min_ms "
            f"({timing.election_min_ms:g})",
            hint="at least three heartbeats fit into election_min_ms",
        )
    if timing.leader_timeout_ms < timing.election_min_ms:
        raise ConfigError(
            f"timing.leader_timeout_ms ({timing.leader_timeout_ms:g}) is below election_min_ms "
            f"({timing.election_min_ms:g})",
            hint="a leader would step down before anybody could miss it",
        )
