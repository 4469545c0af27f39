"""The VFS under all of a machine's connections: page checksums, and the request's time.

SQLite's own checksum VFS (https://www.sqlite.org/cksumvfs.html, it comes with the binding) writes
eight bytes of checksum at the end of each page and checks them whenever a page is read from the
file; one that does not fit is SQLITE_IOERR_DATA, and never an answer. It has to be the uppermost
layer (it looks into the file object that SQLite holds), and has one place for the VFS below it: so
it sits on one time VFS for all machines of a process, over one base. For another base it is loaded
once more, under another name.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import apsw
import apsw.sqlite_extra

from raftdb.base.errors import ConfigError
from raftdb.machine.determinism import RequestTimeVfs

CHECKSUM_BYTES = 8
"""At the end of each page, reserved when a database is founded."""

_NAME = "cksmvfs"
_ENTRY = "sqlite3_cksumvfs_init"
_EXCLUSIVE = "unix-excl"
_OTHERS_MAX = 0xFFFF
_numbers = itertools.count(1)
_lock = threading.Lock()
_first_base: str | None = None
_layers: list[RequestTimeVfs] = []
"""Kept for good: what SQLite has registered points to them."""


@dataclass(frozen=True, slots=True)
class MachineVfs:
    """What one machine's connections are opened with."""

    name: str


def open_vfs(base: str) -> MachineVfs:
    """The VFS over the one named `base` (`` for the system's; see above). Raises ConfigError.

    The base that is asked for first in a process costs nothing more when it is asked for again;
    each call with another one (a disk that a test makes fail, say) costs some memory for good,
    since a base of that name may be another one each time.
    """
    global _first_base
    if not base and _EXCLUSIVE in apsw.vfs_names():
        base = _EXCLUSIVE
    with _lock:
        if base == _first_base:
            return MachineVfs(_NAME)
        if _first_base is None:
            if _NAME in apsw.vfs_names():
                raise ConfigError(
                    "another part of this program has loaded SQLite's checksum VFS already",
                    code="checksum_vfs",
                    hint="open the raftdb node first, or run it as a process of its own",
                )
            _register(base, apsw.sqlite_extra.path("cksumvfs"), "raftdb-time")
            _first_base = base
            return MachineVfs(_NAME)
        number = next(_numbers)
        if number > _OTHERS_MAX:
            raise ConfigError("too many VFS bases in one process", code="checksum_vfs")
        name = f"raf{number:04x}"
        library = Path(apsw.sqlite_extra.path("cksumvfs")).read_bytes()
        renamed = library.replace(_NAME.encode() + b"\0", name.encode() + b"\0")
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(renamed)
            file.flush()
            _register(base, file.name, f"raftdb-time-{number}")
        return MachineVfs(name)


def _register(base: str, library: str, below_name: str) -> None:
    default = apsw.vfs_names()[0]
    below = RequestTimeVfs(below_name, base)
    _layers.append(below)
    connection = apsw.Connection(":memory:")
    try:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)
        apsw.set_default_vfs(below.name)
        # It takes the default for its base, and makes itself the default.
        connection.load_extension(library, _ENTRY)
    except apsw.Error as error:
        raise ConfigError(
            f"SQLite's checksum VFS does not load: {error}",
            code="checksum_vfs",
            hint="install apsw from its wheel, which brings it",
        ) from error
    finally:
        apsw.set_default_vfs(default)
        connection.close()
