"""A cluster that lost its majority goes on from what is left, and says what may be lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import raftdb
from raftdb.base.config import ArchiveConfig
from raftdb.base.errors import ConfigError
from raftdb.base.ids import NodeId
from raftdb.consensus.membership import Remove
from raftdb.consensus.port import Changed
from raftdb.ops.found import found_local
from raftdb.ops.survivors import (
    Account,
    Kept,
    Survivor,
    choose,
    may_lack,
    merge,
    parse_account,
)
from tests.archive.test_uploader import all_archived, cluster, wait_for
from tests.cli.conftest import Command
from tests.cli.conftest import raftdb as command  # noqa: F401


def _log(first: int, *terms: int) -> dict[int, int]:
    return dict(enumerate(terms, start=first))


@pytest.mark.parametrize(
    ("log", "archive", "kept"),
    [
        (_log(5, 1, 1, 1), {}, Kept(7, 7, 0)),
        # The archive is behind, or as far: the log counts.
        (_log(5, 1, 1, 2), _log(6, 1), Kept(7, 7, 0)),
        (_log(5, 1, 1, 2), _log(6, 1, 2), Kept(7, 7, 0)),
        # It has more.
        (_log(5, 1, 1, 2), _log(6, 1, 2, 2, 3), Kept(7, 9, 0)),
        (_log(5, 1), _log(6, 1, 2), Kept(5, 7, 0)),
        # It has something else from 7 on: what the log has there was never committed.
        (_log(5, 1, 1, 2, 2), _log(6, 1, 3), Kept(6, 7, 2)),
        (_log(5, 1, 1, 2), _log(6, 1, 3, 3), Kept(6, 8, 1)),
        (_log(5, 1, 2, 2), _log(6, 3, 3), Kept(5, 7, 2)),
    ],
)
def test_a_log_and_an_archive_are_joined(
    log: dict[int, int], archive: dict[int, int], kept: Kept
) -> None:
    assert merge(log, archive) == kept


@pytest.mark.parametrize(
    ("log", "archive"),
    [
        # Archived is committed, and a later term's log has all that was committed before.
        (_log(5, 1, 1, 4), _log(6, 1, 3)),
        (_log(5, 1, 4), _log(6, 3, 3)),
        # A hole between them.
        (_log(5, 1, 1), _log(9, 3)),
        (_log(5, 1, 1), _log(7, 3)),
        # Nothing in common that could be compared.
        (_log(5, 1, 1, 2), _log(7, 3)),
    ],
)
def test_what_cannot_be_joined_is_refused(log: dict[int, int], archive: dict[int, int]) -> None:
    with pytest.raises(ConfigError, match="do not belong together"):
        merge(log, archive)


def _account(name: str, voters: int, **changes: Any) -> Account:
    known = tuple(f"n{number + 1}" for number in range(voters))
    facts = {"first_index": 1, "last_index": 9, "last_term": 2, "applied_index": 9, "time_ms": 5}
    return Account(name, "c" * 32, "d" * 32, known, **{**facts, **changes})


def test_loss_is_ruled_out_only_when_a_majority_cannot_hide_it() -> None:
    assert may_lack([_account("n1", 3)])
    assert not may_lack([_account("n1", 3), _account("n2", 3)])
    assert not may_lack([_account("n1", 4), _account("n2", 4)])
    assert may_lack([_account("n1", 5), _account("n2", 5)])
    assert may_lack([_account("n1", 3), _account("n2", 3, journal_damage=("x",))])


def _survivor(name: str, **changes: Any) -> Survivor:
    return Survivor(_account(name, 3, **changes), Path(name), None, None, ())  # type: ignore[arg-type]


def test_a_database_counts_where_the_log_behind_it_is_damaged() -> None:
    """Two of three lost the ends of their logs; what they have applied was committed, and the sound
    one lacks it."""
    behind = _survivor("n1", last_index=7, applied_index=6)
    ahead = _survivor("n2", journal_damage=("x",))
    assert choose([behind, ahead], []) == (ahead, ahead)
    # As far as that it is the sound log that counts, and it may be applied to either's database.
    assert choose([_survivor("n1"), ahead], [])[0].account.node_id == "n1"
    later = _survivor("n1", last_index=12, applied_index=6)
    assert choose([later, ahead], []) == (later, later)
    # Of a later term, however short.
    later = _survivor("n1", last_index=8, last_term=3, applied_index=8)
    assert choose([later, ahead], []) == (later, later)
    # Nothing of it is to be relied upon when the database is damaged as well.
    lost = _survivor("n2", journal_damage=("x",), database_damage=("y",))
    assert choose([behind, lost], []) == (behind, behind)
    with pytest.raises(ConfigError, match="no survivor has a journal or a database") as caught:
        choose([lost], [])
    assert caught.value.code == "nothing_to_recover"
    with pytest.raises(ConfigError, match="the newest log is that of n2"):
        choose([behind], [ahead.account])


def test_accounts_travel_as_json() -> None:
    one = _account("n1", 3, database_damage=("a page",))
    assert parse_account(json.loads(json.dumps(one.to_json())), "f") == one
    for change in ({"format": 2}, {"last_index": "9"}, {"voters": 3}, {"history": None}):
        with pytest.raises(ConfigError, match="not an account"):
            parse_account({**one.to_json(), **change}, "f")


@contextmanager
def _started(*directories: Path) -> Iterator[list[raftdb.Node]]:
    nodes = [raftdb.Node(str(directory / "raftdb.toml")) for directory in directories]
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def _insert(connection: raftdb.Connection, first: int, count: int) -> None:
    for number in range(first, first + count):
        connection.execute("INSERT INTO t VALUES (?)", (number,))


def _rows(connection: raftdb.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]


def test_survivors_and_an_archive_make_a_new_cluster(
    tmp_path: Path,
    command: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """n1 stops early, n2 and n3 go on; then their disks are lost. All is in n1 and the archive."""
    url = f"file://{tmp_path}/a"
    home = tmp_path / "c"
    with cluster(home, ArchiveConfig(destinations=(url,), interval_ms=50)) as nodes:
        addresses = ",".join(str(one.client_address) for one in nodes[0].config.members)
        connection = raftdb.connect(f"raftdb://{addresses}/", insecure=True, timeout=20.0)
        connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY)")
        wait_for("a first base", lambda: all_archived(nodes))
        _insert(connection, 0, 20)
        running = command("recover", home / "n1")
        assert running.code == 2
        assert "node_running" in running.err
        nodes[0].stop()
        refused = command("recover", home / "n1")
        assert refused.code == 2
        assert "majority_alive" in refused.err
        _insert(connection, 20, 20)
        wait_for("all of it to be archived", lambda: all_archived(nodes[1:]))
    shutil.rmtree(home / "n2" / "data")
    shutil.move(home / "n3", tmp_path / "n3-old")
    monkeypatch.setenv("RAFTDB_ARCHIVE__DESTINATIONS", url)
    planned = command("recover", home / "n1", "--json")
    assert planned.code == 0, planned
    facts = planned.json()
    assert facts["from_archive"] >= 20
    assert facts["may_be_lost"]
    assert facts["not_seen"] == ["n2", "n3"]
    # Nothing was done.
    assert "history" not in facts
    assert command("recover", home / "n1", "--json").json() == facts
    done = command("recover", home / "n1", "--keep", "n2", "--bundle", tmp_path / "b", "--yes")
    assert done.code == 0, done
    assert "MAY BE LOST" in done.out
    lost = command("rejoin", tmp_path / "b", home / "n2")
    assert lost.code == 2
    assert "disk_lost" in lost.err
    assert command("rejoin", tmp_path / "b", home / "n2", "--lost-disk").code == 0
    twice = command("rejoin", tmp_path / "b", home / "n2", "--lost-disk")
    assert "joined_already" in twice.err
    with _started(home / "n1", home / "n2") as nodes:
        # The client that was connected before goes on in its session.
        _insert(connection, 40, 1)
        assert _rows(connection) == list(range(41))
        connection.close()
        assert len(nodes[0].status()["members"]) == 2
        wait_for("the new one to archive", lambda: all_archived(nodes))
    found = command("archive", "status", "--from", url, "--json").json()
    assert found["destinations"][0]["epoch"] == 2
    assert found["problems"] == []
    # The former data are still there, and recovering from them again is refused.
    assert list((home / "n1").glob("data.before-*"))
    again = command("recover", tmp_path / "n3-old", "--leave", "n1")
    assert again.code == 2
    assert "superseded" in again.err


def _remove(nodes: list[raftdb.Node], node_id: str) -> int:
    """Take a member out, for good; the index of the entry."""

    def ask() -> int:
        leaders = [one for one in nodes if one.running and one.status()["role"] == "leader"]
        done: list[object] = []
        if len(leaders) != 1:
            return 0
        executor, assembly = leaders[0]._executor, leaders[0]._assembly
        assert executor is not None
        assert assembly is not None
        change = assembly.engine.change_members
        executor.call_threadsafe(change, Remove(NodeId(node_id)), done.append)
        wait_for("an answer", lambda: done)
        return int(done[0].index) if isinstance(done[0], Changed) else 0

    return int(wait_for(f"{node_id} to be removed", ask))


def test_without_an_archive_the_newest_survivor_counts(
    tmp_path: Path,
    command: Command,  # noqa: F811
) -> None:
    """Five members, one of which was removed: two of the four that are left hold all there is."""
    home = tmp_path / "c"
    with cluster(home, ArchiveConfig(), nodes=5) as nodes:
        addresses = ",".join(str(one.client_address) for one in nodes[0].config.members)
        connection = raftdb.connect(f"raftdb://{addresses}/", insecure=True, timeout=20.0)
        connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY)")
        index = _remove(nodes, "n1")
        _insert(connection, 0, 10)
        wait_for("n4 to know", lambda: nodes[3].status()["applied_index"] >= index)
        nodes[3].stop()
        _insert(connection, 10, 10)
    account = command("recover", home / "n5", "--json", "--leave", "n4")
    assert account.code == 0, account
    assert account.json()["may_be_lost"]
    (tmp_path / "n5.json").write_text(account.out)
    elsewhere = command("recover", home / "n4", "--account", tmp_path / "n5.json")
    assert "survivor_elsewhere" in elsewhere.err
    removed = command("recover", home / "n4", home / "n5", "--keep", "n1")
    assert "was no member" in removed.err
    done = command("recover", home / "n4", home / "n5", "--yes", "--json")
    assert done.code == 0, done
    facts = done.json()
    assert (facts["log_of"], facts["may_be_lost"], facts["quorum"]) == ("n5", False, 2)
    assert facts["not_seen"] == ["n2", "n3"]
    with _started(home / "n4", home / "n5") as nodes:
        assert _rows(connection) == list(range(20))
        connection.close()
        status = nodes[0].status()
        assert status["history"] == facts["history"]
        assert [one["node_id"] for one in status["members"]] == ["n4", "n5"]
        # The lost ones come back: they hear of it from whomever they reach, and end.
        for name in ("n2", "n3"):
            _ends_superseded(home / name, facts["history"])
        with nodes[0].connect() as one:
            assert _rows(one) == list(range(20))
    with pytest.raises(ConfigError, match="raftdb rejoin") as again:
        raftdb.Node(str(home / "n2" / "raftdb.toml")).start()
    assert again.value.code == "superseded"


def _ends_superseded(directory: Path, history: str) -> None:
    node = raftdb.Node(str(directory / "raftdb.toml"))
    try:
        node.start()
        wait_for("its end", lambda: not node.running)
    except ConfigError:
        # It was told before its ports were open.
        pass
    finally:
        node.stop()
    assert node.failure is not None
    assert (node.failure.code, history in str(node.failure)) == ("superseded", True)


def test_a_recovery_that_fails_leaves_nothing_or_says_how_to_go_on(
    tmp_path: Path,
    command: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, bundle = tmp_path / "c", tmp_path / "b"
    found_local(home, insecure=True)
    recover = ("recover", home / "n1", home / "n2", "--bundle", bundle, "--yes")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(bundle))

    with monkeypatch.context() as patch:
        patch.setattr("raftdb.ops.recover.Machine.capture", full)
        assert command(*recover).code == 2
    assert not bundle.exists()
    with monkeypatch.context() as patch:
        patch.setattr("raftdb.ops.rejoin._write_config", full)
        done = command(*recover)
    assert done.code == 2
    for name in ("n1", "n2"):
        assert f"raftdb rejoin {bundle} {home / name}" in done.err
        assert command("rejoin", bundle, home / name).code == 0
    with _started(home / "n1", home / "n2") as nodes:
        assert len(nodes[0].status()["members"]) == 2
