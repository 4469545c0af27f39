"""Keys of an archive: read from a file or the environment, named by their id.

A key file has one key per line, `ID HEX`, the newest first: that one seals, all of them open. So a
key is rotated by adding a line at the top, and nothing is written again. `#` begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from raftdb.base.errors import ConfigError

__all__ = ["KEYS_VARIABLE", "Keyring", "new_key_line", "parse_keys"]

KEYS_VARIABLE = "RAFTDB_ARCHIVE_KEYS"
"""Keys in the environment: `ID:HEX`, several separated by commas, the newest first."""
KEY_BYTES = 32
KEYS_MAX = 64
KEY_FILE_BYTES_MAX = 64 * 1024
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The first key seals; all open. Empty: objects are sealed by a checksum only."""

    keys: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.keys)})"

    @property
    def current(self) -> tuple[str, bytes] | None:
        """Id and bytes of the key that seals; None without encryption."""
        for name, key in self.keys.items():
            return name, key
        return None


def parse_keys(text: str, where: str) -> Keyring:
    """Read a key file's text, or the variable's. Raises ConfigError, which never shows a key."""
    keys: dict[str, bytes] = {}
    lines = [part for line in text.splitlines() for part in line.split("#")[0].split(",")]
    for number, line in enumerate((one.strip() for one in lines), start=1):
        if not line:
            continue
        name, _space, value = line.replace(":", " ").partition(" ")
        try:
            key = bytes.fromhex(value.strip())
        except ValueError:
            key = b""
        if not _ID.fullmatch(name) or len(key) != KEY_BYTES:
            raise ConfigError(
                f"{where}: key {number} is not an id and {2 * KEY_BYTES} hexadecimal digits",
                hint="make one by `raftdb archive keygen`",
            )
        if name in keys:
            raise ConfigError(f"{where}: key {name} is there twice", hint="each key has its own id")
        keys[name] = key
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ConfigError(
            f"{where} has {len(keys)} keys, and should have 1 to {KEYS_MAX}",
            hint="make one by `raftdb archive keygen`",
        )
    return Keyring(keys)


def new_key_line(name: str, key: bytes) -> str:
    """A line of a key file. Raises ConfigError when `name` is no id."""
    if not _ID.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a key id", hint="1 to 32 of a-z, 0-9, dots, hyphens, underscores"
        )
    return f"{name} {key.hex()}\n"
