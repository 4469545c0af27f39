"""Whoever makes a copy for others, where none can be made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raftdb.base.errors import OperationalError
from raftdb.base.limits import Limits
from raftdb.consensus.copy_source import AGAIN_S, CopySource
from raftdb.consensus.messages import CopyAsk, CopyLater
from raftdb.runtime.files import RealFiles
from tests.node.fakes import HandLoop, Quiet


class Store:
    """Writes a part of a copy, and finds no room for the rest."""

    def __init__(self) -> None:
        self.begun = self.aborted = 0

    def begin(self, directory: str) -> Store:
        self.directory = Path(directory)
        self.begun += 1
        return SimpleNamespace(begin=lambda: 50, step=self.step, abort=self.abort)  # type: ignore[return-value]

    def step(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "database.sqlite").write_bytes(b"a part")
        raise OperationalError("no room " + "for it" * 100, code="capture_no_room", retryable=True)

    def abort(self) -> None:
        self.aborted += 1


def test_a_copy_that_fails_leaves_nothing_and_is_not_begun_again_at_once(tmp_path: Path) -> None:
    """Each begin holds up the writer for a checkpoint, and askers come four times a second."""
    loop, store = HandLoop(), Store()
    released: list[int] = []
    pin = SimpleNamespace(
        release=lambda: released.append(1), move_to=lambda _index: None, overrun=False
    )
    settings: Any = SimpleNamespace(
        store=store, directory=str(tmp_path), pin=lambda _index: pin, rate_bytes_per_s=1 << 20
    )
    ports: Any = SimpleNamespace(
        clock=loop,
        executor=loop,
        files=RealFiles(),
        log=Quiet(),
        random=SimpleNamespace(randbytes=bytes),
    )
    source = CopySource(settings, ports, Limits(), lambda: 60, lambda: "")
    sent: list[Any] = []
    link: Any = SimpleNamespace(send=sent.append)
    for _ in range(4):
        source.on_ask(link, CopyAsk(b"", 10))
        loop.pass_time(0.25)
    assert (store.begun, store.aborted, len(released)) == (1, 1, 1)
    assert list((tmp_path / "outgoing").iterdir()) == []
    assert all(isinstance(one, CopyLater) and len(one.reason) <= 256 for one in sent)
    assert "no room" in sent[-1].reason
    loop.pass_time(AGAIN_S)
    source.on_ask(link, CopyAsk(b"", 10))
    loop.run()
    assert store.begun == 2
    source.stop()
