"""Values: small classes whose instances are not changed once made.

`@frozen` is `@dataclass(frozen=True)` to a type checker, which refuses every assignment. At run
time nothing checks it: a frozen dataclass sets each of its fields by a call, which makes it cost
three to five times as much, and every write makes a dozen of them on its way through a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

_Class = TypeVar("_Class", bound=type)


@dataclass_transform(frozen_default=True)
def frozen(cls: _Class) -> _Class:
    """Make a dataclass with slots, equality and a hash, whose fields only `__init__` sets."""
    made: Any = dataclass(slots=True, unsafe_hash=True)(cls)
    return made  # type: ignore[no-any-return]
