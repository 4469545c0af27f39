"""Copies of the database between members, on connections of their own: what comes in goes to the
side that sends or to the side that fetches. Nothing here touches the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftdb.base.errors import ProtocolError
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.consensus.copy_fetch import CopyFetcher
from raftdb.consensus.copy_source import CopySource
from raftdb.consensus.link import Link
from raftdb.consensus.messages import (
    CopyAsk,
    CopyFetch,
    CopyGone,
    CopyLater,
    CopyOffer,
    CopyPart,
    Message,
)
from raftdb.consensus.port import CopySettings
from raftdb.consensus.wall import Wall


class Copies:
    """Both sides of one member."""

    def __init__(
        self,
        *,
        settings: CopySettings,
        ports: Ports,
        limits: Limits,
        wall: Wall,
        dial: Callable[[str], Link],
        applied: Callable[[], int],
        refuses: Callable[[], str],
        first_index: Callable[[], int],
        on_installed: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.source = CopySource(settings, ports, limits, applied, refuses)
        self.fetcher = CopyFetcher(
            settings=settings,
            ports=ports,
            limits=limits,
            wall=wall,
            dial=dial,
            applied=applied,
            first_index=first_index,
            on_installed=on_installed,
            on_failed=on_failed,
        )

    def start(self) -> None:
        """Tidy up."""
        self.source.start()

    def stop(self) -> None:
        """The engine stops."""
        self.source.stop()
        self.fetcher.stop()

    def need(self, sources: Sequence[str], at_least: int, *, damaged: bool = False) -> None:
        """See CopyFetcher.need."""
        self.fetcher.need(sources, at_least, damaged=damaged)

    def on_open(self, link: Link) -> None:
        """A connection stands."""
        if link.dialled is not None:
            self.fetcher.on_open(link)

    def on_lost(self, link: Link, reason: str) -> None:
        """A connection is gone, or was never made."""
        if link.dialled is not None:
            self.fetcher.on_lost(link, reason)
        else:
            self.source.on_lost(link)

    def on_message(self, link: Link, message: Message) -> None:
        """Whoever dialled asks, the other end answers. Raises ProtocolError for anything else."""
        if link.dialled is None:
            if isinstance(message, CopyAsk):
                self.source.on_ask(link, message)
            elif isinstance(message, CopyFetch):
                self.source.on_fetch(link, message)
            else:
                raise _unexpected(message)
        elif isinstance(message, CopyPart):
            self.fetcher.on_part(link, message)
        elif isinstance(message, CopyOffer):
            self.fetcher.on_offer(link, message)
        elif isinstance(message, CopyLater):
            self.fetcher.on_later(link, message)
        elif isinstance(message, CopyGone):
            self.fetcher.on_gone(link, message)
        else:
            raise _unexpected(message)

    def status(self) -> dict[str, Any]:
        """For people."""
        fetcher, offer = self.fetcher, self.fetcher.offer
        return {
            "fetching": fetcher.state,
            "source": fetcher.source,
            "refused": dict(fetcher.refusals),
            "index": 0 if offer is None else offer.log_index,
            "bytes": 0 if offer is None else offer.size,
            "received_bytes": fetcher.received_bytes,
            "sending": self.source.busy,
            "sent_bytes": self.source.sent_bytes,
        }


def _unexpected(message: Message) -> ProtocolError:
    return ProtocolError(f"{type(message).__name__} has no place beside a copy")
