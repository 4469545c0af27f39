"""Moves the write-ahead log into the database file, beside the writer; rule M2.

A commit is not synced. What a power cut leaves is an earlier commit, and the journal replays from
there; so the journal may drop only what is below the durable index: the applied index noted before
a checkpoint that moved everything there was (it syncs the log before and the file after).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from raftdb.base.errors import FatalError, OperationalError
from raftdb.base.ids import Index
from raftdb.base.ports import Files, Log
from raftdb.machine import failures
from raftdb.machine.format import PAGE_BYTES
from raftdb.machine.logcheck import LogCheck
from raftdb.machine.logguard import LogGuard

HOLD_PAGES = 16_384
"""From this length of the log on (64 MiB), a checkpoint ends with the writer held back, so that
the log can start again from its beginning under steady writing."""

_CHUNK_BYTES = 1 << 20
_LOOK_EACH = 8
"""Of so many checkpoints that are held, one looks at the log: they are asked for every 0.25 s."""


def rewrite_log(path: str, files: Files) -> None:
    """Write the database's write-ahead log again with its own bytes, and sync it: before the
    database is opened, by whoever opens it first.

    What a start reads there may lie in the page cache alone, and marked as written: after a failed
    sync Linux calls the lost pages clean, so that the next checkpoint's sync would not write them,
    and a power cut in its midst would leave a file half of the new state and no log to mend it
    (the same as rule J1 of the journal). Raises FatalError.
    """
    name = path + "-wal"
    try:
        if not files.exists(name):
            return
        file = files.open(name)
        try:
            size = file.size()
            for offset in range(0, size, _CHUNK_BYTES):
                file.write_at(offset, file.read_at(offset, min(_CHUNK_BYTES, size - offset)))
            if size:
                file.sync()
        finally:
            file.close()
    except OSError as error:
        raise failures.at(failures.fatal(error, "making its write-ahead log durable"), path) from (
            error
        )


class Checkpointer:
    """One machine's checkpoints, on a lane of their own."""

    def __init__(
        self,
        connection: apsw.Connection,
        writer_lock: threading.Lock,
        applied_index: Callable[[], Index],
        log: Log,
        guard: LogGuard,
    ) -> None:
        self._guard = guard
        self._check = LogCheck(connection)
        self._connection = connection
        self._writer_lock = writer_lock
        self._applied_index = applied_index
        self._log = log
        self.lock = threading.Lock()
        """Held while a checkpoint runs, and while a piece of a copy is read."""
        self.held = False
        """A copy is being made: checkpoints do nothing until it is done."""
        self._closed = False
        self._held_runs = 0
        """Checkpoints that did nothing for that."""
        self._moved = 0
        self.left_pages = 0
        """So many the last checkpoint could not move: readers of an older state are in the way."""
        self.durable_index = Index(0)
        """Entries up to this one survive a power cut in the database file."""

    def run(self) -> Index:
        """Checkpoint what there is, and return the durable index. Nothing happens when the machine
        was closed meanwhile. Raises FatalError."""
        with self.lock:
            if self._closed:
                return self.durable_index
            if self.held:
                # Whoever asks does so again and again, and would never come to look by itself.
                self._held_runs += 1
                if self._held_runs % _LOOK_EACH == 0:
                    self._announce(move=False)
                return self.durable_index
            self._announce(move=True)
            complete, pages, moved = self._passive()
            if pages >= HOLD_PAGES:
                with self._writer_lock:
                    complete, pages, moved = self._passive()
                if not complete:
                    self._log.warning("checkpoint_incomplete", wal_pages=pages)
            self._confirm(moved, complete)
        return self.durable_index

    def complete(self) -> bool:
        """Checkpoint everything, for a caller that holds the writer and `lock`: whether the file
        now is the whole database. A reader of an older state can be in the way. The caller calls
        `confirm` when the writer is free again. Raises FatalError."""
        # What was committed since the last look would be moved, and copied, with a sound checksum.
        self._announce(move=True)
        done, _pages, self._moved = self._passive()
        return done

    def confirm(self) -> None:
        """After `complete`, with `lock` held."""
        self._confirm(self._moved, True)

    def look_at_log(self) -> None:
        """Whether what queries read from the log is what was written there (see logcheck). Raises
        FatalError."""
        with self.lock:
            if not self._closed:
                self._announce(move=False)

    def _announce(self, *, move: bool) -> None:
        """Look at the frames that are not in the file yet: at all, if they are about to be moved
        there (see logguard)."""
        try:
            frames, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            if frames <= moved:
                return
            check = self._check
            sound = check.sound_frames(moved, frames) if move else check.look(frames)
            if sound < frames:
                raise self._guard.rotten(frames, sound)
            if move:
                self._guard.before(frames)
        except apsw.BusyError:
            pass
        except (apsw.Error, OSError) as error:
            raise failures.fatal(error, "beginning a checkpoint") from error

    def _confirm(self, frames: int, complete: bool) -> None:
        """So many frames are in the file, and so they were synced before. Those behind them need
        not be: a reader can have kept all of the checkpoint from its work, its sync included."""
        try:
            if frames > 0:
                self._guard.after(frames, complete=complete)
        except OSError as error:
            raise failures.fatal(error, "ending a checkpoint") from error

    def read(self, offset: int, count: int) -> bytes:
        """Whole pages of the database's file, while `held`. Through SQLite's own descriptor:
        closing another one of the same file would drop the locks that this process holds on it
        (https://www.sqlite.org/howtocorrupt.html, section 2.2). One page at a time, as checksums
        are checked of reads of a page's size. Raises FatalError."""
        pages = []
        with self.lock:
            if self._closed:
                raise OperationalError("the database is closed", code="closed")
            try:
                for start in range(offset, offset + count, PAGE_BYTES):
                    whole, page = self._connection.read("main", 0, start, PAGE_BYTES)
                    if not whole:
                        raise FatalError(
                            f"the database's file ends before byte {offset + count}",
                            code="database_corrupt",
                            hint="the file is damaged: replace this node by a new member",
                        )
                    pages.append(page)
            except apsw.Error as error:
                raise failures.fatal(error, "copying") from error
        return b"".join(pages)

    def check_pages(self, offset: int, count: int, path: str) -> int:
        """Read whole pages of the file from `offset` on, so that their checksums are looked at;
        how many bytes there were, 0 at its end. No checkpoint writes meanwhile. FatalError names
        file and offset."""
        with self.lock:
            start = offset
            while start < offset + count and not self._closed:
                try:
                    whole, _page = self._connection.read("main", 0, start, PAGE_BYTES)
                except apsw.Error as error:
                    found = failures.at(failures.fatal(error, "looking for damage"), path)
                    found.detail["offset"] = start
                    raise found from error
                if not whole:
                    break
                start += PAGE_BYTES
        return start - offset

    def close(self) -> None:
        """Close the connection, with `lock` held."""
        self._closed = True
        self._connection.close(True)

    def _passive(self) -> tuple[bool, int, int]:
        """One checkpoint: (whether nothing was left, pages in the log, those that are in the file
        now)."""
        noted = self._applied_index()
        try:
            in_log, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return False, 0, 0
        except apsw.Error as error:
            raise failures.fatal(error, "checkpointing") from error
        complete = in_log == moved and in_log >= 0
        self.left_pages = max(0, in_log - moved)
        if complete and noted > self.durable_index:
            self.durable_index = noted
        return complete, in_log, moved
