"""The seams: pinned to one source, and closed to everything that the engine must not do."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import sys
import threading
from pathlib import Path

import pysyncobj
import pysyncobj.pickle
import pysyncobj.syncobj
import pytest

from raftdb.base.errors import ConfigError, InternalError
from raftdb.consensus import seams
from raftdb.consensus.log import LibraryLog
from tests.consensus.bench import Bench, HalfRandom, HandClock, HandJournal

# When this fails, the library's source has changed: read the difference, run each row of
# raftdb/consensus/DESIGN.md again (tests/consensus, python -m tests.sim planted), then pin
# it here.
SOURCES = {
    "syncobj.py": "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4",
    "node.py": "e4a3f027cd8291f558334bb9c977e952f6b6989e7e1fa1588d3005ef0b990e2c",
    "transport.py": "0c9d89f9c4781ec9772df8011d7975a1a4a1a5f541357e12eae85a813e92b50b",
    "config.py": "fbbc7ff9f18e4d15a7fd563376e42f5bd192956879d4b810b056d5248b955698",
    "fast_queue.py": "8477fe5fdf36d9766df933310d3d66ee953d1afc195b1e6482b3a1498fc517bd",
    "version.py": "0b8426a8b52ecf874193897d26c4214acbd85335145ea9ff17e27a22b1132943",
}


class NoWatch:
    def library_appends(self, first: int, entries: object) -> None: ...

    def library_truncates(self, index: int) -> None: ...


def test_the_library_is_the_one_that_the_wall_was_built_around() -> None:
    directory = Path(str(pysyncobj.__file__)).parent
    found = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in SOURCES}
    assert found == SOURCES


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "_code", None)
    monkeypatch.setattr("pysyncobj.version.VERSION", "0.3.18")
    with pytest.raises(ConfigError, match=r"0\.3\.18"):
        seams._load_code()


def test_pickles_of_the_library_are_closed() -> None:
    module = seams.load_namespace(HandClock(), HalfRandom(), LibraryLog(HandJournal(), NoWatch()))
    bomb = pickle.dumps(("x",))
    for call in (module.pickle.loads, module.pickle.load, module.pickle.dumps, module.pickle.dump):
        with pytest.raises(InternalError, match="unpickle"):
            call(bomb)


def test_everything_that_opens_starts_or_sleeps_is_closed() -> None:
    module = seams.load_namespace(HandClock(), HalfRandom(), LibraryLog(HandJournal(), NoWatch()))
    for name in ("os", "time", "sys", "TCPTransport", "TCPNode", "PipeNotifier", "getEncryptor"):
        with pytest.raises(InternalError, match=name):
            getattr(module, name)()
        with pytest.raises(InternalError, match=name):
            _ = getattr(module, name).anything
    assert not hasattr(module.threading, "Thread")


def test_a_program_that_uses_pysyncobj_itself_keeps_its_own() -> None:
    before = dict(pysyncobj.syncobj.__dict__)
    Bench().elect()
    assert dict(pysyncobj.syncobj.__dict__) == before
    assert pysyncobj.pickle.loads(pysyncobj.pickle.dumps([1])) == [1]


def test_engines_in_one_process_have_their_own_clocks_and_globals() -> None:
    one, two = Bench(), Bench()
    two.clock.now_s = 5_000.0
    one.elect()
    two.elect()
    assert one.library.last_response_s("n2") < 200
    assert two.library.last_response_s("n2") > 5_000
    assert type(one.library.raft) is not type(two.library.raft)


def test_nothing_is_opened_started_or_looked_up() -> None:
    seams._load_code()
    seen: list[str] = []
    watching = True
    watched = (
        "socket.",
        "open",
        "os.fork",
        "subprocess",
        "pickle.",
        "os.system",
        "mmap",
        "os.pipe",
    )

    def hook(event: str, arguments: object) -> None:
        if watching and event.startswith(watched):
            seen.append(f"{event} {arguments!r}")

    sys.addaudithook(hook)
    threads = threading.active_count()
    try:
        bench = Bench()
        bench.elect()
        bench.append(3)
    finally:
        watching = False
    assert seen == []
    assert threading.active_count() == threads


def test_sets_of_nodes_do_not_depend_on_string_hashes() -> None:
    nodes = Bench(size=5).library._nodes
    assert [hash(node) for node in nodes.values()] == [1, 2, 3, 4, 5]
    assert nodes["n2"] == seams.PeerNode("n2", 2)
    assert nodes["n2"] != seams.PeerNode("n3", 3)


def test_every_override_still_overrides_something() -> None:
    spec = importlib.util.find_spec("pysyncobj.syncobj")
    assert spec is not None
    names = [name for name in vars(seams._Overrides) if not name.startswith("__")]
    overrides = [name for name in names if not name.startswith("seam_")]
    assert len(overrides) >= 12
    for name in overrides:
        assert hasattr(pysyncobj.syncobj.SyncObj, name), name
