"""One object's bytes: compressed, sealed, and tied to its place.

    offset  bytes  what
    0       8      RDBARC01
    8       4      length of the header, little-endian
    12      …      header, MessagePack: [kind, archive, name, key id, cipher, plain bytes, nonce]
    …       …      body

The body is zstd of the plain text, sealed by AES-256-GCM or ChaCha20-Poly1305 (RFC 8439) with all
that stands before it as associated data; without a key it is followed by BLAKE2b-256 of everything
before. So an object that was cut, changed, or put in another one's place or archive does not open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from raftdb.archive.errors import ArchiveDamagedError
from raftdb.archive.keys import Keyring
from raftdb.base.errors import ConfigError

__all__ = ["CIPHERS", "DIGEST_BYTES", "OBJECT_BYTES_MAX", "Sealer", "digest"]

MAGIC = b"RDBARC01"
DIGEST_BYTES = 32
OBJECT_BYTES_MAX = 1 << 30
"""Of the plain text of one object: a log entry may have 1 GiB less its head."""
HEADER_BYTES_MAX = 4096
NONCE_BYTES = 12
LEVEL = 3
_PLAIN, _AES, _CHACHA = 0, 1, 2
CIPHERS = {"aes-256-gcm": _AES, "chacha20-poly1305": _CHACHA}
_CLASSES: dict[int, Any] = {_AES: AESGCM, _CHACHA: ChaCha20Poly1305}


def digest(data: bytes) -> bytes:
    """BLAKE2b-256: how objects refer to each other."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes objects' bytes and opens them."""

    keyring: Keyring
    randbytes: Callable[[int], bytes]
    cipher: str = "aes-256-gcm"

    def seal(self, kind: str, archive: str, name: str, plain: bytes) -> bytes:
        """The object's bytes."""
        if len(plain) > OBJECT_BYTES_MAX:
            raise ConfigError(f"{name} would have {len(plain)} bytes", hint="lower segment_bytes")
        current = self.keyring.current
        cipher = _PLAIN if current is None else CIPHERS[self.cipher]
        key_id = "" if current is None else current[0]
        nonce = b"" if current is None else self.randbytes(NONCE_BYTES)
        header: bytes = msgpack.packb([kind, archive, name, key_id, cipher, len(plain), nonce])
        head = MAGIC + len(header).to_bytes(4, "little") + header
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(plain)
        if current is None:
            return head + packed + digest(head + packed)
        sealed: bytes = _CLASSES[cipher](current[1]).encrypt(nonce, packed, head)
        return head + sealed

    def open(self, kind: str, archive: str | None, name: str, data: bytes) -> bytes:
        """The plain text of the object `name`. Raises ArchiveDamagedError when it is not exactly
        what was put there, or its key is not at hand; ConfigError for a root whose key is not.
        `archive` None: any."""
        found, head, body = _split(name, data)
        found_kind, found_archive, found_name, key_id, cipher, plain_bytes, nonce = found
        if found_name != name or found_kind != kind:
            raise ArchiveDamagedError(name, f"holds {found_kind} {found_name}: it was swapped")
        if archive is not None and found_archive != archive:
            raise ArchiveDamagedError(name, f"belongs to another archive ({found_archive})")
        packed = self._unseal(kind, name, head, body, cipher, key_id, nonce)
        try:
            if zstandard.frame_content_size(packed) != plain_bytes:
                raise ArchiveDamagedError(name, f"does not hold {plain_bytes} bytes")
            plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=plain_bytes)
        except zstandard.ZstdError as error:
            raise ArchiveDamagedError(name, f"does not decompress: {error}") from error
        if len(plain) != plain_bytes:
            raise ArchiveDamagedError(name, f"has {len(plain)} bytes, not {plain_bytes}")
        return plain

    def _unseal(
        self,
        kind: str,
        name: str,
        head: bytes,
        body: bytes,
        cipher: int,
        key_id: str,
        nonce: bytes,
    ) -> bytes:
        if cipher == _PLAIN:
            if self.keyring.keys:
                raise ArchiveDamagedError(
                    name,
                    "is not encrypted, though keys were given",
                    hint="leave the keys out for an archive that was made without any",
                )
            packed, check = body[:-DIGEST_BYTES], body[-DIGEST_BYTES:]
            if len(body) < DIGEST_BYTES or digest(head + packed) != check:
                raise ArchiveDamagedError(name, "was truncated or changed: its digest differs")
            return packed
        key = self.keyring.keys.get(key_id)
        if key is None:
            have = ", ".join(self.keyring.keys) or "none"
            what = f"is sealed by key {key_id!r}, which is not at hand (keys given: {have})"
            hint = "give the key file of the cluster's nodes: --key-file, or RAFTDB_ARCHIVE_KEYS"
            if kind == "root":
                raise ConfigError(f"{name} {what}", code="archive_key_missing", hint=hint)
            # It may be this one object's header that was changed: others may still do.
            raise ArchiveDamagedError(name, what, hint=hint)
        try:
            opened: bytes = _CLASSES[cipher](key).decrypt(nonce, body, head)
        except InvalidTag:
            raise ArchiveDamagedError(
                name,
                f"was truncated or changed, or key {key_id!r} is a wrong one: it does not open",
                hint="if nothing opens, it is the key file that is not this archive's; otherwise "
                "restore from another destination, or to a moment before it",
            ) from None
        return opened


def _split(name: str, data: bytes) -> tuple[tuple[Any, ...], bytes, bytes]:
    size = int.from_bytes(data[8:12], "little")
    if data[:8] != MAGIC or size > HEADER_BYTES_MAX or len(data) < 12 + size:
        raise ArchiveDamagedError(name, "is no object of an archive, or was truncated")
    head = data[: 12 + size]
    try:
        header = msgpack.unpackb(head[12:], use_list=False)
        kind, archive, found, key_id, cipher, plain_bytes, nonce = header
        texts = all(type(one) is str for one in (kind, archive, found, key_id))
        if not texts or cipher not in (_PLAIN, _AES, _CHACHA) or type(nonce) is not bytes:
            raise ValueError("its fields are not what they should be")
        if type(plain_bytes) is not int or not 0 <= plain_bytes <= OBJECT_BYTES_MAX:
            raise ValueError(f"{plain_bytes!r} bytes")
    except (ValueError, TypeError) as error:
        raise ArchiveDamagedError(name, f"has an unreadable header: {error}") from error
    return header, head, data[12 + size :]
