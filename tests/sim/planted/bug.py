"""What a planted bug is: a name, the rule it breaks, and how to put it in and take it out again.

Nothing here is reachable from production code: a bug is a subclass of the wall that one simulation
is given, or a patch of a method that lasts as long as the `with`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from raftdb.consensus.wall import Wall

Patch = tuple[Any, str, Any]
"""(class or module, name, what stands there instead)."""


@dataclass(frozen=True)
class Bug:
    """One bug. `make` builds fresh patches for each run, so that they may keep state."""

    name: str
    rule: str
    """The row of the wall or the rule that it breaks, or `classic`."""
    story: str
    """What the programmer got wrong."""
    wall: type[Wall] = Wall
    make: Callable[[], list[Patch]] = list
    changes: bool = False
    """Only seeds in which members come and go can show it."""
    scenario: str = ""
    """The script that shows it; empty when ordinary seeds do."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in while this lasts."""
        with ExitStack() as stack:
            for target, name, instead in self.make():
                stack.enter_context(
                    mock.patch.object(target, name, instead, create=not hasattr(target, name))
                )
            yield
