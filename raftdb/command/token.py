"""What a client has seen, in a small string that goes through a URL, a header or a cookie (S4)."""

from __future__ import annotations

import base64
import binascii
import struct

from raftdb.base.errors import InterfaceError
from raftdb.base.frozen import frozen

TOKEN_CHARACTERS_MAX = 64
_PREFIX = "r1."
_FIELDS = struct.Struct(">16sIQ")


@frozen
class ReadToken:
    """A read that honours it reflects the log up to `index` at least."""

    history: bytes
    """16 bytes: indexes of another history mean something else."""
    fork: int
    index: int

    def to_text(self) -> str:
        """Letters, digits, `.`, `-` and `_`; 41 characters."""
        packed = _FIELDS.pack(self.history, self.fork, self.index)
        return _PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> ReadToken:
        """Read what `to_text` wrote. Raises InterfaceError."""
        try:
            if not text.startswith(_PREFIX) or len(text) > TOKEN_CHARACTERS_MAX:
                raise ValueError("it does not begin like one")
            body = text[len(_PREFIX) :]
            packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            return cls(*_FIELDS.unpack(packed))
        except (ValueError, binascii.Error, struct.error, AttributeError, TypeError) as error:
            raise InterfaceError(
                f"{text!r:.80} is no read token: {error}",
                code="token",
                hint="pass on what `connection.token` gave, unchanged",
            ) from None
