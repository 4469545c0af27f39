"""What is applied: entries, as the engine hands them over, and the requests in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raftdb.base.errors import NotSupportedError
from raftdb.base.ids import Index, Term
from raftdb.command import Commit, Execute, Request
from raftdb.machine.samples import MARK_EVERY
from raftdb.machine.sqltext import CONTROL, DML, is_plain_insert, leading_verb

PLAIN_BYTES_MAX = 1 << 20
"""What a request of no more bytes brings as parameters is not long."""
BRIEF_REQUESTS_MAX = 256
BRIEF_BYTES_MAX = 256 << 10


class Entry(Protocol):
    """What the engine hands over: an entry that a quorum holds."""

    @property
    def index(self) -> Index: ...
    @property
    def term(self) -> Term: ...
    @property
    def payloads(self) -> tuple[bytes, ...]: ...
    @property
    def configuration(self) -> bytes:
        """Of a change of members: all of them from now on; else nothing. Opaque here."""


class Unit:
    """One request, or an entry without any."""

    __slots__ = (
        "alone",
        "careful",
        "configuration",
        "foreign_keys",
        "index",
        "is_last",
        "is_mark",
        "position",
        "reply",
        "request",
        "term",
        "term_before",
    )

    def __init__(
        self,
        entry: Entry,
        position: int,
        request: Request | None,
        is_last: bool,
        term_before: Term,
    ) -> None:
        self.index = entry.index
        self.term = entry.term
        self.term_before = term_before
        """Of the entry before this one."""
        self.position = position
        self.request = request
        self.configuration = entry.configuration if request is None else b""
        self.is_last = is_last
        self.is_mark = is_last and entry.index % MARK_EVERY == 0
        """All replicas commit here, to be compared."""
        self.reply = b""
        self.foreign_keys = True
        self.alone = False
        self.careful = True
        """It may bring long values."""
        if isinstance(request, Execute):
            self.foreign_keys = request.foreign_keys
            self.alone = not request.foreign_keys
            self.careful = len(entry.payloads[position]) > PLAIN_BYTES_MAX
            for statement in request.statements:
                if leading_verb(statement.sql) not in DML:
                    self.alone = True
                self.careful = self.careful or not is_plain_insert(statement.sql)
        elif isinstance(request, Commit):
            self.foreign_keys = request.foreign_keys
            verbs = {leading_verb(one.statement.sql) for one in request.statements}
            self.alone = not request.foreign_keys or not verbs <= DML | CONTROL


def are_brief(entries: Sequence[Entry]) -> bool:
    """Whether applying them may be tried on the node's loop: to decode a request cannot be given up
    half-way, and takes 5 ms per MiB."""
    requests = size = 0
    for entry in entries:
        requests += len(entry.payloads)
        size += sum(map(len, entry.payloads))
    return requests <= BRIEF_REQUESTS_MAX and size <= BRIEF_BYTES_MAX


def check_alone(request: Execute) -> None:
    """Raises NotSupportedError for ANALYZE beside others (rule M5)."""
    verbs = [leading_verb(statement.sql) for statement in request.statements]
    if "ANALYZE" in verbs and len(verbs) > 1:
        raise NotSupportedError(
            "refused: ANALYZE stands in a batch with other statements",
            hint="run ANALYZE as a request of its own",
        )
