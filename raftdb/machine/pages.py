"""The VFS under all of a machine's connections: page checksums, and the request's time.

SQLite's own checksum VFS (https://www.sqlite.org/cksumvfs.html, it comes with the binding) writes
eight bytes of checksum at the end of each page and checks them whenever a page is read from the
file; one that does not fit is SQLITE_IOERR_DATA, and never an answer. It has to be the uppermost
layer (it looks into the file object that SQLite holds), and there is one of it in a process: so it
sits on one time VFS for all machines, over one base.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass

import apsw
import apsw.sqlite_extra

from raftdb.base.errors import ConfigError
from raftdb.machine.determinism import RequestTimeVfs

CHECKSUM_BYTES = 8
"""At the end of each page, reserved when a database is founded."""

_NAME = "cksmvfs"
_numbers = itertools.count(1)
_lock = threading.Lock()
_below: RequestTimeVfs | None = None
_base: str | None = None


@dataclass(frozen=True, slots=True)
class MachineVfs:
    """What one machine's connections are opened with."""

    name: str
    checksums: bool
    own: RequestTimeVfs | None = None

    def close(self) -> None:
        """All connections are closed."""
        if self.own is not None:
            self.own.unregister()


def open_vfs(base: str) -> MachineVfs:
    """The VFS over the one named `base` (`` for the system's).

    The first base that is asked for in a process gets the checksums; over another one pages are
    not checked (tests that make a disk fail, say). Raises ConfigError.
    """
    with _lock:
        if _base is None:
            _register(base)
        if base == _base:
            return MachineVfs(_NAME, True)
    own = RequestTimeVfs(f"raftdb-{next(_numbers)}", base)
    return MachineVfs(own.name, False, own)


def _register(base: str) -> None:
    global _below, _base
    default = apsw.vfs_names()[0]
    if _NAME in apsw.vfs_names():
        raise ConfigError(
            "another part of this program has loaded SQLite's checksum VFS already",
            code="checksum_vfs",
            hint="open the raftdb node first, or run it as a process of its own",
        )
    below = RequestTimeVfs("raftdb-time", base)
    connection = apsw.Connection(":memory:")
    try:
        apsw.set_default_vfs(below.name)
        # It takes the default for its base, and makes itself the default.
        apsw.sqlite_extra.load(connection, "cksumvfs")
    except Exception as error:
        below.unregister()
        raise ConfigError(
            f"SQLite's checksum VFS does not load: {error}",
            code="checksum_vfs",
            hint="install apsw from its wheel, which brings it",
        ) from error
    finally:
        apsw.set_default_vfs(default)
        connection.close()
    _below, _base = below, base
