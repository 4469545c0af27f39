"""Who may read a private key: the one rule, for those who load keys and for those who make them."""

from __future__ import annotations

import os
import stat

from raftdb.base.errors import ConfigError


def check_key_permissions(path: str) -> None:
    """Refuse a private key that others can read. ConfigError with the command that mends it.

    As PostgreSQL does, a key that belongs to root may be readable by the group (0640): so systems
    hand keys to services, and containers mount them.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(
            f"cannot use the key {path}: {error.strerror}",
            hint="check the paths in [tls] and who may read the files",
        ) from error
    if os.name != "posix":
        return
    mode = stat.S_IMODE(status.st_mode)
    allowed = 0o640 if status.st_uid == 0 and os.geteuid() != 0 else 0o600
    if mode & 0o077 & ~allowed:
        raise ConfigError(
            f"the key {path} can be used by others (mode {mode:04o})",
            hint=f"chmod {allowed:04o} {path}",
        )
