"""The stores there are: a plain directory, and whatever obstore reaches (S3, GCS, Azure).

    file:///mnt/backup/cluster            a directory
    s3://bucket/prefix?region=eu-west-1&endpoint=https://minio:9000
    gs://bucket/prefix, az://container/prefix

Credentials come from the environment, as the cloud's own tools take them (AWS_ACCESS_KEY_ID …), or
from the machine's role; they never stand in a URL.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from raftdb.archive.errors import ArchiveUnavailableError
from raftdb.archive.layout import ROOT
from raftdb.archive.store import Listed, PruneStore
from raftdb.base.errors import ConfigError

__all__ = ["DirectoryStore", "ObjectStore", "open_store"]

REQUEST_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 5
RETRIES_MAX = 2
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_METADATA = "169.254.169.254"
"""Where a machine in the cloud asks for its role: tried last, when nothing else is given."""
_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_OPTIONS = ("endpoint", "region", "virtual_hosted_style_request", "skip_signature", "timeout")


def open_store(url: str) -> PruneStore:
    """The store at `url`. Opens no connection. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(parts.path)
    if not parts.scheme and url.startswith("/"):
        return DirectoryStore(url)
    if parts.scheme not in _SCHEMES:
        raise ConfigError(
            f"{url!r} is no destination",
            hint="write file:///directory, s3://bucket/prefix, gs://… or az://…",
        )
    if parts.username or parts.password:
        raise ConfigError(
            "a destination's URL holds no credentials", hint="set AWS_ACCESS_KEY_ID and the like"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(
                f"{name!r} is no option of a destination", hint=f"there are {', '.join(_OPTIONS)}"
            )
    return ObjectStore(url.partition("?")[0], options)


class DirectoryStore:
    """Objects as files. An object appears whole or not at all: it is written and synced under
    another name, then linked to its own, which fails when that is taken."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._durable: set[str] = set()
        """Folders whose own names were synced: only those of their files are left to be."""
        self._held_archive = False
        """An archive was seen here. Where it is gone, so is what it is in: behind a mount point
        that nothing is mounted on, objects would be made that no restore finds."""

    @property
    def url(self) -> str:
        return f"file://{self._path}"

    def put(self, name: str, data: bytes) -> bool:
        path = os.path.join(self._path, name)
        folder = os.path.dirname(path)
        try:
            gone = self._held_archive and not os.path.exists(os.path.join(self._path, ROOT))
            if gone and name != ROOT:
                raise FileNotFoundError(2, "the archive that was there is not there", path)
            temporary, descriptor = self._create(path, folder)
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                made = True
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    made = False
            finally:
                os.unlink(temporary)
            # A name that is taken may be that of a put whose sync failed, or is yet to come; the
            # caller who finds his own bytes there counts on them.
            self._sync(folder)
        except OSError as error:
            raise self._failed("write", error) from error
        return made

    def _create(self, path: str, folder: str) -> tuple[str, int]:
        temporary = f"{path}.{os.urandom(6).hex()}.partial"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        if folder in self._durable:
            try:
                return temporary, os.open(temporary, flags, 0o600)
            except FileNotFoundError:
                # Somebody took the folder away: it, and those above, are made and synced anew.
                self._durable.clear()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return temporary, os.open(temporary, flags, 0o600)

    def _sync(self, folder: str) -> None:
        """The names of the object and, the first time, of the folders above it."""
        top = folder
        while True:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if top in self._durable or folder in (self._path, "/"):
                break
            folder = os.path.dirname(folder)
        self._durable.add(top)

    def get(self, name: str) -> bytes | None:
        try:
            with open(os.path.join(self._path, name), "rb") as file:
                self._held_archive = self._held_archive or name == ROOT
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("read", error) from error

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        found = []
        try:
            if not os.path.isdir(self._path):
                raise FileNotFoundError(2, "there is no such directory", self._path)
            for folder, _folders, names in os.walk(os.path.join(self._path, prefix)):
                for name in names:
                    path = os.path.join(folder, name)
                    relative = os.path.relpath(path, self._path)
                    if name.endswith(".partial") or relative <= after:
                        continue
                    state = os.stat(path)
                    modified_ms = state.st_mtime_ns // 1_000_000
                    found.append(Listed(relative, state.st_size, modified_ms))
        except OSError as error:
            raise self._failed("list", error) from error
        return sorted(found, key=lambda one: one.name)

    def delete(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._path, name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed("delete", error) from error

    def _failed(self, what: str, error: OSError) -> ArchiveUnavailableError:
        return ArchiveUnavailableError(
            f"cannot {what} in {self.url}: {error.strerror or error}",
            hint="check that the directory is mounted, writable, and has room",
        )


class ObjectStore:
    """A bucket, by obstore."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        # Imported here: a node without an archive does not carry it.
        import obstore
        from obstore import store as stores
        from obstore.exceptions import BaseError

        self.url = url
        self._obstore: Any = obstore
        self._errors: tuple[type[BaseException], ...] = (BaseError, OSError, ValueError)
        options = dict(options)
        timeout = timedelta(seconds=float(options.pop("timeout", REQUEST_TIMEOUT_S)))
        try:
            make: Any = stores.from_url
            self._store: Any = make(
                url,
                client_options={
                    "allow_http": options.get("endpoint", "").startswith("http://"),
                    "timeout": timeout,
                    "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                },
                retry_config={"max_retries": RETRIES_MAX, "retry_timeout": timeout},
                **options,
            )
        except self._errors as error:
            raise ConfigError(
                f"{url} cannot be used: {_first_line(error)}",
                hint="check the URL, and the credentials in the environment",
            ) from error

    def put(self, name: str, data: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            self._obstore.put(self._store, name, data, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except self._errors as error:
            raise self._failed("write to", error) from error
        return True

    def get(self, name: str) -> bytes | None:
        from obstore.exceptions import NotFoundError

        try:
            return bytes(self._obstore.get(self._store, name).bytes())
        except (FileNotFoundError, NotFoundError):
            return None
        except self._errors as error:
            raise self._failed("read from", error) from error

    def listing(self, prefix: str, after: str = "") -> list[Listed]:
        try:
            found = [
                Listed(str(one["path"]), int(one["size"]), int(1000 * _stamp(one)))
                for part in self._obstore.list(self._store, prefix or None, offset=after or None)
                for one in part
            ]
        except self._errors as error:
            raise self._failed("list", error) from error
        return sorted(found, key=lambda one: one.name)

    def delete(self, name: str) -> None:
        from obstore.exceptions import NotFoundError

        try:
            self._obstore.delete(self._store, name)
        except (FileNotFoundError, NotFoundError):
            return
        except self._errors as error:
            raise self._failed("delete from", error) from error

    def _failed(self, what: str, error: BaseException) -> ArchiveUnavailableError:
        return ArchiveUnavailableError(
            f"cannot {what} {self.url}: {_code(error)}{_first_line(error)}", hint=_hint(error)
        )


def _stamp(one: Any) -> float:
    return float(one["last_modified"].timestamp())


def _code(error: BaseException) -> str:
    """The store's own word for it, such as ExpiredToken: it may stand on a later line."""
    found = _CODE.search(str(error))
    return "" if found is None else f"{found[1]}: "


def _hint(error: BaseException) -> str:
    """What an operator looks at first."""
    text = str(error)
    if _METADATA in text:
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "Expired" in text:
        return "the credentials have expired: get new ones, and run the same command again"
    if "403 Forbidden" in text or "401 Unauthorized" in text:
        return "the store refuses these credentials: are they this bucket's, and may they read it?"
    if "404 Not Found" in text:
        return "there is no such bucket: check the URL and its endpoint"
    if "error sending request" in text:
        return "nothing answers there: check the endpoint, the network and its proxy"
    return "check the network, the endpoint and the credentials of the destination"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
