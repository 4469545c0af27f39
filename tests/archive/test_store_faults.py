"""Every fault of an archive, over a directory and over S3: found, named, an alarm, drained."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.archive import Keyring, open_store
from raftdb.archive.store import PruneStore
from raftdb.base.errors import Error
from tests.archive.faults import (
    ALARM_S,
    ENOUGH_S,
    FAULTS,
    STORE_FAULTS,
    Switched,
    Uploader,
    damaged,
    outage,
    two_uploaders,
)
from tests.archive.s3 import s3_url
from tests.archive.support import KEYS, filled, sources


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PruneStore:
    if request.param == "directory":
        return open_store(f"file://{tmp_path}/store")
    return open_store(s3_url(request.getfixturevalue("endpoint"), tmp_path.name))


def test_faults_of_objects_are_found_and_named(store: PruneStore, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(exist_ok=True)
    over_http = store.url.startswith("s3:")

    def wanted(kind: int, fault: int) -> bool:
        """Every fault, and every kind of object: not each with each over HTTP."""
        return not (over_http and (kind + fault) % len(FAULTS))

    tried = list(damaged(store, tmp_path, wanted))
    assert {fault for fault, _name, _said in tried} == set(FAULTS)
    assert [one for one in tried if not any(one[1] in text for text in one[2])] == []


@pytest.mark.parametrize("fault", STORE_FAULTS)
def test_faults_of_stores_are_an_alarm_in_time_and_drain_by_themselves(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert 0 < outage(fault, tmp_path) <= ALARM_S


def test_a_store_that_is_only_slow_is_an_alarm_too(tmp_path: Path) -> None:
    """Every call succeeds after 20 s: nothing fails, and yet it does not keep up."""
    store = Switched(open_store(f"file://{tmp_path}/archive"))
    live = filled(tmp_path, store)
    node = Uploader(live, tmp_path / "hashes", "n1", "follower")
    node.loop.pass_time(1.0)

    node.loop.lane_s = 20.0
    begun_s = node.loop.now_s
    alarm_s = 0.0
    while node.loop.now_s < begun_s + 2 * ALARM_S:
        live.run(("INSERT INTO t(x) VALUES (1)",))
        node.loop.pass_time(1.0)
        if node.status()["alarm"] and not alarm_s:
            alarm_s = node.loop.now_s - begun_s
    assert 0 < alarm_s <= ALARM_S
    # It goes on meanwhile, as fast as that store lets it.
    assert node.status()["archived_index"] > live.index - ALARM_S
    node.loop.lane_s = 0.0
    node.loop.pass_time(ENOUGH_S)
    assert node.status()["archived_index"] == live.index
    assert not node.status()["alarm"]
    live.close()


def test_under_load_nothing_is_behind_for_a_second(tmp_path: Path) -> None:
    """Twenty writes a second, agreed upon each 0.2 s, and a store that takes 0.1 s for a segment
    and its manifest."""
    live = filled(tmp_path)
    node = Uploader(live, tmp_path / "hashes", "n1", "follower")
    node.loop.pass_time(1.0)
    node.loop.lane_s = 0.1
    behind_s: list[float] = []
    for step in range(400):
        live.run(("INSERT INTO t(x) VALUES (1)",))
        if step % 4 == 0:
            node.agreed = live.index
            node.destination.poke()
        node.loop.pass_time(0.05)
        if step == 100:
            first = node.status()["manifest"]
        if step > 100:
            behind_s.append(node.destination.lag_s())
    assert 0.2 < max(behind_s) <= 1.0
    # And that by no more objects than one each half second.
    assert node.status()["manifest"] - first <= 15 / 0.5 + 1
    # A lone write waits for no turn of the clock.
    node.agreed = 0
    node.loop.pass_time(5.0)
    assert node.status()["lag_entries"] == 0
    live.run(("INSERT INTO t(x) VALUES (1)",))
    node.destination.poke()
    node.loop.pass_time(0.12)
    assert node.status()["lag_entries"] == 0
    live.close()


def test_an_upload_that_is_due_asks_for_the_newest_entries_to_be_agreed_upon(
    tmp_path: Path,
) -> None:
    """Twenty writes a second that nobody agrees upon unasked: what is behind is no older than the
    interval, the answer and the store's time."""
    live = filled(tmp_path)
    node = Uploader(live, tmp_path / "hashes", "n1", "follower")
    node.loop.pass_time(1.0)
    node.agreed, node.answers = live.index, True
    node.loop.lane_s = 0.1
    behind_s: list[float] = []
    for step in range(400):
        live.run(("INSERT INTO t(x) VALUES (1)",))
        if step < 60:
            # It takes over by what was agreed upon unasked.
            node.agreed = live.index
        node.loop.pass_time(0.05)
        if step == 100:
            first = node.status()["manifest"]
        if step > 100:
            behind_s.append(node.destination.lag_s())
    assert 0.2 < max(behind_s) <= 0.7
    assert node.status()["manifest"] - first <= 15 / 0.5 + 1
    # Where nobody answers (a release that does not know the question), it is sent what there is.
    node.answers = False
    node.loop.pass_time(2.0)
    node.agreed = live.index
    for _ in range(4):
        live.run(("INSERT INTO t(x) VALUES (1)",))
    node.loop.pass_time(1.0)
    assert node.status()["lag_entries"] == 4
    # Nothing new, nothing to ask.
    node.agreed = 0
    node.loop.pass_time(1.0)
    asked = len(node.asked)
    node.loop.pass_time(5.0)
    assert len(node.asked) == asked
    assert node.status()["lag_entries"] == 0
    live.close()


def test_two_uploaders_at_once_make_one_whole_chain(tmp_path: Path) -> None:
    two_uploaders(tmp_path)


def test_keys_are_the_ones_that_sealed(tmp_path: Path) -> None:
    live = filled(tmp_path)
    with pytest.raises(Error, match="key"):
        sources(live.store, keyring=Keyring({}))
    assert sources(live.store, keyring=KEYS).problems == []
    live.close()
