"""The newest moment is restored on trial, by one node, and everybody sees how long ago."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raftdb.archive import Verified
from raftdb.archive.rehearsal import ALARM_PERIODS, RETRY_S, Rehearsal
from raftdb.base.config import ArchiveConfig
from raftdb.base.errors import ConfigError
from raftdb.ops import verify
from raftdb.ops.archive import open_destinations
from raftdb.ops.status import cluster_status
from raftdb.ops.target import Target
from tests.archive.ports import hand_ports
from tests.archive.support import KEYS, filled
from tests.archive.test_uploader import all_archived, archives, cluster, wait_for
from tests.cli.conftest import Command
from tests.cli.conftest import raftdb as command  # noqa: F401

HOUR_S = 3_600.0


class Tries:
    """A verifier that is told what to say."""

    def __init__(self) -> None:
        self.done: Callable[[Verified], None] | None = None

    def start(self, _url: str, done: Callable[[Verified], None]) -> None:
        self.done = done

    def stop(self) -> None:
        self.done = None


def _ended() -> None:
    pass


def test_when_it_is_due_and_when_it_is_an_alarm() -> None:
    ports, loop, log = hand_ports()
    one, tries = Rehearsal("file:///a", "file:///a", 60, ports), Tries()

    def due(age_s: float | None, *, active: bool = True, archived: int = 9) -> bool:
        return one.due(active=active, archived=archived, verified_age_s=age_s)

    assert not due(None)
    assert not due(HOUR_S - 1)
    assert due(HOUR_S)
    assert not due(HOUR_S, active=False)
    assert not due(HOUR_S, archived=0)
    loop.pass_time(601.0)
    assert due(None)
    one.start(tries, _ended)
    assert not due(None)
    assert tries.done is not None
    tries.done(Verified(0, "bad"))
    assert not due(None)
    assert one.facts(0.0)["verify_alarm"]
    loop.pass_time(RETRY_S)
    assert due(None)
    one.start(tries, _ended)
    tries.done(Verified(9, ""))
    assert not one.facts(0.0)["verify_alarm"]
    assert not one.late(ALARM_PERIODS * HOUR_S)
    assert one.late(ALARM_PERIODS * HOUR_S + 1)
    assert one.late(ALARM_PERIODS * HOUR_S + 2)
    assert [event for event, _fields in log.events] == [
        "archive_verify",
        "archive_verify_failed",
        "archive_verify",
        "archive_verified",
        "archive_unverified",
    ]
    off = Rehearsal("file:///a", "file:///a", 0, ports)
    assert not off.due(active=True, archived=9, verified_age_s=1e9)
    assert not off.late(1e9)


def test_a_node_restores_the_newest_moment_by_itself(tmp_path: Path) -> None:
    """In a process of its own; what is wrong with it is an alarm in the status."""
    place = tmp_path / "a"
    config = ArchiveConfig(destinations=(f"file://{place}",), interval_ms=100)
    with (
        cluster(tmp_path / "cluster", config, nodes=1) as [node],
        node.connect(timeout=20.0) as connection,
    ):
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES (1)")
        wait_for("the first upload", lambda: all_archived([node]))
        assert node._assembly is not None
        service = node._assembly._archive
        assert service is not None
        [rehearsal] = service._rehearsals
        assert archives(node)[0]["verified_age_s"] is None
        # It was watched for long enough.
        rehearsal._begun_s -= HOUR_S
        wait_for("a verified restore", lambda: archives(node)[0]["verified_age_s"] is not None)
        assert not archives(node)[0]["verify_alarm"]
        assert not (Path(node.config.data_dir) / "archive" / "verify").exists()
        # Now an object is damaged, and a day passes.
        [base] = (place / "e00000001" / "bases").iterdir()
        base.write_bytes(base.read_bytes()[:-1])
        rehearsal._period_s = 0.1
        wait_for("the alarm", lambda: archives(node)[0]["verify_problem"])
        state = cluster_status(Target(f"raftdb://{node.config.client_listen}/?insecure=1"))
        assert any("restored on trial" in text for text in state.problems)
        assert "truncated" in archives(node)[0]["verify_problem"]


def test_a_trial_leaves_room_for_others(
    tmp_path: Path,
    command: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = filled(tmp_path)
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} {key.hex()}\n" for name, key in KEYS.keys.items()))
    options = ("--from", tmp_path / "archive", "--key-file", keys, "--json")
    before = command("archive", "status", *options).json()
    assert before["destinations"][0]["verified_age_s"] is None
    assert any("never restored on trial" in text for text in before["notes"])
    quick = ("--restore", "--quick", "--scratch", tmp_path / "scratch")
    done = command("archive", "verify", *options, *quick)
    assert done.code == 0, done
    assert done.json()["restores"][0]["content"] == live.machine.content_hash().total.hex()
    assert not (tmp_path / "scratch").exists()
    assert command("archive", "status", *options).json()["destinations"][0]["verified_index"]
    found = open_destinations([str(tmp_path / "archive")], KEYS)
    verify.check_room(found, found.sources.last(), tmp_path)
    monkeypatch.setattr(verify, "ROOM_BYTES", 1 << 60)
    with pytest.raises(ConfigError, match="are free"):
        verify.check_room(found, found.sources.last(), tmp_path)
    live.close()
