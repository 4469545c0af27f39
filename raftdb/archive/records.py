"""What objects hold: frozen values, and MessagePack. docs/archive.md lists the fields.

Every record is a map with a version; unknown keys are ignored, so that a later release may add
some. What does not read raises ArchiveDamagedError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

import msgpack

from raftdb.archive.errors import ArchiveDamagedError

__all__ = [
    "ArchiveEntry",
    "BaseRecord",
    "Claim",
    "Manifest",
    "Merged",
    "PackReference",
    "Pruned",
    "Root",
    "Segment",
    "decode",
    "encode",
]

VERSION = 1
HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Root:
    """The object `archive`."""

    archive: str
    """32 hexadecimal digits, drawn when the archive was made; in the header of all its objects."""
    cluster_id: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Who writes in an epoch (rule A2). Made by a conditional put: the first one has it."""

    epoch: int
    history: str
    parent: int
    """The epoch it continues; 0 for the first."""
    fork_index: int
    """Of the parent's entries those up to here, and `fork_position` requests of the next one,
    belong to this epoch's past."""
    fork_position: int
    mode: str
    """`first`, `replace` or `recover`."""
    claimed_ms: int
    claimed_by: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One link of the chain."""

    epoch: int
    sequence: int
    previous: bytes
    """Digest of the manifest before, as stored; 32 zero bytes for the first."""
    history: str
    term: int
    """Of the node that wrote it: nobody of a lower term adds anything after it."""
    node: str
    created_ms: int
    kind: str
    """segment, base, gap, mark or verified."""
    object: str = ""
    """Of a segment or a base: its name, the digest of its bytes, and their number."""
    digest: bytes = b""
    size: int = 0
    first: int = 0
    last: int = 0
    """Entries: of a segment those it holds, of a gap those that are missing, of a base and of a
    mark the index in `last`."""
    position: int = 0
    """Of a mark: requests of entry `last` + 1."""
    last_term: int = 0
    requests: int = 0
    time_ms: int = 0
    """Logged time at the end of it."""
    content: bytes = b""
    """The content hash at the end of it; empty where none was recorded."""
    build: bytes = b""
    """16 bytes that name SQLite's build and this machine's arithmetic (rule A4)."""
    note: str = ""
    """Of a mark its name, of a gap the reason, of a base the SQLite version."""
    total_bytes: int = 0
    """Of a base: the database's size."""
    packs_bytes: int = 0
    """Of a base: of all packs that it needs."""
    archived: int = 0
    """Entries up to here are in the archive, this manifest's included (but for gaps)."""
    base: int = 0
    """Sequence of the newest base's manifest, this one included; 0 without one, after a gap."""
    base_ms: int = 0
    """When that base was made, Unix milliseconds."""
    verified_ms: int = 0
    """When a restore was last done and proven, Unix milliseconds; 0: never."""
    replay_rate: int = 0
    """Requests per second at which that restore replayed the log; 0: not known."""
    since_bytes: int = 0
    """Of segments since that base, and their requests."""
    since_requests: int = 0
    noted: int = -1
    """Sequence of the newest manifest before this one that is no segment's, 0 when there is none:
    so these are found without the others. -1: not told, as by release 0.1.0."""
    copy: str = ""
    """Of what is no segment's: the object that holds this manifest a second time. Empty: there is
    none, as with release 0.1.0."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A committed entry and the content hashes after each of its requests."""

    index: int
    term: int
    data: bytes
    """As the log holds it."""
    hashes: bytes
    """16 bytes per request; empty where none were recorded."""

    def hash_at(self, position: int) -> bytes:
        """After the request at `position`; empty where none was recorded."""
        return self.hashes[HASH_BYTES * position : HASH_BYTES * (position + 1)]


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries in order, without gaps."""

    epoch: int
    sequence: int
    """Of the manifest that is to name it, and the digest of the one before: so a segment whose
    manifest is lost still has its place."""
    previous: bytes
    history: str
    term: int
    time_ms: int
    content: bytes
    build: bytes
    entries: tuple[ArchiveEntry, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PackReference:
    """One pack of a base."""

    name: str
    digest: bytes
    size: int
    chunks: int


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """A copy of the database, chunk by chunk."""

    epoch: int
    history: str
    index: int
    term: int
    time_ms: int
    content: bytes
    size_bytes: int
    file_digest: bytes
    """BLAKE2b-256 of the database's file."""
    fingerprint: Mapping[str, Any]
    chunk_bytes: int
    packs: tuple[PackReference, ...]
    chunks: bytes = field(repr=False)
    """24 bytes per chunk of the file: BLAKE2b-128, pack (u32), place in it (u32), little-endian."""
    generation: int = 0
    """0 when all of its packs are its own; else one more than that of the base it builds on."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What stands for the manifests of segments that were made one."""

    epoch: int
    first: int
    last: int
    """Sequences of the first and the last of these manifests."""
    check: bytes
    """Digest of the last of them, as it was stored: the manifest after it names it."""
    manifest: bytes
    """A manifest's plain text: the last one's, but `previous` is the first one's, and `object`,
    `digest`, `size`, `first` and `requests` are those of the merged segment."""
    merged_ms: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention took: manifests below `first` but those in `kept`."""

    epoch: int
    first: int
    kept: tuple[tuple[int, bytes], ...]
    """Sequence and digest of manifests of bases that stay."""
    pruned_ms: int


Record = Root | Claim | Manifest | Segment | BaseRecord | Pruned | Merged
_R = TypeVar("_R", Root, Claim, Manifest, Segment, BaseRecord, Pruned, Merged)
KINDS: dict[type[Any], str] = {
    Root: "root",
    Claim: "claim",
    Manifest: "manifest",
    Segment: "segment",
    BaseRecord: "base",
    Pruned: "pruned",
    Merged: "merged",
}
PACK = "pack"
_TYPES = {"int": int, "str": str, "bytes": bytes}


def encode(record: Record) -> bytes:
    """The record's plain text."""
    value: dict[str, Any] = {"v": VERSION}
    for one in fields(record):
        content = getattr(record, one.name)
        if one.name == "entries":
            content = [(e.index, e.term, e.data, e.hashes) for e in content]
        elif one.name == "packs":
            content = [(p.name, p.digest, p.size, p.chunks) for p in content]
        value[one.name] = content
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def decode(cls: type[_R], name: str, plain: bytes) -> _R:
    """Read what `encode` made; `name` is the object's. Raises ArchiveDamagedError."""
    try:
        value = msgpack.unpackb(plain, use_list=False, strict_map_key=True)
        if value["v"] != VERSION:
            raise ValueError(f"version {value['v']!r}; this release knows {VERSION}")
        found: dict[str, Any] = {}
        for one in fields(cls):
            if one.name not in value and one.default is not MISSING:
                # Written by a release that did not have it yet.
                continue
            content = value[one.name]
            wanted = _TYPES.get(str(one.type))
            if wanted is not None and type(content) is not wanted:
                raise ValueError(f"{one.name} is {type(content).__name__}")
            if one.name == "entries":
                content = tuple(ArchiveEntry(*entry) for entry in content)
            elif one.name == "packs":
                content = tuple(PackReference(*pack) for pack in content)
            found[one.name] = content
        return cls(**found)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArchiveDamagedError(name, f"does not read: {error!r}") from error
