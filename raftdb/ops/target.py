"""Which cluster a command talks to: a URL, or the directory that `raftdb init` made.

`DIR/client/client.toml` holds the URL and the paths of the client's certificate; copy the whole
`client` directory to whoever is to connect.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from raftdb.base.errors import ConfigError
from raftdb.base.ids import Address, ClusterId, parse_cluster_id
from raftdb.base.settings import nearest, toml_text

CLIENT_DIRECTORY = "client"
CLIENT_FILE = "client.toml"
SCHEME = "raftdb://"
_FILES = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}
_KEYS = ("url", "cluster", "insecure", *_FILES)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, and with what."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `raftdb.connect`."""
    source: str = ""
    """Where it comes from, for messages."""


def cluster_url(addresses: Sequence[Address], certificates: Path | None) -> str:
    """The URL of some nodes' client addresses, with the certificates of that directory (None: a
    cluster without TLS)."""
    hosts = ",".join(str(address) for address in addresses)
    if certificates is None:
        return f"{SCHEME}{hosts}/?insecure=1"
    paths = {name: str(certificates.absolute() / file) for name, file in _FILES.items()}
    return f"{SCHEME}{hosts}/?{urlencode(paths, safe='/')}"


def render_client_file(
    addresses: Sequence[Address], cluster_id: ClusterId, *, insecure: bool
) -> str:
    """The text of client.toml; the paths in it are relative to it."""
    hosts = ",".join(str(address) for address in addresses)
    lines = [
        "# How to reach the cluster: `raftdb sql --dir DIR`, with DIR the directory above this.",
        f"url = {toml_text(f'{SCHEME}{hosts}/')}",
        f"cluster = {toml_text(cluster_id)}",
    ]
    if insecure:
        lines.append("insecure = true")
    else:
        lines += [f"{name} = {toml_text(file)}" for name, file in _FILES.items()]
    return "\n".join(lines) + "\n"


def read_client_file(path: Path) -> Target:
    """Read client.toml. Raises ConfigError."""
    try:
        value = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing",
            hint="give the directory that `raftdb init` made, or one with its client directory",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}",
            hint="`raftdb init` wrote it: copy the client directory from there again",
        ) from error
    unknown = [key for key in value if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]!r}", hint=nearest(unknown[0], _KEYS))
    url = value.get("url")
    if not isinstance(url, str) or not url.startswith(SCHEME):
        raise ConfigError(f"{path}: url is {url!r}", hint=f"it starts with {SCHEME}")
    options: dict[str, Any] = {}
    if "cluster" in value:
        options["cluster"] = parse_cluster_id(str(value["cluster"]))
    if value.get("insecure") is True:
        options["insecure"] = True
    for name in _FILES:
        if name in value:
            options[name] = str(path.parent / str(value[name]))
    return Target(url, options, str(path))


def find_client_file(directory: Path) -> Path:
    """client.toml in the cluster's directory, or in the client directory itself."""
    inner = directory / CLIENT_DIRECTORY / CLIENT_FILE
    own = directory / CLIENT_FILE
    return own if own.is_file() and not inner.is_file() else inner


def find_target(url: str | None, directory: Path | None, environ: Mapping[str, str]) -> Target:
    """The cluster that is meant: the argument (a URL, or a directory), `--dir`, `RAFTDB_URL`,
    `RAFTDB_DIR`, in this order. Raises ConfigError."""
    if url and directory:
        raise ConfigError("both a URL and --dir are given", hint="one of them is enough")
    if url and not url.startswith(SCHEME):
        if "://" in url or not Path(url).is_dir():
            raise ConfigError(
                f"{url!r} is neither a URL nor a directory",
                hint="such as raftdb://host1:port,host2:port/ or the directory that init made",
            )
        directory = Path(url)
        url = None
    if directory is not None:
        return read_client_file(find_client_file(directory))
    if url:
        return Target(url, {}, "the command line")
    if environ.get("RAFTDB_URL"):
        return find_target(environ["RAFTDB_URL"], None, {})
    if environ.get("RAFTDB_DIR"):
        return read_client_file(find_client_file(Path(environ["RAFTDB_DIR"])))
    raise ConfigError(
        "which cluster?",
        hint="give a URL, --dir DIR of a cluster that init made, or set RAFTDB_URL or RAFTDB_DIR",
    )
