"""Who the members are: the record of one, the configuration of all, and single-server changes.

A configuration is replicated state: an entry of the log holds it whole, it is in force on a member
from the moment when that entry is in its log (thesis 4.1), and it is taken back when the entry is.
Everything here is pure but `Configurations`, the stack of those that are in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgpack

from raftdb.base.errors import ConfigError, Error, FatalError
from raftdb.base.frozen import frozen
from raftdb.base.ids import Address, Index, NodeId, parse_address, parse_location, parse_node_id
from raftdb.base.packing import pack

VOTER = "voter"
"""Counts in every quorum, votes, stands, may lead."""
LEARNER = "learner"
"""Gets the log and copies, serves every level of read, and counts nowhere."""
ROLES = (VOTER, LEARNER)

MEMBERS_MAX = 64
REMOVED_MAX = 1024
"""Ids of removed members that are remembered; beyond it the oldest are forgotten."""
CONFIGURATION_BYTES_MAX = 128 << 10
FORMAT = 1


@frozen
class Member:
    """One member of the cluster."""

    node_id: NodeId
    location: str
    peer_address: Address
    client_address: Address
    role: str = VOTER


@dataclass(frozen=True)
class Configuration:
    """All members, and the ids that will never be members again (rule J5)."""

    members: tuple[Member, ...]
    """In the order of their ids."""
    removed: tuple[NodeId, ...] = ()
    """Oldest first."""

    @cached_property
    def voters(self) -> tuple[str, ...]:
        """Ids of those that count."""
        return tuple(str(one.node_id) for one in self.members if one.role == VOTER)

    @cached_property
    def learners(self) -> tuple[str, ...]:
        """Ids of those that do not."""
        return tuple(str(one.node_id) for one in self.members if one.role == LEARNER)

    def member(self, node_id: str) -> Member | None:
        """The member of that id."""
        for member in self.members:
            if member.node_id == node_id:
                return member
        return None

    def with_member(self, member: Member) -> Configuration:
        """That member added, or put in its own place."""
        others = [one for one in self.members if one.node_id != member.node_id]
        members = sorted([*others, member], key=lambda one: one.node_id)
        return replace(self, members=tuple(members))

    def without(self, node_id: str) -> Configuration:
        """That member removed, for good."""
        members = tuple(one for one in self.members if one.node_id != node_id)
        removed = (*self.removed, NodeId(node_id))[-REMOVED_MAX:]
        return Configuration(members, removed)


def configuration_of(members: Sequence[Member]) -> Configuration:
    """A founding one."""
    return Configuration(tuple(sorted(members, key=lambda one: one.node_id)))


# -- bytes --------------------------------------------------------------------------------------


def encode_configuration(configuration: Configuration) -> bytes:
    """The body of a configuration entry, and what the machine keeps: DESIGN.md."""
    rows = [
        [one.node_id, one.role, one.location, str(one.peer_address), str(one.client_address)]
        for one in configuration.members
    ]
    return pack([FORMAT, rows, list(configuration.removed)])


def decode_configuration(body: bytes) -> Configuration:
    """Raises FatalError: whoever cannot read it does not know who counts."""
    try:
        if len(body) > CONFIGURATION_BYTES_MAX:
            raise ValueError(f"it has {len(body)} bytes")
        value: Any = msgpack.unpackb(
            body, use_list=False, max_array_len=REMOVED_MAX, max_str_len=512, max_map_len=0
        )
        version, rows, removed = value
        if version != FORMAT:
            raise ValueError(f"its format is {version!r}, this release knows {FORMAT}")
        members = tuple(_member(row) for row in rows)
        ids = [one.node_id for one in members]
        if ids != sorted(set(ids)) or len(ids) > MEMBERS_MAX:
            raise ValueError("its members are not in order")
        return Configuration(members, tuple(parse_node_id(one) for one in removed))
    except (ValueError, TypeError, msgpack.UnpackException, ConfigError) as error:
        raise FatalError(
            f"a configuration of the cluster cannot be read: {error}",
            code="log_entry",
            hint="a newer release may have written it: compare `raftdb --version` on all nodes",
        ) from error


def _member(row: Any) -> Member:
    node_id, role, location, peer, client = row
    if role not in ROLES:
        raise ValueError(f"{role!r} is no role")
    return Member(
        parse_node_id(node_id),
        parse_location(location),
        parse_address(peer),
        parse_address(client),
        role,
    )


# -- changes ------------------------------------------------------------------------------------


@frozen
class Add:
    """A new member, which begins as a learner."""

    member: Member


@frozen
class Remove:
    """A member, for good. `force`: even when those that are left could commit nothing now."""

    node_id: NodeId
    force: bool = False


@frozen
class Promote:
    """A learner becomes a voter."""

    node_id: NodeId


@frozen
class Demote:
    """A voter becomes a learner."""

    node_id: NodeId
    force: bool = False


@frozen
class Move:
    """Another location or other addresses of a member; None leaves it as it is."""

    node_id: NodeId
    location: str | None = None
    peer_address: Address | None = None
    client_address: Address | None = None


MemberChange = Add | Remove | Promote | Demote | Move


class ChangeError(Error):
    """The change makes no sense in the configuration that is in force."""

    default_code = "member"


def changed(now: Configuration, change: MemberChange) -> Configuration:
    """What `change` makes of `now`; `now` itself when that is so already, so that a request that
    comes twice is good. Raises ChangeError."""
    if isinstance(change, Add):
        return _added(now, change.member)
    member = now.member(change.node_id)
    if member is None:
        if isinstance(change, Remove) and change.node_id in now.removed:
            return now
        raise ChangeError(
            f"{change.node_id} is no member",
            code="no_member",
            hint="members are " + ", ".join(one.node_id for one in now.members),
        )
    if isinstance(change, Remove | Demote):
        if now.voters == (member.node_id,):
            raise ChangeError(
                f"{member.node_id} is the only voter: without it there is no cluster",
                code="last_voter",
                hint="add and promote another member first",
            )
        if isinstance(change, Remove):
            return now.without(member.node_id)
        return now.with_member(replace(member, role=LEARNER))
    if isinstance(change, Promote):
        return now.with_member(replace(member, role=VOTER))
    moved = replace(
        member,
        location=change.location or member.location,
        peer_address=change.peer_address or member.peer_address,
        client_address=change.client_address or member.client_address,
    )
    _check_addresses(now, moved)
    return now.with_member(moved)


def _added(now: Configuration, member: Member) -> Configuration:
    if member.node_id in now.removed:
        raise ChangeError(
            f"{member.node_id} was a member once, and an id is never used again",
            code="removed",
            hint="give the node another id: others may still hold what the old one promised",
        )
    there = now.member(member.node_id)
    if there is not None:
        if there == replace(member, role=there.role):
            return now
        raise ChangeError(
            f"{member.node_id} is a member already, at {there.peer_address}",
            code="member_exists",
            hint="a node with an empty disk is a new member: give it another id, and remove the "
            "old one; for another address of the same node, see `raftdb member move`",
        )
    if len(now.members) >= MEMBERS_MAX:
        raise ChangeError(f"the cluster has {len(now.members)} members", code="too_many_members")
    _check_addresses(now, member)
    return now.with_member(replace(member, role=LEARNER))


def _check_addresses(now: Configuration, member: Member) -> None:
    wanted = (member.peer_address, member.client_address)
    if wanted[0] == wanted[1]:
        raise ChangeError(f"{wanted[0]} cannot serve members and clients", code="address_taken")
    for one in now.members:
        if one.node_id == member.node_id:
            continue
        for address in (one.peer_address, one.client_address):
            if address in wanted:
                raise ChangeError(
                    f"{address} is the address of {one.node_id}",
                    code="address_taken",
                    hint=f"to put a new node in its place, remove {one.node_id} first, or use "
                    "`raftdb member replace`",
                )


# -- the stack ----------------------------------------------------------------------------------


class Configurations:
    """The last one that is known to be committed, and those behind it in the log, by index.

    At most one of them is not committed where the log is a leader's; a follower's log may hold
    several, of leaders that failed.
    """

    def __init__(self, seed: Configuration, index: int = 0) -> None:
        self._stack: list[tuple[int, Configuration]] = [(index, seed)]
        self.next_index = 0
        """Of the first one that is not known to be committed; 0 when there is none."""

    @property
    def latest(self) -> Configuration:
        """In force: the last one in the log, committed or not."""
        return self._stack[-1][1]

    @property
    def latest_index(self) -> Index:
        """Of its entry; 0 for a seed."""
        return Index(self._stack[-1][0])

    @property
    def committed(self) -> Configuration:
        """As of the last `settle`."""
        return self._stack[0][1]

    @property
    def committed_index(self) -> Index:
        """Of that one's entry."""
        return Index(self._stack[0][0])

    def append(self, index: int, configuration: Configuration) -> None:
        """An entry came into the log."""
        self._stack.append((index, configuration))
        self._note_next()

    def truncate(self, keeps: Sequence[bool]) -> bool:
        """Take back those whose place in `keeps` (parallel to the uncommitted ones) is False;
        whether the latest is another one now."""
        before = self._stack[-1]
        kept = [one for one, keep in zip(self._stack[1:], keeps, strict=True) if keep]
        self._stack = [self._stack[0], *kept]
        self._note_next()
        return self._stack[-1] is not before

    def uncommitted(self) -> list[int]:
        """Indexes of those that are not known to be committed."""
        return [index for index, _configuration in self._stack[1:]]

    def settle(self, commit: int) -> bool:
        """Everything up to `commit` is committed; whether another one is the committed one now."""
        place = 0
        while place + 1 < len(self._stack) and self._stack[place + 1][0] <= commit:
            place += 1
        del self._stack[:place]
        self._note_next()
        return place > 0

    def _note_next(self) -> None:
        self.next_index = self._stack[1][0] if len(self._stack) > 1 else 0
