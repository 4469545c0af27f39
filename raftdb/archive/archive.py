"""One archive in one store: reading and making its objects, each checked on the way."""

from __future__ import annotations

from typing import TypeVar

from raftdb.archive import layout
from raftdb.archive.envelope import Sealer, digest
from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.records import (
    KINDS,
    PACK,
    BaseRecord,
    Claim,
    Manifest,
    Merged,
    Pruned,
    Root,
    Segment,
    decode,
    encode,
)
from raftdb.archive.store import Listed, Store
from raftdb.base.errors import ConfigError

__all__ = ["Archive"]

EPOCHS_MAX = 100_000
_R = TypeVar("_R", Root, Claim, Manifest, Segment, BaseRecord, Pruned, Merged)


class Archive:
    """Blocking; on lanes. Raises ArchiveUnavailableError, and ArchiveDamagedError where an object
    is not what it should be."""

    def __init__(self, store: Store, sealer: Sealer, root: Root) -> None:
        self.store = store
        self.sealer = sealer
        self.root = root

    @property
    def url(self) -> str:
        """For messages."""
        return self.store.url

    # ---- life

    @classmethod
    def open(cls, store: Store, sealer: Sealer) -> Archive:
        """The archive there is. Raises ConfigError when there is none."""
        data = store.get(layout.ROOT)
        if data is None:
            if store.listing("epochs/"):
                raise ArchiveDamagedError(
                    layout.ROOT,
                    f"is missing in {store.url}",
                    hint="put it back from another copy of the archive",
                )
            raise ConfigError(
                f"{store.url} holds no archive",
                code="archive_missing",
                hint="check the URL; a node makes the archive when it first uploads",
            )
        plain = sealer.open("root", None, layout.ROOT, data)
        return cls(store, sealer, decode(Root, layout.ROOT, plain))

    @classmethod
    def open_or_create(cls, store: Store, sealer: Sealer, cluster_id: str, now_ms: int) -> Archive:
        """The archive of this cluster. Raises ConfigError when it is another one's."""
        if store.get(layout.ROOT) is None:
            root = Root(sealer.randbytes(16).hex(), cluster_id, now_ms)
            # Its own id is not known to whoever opens it: the header has none.
            data = sealer.seal("root", "", layout.ROOT, encode(root))
            store.put(layout.ROOT, data)
        found = cls.open(store, sealer)
        if found.root.cluster_id != cluster_id:
            raise ConfigError(
                f"{store.url} is the archive of cluster {found.root.cluster_id}, "
                f"and this is {cluster_id}",
                code="wrong_archive",
                hint="each cluster has a destination of its own: give another prefix",
            )
        return found

    # ---- objects

    def fetch(self, name: str, expected: bytes | None = None) -> bytes:
        """An object's bytes. `expected` is the digest by which it is known elsewhere."""
        data = self.store.get(name)
        if data is None:
            raise ArchiveDamagedError(name, f"is missing in {self.url}", missing=True)
        if expected is not None and digest(data) != expected:
            raise ArchiveDamagedError(
                name, f"is not what was archived ({self.url}): truncated, changed or replayed"
            )
        return data

    def read(self, cls: type[_R], name: str, expected: bytes | None = None) -> _R:
        """An object's record."""
        return self.parse(cls, name, self.fetch(name, expected))

    def parse(self, cls: type[_R], name: str, data: bytes) -> _R:
        """The record in an object's bytes."""
        plain = self.sealer.open(KINDS[cls], self.root.archive, name, data)
        return decode(cls, name, plain)

    def read_pack(self, name: str, expected: bytes) -> bytes:
        """A pack's chunks, one after the other."""
        data = self.fetch(name, expected)
        return self.sealer.open(PACK, self.root.archive, name, data)

    def seal(
        self, record: Claim | Manifest | Segment | BaseRecord | Pruned | Merged, name: str
    ) -> bytes:
        """The bytes of an object that holds the record."""
        return self.sealer.seal(KINDS[type(record)], self.root.archive, name, encode(record))

    def put(self, name: str, data: bytes) -> bool:
        """Make an object: whether it is there now with exactly these bytes. (A put that seemed to
        fail may have succeeded, and its repetition then finds the name taken.)"""
        return self.store.put(name, data) or self.store.get(name) == data

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        """Objects in a folder, by name; those after a name."""
        return self.store.listing(prefix, after)

    # ---- epochs

    def claims(self) -> list[Claim]:
        """All claims, by epoch. Raises ArchiveDamagedError where one is missing."""
        claims: list[Claim] = []
        for listed in self.listing(layout.EPOCHS):
            claim = self.read(Claim, listed.name)
            if layout.claim_name(claim.epoch) != listed.name:
                raise ArchiveDamagedError(listed.name, f"claims epoch {claim.epoch}")
            if claim.epoch != len(claims) + 1:
                name = layout.claim_name(len(claims) + 1)
                raise ArchiveDamagedError(name, f"is missing in {self.url}")
            claims.append(claim)
        # The newest one may be missing too: then there is a chain that nobody claimed. (Or it was
        # claimed after the listing: then it can be read now.)
        following = len(claims) + 1
        if self.listing(layout.folder(following, "manifests")) and self.claim(following) is None:
            raise ArchiveDamagedError(layout.claim_name(following), f"is missing in {self.url}")
        return claims

    def claim(self, epoch: int) -> Claim | None:
        """The claim of an epoch, if it was made."""
        name = layout.claim_name(epoch)
        data = self.store.get(name)
        return None if data is None else self.parse(Claim, name, data)

    def make_claim(self, claim: Claim) -> bool:
        """Claim an epoch: whether nobody else had it."""
        name = layout.claim_name(claim.epoch)
        return self.put(name, self.seal(claim, name))
