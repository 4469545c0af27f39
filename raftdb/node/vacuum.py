"""An operator's order to give free pages back: in steps between entries, for a bounded time.

Each node does so by itself, since how pages lie in a file is not replicated; nothing of it is in
the log, and the content hash does not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftdb.base.errors import Error, FatalError, InternalError, NotSupportedError
from raftdb.base.ports import Ports
from raftdb.machine import PAGE_BYTES, Machine
from raftdb.node.calls import Answer, Done

STEP_PAGES = 64
"""Some milliseconds of the lane that applies; what is committed meanwhile waits so long."""
WAL_PAGES_MAX = 4_096
"""From this length of the write-ahead log on (16 MiB) it has to be moved first: what is wanted is
room on the disk, and a reader may keep the log from beginning again."""
CALL_S = 1.0
"""After this long the caller is told how far it is, and asks again."""


class Vacuum:
    """Of one node. Belongs to the loop; several orders at once take turns."""

    def __init__(
        self, machine: Machine, ports: Ports, refusal: Callable[..., Error | None]
    ) -> None:
        """`refusal(local=True)` says why this node's own content is not to be used, or None."""
        self._machine = machine
        self._ports = ports
        self._refusal = refusal

    def ask(self, _arguments: Mapping[str, Any], timeout_s: float, done: Done) -> None:
        """Work for a while; the answer's body is a dict."""
        refused = self._refusal(local=True)
        if refused is not None:
            done(None, refused)
            return
        clock, executor = self._ports.clock, self._ports.executor
        end_s = clock.monotonic_s() + min(CALL_S, timeout_s / 2)
        given_back = 0

        def step() -> None:
            executor.submit("apply", lambda: self._machine.vacuum(STEP_PAGES), stepped)

        def stepped(result: Any, error: BaseException | None) -> None:
            nonlocal given_back
            if error is not None:
                failed(error)
                return
            if not result.possible:
                failed(
                    NotSupportedError(
                        "the database was founded by a release that did not provide for it",
                        code="vacuum_mode",
                        hint="free pages are used again by later writes; to shrink it, load it"
                        " into a new cluster",
                    )
                )
                return
            given_back += result.given_back
            more = result.given_back and result.free and clock.monotonic_s() < end_s
            if more and self._machine.wal_pages < WAL_PAGES_MAX:
                # Behind what came meanwhile.
                executor.call_soon(step)
                return
            facts = {
                "given_back": given_back,
                "free": result.free,
                "pages": result.pages,
                "page_bytes": PAGE_BYTES,
            }
            # The file becomes shorter when the write-ahead log is in it.
            executor.submit("checkpoint", self._machine.checkpoint, lambda _n, e: ended(facts, e))

        def ended(facts: dict[str, Any], error: BaseException | None) -> None:
            if error is not None:
                failed(error)
            else:
                done(Answer(facts, 0), None)

        def failed(error: BaseException) -> None:
            if isinstance(error, FatalError):
                raise error
            known = error if isinstance(error, Error) else InternalError(str(error))
            done(None, known)

        step()


__all__ = ["Vacuum"]
