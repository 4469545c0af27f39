"""Questions and orders about the cluster, by name (wire.Ask): docs/protocol.md lists them.

Each takes (replica, arguments, timeout_s, done), reads its arguments strictly, and answers a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from raftdb.base.errors import InterfaceError
from raftdb.node import Answer, Done, Replica

Handler = Callable[[Replica, Mapping[str, Any], float, Done], None]


class Ask(NamedTuple):
    """One of them."""

    call: Handler
    administers: bool
    """Only who may administer the cluster may ask it."""


def text_of(arguments: Mapping[str, Any], name: str) -> str:
    """An argument that is text; `` when it is missing. Raises InterfaceError."""
    value = arguments.get(name, "")
    if not isinstance(value, str):
        raise InterfaceError(f"{name} is {type(value).__name__}, not text")
    return value


def _await_durable(
    replica: Replica, arguments: Mapping[str, Any], timeout_s: float, done: Done
) -> None:
    """`token`, `durability`: when what the token stands for is as durable as that."""
    token, durability = text_of(arguments, "token"), text_of(arguments, "durability")
    replica.await_durable(token, durability, timeout_s, done)


def _settings(replica: Replica, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
    """`changes`, `force`: declare the cluster's settings; without changes, tell them."""
    if replica.settings_asked is None:
        raise InterfaceError("this node keeps no settings")
    replica.settings_asked(arguments, timeout_s, done)


def _members(replica: Replica, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
    """`change`, `node`, …: change the cluster's members; without a change, tell them."""
    if replica.members_asked is None:
        raise InterfaceError("this node changes no members")
    replica.members_asked(arguments, timeout_s, done)


def _compatibility(
    replica: Replica, arguments: Mapping[str, Any], _timeout_s: float, done: Done
) -> None:
    """`release`: what this node computes and writes with: who differs must not join."""
    releases = replica.releases
    told = {} if releases is None else releases.joining(arguments)
    done(Answer({**replica.compatibility, **told}, 0), None)


def _release(replica: Replica, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
    """`raise_to`: raise the cluster's feature level; without it, tell."""
    if replica.releases is None:
        raise InterfaceError("this node knows no feature levels")
    replica.releases.ask(arguments, timeout_s, done)


def _vacuum(replica: Replica, arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
    """Give free pages of this node's file back, for a second."""
    replica.vacuum.ask(arguments, timeout_s, done)


ASKS: Mapping[str, Ask] = {
    "await_durable": Ask(_await_durable, administers=False),
    "compatibility": Ask(_compatibility, administers=False),
    "members": Ask(_members, administers=True),
    "release": Ask(_release, administers=True),
    "settings": Ask(_settings, administers=True),
    "vacuum": Ask(_vacuum, administers=True),
}
