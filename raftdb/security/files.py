"""Writing certificates and keys: whole or not at all, and keys for their owner's eyes only."""

from __future__ import annotations

import os
import tempfile

from raftdb.base.errors import ConfigError

KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
DIRECTORY_MODE = 0o700
FILE_BYTES_MAX = 4 << 20


def make_directory(path: str) -> None:
    """Make it, with parents, for its owner only; fine when it is there."""
    missing = []
    parent = os.path.abspath(path)
    while not os.path.isdir(parent):
        missing.append(parent)
        parent = os.path.dirname(parent)
    try:
        # One by one: os.makedirs gives the mode to the last directory only.
        for one in reversed(missing):
            os.mkdir(one, DIRECTORY_MODE)
            _sync_directory(os.path.dirname(one))
    except OSError as error:
        raise ConfigError(
            f"cannot make the directory {path}: {error.strerror}",
            hint="choose a directory that this user may write to",
        ) from error


def write_file(path: str, data: bytes, mode: int) -> None:
    """Replace the file atomically and durably: temporary file, fsync, rename, fsync of the
    directory. The mode is set before the first byte is written. ConfigError when it fails."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        # mkstemp makes it 0600, and a name that nobody can have prepared.
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        _sync_directory(directory)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}",
            hint="check the directory, its permissions and the free space",
        ) from error


def read_file(path: str, what: str, hint: str) -> bytes:
    """The content of a file of certificates. ConfigError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}", hint=hint) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"the {what} {path} has more than {FILE_BYTES_MAX} bytes", hint=hint)
    return data


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
