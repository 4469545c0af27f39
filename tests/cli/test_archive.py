"""`raftdb archive`, `raftdb restore` and `raftdb undelete` against an archive made by hand."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raftdb.archive import Keyring, Point, open_store
from raftdb.archive.retention import DAY_MS, Retention
from raftdb.base.errors import ConfigError, IntegrityError
from raftdb.cli.restore import _not_undeleted
from raftdb.ops.prune import prune
from raftdb.runtime import RealClock
from tests.archive.support import KEYS, Live, filled
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Path, Path]]:
    directory = tmp_path_factory.mktemp("archive")
    found = filled(directory)
    found.run(("DROP TABLE t",))
    found.segment()
    keys = directory / "keys"
    keys.write_text("".join(f"{name} {key.hex()}\n" for name, key in KEYS.keys.items()))
    yield found, directory / "archive", keys
    found.close()


def test_status_list_log_and_verify(raftdb: Command, live: tuple[Live, Path, Path]) -> None:
    found, archive, keys = live
    options = ("--from", str(archive), "--key-file", str(keys))
    done = raftdb("archive", "status", *options, "--json")
    assert done.code == 0, done
    [facts] = done.json()["destinations"]
    assert facts["last_index"] == found.index
    assert facts["encrypted"]
    kinds = [one["kind"] for one in raftdb("archive", "list", *options, "--json").json()]
    assert kinds == ["base", "base"]
    lines = raftdb("archive", "log", *options, "--search", "drop  TABLE", "--json").out.splitlines()
    [line] = [json.loads(one) for one in lines]
    assert line["before"] == str(found.index - 1)
    assert line["tables"] == ["t"]
    done = raftdb("archive", "verify", *options, "--restore", "--json")
    assert done.code == 0, done
    [restored] = done.json()["restores"]
    assert restored["content"] == found.machine.content_hash().total.hex()
    assert raftdb("archive", "status", *options, "--json").json()["destinations"][0]["verified"]


def test_restore_to_a_file(raftdb: Command, live: tuple[Live, Path, Path], tmp_path: Path) -> None:
    found, archive, keys = live
    options = ("--from", str(archive), "--key-file", str(keys))
    target = tmp_path / "restored.db"
    moment = ("--before-statement", "drop table t")
    plan = raftdb("restore", *options, *moment, "--to", str(target), "--plan", "--json")
    assert plan.code == 0, plan
    assert plan.json()["target"] == str(found.index - 1)
    assert not target.exists()
    done = raftdb("restore", *options, *moment, "--to", str(target), "--json")
    assert done.code == 0, done
    assert done.json()["proven"]
    with closing(sqlite3.connect(target)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")]
        assert names == ["t"]
        [(rows,)] = connection.execute("SELECT count(*) FROM t")
        assert rows == sum(1 for index, _place in found.hashes if index >= 3) - 1
    assert list(tmp_path.iterdir()) == [target]
    again = raftdb("restore", *options, "--to", str(target))
    assert again.code == 2
    assert "overwrites nothing" in again.err


def test_damage_is_an_error_and_not_an_early_end(
    raftdb: Command, live: tuple[Live, Path, Path], tmp_path: Path
) -> None:
    _found, archive, keys = live
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    last = sorted((copy / "e00000001" / "segments").iterdir())[-1]
    last.unlink()
    options = ("--from", str(copy), "--key-file", str(keys))
    done = raftdb("archive", "verify", *options)
    assert done.code == 4
    assert f"DAMAGE e00000001/segments/{last.name}: is missing" in done.out
    done = raftdb("restore", *options, "--to", str(tmp_path / "x.db"))
    assert done.code == 4, done
    assert last.name in done.err
    assert not (tmp_path / "x.db").exists()
    both = ("--from", f"{copy},{archive}", "--key-file", str(keys))
    assert raftdb("restore", *both, "--to", str(tmp_path / "x.db")).code == 0


def test_bad_questions(raftdb: Command, live: tuple[Live, Path, Path], tmp_path: Path) -> None:
    _found, archive, keys = live
    target = str(tmp_path / "x.db")
    options = ("--from", str(archive), "--key-file", str(keys))
    for arguments, words in (
        (("restore", "--to", target), "no destination"),
        (("restore", "--from", str(tmp_path), "--to", target), "no archive"),
        (("restore", "--from", str(archive), "--to", target), "key 'k1'"),
        (("restore", *options, "--to", target, "--index", "99999"), "ends at entry"),
        (("restore", *options, "--to", target, "--index", "x"), "not a point"),
        (("restore", *options, "--to", target, "--mark", "x"), "no mark"),
        (("restore", *options, "--to", target, "--at", "noon"), "not a time"),
        (("restore", *options, "--to", target, "--at", "2001-01-01"), "begins after"),
        (("restore", *options, "--to", target, "--at", "2030-01-01", "--index", "3"), "more than"),
        (("restore", *options, "--to", target, "--at", "2100-01-01"), "still to come"),
        (("restore", *options), "Where to?"),
        (("restore", *options, "--to", str(tmp_path)), "there already"),
        (("restore", *options, "--to", target, "--before-statement", "nowhere"), "no statement"),
    ):
        done = raftdb(*arguments)
        assert done.code == 2, (arguments, done)
        assert words in done.err, (arguments, done.err)


def test_keygen(raftdb: Command, tmp_path: Path) -> None:
    path = tmp_path / "archive.keys"
    assert raftdb("archive", "keygen", str(path)).code == 0
    done = raftdb("archive", "keygen", str(path), "--json")
    assert done.json()["key"] == "k2"
    lines = path.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["k2", "#", "k1"]
    assert path.stat().st_mode & 0o077 == 0
    assert raftdb("archive", "keygen", str(path), "--id", "k1").code == 2


def test_prune_and_hold(raftdb: Command, live: tuple[Live, Path, Path], tmp_path: Path) -> None:
    _found, archive, keys = live
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    options = ("--from", str(copy), "--key-file", str(keys))
    shown = raftdb("archive", "prune", *options, "--days", "0", "--dry-run", "--json").json()
    assert shown[0]["would_delete"] > 0
    assert shown[0]["deleted"] == 0
    assert raftdb("archive", "hold", "case-7", *options).code == 0
    done = raftdb("archive", "prune", *options, "--days", "0")
    assert done.code == 2
    assert "case-7" in done.err
    assert raftdb("archive", "release", "case-8", *options).code == 2
    assert raftdb("archive", "release", "case-7", *options).code == 0
    done = raftdb("archive", "prune", *options, "--days", "0", "--json")
    assert done.json()[0]["deleted"] == shown[0]["would_delete"]
    assert raftdb("archive", "verify", *options).code == 0
    done = raftdb("restore", *options, "--to", str(tmp_path / "x.db"), "--json")
    assert done.json()["proven"]


class Ahead(RealClock):
    """Of a machine whose clock is forty days ahead."""

    def wall_ms(self) -> int:
        return super().wall_ms() + 40 * DAY_MS


def test_a_pruner_whose_clock_is_ahead_deletes_nothing(
    live: tuple[Live, Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(live[1], copy)
    before = sorted(path for path in copy.rglob("*") if path.is_file())

    def pruned(clock: RealClock) -> int:
        [done] = prune([f"file://{copy}"], KEYS, Retention(0, 0, 0, 0), clock, dry_run=False)
        return int(done["deleted"])

    with pytest.raises(ConfigError, match="hours ahead of") as caught:
        pruned(Ahead())
    assert caught.value.code == "clock_ahead"
    assert sorted(path for path in copy.rglob("*") if path.is_file()) == before
    # Where nothing was archived of late, the store's time is asked for.
    for path in before:
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with pytest.raises(ConfigError, match="hours ahead of"):
        pruned(Ahead())
    assert sorted(path for path in copy.rglob("*") if path.is_file()) == before
    assert pruned(RealClock()) > 0


def test_a_cluster_that_was_half_restored_says_how_to_go_on(
    raftdb: Command, live: tuple[Live, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "new" / "n1").mkdir(parents=True)
    (tmp_path / "new.restoring").mkdir()
    options = ("--from", live[1], "--key-file", live[2], "--local", 3, "--clone")
    done = raftdb("restore", *options, "--to", tmp_path / "new")
    assert done.code == 2
    said = " ".join(done.err.split())
    assert f"delete {tmp_path / 'new'} and run the same command again" in said


def test_what_stops_an_undelete_is_said_in_its_own_words() -> None:
    """Nobody knows the scratch file; and whoever undeletes has no file to mend."""
    taken = IntegrityError("t, line 1: UNIQUE", code="constraint_rowid", hint="nothing was loaded")
    said = _not_undeleted(taken, "/tmp/x/restored.db", Point(9), "abort")
    assert "--on-conflict ignore" in said.hint
    assert _not_undeleted(taken, "/tmp/x/restored.db", Point(9), "ignore") is taken
    absent = ConfigError("/tmp/x/restored.db has no table 'u'", hint="it has t")
    said = _not_undeleted(absent, "/tmp/x/restored.db", Point(9, 1), "abort")
    assert str(said) == "the database as of 9.1 has no table 'u' (it has t)"


def test_what_was_never_written_has_no_time(tmp_path: Path, raftdb: Command) -> None:
    """A copy of a database in which nobody has done anything is of no moment, not of 1970."""
    live = Live(tmp_path, open_store(f"file://{tmp_path}/archive"), Keyring({}))
    live.base()
    live.close()
    place = ("--from", f"file://{tmp_path}/archive")
    for arguments in (
        ("archive", "list"),
        ("archive", "status"),
        ("restore", "--to", str(tmp_path / "x.db"), "--plan"),
        ("restore", "--to", str(tmp_path / "x.db")),
    ):
        done = raftdb(*arguments, *place)
        assert done.code == 0, done.err
        assert "1970" not in done.out + done.err
