"""What members say to each other: an allow-list of message types and their bytes.

A message is a msgpack array `[type, field, …]`. Decoding checks the type, the number of fields and
every field's type and range; whatever does not fit raises ProtocolError and nothing else. There is
no way to say anything but what is listed here, and nothing is ever unpickled. DESIGN.md lists the
messages field by field.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import msgpack

from raftdb.base.errors import ProtocolError
from raftdb.base.packing import LONG_BYTES, array_header, binary_header, pack

PROTOCOL_VERSION = 1
NUMBER_MAX = (1 << 63) - 1
TERM_JUMP_MAX = 1 << 32
"""An election each millisecond for seven weeks."""
APPEND_ENTRIES_MAX = 1024
"""Entries in one Append."""
NOTE_BYTES_MAX = 65_536
"""Of one Note's data."""
_TEXT_MAX = 256
"""The head of bytes whose length takes more than two."""


class Hello(NamedTuple):
    """First on every connection, from both ends. Kept readable by every later version."""

    version: int
    cluster_id: str
    node_id: str
    history_id: str
    library: str
    """Version of the consensus library."""
    fingerprint: bytes
    """What replicas must agree on to compute alike (SQLite build, arithmetic)."""


class CopyHello(NamedTuple):
    """First from the dialler of a connection that fetches a copy; the other end says Hello."""

    version: int
    cluster_id: str
    node_id: str
    history_id: str
    library: str
    fingerprint: bytes


class Ping(NamedTuple):
    """Keeps an idle connection known to be alive."""


class PreVote(NamedTuple):
    """Would you vote for me in term + 1? (thesis 9.6)"""

    term: int
    last_index: int
    last_term: int


class PreVoteResponse(NamedTuple):
    """Yes; a refusal is silence, or a TermHint."""

    term: int
    asked_term: int


class RequestVote(NamedTuple):
    """Thesis 3.4. `forced`: the leader asked for this election (thesis 3.10)."""

    term: int
    last_index: int
    last_term: int
    forced: bool


class Vote(NamedTuple):
    """The sender's vote in `term`; a refusal is silence, or a TermHint."""

    term: int


class TermHint(NamedTuple):
    """You are behind: my term is this."""

    term: int
    leader_alive: bool
    """The sender hears the leader of its term."""


class Append(NamedTuple):
    """Thesis 3.5: entries that follow (prev_index, prev_term). Empty to ask what matches."""

    term: int
    sequence: int
    prev_index: int
    prev_term: int
    commit_index: int
    entries: tuple[tuple[int, bytes], ...]
    """(term, data) each, at prev_index + 1, + 2, …"""


class Packed(NamedTuple):
    """An Append, compressed (raftdb.consensus.packing): to a follower behind a long line."""

    data: bytes


class Ack(NamedTuple):
    """Answer to the Append of that sequence."""

    term: int
    sequence: int
    success: bool
    log_index: int
    """Success: all up to here is on the sender's disk and as the leader has it. Otherwise: the
    index from which the leader should try next."""


class Heartbeat(NamedTuple):
    """I lead. Says nothing about the log, so that it can overtake bulk appends."""

    term: int
    round: int
    commit_index: int


class HeartbeatAck(NamedTuple):
    """You do, as far as I know: answer to the heartbeat of that round."""

    term: int
    round: int


class TimeoutNow(NamedTuple):
    """Stand for election at once: the leader hands over (thesis 3.10)."""

    term: int


class Note(NamedTuple):
    """What the node above says to the node above: opaque here."""

    data: bytes


class ReadIndex(NamedTuple):
    """A follower has linearizable reads: up to where must it have applied? (thesis 6.4)"""

    number: int


class ReadIndexIs(NamedTuple):
    """Up to here: every write acknowledged before the question of that number left is covered.
    Not `known`: the sender cannot say that it leads."""

    number: int
    read_index: int
    known: bool


class CopyNeeded(NamedTuple):
    """What you lack is not in my log any more: fetch a copy of the database."""

    term: int
    first_index: int
    """Of the sender's log."""


class CopyAsk(NamedTuple):
    """Which copy can I have? On a connection that began with CopyHello, as all that follow."""

    copy: bytes
    """Id of the copy that the sender has a part of; empty for none."""
    at_least: int
    """A copy of an earlier entry is of no use."""


class CopyLater(NamedTuple):
    """None yet: ask again."""

    reason: str


class CopyOffer(NamedTuple):
    """This one."""

    copy: bytes
    log_index: int
    log_term: int
    size: int
    description: bytes
    """The machine's own words, to verify by."""


class CopyFetch(NamedTuple):
    """Send these bytes of it."""

    copy: bytes
    offset: int
    size: int


class CopyPart(NamedTuple):
    """The bytes, and their CRC-32."""

    copy: bytes
    offset: int
    check: int
    data: bytes


class CopyGone(NamedTuple):
    """That copy is not kept any more: ask again."""

    copy: bytes


class Removed(NamedTuple):
    """You are no member any more, by the committed configuration of this entry."""

    log_index: int


class Superseded(NamedTuple):
    """Your history was left: the cluster was recovered or restored, and goes on in another. The
    answer to a hello of a history that the sender's own continues; a release that does not know
    this message has hung up before."""

    history: str
    """What the sender follows, as its hello said."""
    former: str
    """What the receiver does."""


class Directory(NamedTuple):
    """Who the members are, and where, for one who cannot know it from a log that it lacks."""

    configuration: bytes


class Part(NamedTuple):
    """A piece of a message too long for one frame."""

    last: bool
    data: bytes


class PartAck(NamedTuple):
    """Pieces received so far of the message under way: the sender keeps only a few unanswered."""

    parts: int


Message = (
    Ping
    | PreVote
    | PreVoteResponse
    | RequestVote
    | Vote
    | TermHint
    | Append
    | Packed
    | Ack
    | Heartbeat
    | HeartbeatAck
    | TimeoutNow
    | Note
    | ReadIndex
    | ReadIndexIs
    | Part
    | PartAck
    | Hello
    | CopyHello
    | CopyNeeded
    | CopyAsk
    | CopyLater
    | CopyOffer
    | CopyFetch
    | CopyPart
    | CopyGone
    | Removed
    | Superseded
    | Directory
)


_WITH_TERM = frozenset(one for one in get_args(Message) if one._fields[:1] == ("term",))


def _entries(value: tuple[Any, ...]) -> bool:
    for item in value:
        if type(item) is not tuple or len(item) != 2:
            return False
        if type(item[0]) is not int or not 0 <= item[0] <= NUMBER_MAX or type(item[1]) is not bytes:
            return False
    return True


_TYPES: dict[int, tuple[type[Any], tuple[type[Any], ...]]] = {
    1: (Hello, (int, str, str, str, str, bytes)),
    2: (Ping, ()),
    3: (Part, (bool, bytes)),
    4: (PartAck, (int,)),
    5: (CopyHello, (int, str, str, str, str, bytes)),
    10: (PreVote, (int, int, int)),
    11: (PreVoteResponse, (int, int)),
    12: (RequestVote, (int, int, int, bool)),
    13: (Vote, (int,)),
    14: (TermHint, (int, bool)),
    15: (TimeoutNow, (int,)),
    20: (Append, (int, int, int, int, int, tuple)),
    21: (Ack, (int, int, bool, int)),
    22: (Heartbeat, (int, int, int)),
    23: (HeartbeatAck, (int, int)),
    24: (Packed, (bytes,)),
    30: (Note, (bytes,)),
    40: (ReadIndex, (int,)),
    41: (ReadIndexIs, (int, int, bool)),
    50: (CopyNeeded, (int, int)),
    51: (CopyAsk, (bytes, int)),
    52: (CopyLater, (str,)),
    53: (CopyOffer, (bytes, int, int, int, bytes)),
    54: (CopyFetch, (bytes, int, int)),
    55: (CopyPart, (bytes, int, int, bytes)),
    56: (CopyGone, (bytes,)),
    60: (Removed, (int,)),
    61: (Directory, (bytes,)),
    62: (Superseded, (str, str)),
}
_CODES: dict[type[Any], int] = {cls: code for code, (cls, _checks) in _TYPES.items()}


MESSAGE_TYPES: tuple[type[Any], ...] = tuple(_CODES)
"""All of them, for tests."""


def encode(message: Message) -> bytes:
    """The message as bytes."""
    if type(message) is Append and len(message.entries) == 1:
        [(term, data)] = message.entries
        if len(data) > LONG_BYTES:
            # One copy of a long entry, where msgpack makes three: that is on the node's loop.
            head = array_header(len(message) + 1), pack(_CODES[Append]), *map(pack, message[:-1])
            entry = array_header(1), array_header(2), pack(term), binary_header(len(data))
            return b"".join((*head, *entry, data))
    return pack((_CODES[type(message)], *message))


def decode(data: bytes) -> Message:
    """Read what `encode` wrote. Raises ProtocolError."""
    try:
        value = msgpack.unpackb(
            data, use_list=False, max_array_len=APPEND_ENTRIES_MAX, max_map_len=0, max_ext_len=0
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a peer message does not decode: {error}") from None
    if type(value) is not tuple or not value or type(value[0]) is not int:
        raise ProtocolError("a peer message is not an array that begins with its type")
    known = _TYPES.get(value[0])
    if known is None:
        raise ProtocolError(f"unknown peer message type {value[0]}")
    cls, kinds = known
    if len(value) != len(kinds) + 1:
        raise ProtocolError(
            f"{cls.__name__} has {len(kinds)} fields, {len(value) - 1} were received"
        )
    fields = value[1:]
    # On the path of every commit: no calls but for what has parts of its own.
    for place, kind in enumerate(kinds):
        field = fields[place]
        if type(field) is not kind or (
            not 0 <= field <= NUMBER_MAX
            if kind is int
            else len(field) > _TEXT_MAX
            if kind is str
            else kind is tuple and not _entries(field)
        ):
            raise ProtocolError(f"{cls.__name__}.{cls._fields[place]} has a wrong type or range")
    message: Message = cls._make(fields)
    return message


def check_jump(peer: str, message: Message, term: int) -> None:
    """A term so far beyond all that was heard of comes of no elections: whoever adopted it would
    leave the cluster without terms to elect a leader in. Raises ProtocolError."""
    fields: tuple[Any, ...] = message
    if type(message) in _WITH_TERM and fields[0] > term + TERM_JUMP_MAX:
        raise ProtocolError(f"{peer} is in term {fields[0]}, and this node in {term}")


def check_terms(peer: str, message: Append) -> None:
    """Terms in a log never fall, and none is above its leader's. Raises ProtocolError."""
    term = message.prev_term
    for entry_term, _data in message.entries:
        if entry_term < term:
            raise ProtocolError(f"{peer} sends entries whose terms fall")
        term = entry_term
    if term > message.term:
        raise ProtocolError(f"{peer} sends an entry of a term above its own")
