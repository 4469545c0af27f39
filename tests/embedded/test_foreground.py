"""`raftdb start` without a process: how it ends."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from raftdb.base.config import NodeConfig
from raftdb.embedded import foreground, run_node
from raftdb.runtime.signals import Signals
from tests.powerloss.bench import config_for


class ListeningLog:
    """Remembers whether the lines were waited for."""

    def __init__(self, **_options: Any) -> None:
        self.closed = False
        LOGS.append(self)

    def info(self, *_words: Any, **_fields: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True


LOGS: list[ListeningLog] = []


@pytest.mark.parametrize("raises", [False, True])
def test_the_last_lines_of_the_log_are_written(
    raises: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """They say why the node stopped; a thread writes them, and it ends with the process."""

    def run(_config: NodeConfig, log: ListeningLog, _signals: Signals) -> int:
        assert not log.closed
        if raises:
            raise OSError("no")
        return 4

    monkeypatch.setattr(foreground, "StreamLog", ListeningLog)
    monkeypatch.setattr(foreground, "_run", run)
    monkeypatch.setattr(foreground, "use_utc", lambda: None)
    monkeypatch.setattr(foreground, "tune_malloc", lambda: None)
    monkeypatch.setattr(foreground, "tune_switching", lambda: None)
    LOGS.clear()
    if raises:
        with pytest.raises(OSError, match="no"):
            run_node(config_for(tmp_path))
    else:
        assert run_node(config_for(tmp_path)) == 4
    assert [log.closed for log in LOGS] == [True]


def test_who_is_asked_to_stop_before_it_began_opens_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(foreground, "StreamLog", ListeningLog)
    monkeypatch.setattr(foreground, "_run", None)
    monkeypatch.setattr(foreground, "use_utc", lambda: None)
    monkeypatch.setattr(foreground, "tune_malloc", lambda: None)
    monkeypatch.setattr(foreground, "tune_switching", lambda: None)
    signals = Signals()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert run_node(config_for(tmp_path)) == 0
        assert Signals.held() is signals
    finally:
        signals.release()
    assert Signals.held() is None
