"""What a node's data are opened as, where a part of them is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftdb.base.config import NodeConfig, load_config
from raftdb.base.damage import LOG_END
from raftdb.base.errors import ConfigError
from raftdb.command import Tick, encode_request
from raftdb.command.requests import Stamp
from raftdb.embedded.opening import Opened, open_data
from raftdb.journal import Journal
from raftdb.machine import Machine
from raftdb.ops.found import found_local
from raftdb.runtime.files import RealFiles
from tests.machine.support import START_MS, Entry, MemoryLog
from tests.node.fakes import HandLoop


class Ports:
    """Real files, and nothing runs."""

    def __init__(self) -> None:
        self.files = RealFiles()
        self.log = MemoryLog()
        self.executor = self.clock = HandLoop()
        self.random = self

    def randbytes(self, count: int) -> bytes:
        return b"r" * count


def opened(config: NodeConfig) -> Opened:
    ports: Any = Ports()
    return open_data(config, ports, Journal, Machine, "")


def close(found: Opened) -> None:
    found.machine.close()
    found.journal.close(lambda _error: None)
    found.journal._executor.run()  # type: ignore[attr-defined]


def lived(directory: Path) -> tuple[NodeConfig, Path]:
    """A member whose database has applied something; its configuration and its log."""
    found_local(directory)
    config = load_config(str(directory / "n1" / "raftdb.toml"))
    found = opened(config)
    index, term = found.machine.applied()
    payload = encode_request(Tick(Stamp(START_MS, bytes(8))))
    for number in (1, 2):
        entry: Any = Entry(index + number, term, (payload,))  # type: ignore[arg-type]
        found.machine.apply([entry])
    close(found)
    return config, directory / "n1" / "data" / "journal"


def test_a_member_that_lost_its_log_asks_to_be_relieved_of_its_vote(tmp_path: Path) -> None:
    """It does not know what it promised, as if the log's end were damaged: it takes no part, and
    heals. Somebody removed the segments."""
    config, journal = lived(tmp_path / "cluster")
    for segment in journal.glob("*.segment"):
        segment.unlink()
    for _ in range(2):
        found = opened(config)
        assert found.memory is not None
        assert found.memory.voter
        assert found.damage is not None
        assert found.damage.kind == LOG_END
        assert found.machine.absent
        assert found.journal.last_index == 1
        close(found)


@pytest.mark.parametrize("lost", ["the device", "a beginning"])
def test_a_directory_that_never_had_a_log_is_no_member(tmp_path: Path, lost: str) -> None:
    """Nor one whose device is not there: it may come back. (Rule J5.)"""
    if lost == "the device":
        config, journal = lived(tmp_path / "cluster")
        for file in journal.iterdir():
            file.unlink()
    else:
        found_local(tmp_path / "cluster")
        config = load_config(str(tmp_path / "cluster" / "n1" / "raftdb.toml"))
        for segment in (tmp_path / "cluster" / "n1" / "data" / "journal").glob("*.segment"):
            segment.unlink()
    with pytest.raises(ConfigError) as raised:
        opened(config)
    assert raised.value.code == "journal_missing"
    assert not (tmp_path / "cluster" / "n1" / "data" / "amnesia.json").exists()
