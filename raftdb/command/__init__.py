"""What is asked and what is answered: frozen values and their bytes.

Owns: requests, results, and the versioned codec that the log, the session table and the client
protocol share.
Promises: equal values give equal bytes; decoding bad bytes raises CodecError and nothing else.
May import: base; msgpack (only in codec).
Never: SQL semantics, consensus, IO.
"""

from raftdb.command.codec import VERSION as ENTRY_FORMAT
from raftdb.command.codec import (
    CodecError,
    ReplyBuilder,
    decode_reply,
    decode_request,
    decode_verdict,
    encode_reply,
    encode_request,
    is_failure,
    pack_statements,
)
from raftdb.command.references import resolved
from raftdb.command.requests import (
    CloseSession,
    Commit,
    Configure,
    Execute,
    Key,
    OpenSession,
    Outcome,
    Recorded,
    Reference,
    Request,
    SessionId,
    Statement,
    Tick,
    Value,
    Verdict,
)
from raftdb.command.results import (
    Failed,
    Opened,
    Reply,
    ResultDropped,
    Results,
    StatementResult,
)
from raftdb.command.token import ReadToken

__all__ = [
    "ENTRY_FORMAT",
    "ReplyBuilder",
    "CloseSession",
    "CodecError",
    "Commit",
    "Configure",
    "Execute",
    "Failed",
    "Key",
    "OpenSession",
    "Opened",
    "Outcome",
    "ReadToken",
    "Recorded",
    "Reference",
    "Reply",
    "Request",
    "ResultDropped",
    "Results",
    "SessionId",
    "Statement",
    "StatementResult",
    "Tick",
    "Value",
    "Verdict",
    "decode_reply",
    "decode_request",
    "decode_verdict",
    "encode_reply",
    "pack_statements",
    "encode_request",
    "is_failure",
    "resolved",
]
