"""Read levels by name, as users give them."""

from __future__ import annotations

import re
from functools import lru_cache

from raftdb.base.errors import InterfaceError
from raftdb.wire import BOUNDED, LEVELS, LINEARIZABLE

AGE_S_MAX = 24 * 3_600
_BOUNDED = re.compile(r"bounded\(\s*([0-9.]+)\s*\)")
_NAMES = "linearizable, session, bounded(seconds), local"


@lru_cache(maxsize=64)
def parse_level(text: str) -> tuple[str, int]:
    """(name, most age in milliseconds) of `linearizable`, `session`, `bounded(1.5)` or `local`.
    Raises InterfaceError."""
    if text in LEVELS and text != BOUNDED:
        return text, 0
    match = _BOUNDED.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InterfaceError(f"read level {text!r} is unknown", hint=f"one of {_NAMES}")
    try:
        seconds = float(match[1])
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= AGE_S_MAX:
        raise InterfaceError(
            f"read level {text!r}", hint=f"seconds, more than 0, at most {AGE_S_MAX}"
        )
    return BOUNDED, max(1, round(seconds * 1000))


def goes_to_leader(level: str, prefer: str) -> bool:
    """Whether a read of that level is for the leader. With a preferred node it is not: a follower
    asks the leader for the index, which costs a hop and spares the leader the work."""
    return level == LINEARIZABLE and not prefer
