"""Bugs in copies of the database between members, in generations, and in pages that are read."""

from __future__ import annotations

from typing import Any

from raftdb.base.ports import Files
from raftdb.journal.journal import Journal
from raftdb.journal.retention import Pin
from raftdb.machine import captures, generations
from raftdb.machine import machine as machine_module
from raftdb.machine.checkpoints import Checkpointer
from raftdb.machine.determinism import RequestTimeVfs
from raftdb.machine.pages import MachineVfs
from tests.sim.planted import rules
from tests.sim.planted.bug import Bug, Patch

_plain: dict[str, RequestTimeVfs] = {}


def _nothing(*_arguments: Any) -> None:
    pass


def _unverified() -> list[Patch]:
    """A copy is installed as it came."""
    return [(captures, "_verify_bytes", _nothing), (captures, "_verify_database", _nothing)]


def _over_the_old_one() -> list[Patch]:
    """The copy takes the place of the database's file, beside that one's write-ahead log."""
    make_next, make_current = generations.make_next, generations.make_current

    def same(files: Files, directory: str) -> str:
        return generations.current(files, directory) or make_next(files, directory)

    def keep(files: Files, directory: str, generation: str) -> None:
        if generations.current(files, directory) != generation:
            make_current(files, directory, generation)
            return
        file = files.open(f"{generation}/{captures.DATABASE_FILE}")
        try:
            file.sync()
        finally:
            file.close()
        files.sync_directory(generation)

    return [
        (generations, "make_next", same),
        (generations, "make_current", keep),
        *_unverified(),
    ]


def _not_pinned() -> list[Patch]:
    """The log is cut while a copy is on its way."""

    def pin(self: Journal, index: int) -> Pin:
        return Pin(index, _nothing)

    return [(Journal, "pin", pin)]


def _any_checkpoint() -> list[Patch]:
    """A copy is taken of the file after a checkpoint, however far that came."""
    complete = Checkpointer.complete

    def always(self: Checkpointer) -> bool:
        complete(self)
        return True

    return [(Checkpointer, "complete", always), *_unverified()]


def _pages_unchecked() -> list[Patch]:
    """SQLite's files without the layer that checks pages."""

    def open_plain(base: str) -> MachineVfs:
        name = f"unchecked-{base}"
        if name not in _plain:
            _plain[name] = RequestTimeVfs(name, base)
        return MachineVfs(name)

    return [(machine_module, "open_vfs", open_plain), (captures, "open_vfs", open_plain)]


BUGS = [
    Bug(
        "copy-not-verified",
        "row 11",
        "a copy is installed as it came, whatever its description says",
        make=_unverified,
    ),
    Bug(
        "copies-mixed",
        "rows 11 and 12 together",
        "the beginning of one copy is gone on with from another, and nobody compares the whole",
        rules.MixesCopies,
        make=_unverified,
    ),
    Bug(
        "old-copy-installed",
        "row 13",
        "a copy of what is applied already is installed",
        rules.InstallsOldCopies,
    ),
    Bug(
        "copy-beside-the-old-log",
        "M3, row 11",
        "a copy is put in the place of the old file, beside its log, and nobody reads it first",
        make=_over_the_old_one,
    ),
    Bug(
        "log-not-pinned-for-a-copy",
        "D2",
        "the log behind a copy is cut before the copy is there",
        make=_not_pinned,
    ),
    Bug(
        "copy-of-an-incomplete-checkpoint",
        "D2, row 11",
        "a copy is taken of a file that lacks what a reader held up, and nobody compares it",
        make=_any_checkpoint,
    ),
    Bug("pages-not-checked", "M8", "pages are not verified when read", make=_pages_unchecked),
]
