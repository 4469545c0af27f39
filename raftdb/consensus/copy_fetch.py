"""Fetching a copy: piece by piece, each answered and checked; gone on with after any interruption;
verified as a whole before it becomes anything (rows 11 to 13).

What is there of it lies in a directory of its own: `offer` says what it is a copy of, `data` holds
its beginning, `progress` how much of that is on the device. So a process that was killed goes on
from there, and one that finds another copy at the source starts over.
"""

from __future__ import annotations

import errno
import posixpath
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from raftdb.base.atomic import replace_file
from raftdb.base.errors import ConfigError, FatalError, ProtocolError
from raftdb.base.limits import Limits
from raftdb.base.ports import File, Files, Ports, Timer
from raftdb.consensus.copy_source import clear
from raftdb.consensus.link import Link
from raftdb.consensus.messages import (
    CopyAsk,
    CopyFetch,
    CopyGone,
    CopyLater,
    CopyOffer,
    CopyPart,
)
from raftdb.consensus.port import DAMAGE, CopySettings, Held
from raftdb.consensus.wall import Wall

LANE = "fetch"
ASK_AGAIN_S = 0.25
RETRY_S = 0.5
REFUSALS_MAX = 40
"""So often is one source asked again before another is tried, where there is one."""
PIECES_MAX = 8
"""Asked for and not written yet: what a fetch holds in memory."""
SYNC_BYTES = 16 << 20
"""How much a kill can make a fetch repeat."""
DESCRIPTION_BYTES_MAX = 4096
OFFER, DATA, PROGRESS = "offer", "data", "progress"


class CopyFetcher:
    """At most one copy at a time. Belongs to the loop; files are touched on its lane alone."""

    def __init__(
        self,
        *,
        settings: CopySettings,
        ports: Ports,
        limits: Limits,
        wall: Wall,
        dial: Callable[[str], Link],
        applied: Callable[[], int],
        first_index: Callable[[], int],
        on_installed: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._piece_bytes = limits.peer_part_bytes
        self._wall = wall
        self._dial = dial
        self._applied = applied
        self._first_index = first_index
        self._on_installed = on_installed
        self._on_failed = on_failed
        self._directory = posixpath.join(settings.directory, "incoming")
        self._stopped = False
        self._sources: tuple[str, ...] = ()
        self._attempt = 0
        self._refusals = 0
        self.refusals: dict[str, str] = {}
        """What each source that had no copy to give said last; an offer ends it."""
        self._at_least = 0
        self._damaged = False
        self.state = "idle"
        """`idle`, `connecting`, `waiting`, `fetching`, `installing`, `installed`."""
        self.source = ""
        self.offer: CopyOffer | None = None
        self.received_bytes = 0
        """Written, not necessarily synced."""
        self._synced_bytes = 0
        self._asked_bytes = 0
        self._arrived_bytes = 0
        """Received, not necessarily written: where the next piece begins."""
        self._file: File | None = None
        self._link: Link | None = None
        self._pin: Held | None = None
        self._timer: Timer | None = None
        self._next_at_s = 0.0
        self._pace_timer: Timer | None = None

    # -- from outside ----------------------------------------------------------------------------

    def need(self, sources: Sequence[str], at_least: int, *, damaged: bool = False) -> None:
        """Fetch a copy of entry `at_least` or a later one, from one of `sources`. Harmless when a
        fetch is under way. `damaged`: the state here is no good, so any such copy is better."""
        self._sources = tuple(sources)
        self._at_least = max(self._at_least, at_least)
        self._damaged = self._damaged or damaged
        if self.state == "waiting" and self.source not in self._sources:
            # Another member leads now: nothing came of the old one yet.
            link, self._link = self._link, None
            if link is not None:
                link.abort()
            self._connect()
            return
        if self.state != "idle" or self._stopped:
            return
        self.state = "connecting"
        files, directory = self._ports.files, self._directory
        self._submit(lambda: _load(files, directory), self._loaded)

    def stop(self) -> None:
        """What is there stays for the next process."""
        self._stopped = True
        for timer in (self._timer, self._pace_timer):
            if timer is not None:
                timer.cancel()
        if self._pin is not None:
            self._pin.release()
        file, self._file = self._file, None
        if file is not None:
            self._ports.executor.submit(LANE, file.close, _ignore)

    # -- the connection --------------------------------------------------------------------------

    def _loaded(self, found: Any, error: BaseException | None) -> None:
        if error is not None:
            self._start_over(f"what was there is no use: {error}")
            return
        self.offer, self._synced_bytes = found
        self.received_bytes = self._synced_bytes
        self._connect()

    def _connect(self) -> None:
        if self._timer is not None:
            # Another question, or another connection, that was to come later.
            self._timer.cancel()
            self._timer = None
        self.state = "connecting"
        self.source = self._sources[self._attempt % len(self._sources)]
        self._attempt += 1
        self._link = self._dial(self.source)

    def on_open(self, link: Link) -> None:
        """The connection stands."""
        if link is self._link:
            self._ask()
        else:
            link.abort()

    def on_lost(self, link: Link, _reason: str) -> None:
        """Try again, later, perhaps elsewhere."""
        if link is self._link:
            self._link = None
            if self.state in ("connecting", "waiting", "fetching"):
                self._later(RETRY_S, self._connect)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._ports.executor.call_later(delay_s, call)

    def _ask(self) -> None:
        self._timer = None
        if self._link is None:
            return
        self.state = "waiting"
        have = self.offer.copy if self.offer is not None else b""
        self._link.send(CopyAsk(have, max(self._at_least, self._first_index() - 1)))

    def on_later(self, link: Link, message: CopyLater) -> None:
        """The source makes a copy, or has none to give: ask again, or somebody else."""
        if link is not self._link or self.state != "waiting":
            return
        self._refusals += 1
        self.refusals[self.source] = message.reason
        tired = self._refusals % REFUSALS_MAX == 0 or message.reason == DAMAGE
        if len(self._sources) > 1 and tired:
            self._link = None
            link.abort()
            self._later(ASK_AGAIN_S, self._connect)
        else:
            self._later(ASK_AGAIN_S, self._ask)

    def on_gone(self, link: Link, message: CopyGone) -> None:
        """It is not kept any more: another one may be."""
        offer = self.offer
        if link is not self._link or self.state != "fetching" or offer is None:
            return
        if message.copy == offer.copy:
            self._ask()

    def on_offer(self, link: Link, offer: CopyOffer) -> None:
        """Go on with what is there if it is of this copy; else begin anew."""
        if link is not self._link or self.state != "waiting":
            return
        if len(offer.description) > DESCRIPTION_BYTES_MAX:
            raise ProtocolError("the description of a copy is too long")
        if not self._wall.copy_counts(offer.log_index, self._applied(), self._damaged):
            self._end("the log has come further than the copy")
            return
        self.state = "fetching"
        self.refusals.pop(self.source, None)
        have = self.offer
        same = have is not None and self._wall.same_copy(have.copy, offer.copy)
        files, directory = self._ports.files, self._directory
        keep = self._synced_bytes if same else 0
        if same and self._file is not None:
            keep = self.received_bytes
        if self._pin is not None:
            self._pin.release()
        self._pin = self._settings.pin(offer.log_index + 1)
        self.offer = offer
        self.received_bytes = self._asked_bytes = self._arrived_bytes = keep
        self._synced_bytes = min(self._synced_bytes, keep)
        old, self._file = self._file, None
        self._ports.log.info(
            "copy_fetching", source=self.source, index=offer.log_index, bytes=offer.size, have=keep
        )

        spare = self._settings.spare_bytes

        def work() -> File:
            if old is not None:
                old.close()
            return _prepare(files, directory, offer, keep, spare, fresh=not same)

        self._submit(work, self._prepared)

    def _prepared(self, file: File | None, error: BaseException | None) -> None:
        if file is None:
            self._failed_locally(error)
            return
        self._file = file
        self._fetch_more()

    # -- pieces ----------------------------------------------------------------------------------

    def _fetch_more(self) -> None:
        """Ask for pieces, as many as fit into the window and the pace."""
        if self._pace_timer is not None:
            self._pace_timer.cancel()
            self._pace_timer = None
        offer, link = self.offer, self._link
        if self.state != "fetching" or offer is None or link is None or self._file is None:
            return
        if self.received_bytes >= offer.size:
            self._install(offer)
            return
        clock = self._ports.clock
        while (
            self._asked_bytes < offer.size
            and self._asked_bytes - self.received_bytes < PIECES_MAX * self._piece_bytes
        ):
            now_s = clock.monotonic_s()
            if self._next_at_s > now_s + 0.002:
                self._pace_timer = self._ports.executor.call_later(
                    self._next_at_s - now_s, self._fetch_more
                )
                return
            size = min(self._piece_bytes, offer.size - self._asked_bytes)
            link.send(CopyFetch(offer.copy, self._asked_bytes, size))
            self._asked_bytes += size
            self._next_at_s = max(self._next_at_s, now_s) + size / self._settings.rate_bytes_per_s

    def on_part(self, link: Link, part: CopyPart) -> None:
        """Check it, and write it where it belongs."""
        offer, file = self.offer, self._file
        if link is not self._link or self.state != "fetching" or offer is None or file is None:
            return
        if part.copy != offer.copy:
            return
        if part.offset + len(part.data) > self._asked_bytes or not part.data:
            raise ProtocolError("a piece of a copy that was not asked for")
        if zlib.crc32(part.data) != part.check:
            raise ProtocolError("a piece of a copy does not match its checksum")
        if part.offset != self._arrived_bytes:
            # It was asked for before the source said that it has none: it is asked for again.
            return
        self._arrived_bytes += len(part.data)

        def written(_none: Any, error: BaseException | None) -> None:
            if error is not None:
                self._failed_locally(error)
            elif file is self._file:
                self._written(part.offset + len(part.data))

        self._submit(lambda: file.write_at(part.offset, part.data), written)

    def _written(self, end: int) -> None:
        # One connection, one lane on each side: pieces are written in the order of asking.
        self.received_bytes = max(self.received_bytes, end)
        if self.received_bytes - self._synced_bytes >= SYNC_BYTES:
            self._synced_bytes = self.received_bytes
            files, directory = self._ports.files, self._directory
            file, size = self._file, self._synced_bytes
            assert file is not None
            self._submit(
                lambda: _sync(files, directory, file, size),
                lambda _none, error: None if error is None else self._failed_locally(error),
            )
        if self._pace_timer is None:
            self._fetch_more()

    # -- the end ---------------------------------------------------------------------------------

    def _install(self, offer: CopyOffer) -> None:
        if not self._wall.copy_counts(offer.log_index, self._applied(), self._damaged):
            self._end("the log has come further than the copy")
            return
        if self._pin is None or self._pin.overrun or offer.log_index < self._first_index() - 1:
            self._ask()
            return
        self.state = "installing"
        link, self._link = self._link, None
        if link is not None:
            link.abort()
        file, self._file = self._file, None
        path = posixpath.join(self._directory, DATA)
        store = self._settings.store

        def work() -> None:
            assert file is not None
            try:
                file.sync()
            finally:
                file.close()
            store.install(path, offer.description)

        self._submit(work, self._installed)

    def _installed(self, _none: Any, error: BaseException | None) -> None:
        if isinstance(error, ConfigError):
            # It is not what its description says: nothing was changed here (row 11).
            self._start_over(str(error))
        elif error is not None:
            self._failed_locally(error)
        else:
            assert self.offer is not None
            self.state = "installed"
            self._ports.log.info("copy_installed", source=self.source, index=self.offer.log_index)
            self._on_installed()

    def _start_over(self, reason: str) -> None:
        self._ports.log.warning("copy_refused", source=self.source, reason=reason)
        self.state = "connecting"
        self._forget()
        self._later(RETRY_S, self._connect)

    def _end(self, reason: str) -> None:
        """No copy is needed any more."""
        self._ports.log.info("copy_not_needed", reason=reason)
        self.state = "idle"
        self._at_least = 0
        self._forget()

    def _forget(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.abort()
        if self._pin is not None:
            self._pin.release()
            self._pin = None
        self.offer, self.received_bytes, self._synced_bytes = None, 0, 0
        file, self._file = self._file, None
        files, directory = self._ports.files, self._directory

        def work() -> None:
            if file is not None:
                file.close()
            clear(files, directory)

        self._submit(work, _ignore)

    def _failed_locally(self, error: BaseException | None) -> None:
        """A disk that takes no copy (full, perhaps) is no reason to stop a node that votes; try
        again later. Whatever is not the system's refusal is."""
        if isinstance(error, OSError) and not isinstance(error, FatalError):
            self._ports.log.warning("copy_not_written", reason=str(error))
            self.state = "connecting"
            self._forget()
            self._later(20 * RETRY_S, self._connect)
            return
        self._on_failed(error or AssertionError("a copy was lost"))

    def _submit(self, work: Callable[[], Any], done: Callable[[Any, Any], None]) -> None:
        def unless_stopped(result: Any, error: BaseException | None) -> None:
            if not self._stopped:
                done(result, error)

        self._ports.executor.submit(LANE, work, unless_stopped)


def _load(files: Files, directory: str) -> tuple[CopyOffer | None, int]:
    """What an earlier process fetched: of which copy, and how much of it is on the device."""
    path = posixpath.join(directory, OFFER)
    if not files.exists(path) or not files.exists(posixpath.join(directory, PROGRESS)):
        return None, 0
    fields = msgpack.unpackb(files.read_file(path), use_list=False, max_map_len=0)
    offer = CopyOffer._make(fields)
    synced = int.from_bytes(files.read_file(posixpath.join(directory, PROGRESS)), "little")
    file = files.open(posixpath.join(directory, DATA))
    try:
        return offer, min(synced, file.size(), offer.size)
    finally:
        file.close()


def _prepare(
    files: Files, directory: str, offer: CopyOffer, keep: int, spare: int, *, fresh: bool
) -> File:
    """The file to write on: emptied, or cut to what is kept. OSError where the rest of the copy
    would leave less than `spare` bytes of room."""
    files.make_directory(directory)
    if fresh:
        clear(files, directory)
    _check_room(files, directory, offer.size - keep + spare)
    if fresh:
        # The offer last: without it the rest counts for nothing.
        replace_file(files, posixpath.join(directory, PROGRESS), bytes(8))
    file = files.open(posixpath.join(directory, DATA), create=True)
    try:
        file.truncate(keep)
        if fresh:
            packed: bytes = msgpack.packb(tuple(offer), use_bin_type=True)
            replace_file(files, posixpath.join(directory, OFFER), packed)
    except BaseException:
        file.close()
        raise
    return file


def _check_room(files: Files, directory: str, wanted: int) -> None:
    """Whoever has no room for a copy goes on without it: to fill up the disk would stop it."""
    free = files.free_bytes(directory)
    if free < wanted:
        text = f"no room for a copy: it takes {wanted} bytes with the reserve, {free} are free"
        raise OSError(errno.ENOSPC, text, directory)


def _sync(files: Files, directory: str, file: File, size: int) -> None:
    file.sync()
    replace_file(files, posixpath.join(directory, PROGRESS), size.to_bytes(8, "little"))


def _ignore(_result: Any, _error: BaseException | None) -> None:
    pass
