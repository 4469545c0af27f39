"""Killed between any two file operations: the next try goes on or says what to do, and nothing
half-made starts as if it were whole."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raftdb.base.config import ArchiveConfig, load_config
from raftdb.base.errors import ConfigError, Error, FatalError
from raftdb.base.exits import ExitCode, exit_code
from raftdb.base.ids import Address, HistoryId, NodeId
from raftdb.base.layout import database_path, journal_path
from raftdb.base.settings import MemberConfig
from raftdb.base.startup import check_identity
from raftdb.cli.app import run
from raftdb.cli.member import with_learner
from raftdb.consensus.membership import decode_configuration
from raftdb.journal import inspect_journal
from raftdb.machine import Machine, inspect_database
from raftdb.ops.archive import Destinations
from raftdb.ops.found import LocalCluster, found_cluster, found_local, local_members
from raftdb.ops.member import prepare_member
from raftdb.ops.recreate import recreate_cluster
from raftdb.ops.rejoin import join_from, read_bundle
from raftdb.runtime import RealClock
from raftdb.runtime.files import RealFiles
from raftdb.runtime.log import StreamLog
from raftdb.runtime.random import RealRandom
from tests.archive.support import filled, restored, sources

FILES = RealFiles()
CHANGES = (
    *("open", "rename", "remove", "make_directory", "sync_directory", "lock"),
    *("write_at", "truncate", "sync", "allocate"),
)


class Killed(BaseException):
    """Nothing that comes after it is done, tidying up included."""


class Dying:
    """Files, or an open one, whose owner is killed right before one change."""

    def __init__(self, inner: Any, life: list[int]) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in CHANGES:
            return found

        def change(*arguments: Any, **more: Any) -> Any:
            self._life[0] -= 1
            if self._life[0] < 0:
                raise Killed
            if name in ("sync", "sync_directory"):
                # Who is killed loses nothing that was written.
                return None
            done = found(*arguments, **more)
            return Dying(done, self._life) if name == "open" else done

        return change


@contextmanager
def dying_after(changes: int, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Files of a process that is killed then; `finished` is in what it yields if it was not."""
    life = [changes]
    files: Any = Dying(FILES, life)
    remove_tree = shutil.rmtree

    def only_alive(*arguments: Any, **more: Any) -> None:
        if life[0] >= 0:
            remove_tree(*arguments, **more)

    with patch.context() as inner:
        inner.setattr(shutil, "rmtree", only_alive)
        try:
            yield files
        except Killed:
            files.__dict__["killed"] = True


def starts(config_file: Path) -> bool:
    """Whether a node would begin on what is there; then all of it has to be there. What does not
    begin says why, and what to do."""
    if not config_file.is_file():
        return False
    try:
        config = load_config(str(config_file))
        check_identity(FILES, config)
        report = inspect_journal(FILES, journal_path(config.data_dir))
        machine = Machine.open(
            database_path(config.data_dir),
            history=config.history,
            limits=config.limits,
            files=FILES,
            log=StreamLog(level="error"),
        )
        applied = int(machine.applied()[0])
        machine.close()
    except Error:
        return False
    assert not report.damage
    assert report.first_index <= applied + 1
    return True


def every_kill(
    try_it: Callable[[Any], None], patch: pytest.MonkeyPatch, step: int = 1
) -> Iterator[int]:
    """Each place in turn (or each `step`th), until one try comes to its end."""
    for changes in itertools.count(step=step):
        with dying_after(changes, patch) as files:
            try_it(files)
        if "killed" not in files.__dict__:
            return
        yield changes


def test_a_founding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "c"

    def found(files: Any) -> None:
        members = local_members(1, 20_001)
        found_cluster(place, members, files, RealRandom(), RealClock(), insecure=True)

    whole = 0
    for _changes in every_kill(found, monkeypatch, 3):
        whole += starts(place / "n1" / "raftdb.toml")
        if place.exists() and any(place.iterdir()):
            with pytest.raises(ConfigError, match="is not empty"):
                found(FILES)
        shutil.rmtree(place, ignore_errors=True)
    # What is left then is the client's file.
    assert whole < 6
    assert starts(place / "n1" / "raftdb.toml")


def test_a_restored_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there of a node starts with all that was restored, or not at all."""
    live = filled(tmp_path)
    found = sources(live.store)
    point = found.last()
    _plan, done = restored(found, tmp_path / "work", point)
    archives = tuple(one.archive for one in found.timelines)
    place = tmp_path / "c"

    def recreate(files: Any) -> None:
        recreate_cluster(
            *(Destinations(archives, found, ()), done, place, local_members(2, 20_001)),
            replace=True,
            history=HistoryId("e" * 32),
            files=files,
            random=RealRandom(),
            clock=RealClock(),
            insecure=True,
            archive=ArchiveConfig(),
        )

    def holds(name: str) -> bool:
        if not starts(place / name / "raftdb.toml"):
            return False
        config = load_config(str(place / name / "raftdb.toml"))
        report = inspect_database(database_path(config.data_dir), files=FILES)
        assert (int(report.index), report.content.total) == (done.index, done.content)
        assert report.history == config.history
        return True

    begun = [0, 0]
    for _changes in every_kill(recreate, monkeypatch, 11):
        begun = [begun[0] + holds("n1"), begun[1] + holds("n2")]
        shutil.rmtree(place, ignore_errors=True)
    assert 0 < begun[1] < begun[0]
    assert holds("n1")
    assert holds("n2")
    live.close()


def test_a_member_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS nothing but its configuration keeps it from starting as a voter."""
    founded = found_local(tmp_path / "c", insecure=True)
    place = founded.directory / "n4"
    known = [member_facts(one) for one in founded.members]
    new = MemberConfig(NodeId("n4"), "a/b", Address("127.0.0.1", 9), Address("127.0.0.1", 8))
    status = {"cluster_id": founded.cluster_id, "history": founded.history}

    def prepare(files: Any) -> None:
        prepare_member(
            *(founded.directory, new, status, known, files, RealRandom(), RealClock()),
            with_learner,
            insecure=True,
        )

    for _changes in every_kill(prepare, monkeypatch, 3):
        if (place / "raftdb.toml").exists():
            assert is_learner(place)
        elif place.exists():
            with pytest.raises(ConfigError, match="exists") as caught:
                prepare(FILES)
            assert "may be deleted" in caught.value.hint
        shutil.rmtree(place, ignore_errors=True)
    assert is_learner(place)


def member_facts(one: MemberConfig) -> dict[str, str]:
    return {
        "node_id": one.node_id,
        "location": one.location,
        "peer_address": str(one.peer_address),
        "client_address": str(one.client_address),
    }


def is_learner(directory: Path) -> bool:
    """It is whole, and takes itself for a node that counts nowhere."""
    if not starts(directory / "raftdb.toml"):
        return False
    config = load_config(str(directory / "raftdb.toml"))
    machine = Machine.open(
        database_path(config.data_dir),
        history=config.history,
        limits=config.limits,
        files=FILES,
        log=StreamLog(level="error"),
    )
    try:
        found = machine.configuration()
        assert found is not None
        return str(config.node_id) not in decode_configuration(found[1]).voters
    finally:
        machine.close()


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LocalCluster]:
    """The bundle of a recovery, and the cluster's directory: n2 and n3 have not joined yet."""
    home = tmp_path_factory.mktemp("recovered")
    founded = found_local(home / "c", insecure=True)
    done = run(
        [
            *("recover", str(home / "c" / "n1"), "--keep", "n2", "--keep", "n3", "--yes"),
            *("--bundle", str(home / "b"), "--leave", "n2", "--leave", "n3"),
        ]
    )
    assert done == 0
    return home / "b", founded


@pytest.mark.parametrize("lost_disk", [False, True])
def test_a_node_that_joins_a_recovered_cluster(
    recovered: tuple[Path, LocalCluster],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost_disk: bool,
) -> None:
    place, founded = recovered
    bundle, node = read_bundle(place, FILES), tmp_path / "n2"

    def fresh() -> None:
        shutil.rmtree(node, ignore_errors=True)
        shutil.copytree(founded.directory / "n2", node)
        if lost_disk:
            shutil.rmtree(node / "data")

    def join(files: Any) -> None:
        join_from(bundle, node, files, RealRandom(), lost_disk=lost_disk)

    def history() -> str:
        return load_config(str(node / "raftdb.toml")).history

    fresh()
    for _changes in every_kill(join, monkeypatch, 4):
        if starts(node / "raftdb.toml"):
            # As it was before, or as a whole member of the new history.
            assert history() == bundle.history or not lost_disk
        if history() == bundle.history:
            with pytest.raises(ConfigError) as caught:
                join(FILES)
            assert caught.value.code == "joined_already"
        else:
            join(FILES)
        assert starts(node / "raftdb.toml")
        assert history() == bundle.history
        assert lost_disk or len(list(node.glob("data.before-*"))) == 1
        fresh()
    assert starts(node / "raftdb.toml")


def test_a_disk_that_is_full_breaks_no_promise_of_what_is_not_made_yet(
    recovered: tuple[Path, LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise FatalError("the database failed: FullError", code="database_failed")

    def found() -> None:
        found_local(tmp_path / "c", insecure=True)

    bundle, node = recovered[0], tmp_path / "n3"
    shutil.copytree(recovered[1].directory / "n3", node)

    def rejoin() -> None:
        join_from(read_bundle(bundle, FILES), node, FILES, RealRandom())

    for name, make in (("create", found), ("install", rejoin)):
        with monkeypatch.context() as patch:
            patch.setattr(Machine, name, full)
            with pytest.raises(ConfigError, match="FullError") as caught:
                make()
        assert (caught.value.code, exit_code(caught.value)) == ("not_made", ExitCode.USAGE)
        make()
