"""An archive attacked from outside: its objects damaged one by one, each time looked at by what an
operator has, `raftdb archive verify` and `raftdb restore`.

A damage is *found* when verifying names the object, or what it belongs to. A restore is *silent*
when it ends well and yet holds less, or something else, than the whole archive has. There must be
none of either kind, for any object, in any way, in each of the `SCENES`.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raftdb.archive import Archive, Claim, Keyring, Point, load_timeline, open_store
from raftdb.archive.merged import Merger
from raftdb.archive.retention import DAY_MS, Retention, carry_out, plan_pruning
from raftdb.cli.app import run as cli
from tests.archive.support import KEYS, Live, filled, sealer
from tests.machine.support import HISTORY, START_MS

PLAIN = Keyring({})
PROCESS_S = 120.0
Change = Callable[[bytes, bytes, bytes, random.Random], bytes | None]


def _truncated(data: bytes, _other: bytes, _older: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def _tampered(data: bytes, _other: bytes, _older: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


DAMAGES: dict[str, Change] = {
    "deleted": lambda _data, _other, _older, _draw: None,
    "empty": lambda _data, _other, _older, _draw: b"",
    "truncated": _truncated,
    "tampered": _tampered,
    "longer": lambda data, _other, _older, draw: data + draw.randbytes(9),
    "swapped": lambda _data, other, _older, _draw: other,
    "replayed": lambda _data, _other, older, _draw: older,
}
"""Each makes other bytes of an object's, or none. `other`: of its folder; `older`: what stands
under that name, or in that folder, in another archive of the same cluster and keys."""


# ---- scenes


@dataclass
class Scene:
    """A whole archive, in one place or two, and what it restores to."""

    name: str
    root: Path
    keyring: Keyring
    content: bytes
    index: int
    older: Path
    second: Path | None = None
    """Another destination, with the same objects."""
    rows: list[Any] = field(default_factory=list)
    """Of an undamaged restore."""


def _marked(live: Live) -> None:
    """What names no segment stands at the chain's end: nobody else would miss it."""
    live.tail = live.writer.verified(live.tail, live.index, b"", "restored in 1 s")
    live.tail = live.writer.mark(live.tail, live.term, live.index, 0, "the end")


def _simple(directory: Path, keyring: Keyring, seed: int) -> Live:
    live = filled(directory, keyring=keyring, seed=seed)
    _marked(live)
    return live


def _packs(directory: Path, keyring: Keyring, seed: int) -> Live:
    """A base of several packs, and one that shares some of them."""
    drawn = random.Random(seed)
    live = Live(directory, open_store(f"file://{directory}/archive"), keyring)
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    for _ in range(6):
        live.run((f"INSERT INTO t(x) VALUES (x'{drawn.randbytes(1 << 20).hex()}')",))
    live.base()
    live.run(("INSERT INTO t(x) VALUES ('small')",))
    live.segment()
    live.base()
    live.run(("INSERT INTO t(x) VALUES ('last')",))
    live.segment()
    return live


def _pruned(directory: Path, keyring: Keyring, seed: int) -> Live:
    """Some older bases were kept, the log between them was not."""
    drawn = random.Random(seed)
    live = Live(directory, open_store(f"file://{directory}/archive"), keyring)
    live.run(("CREATE TABLE t(id INTEGER PRIMARY KEY, x)",))
    for day in range(12):
        live.writer._wall_ms = lambda day=day: START_MS + day * DAY_MS
        live.base()
        live.run((f"INSERT INTO t(x) VALUES ('{drawn.randbytes(8).hex()}')",))
        live.segment()
    timeline = load_timeline(Archive.open(live.store, sealer(keyring)))
    plan = plan_pruning(timeline, Retention(4, 7, 0, 0), START_MS + 12 * DAY_MS)
    assert plan.doomed
    carry_out(timeline, plan, open_store(f"file://{directory}/archive"))
    return live


def _merged(directory: Path, keyring: Keyring, seed: int) -> Live:
    """Old segments were made one, and the small ones are gone."""
    live = filled(directory, keyring=keyring, seed=seed)
    for number in range(6):
        live.run((f"INSERT INTO t(x) VALUES ({number})",))
        live.segment()
        if number in (2, 4):
            live.base()
    archive = Archive.open(live.store, sealer(keyring))
    merger = Merger(archive, 1, HISTORY, os.urandom)
    merger.run(1, START_MS, START_MS, dry_run=False)
    assert merger.objects >= 2
    for path in (directory / "archive").rglob("*"):
        # The store's time is that of its newest object.
        made_ms = START_MS + 3 * DAY_MS if path.parent.name == "epochs" else START_MS
        os.utime(path, (made_ms / 1000, made_ms / 1000))
    timeline = load_timeline(archive)
    plan = plan_pruning(timeline, Retention(), START_MS + 3 * DAY_MS)
    assert plan.doomed
    carry_out(timeline, plan, open_store(f"file://{directory}/archive"))
    return live


def _forked(directory: Path, keyring: Keyring, seed: int) -> Live:
    """A later epoch goes on from an earlier moment."""
    live = filled(directory, keyring=keyring, seed=seed)
    history = "f" * 32
    claim = Claim(2, history, 1, live.index, 0, "replace", START_MS, "restore")
    assert live.archive.make_claim(claim)
    live.writer = live.new_writer("n1", history)
    live.tail = live.writer.begin()
    live.previous = None
    live.base()
    live.run(("INSERT INTO t(x) VALUES ('of the second epoch')",))
    live.segment()
    return live


BUILDERS: dict[str, tuple[Callable[[Path, Keyring, int], Live], Keyring]] = {
    "sealed": (_simple, KEYS),
    "plain": (_simple, PLAIN),
    "packs": (_packs, KEYS),
    "pruned": (_pruned, KEYS),
    "pruned plain": (_pruned, PLAIN),
    "merged": (_merged, KEYS),
    "merged plain": (_merged, PLAIN),
    "two epochs": (_forked, KEYS),
}
TWO = "two destinations"
SCENES = (*BUILDERS, TWO)


def build(name: str, place: Path) -> Scene:
    """Make a scene's archive, and another one that objects are replayed from."""
    builder, keyring = BUILDERS["sealed" if name == TWO else name]
    live = builder(place / "live", keyring, 1)
    content, index = live.machine.content_hash().total, live.index
    live.close()
    older = builder(place / "older", keyring, 2)
    older.close()
    root = place / "live" / "archive"
    scene = Scene(name, root, keyring, content, index, place / "older" / "archive")
    if name == TWO:
        scene.second = place / "second"
        shutil.copytree(root, scene.second)
    return scene


def objects(root: Path) -> list[str]:
    """Their names."""
    return sorted(str(one.relative_to(root)) for one in root.rglob("*") if one.is_file())


def damaged_bytes(scene: Scene, name: str, damage: str, draw: random.Random) -> bytes | None:
    """What is to stand there instead; the same bytes where there is nothing of that kind."""
    data = (scene.root / name).read_bytes()
    folder = name.rpartition("/")[0]
    near = [one for one in objects(scene.root) if one.rpartition("/")[0] == folder and one != name]
    far = [one for one in objects(scene.root) if one != name]
    other = (scene.root / draw.choice(near or far)).read_bytes()
    alike = [one for one in objects(scene.older) if one == name]
    alike = alike or [one for one in objects(scene.older) if one.rpartition("/")[0] == folder]
    older = (scene.older / draw.choice(alike)).read_bytes() if alike else data
    return DAMAGES[damage](data, other, older, draw)


# ---- what an operator has


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.out + self.err


Run = Callable[[Sequence[str], Keyring], Said]


def environment(keyring: Keyring) -> dict[str, str]:
    """A process's, with the keys."""
    keys = ",".join(f"{name}:{key.hex()}" for name, key in keyring.keys.items())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAFTDB_")}
    return {**kept, "RAFTDB_ARCHIVE_KEYS": keys} if keys else kept


def process(arguments: Sequence[str], keyring: Keyring) -> Said:
    """A real one."""
    done = subprocess.run(
        [sys.executable, "-m", "raftdb.cli", *arguments],
        env=environment(keyring),
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def here(arguments: Sequence[str], keyring: Keyring) -> Said:
    """In this process, which is several times as quick."""
    out, err = io.StringIO(), io.StringIO()
    wanted, before = environment(keyring), dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(wanted)
        with redirect_stdout(out), redirect_stderr(err):
            code = cli([*arguments])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Said(code, out.getvalue(), err.getvalue())


def rows_of(path: Path) -> list[Any]:
    """Everything in a restored file."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY 1").fetchall()
        return [tables] + [
            connection.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()
            for name, sql in tables
            if sql and sql.startswith("CREATE TABLE")
        ]


def names_it(text: str, name: str) -> bool:
    """Whether a message names the object; of retention's record, which is the only thing that says
    where the chain begins, its folder."""
    folder = name.rpartition("/")[0] + "/:"
    return name in text or ("/pruned/" in name and folder in text)


def urls(scene: Scene) -> str:
    """For --from."""
    places = [scene.root, *([scene.second] if scene.second is not None else [])]
    return ",".join(f"file://{one}" for one in places)


def restore(scene: Scene, run: Run, target: Path) -> tuple[Said, str]:
    """Restore the newest moment; what is wrong with the outcome, if anything."""
    said = run(("restore", "--from", urls(scene), "--to", str(target), "--json"), scene.keyring)
    there = target.exists()
    try:
        if said.code:
            return said, "it failed, and left a file" if there else ""
        facts = json.loads(said.out)
        if facts["point"] != str(Point(scene.index)):
            return said, f"SILENT: it ended at {facts['point']}, not {scene.index}"
        if facts["content_hash"] != scene.content.hex():
            return said, "SILENT: it holds something else"
        rows = rows_of(target)
        scene.rows = scene.rows or rows
        return said, "" if rows == scene.rows else "SILENT: its rows are others"
    finally:
        target.unlink(missing_ok=True)
        shutil.rmtree(target.with_name(target.name + ".restoring"), ignore_errors=True)


def verify(scene: Scene, run: Run) -> Said:
    """Read every object."""
    return run(("archive", "verify", "--from", urls(scene), "--json"), scene.keyring)


# ---- the attack


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one damage to one object."""

    scene: str
    object: str
    damage: str
    restored: bool
    """All of it, although it was damaged; else the restore failed and said why."""
    wrong: str
    """Empty: found, and not silent."""


def attack(
    scene: Scene,
    run: Run,
    work: Path,
    seed: int = 1,
    chosen: Callable[[int, str], bool] = lambda _number, _damage: True,
) -> Iterator[Outcome]:
    """Damage each object in each way, one at a time, and mend it again. `chosen` takes the object's
    number and the damage."""
    draw = random.Random(seed)
    work.mkdir(parents=True, exist_ok=True)
    said, wrong = restore(scene, run, work / "whole.db")
    assert not said.code, said.text
    assert not wrong, wrong
    for number, name in enumerate(objects(scene.root)):
        path = scene.root / name
        whole = path.read_bytes()
        for damage in DAMAGES:
            if not chosen(number, damage):
                continue
            data = damaged_bytes(scene, name, damage, draw)
            if data == whole:
                continue
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            try:
                yield _judge(scene, run, work, name, damage)
            finally:
                path.write_bytes(whole)


def _judge(scene: Scene, run: Run, work: Path, name: str, damage: str) -> Outcome:
    found = verify(scene, run)
    said, wrong = restore(scene, run, work / "restored.db")
    if not wrong and not names_it(found.text, name):
        wrong = f"NOT FOUND by verify: {found.text.strip()[:300]}"
    if not wrong and said.code and not said.err.strip():
        wrong = f"the restore failed without a word: exit {said.code}"
    if not wrong and "Traceback" in found.text + said.text:
        wrong = f"a traceback: {(found.text + said.text).strip()[-300:]}"
    if not wrong and scene.second is not None and said.code:
        wrong = f"the other destination has it all, and yet: {said.err.strip()[:300]}"
    return Outcome(scene.name, name, damage, not said.code, wrong)
