"""Settings of the cluster in the database: logged, equal everywhere, kept over restarts."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from raftdb.base.errors import FatalError
from raftdb.command import Configure, Failed, Results, Statement
from tests.machine.support import Database, replay, stamp


def configure(**changes: object) -> Configure:
    return Configure(stamp(5), dict(changes))


def test_they_are_changed_by_requests_and_survive_a_restart(database: Database) -> None:
    assert dict(database.machine.settings) == {}
    before = database.machine.settings
    reply = database.apply(configure(survive="region", leader_preference=("eu", "us")))
    assert isinstance(reply, Results)
    [(text,)] = reply.statements[0].rows
    wanted = {"survive": "region", "leader_preference": ["eu", "us"]}
    assert json.loads(str(text)) == dict(database.machine.settings) == wanted
    assert dict(before) == {}, "who holds the old ones sees them unchanged"
    database.restart()
    assert dict(database.machine.settings) == wanted
    database.apply(configure(survive=None, not_known_here=7))
    assert dict(database.machine.settings) == {
        "leader_preference": ["eu", "us"],
        "not_known_here": 7,
    }


def stored_format(database: Database, place: Path) -> str:
    """By plain SQLite, in a copy: it would write pages without checksums."""
    database.machine.close()
    shutil.copytree(database.directory, place)
    database.machine = database.open()
    with closing(sqlite3.connect(next(place.glob("generation-*/database.sqlite")))) as connection:
        [(value,)] = connection.execute(
            "SELECT value FROM _raftdb_meta WHERE key = 'format_version'"
        )
    return str(value)


def test_the_feature_level_only_rises_and_fences_the_database(
    database: Database, tmp_path: Path
) -> None:
    """A lower one that was proposed before a higher one was known changes nothing; what runs level
    1 only must not open the file afterwards."""
    assert stored_format(database, tmp_path / "before") == "2"
    reply = database.apply(configure(feature_level=2))
    assert isinstance(reply, Results)
    assert json.loads(str(reply.statements[0].rows[0][0])) == {"feature_level": 2}
    assert stored_format(database, tmp_path / "after") == "3"
    for lower in (1, 0, None, True, "2", [2], -1):
        database.apply(configure(feature_level=lower))
        assert dict(database.machine.settings) == {"feature_level": 2}
    database.restart()
    assert dict(database.machine.settings) == {"feature_level": 2}


def test_the_fence_goes_with_its_request(database: Database, tmp_path: Path) -> None:
    """Neighbours of a request that ends the transaction are applied again: so is the fence."""
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    database.batch(
        configure(feature_level=2), database.request("INSERT OR ROLLBACK INTO t VALUES (1)")
    )
    assert dict(database.machine.settings) == {"feature_level": 2}
    assert stored_format(database, tmp_path / "after") == "3"


def test_a_level_that_is_not_known_stops_the_node_and_nothing_is_applied(
    database: Database,
) -> None:
    before = database.machine.applied()
    with pytest.raises(FatalError, match="raised to 3, and this release runs up to 2") as caught:
        database.apply(configure(feature_level=3))
    assert caught.value.code == "feature_level"
    assert "install" in caught.value.hint
    database.restart()
    assert (database.machine.applied(), dict(database.machine.settings)) == (before, {})


def test_replicas_agree_in_content_and_results(database: Database, tmp_path: Path) -> None:
    database.run("CREATE TABLE t(a)")
    database.apply(configure(durability="locations=3", more={"b": [1, True, None]}))
    database.run("INSERT INTO t VALUES (1)")
    other = replay(tmp_path / "other", database.entries)
    assert dict(other.settings) == dict(database.machine.settings)
    assert other.content_hash() == database.machine.content_hash()
    other.close()


def test_a_transaction_that_is_lost_takes_its_neighbours_change_with_it_and_brings_it_again(
    database: Database,
) -> None:
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    first, _second = database.batch(
        configure(survive="zone"),
        database.request("INSERT OR ROLLBACK INTO t VALUES (1)"),
    )
    assert isinstance(first, Results)
    assert isinstance(_second, Failed)
    assert dict(database.machine.settings) == {"survive": "zone"}
    database.restart()
    assert dict(database.machine.settings) == {"survive": "zone"}


def test_users_cannot_write_them(database: Database) -> None:
    database.apply(configure(survive="node"))
    error = database.fail("UPDATE _raftdb_meta SET value = '{}' WHERE key = 'settings'")
    assert error.outcome == "not_applied"
    found = database.machine.query(Statement("SELECT 1"))
    assert found.statements
    assert dict(database.machine.settings) == {"survive": "node"}
