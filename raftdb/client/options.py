"""What `connect` takes: a URL, keywords, or both; checked once, into one frozen value.

raftdb://host:port,host:port,[ipv6]:port/?ca=FILE&cert=FILE&key=FILE&cluster=ID&timeout=5
    &read=linearizable|local&durability=locations=3&location=eu/madrid
    &prefer=NODE_OR_ADDRESS&pin=1&wait=0&insecure=1&name=TEXT
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from raftdb.base.durability import parse_durability
from raftdb.base.errors import ConfigError, InterfaceError
from raftdb.base.ids import Address, parse_address, parse_cluster_id, parse_location
from raftdb.client.levels import parse_level
from raftdb.wire import LINEARIZABLE

SCHEME = "raftdb://"
ADDRESSES_MAX = 64
TIMEOUT_S_MAX = 3_600.0
_TEXTS = ("ca", "cert", "key", "cluster", "read", "durability", "location", "prefer", "name")
_ALIASES = {"certificate": "cert", "cluster_id": "cluster"}


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach a cluster, and how to behave there."""

    addresses: tuple[Address, ...] = ()
    ca: str = ""
    """PEM file: the cluster's CA."""
    cert: str = ""
    """PEM file: this client's certificate."""
    key: str = ""
    """PEM file: its private key."""
    cluster: str = ""
    """Cluster id; `` takes it from the client's certificate, or from the first node."""
    timeout: float = 5.0
    """Seconds until a request ends, one way or the other."""
    read: str = LINEARIZABLE
    """Read level unless a call says otherwise."""
    durability: str = ""
    """What writes wait for unless a call says otherwise: `quorum`, `locations=N` or
    `locations=N@zone`; `` for the database's own."""
    location: str = ""
    """Where this client is, such as `eu/madrid`: reads that any node may answer go to the nearest
    node by its location; `` goes by measured latency."""
    prefer: str = ""
    """Node id or address that answers local reads and questions about a node."""
    pin: bool = False
    """Talk to the given addresses only, and learn of no others."""
    insecure: bool = False
    """Plain text, no TLS: for a test on one machine."""
    name: str = ""
    """Who this client is, for logs and `raftdb status`."""
    hedge: float = 0.5
    """Seconds of silence after which another node is asked who leads."""
    dial_timeout: float = 1.0
    """Seconds for connection, TLS and welcome, unless the deadline comes first."""
    wait: bool = True
    """Try until the deadline; else a call ends at once when all addresses refuse the connection."""

    def __post_init__(self) -> None:
        _check(self)


def parse_url(url: str) -> dict[str, Any]:
    """Split a URL into options by name, unchecked but for its shape. Raises ConfigError."""
    if not isinstance(url, str) or not url.startswith(SCHEME):
        shown = url.split("://")[0] if isinstance(url, str) else type(url).__name__
        raise ConfigError(
            f"a connection URL starts with {SCHEME}, this one with {shown[:20]!r}",
            hint="such as raftdb://host1:7001,host2:7001,host3:7001/?ca=ca.crt",
        )
    rest, _, query = url[len(SCHEME) :].partition("?")
    hosts, _, path = rest.partition("/")
    if path:
        raise ConfigError(
            f"the URL names a path, {path[:40]!r}",
            hint="a cluster holds one database: end the addresses with / and go on with ?",
        )
    if "@" in hosts:
        raise ConfigError(
            "the URL has a user or password before the @",
            hint="clients prove who they are by certificate: ?ca=…&cert=…&key=…",
        )
    found: dict[str, Any] = {"addresses": _addresses(unquote(hosts).split(","))}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError("the URL's part after ? is not name=value&name=value") from None
    for name, value in pairs:
        name = _ALIASES.get(name, name)
        if name in found:
            raise ConfigError(f"the URL says {name} twice")
        found[name] = value
    return found


def make_options(url: str | None, keywords: Mapping[str, Any]) -> Options:
    """URL and keywords together; a keyword wins over the URL. Raises ConfigError."""
    found = parse_url(url) if url is not None else {}
    for name, value in keywords.items():
        if value is not None:
            found[_ALIASES.get(name, name)] = value
    known = {field.name for field in fields(Options)}
    for name in found:
        if name not in known:
            raise ConfigError(
                f"unknown connection option {name!r}", hint="known: " + ", ".join(sorted(known))
            )
    if not isinstance(found.get("addresses", ()), tuple):
        found["addresses"] = _addresses(found["addresses"])
    for name in ("timeout", "hedge", "dial_timeout"):
        if name in found:
            found[name] = _seconds(name, found[name])
    for name in ("insecure", "pin", "wait"):
        if name in found:
            found[name] = _boolean(name, found[name])
    for name in _TEXTS:
        if name in found:
            found[name] = str(found[name])
    return Options(**found)


def with_timeout(options: Options, timeout: float | None) -> float:
    """The timeout of one call, in seconds. Raises InterfaceError."""
    if timeout is None:
        return options.timeout
    if not isinstance(timeout, int | float) or not 0 < timeout <= TIMEOUT_S_MAX:
        raise InterfaceError(
            f"timeout is {timeout!r}", hint=f"give seconds, more than 0, at most {TIMEOUT_S_MAX:g}"
        )
    return float(timeout)


def only(options: Options, address: Address) -> Options:
    """The same, for one address."""
    return replace(options, addresses=(address,), pin=True)


def _addresses(texts: Iterable[Any]) -> tuple[Address, ...]:
    if isinstance(texts, str):
        texts = texts.split(",")
    found = []
    for text in texts:
        address = text if isinstance(text, Address) else parse_address(str(text).strip())
        if address not in found:
            found.append(address)
    return tuple(found)


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}, not a number of seconds") from None
    return seconds


def _boolean(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{name} is {value!r}", hint="give 1 or 0")


def _check(options: Options) -> None:
    if len(options.addresses) > ADDRESSES_MAX:
        raise ConfigError(f"{len(options.addresses)} addresses; at most {ADDRESSES_MAX}")
    if options.cluster:
        parse_cluster_id(options.cluster)
    try:
        parse_level(options.read)
    except InterfaceError as error:
        raise ConfigError(f"read: {error.message}", hint=error.hint) from None
    if options.location:
        parse_location(options.location)
    if options.durability:
        parse_durability(options.durability)
    for name in ("timeout", "hedge", "dial_timeout"):
        seconds = getattr(options, name)
        if not 0 < seconds <= TIMEOUT_S_MAX:
            raise ConfigError(
                f"{name} is {seconds:g}", hint=f"seconds, more than 0, at most {TIMEOUT_S_MAX:g}"
            )
    files = {"ca": options.ca, "cert": options.cert, "key": options.key}
    if options.insecure and any(files.values()):
        raise ConfigError(
            "insecure is given together with certificates",
            hint="leave out insecure to use TLS, or the files to do without",
        )


def level_of(durability: str | None) -> str | None:
    """A call's own durability level, checked. Raises InterfaceError."""
    if durability is not None:
        try:
            parse_durability(durability)
        except (ConfigError, TypeError) as error:
            raise InterfaceError(f"durability: {error}") from None
    return durability
