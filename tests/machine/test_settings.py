"""Settings of the cluster in the database: logged, equal everywhere, kept over restarts."""

from __future__ import annotations

import json
from pathlib import Path

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
    database.apply(configure(survive=None, feature_level=7))
    assert dict(database.machine.settings) == {
        "leader_preference": ["eu", "us"],
        "feature_level": 7,
    }


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
