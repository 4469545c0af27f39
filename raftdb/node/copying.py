"""The machine's copies as consensus wants them: made to be sent, verified and installed."""

from __future__ import annotations

import posixpath

from raftdb.base.atomic import replace_file
from raftdb.base.ids import HistoryId
from raftdb.base.ports import Files
from raftdb.consensus.port import Copied
from raftdb.machine import CAPTURE_FILE, DATABASE_FILE, CaptureJob, Machine


class MachineCopies:
    """A CopyStore over one machine."""

    def __init__(
        self,
        machine: Machine,
        directory: str,
        history: HistoryId,
        files: Files,
        vfs_base: str = "",
        spare_bytes: int = 0,
    ) -> None:
        """`spare_bytes`: no copy is made that leaves less room than that."""
        self._spare_bytes = spare_bytes
        self._machine = machine
        self._directory = directory
        self._history = history
        self._files = files
        self._vfs_base = vfs_base

    def begin(self, directory: str) -> MachineCopyJob:
        """See CopyStore."""
        job = self._machine.begin_capture(
            directory, files=self._files, spare_bytes=self._spare_bytes
        )
        return MachineCopyJob(job, directory, self._files)

    def install(self, path: str, description: bytes) -> None:
        """See CopyStore. The running machine stays on the old state; the next start has the new."""
        files, incoming = self._files, posixpath.dirname(path)
        files.rename(path, posixpath.join(incoming, DATABASE_FILE))
        replace_file(files, posixpath.join(incoming, CAPTURE_FILE), description)
        Machine.install(
            self._directory,
            incoming,
            history=self._history,
            files=files,
            vfs_base=self._vfs_base,
        )
        for name in files.list_directory(incoming):
            files.remove(posixpath.join(incoming, name))


class MachineCopyJob:
    """A CopyJob over the machine's."""

    def __init__(self, job: CaptureJob, directory: str, files: Files) -> None:
        self._job = job
        self._directory = directory
        self._files = files

    def begin(self) -> int:
        """See CopyJob."""
        return self._job.begin()

    def step(self) -> Copied | None:
        """See CopyJob."""
        made = self._job.step()
        if made is None:
            return None
        description = self._files.read_file(posixpath.join(self._directory, CAPTURE_FILE))
        path = posixpath.join(self._directory, DATABASE_FILE)
        return Copied(int(made.index), int(made.term), made.size_bytes, path, description)

    def abort(self) -> None:
        """See CopyJob."""
        self._job.abort()
