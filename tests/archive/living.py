"""Archives of clusters that live: uploaders killed at random, objects damaged under them.

Both on real processes, with certificates and encryption; clients write all the time. What was seen
live (index and content hash, as a node told them) is what restores are compared with.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaos.server import ToxiproxyServer
from raftdb.archive import Keyring, parse_keys
from raftdb.base.errors import Error
from raftdb.ops.ports import free_ports
from tests.archive.attack import DAMAGES, Outcome, Run, Said, here, names_it, objects, process
from tests.archive.s3 import s3_endpoint, s3_url
from tests.e2e.cluster import Cluster

SLOW_MS = 150
"""What the second destination's answers are late by."""
CATCH_UP_S = 120.0
SAMPLE_EVERY_S = 0.05
KEY = "ab" * 32
SETTINGS = {
    "RAFTDB_ARCHIVE__INTERVAL_MS": "100",
    "RAFTDB_ARCHIVE__BASE_REQUESTS": "400",
    "RAFTDB_ARCHIVE__VERIFY_MINUTES": "0",
    "RAFTDB_ARCHIVE_KEYS": f"k1:{KEY}",
}
PROCESS_EACH = 10
"""One of so many moments is restored by a process of its own, the others in this one."""
MERGE = ("--merge-hours", "0")
Say = Callable[[str], None]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Load(threading.Thread):
    """Clients that write, and a look now and then at what stands where."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._draw = random.Random(seed)
        self._end = threading.Event()
        self.live: dict[int, str] = {}
        """Index to content hash, as nodes told."""
        self.written = 0

    def run(self) -> None:
        while not self._end.is_set():
            try:
                with self._cluster.connect(timeout=20.0) as connection:
                    while not self._end.wait(SAMPLE_EVERY_S * self._draw.random()):
                        for _ in range(self._draw.randint(1, 8)):
                            self._write(connection)
                        facts = connection.content_hash()
                        self.live[int(facts["index"])] = str(facts["total"])
            except Error:
                continue

    def _write(self, connection: Any) -> None:
        text = self._draw.randbytes(self._draw.choice((10, 100, 20_000))).hex()
        if self._draw.random() < 0.2:
            connection.execute(
                "UPDATE t SET x = ? WHERE id = ?", (text, self._draw.randint(1, self.written + 1))
            )
        else:
            connection.execute("INSERT INTO t(x) VALUES (?)", (text,))
        self.written += 1

    def stop(self) -> None:
        """No more writes."""
        self._end.set()
        self.join(60.0)


@dataclass
class Story:
    """What became of it."""

    kills: int = 0
    restores: int = 0
    equal: int = 0
    wrong: list[str] = field(default_factory=list)


def _uploaders(cluster: Cluster) -> set[str]:
    found = set()
    for name in cluster.node_ids:
        try:
            facts = cluster.status(name)["archive"]
        except Error:
            continue
        if any(one["state"] == "active" for one in facts):
            found.add(name)
    return found


def _caught_up(cluster: Cluster) -> bool:
    """Both destinations have everything."""
    states = [cluster.status(name) for name in cluster.node_ids]
    applied = max(int(one["applied_index"]) for one in states)
    places = range(len(states[0]["archive"]))
    return all(
        max(int(one["archive"][place]["archived_index"]) for one in states) >= applied
        for place in places
    )


def _restored(
    url: str, target: Path, keyring: Keyring, *flags: str, run: Run = process
) -> tuple[Said, dict[str, Any]]:
    said = run(("restore", "--from", url, *flags, "--to", str(target), "--json"), keyring)
    target.unlink(missing_ok=True)
    shutil.rmtree(target.with_name(target.name + ".restoring"), ignore_errors=True)
    return said, json.loads(said.out) if not said.code else {}


def kills(place: Path, number: int, points: int, seed: int, say: Say) -> Story:
    """Kill whoever uploads, `number` times, at random moments, with two destinations of which one
    is slow; prune in between; then restore `points` random moments from either one alone."""
    draw, story = random.Random(seed), Story()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    keyring = parse_keys(f"k1:{KEY}", "here")
    with ExitStack() as stack:
        endpoint = stack.enter_context(s3_endpoint())
        proxies = stack.enter_context(ToxiproxyServer(place / "toxiproxy.log"))
        port = free_ports(1)
        behind = urlsplit(endpoint).netloc
        proxy = proxies.api.create(upstream=behind, name="s3", listen=f"127.0.0.1:{port}")
        proxy.add_toxic(type="latency", stream="downstream", attributes={"latency": SLOW_MS})
        slow = s3_url(f"http://127.0.0.1:{port}", "kills").replace("timeout=2", "timeout=20")
        urls = (f"file://{place}/archive", slow)
        stack.enter_context(
            _environment(SETTINGS | {"RAFTDB_ARCHIVE__DESTINATIONS": " ".join(urls)})
        )
        cluster = Cluster(place / "cluster")
        stack.callback(cluster.kill)
        cluster.start_and_wait()
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        load = Load(cluster, seed)
        load.start()
        pause = threading.Event()
        for count in range(1, number + 1):
            pause.wait(draw.uniform(0.2, 2.5))
            active = cluster.wait_for("an uploader", lambda: _uploaders(cluster), CATCH_UP_S)
            victim = draw.choice(sorted(active))
            cluster.kill(victim)
            pause.wait(draw.uniform(0.0, 1.0))
            cluster.start(victim)
            cluster.wait_for_node(victim)
            story.kills = count
            say(f"kill {count}: {victim}, which uploaded; {load.written} writes")
            flags = {number // 4: ("--days", "0"), number // 2: MERGE, number * 3 // 4: MERGE}
            for url in urls if count in flags else ():
                said = process(("archive", "prune", "--from", url, *flags[count]), keyring)
                say(f"pruned: {said.text.strip()}")
                if said.code:
                    story.wrong.append(said.text)
        load.stop()
        cluster.wait_for("all to be archived", lambda: _caught_up(cluster), CATCH_UP_S)
        with cluster.connect() as connection:
            facts = connection.content_hash()
        last = int(facts["index"])
        load.live[last] = str(facts["total"])
        # The archive may go on by what nodes do among themselves; the rows are the same.
        say(f"{load.written} writes, {len(load.live)} moments seen live")
        cluster.kill()
        _judge(place, urls, keyring, load.live, last, points, draw, story, say)
    return story


def _judge(
    place: Path,
    urls: tuple[str, ...],
    keyring: Keyring,
    live: dict[int, str],
    last: int,
    points: int,
    draw: random.Random,
    story: Story,
    say: Say,
) -> None:
    for url in urls:
        said = process(("archive", "verify", "--from", url), keyring)
        say(f"verify {url.partition('?')[0]}: {said.out.strip()}")
        if said.code:
            story.wrong.append(f"{url}: {said.text}")
        said, facts = _restored(url, place / "newest.db", keyring)
        if said.code or facts["content_hash"] != live[last]:
            story.wrong.append(f"{url}: the newest moment is {facts or said.text}")
    oldest = [_oldest(url, keyring) for url in urls]
    for number in range(points):
        url, first = urls[number % 2], oldest[number % 2]
        index = draw.choice(sorted(one for one in live if first <= one <= last))
        story.restores += 1
        run = here if number % PROCESS_EACH else process
        said, facts = _restored(url, place / "point.db", keyring, "--index", str(index), run=run)
        if not said.code and facts["content_hash"] == live[index] and facts["proven"]:
            story.equal += 1
        else:
            story.wrong.append(f"entry {index} of {url}: {facts or said.text}, seen {live[index]}")
            say(f"WRONG: {story.wrong[-1]}")
        if number % 20 == 19:
            say(f"{story.equal} of {story.restores} random moments equal to what was seen live")
    if before := sorted(index for index in live if index < min(oldest)):
        # What was pruned is refused, never stood in for by something near.
        for url in urls:
            said, facts = _restored(url, place / "gone.db", keyring, "--index", str(before[0]))
            if not said.code and facts["content_hash"] != live[before[0]]:
                story.wrong.append(f"entry {before[0]} is pruned, and yet restored to {facts}")


def _oldest(url: str, keyring: Keyring) -> int:
    """The oldest moment of the window: older bases may stand alone before it."""
    said = process(("archive", "prune", "--from", url, "--dry-run", "--json"), keyring)
    return int(json.loads(said.out)[0]["oldest_index"])


# ---- objects damaged while a node uploads


def running(place: Path, number: int, seed: int, say: Say) -> Iterator[Outcome]:
    """Damage `number` objects, one at a time, of an archive that a node goes on uploading to; each
    is found while the node writes on, and after it is mended all is whole again."""
    draw, keyring = random.Random(seed), parse_keys(f"k1:{KEY}", "here")
    root = place / "archive"
    url = f"file://{root}"
    with ExitStack() as stack:
        stack.enter_context(_environment(SETTINGS | {"RAFTDB_ARCHIVE__DESTINATIONS": url}))
        cluster = Cluster(place / "cluster", 1)
        stack.callback(cluster.kill)
        cluster.start_and_wait()
        with cluster.connect() as connection:
            connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        load = Load(cluster, seed)
        load.start()
        stack.callback(load.stop)
        cluster.wait_for("objects", lambda: len(objects(root)) > 30, CATCH_UP_S)
        for count in range(number):
            folders = sorted({one.rpartition("/")[0] for one in objects(root)})
            folder = folders[count % len(folders)]
            names = [one for one in objects(root) if one.rpartition("/")[0] == folder]
            # The newest one often: what the uploader builds upon.
            name = names[-1] if draw.random() < 0.5 else draw.choice(names)
            damage = draw.choice(sorted(DAMAGES))
            yield _damage_one(cluster, root, keyring, name, damage, draw)
            say(f"{name}: {damage}")
        load.stop()
        cluster.wait_for("all to be archived", lambda: _caught_up(cluster), CATCH_UP_S)
        with cluster.connect() as connection:
            total = str(connection.content_hash()["total"])
        said, facts = _restored(url, place / "end.db", keyring)
        same = not said.code and facts["content_hash"] == total
        yield Outcome("running", "all", "mended", same, "" if same else said.text or str(facts))


def _damage_one(
    cluster: Cluster, root: Path, keyring: Keyring, name: str, damage: str, draw: random.Random
) -> Outcome:
    path, url = root / name, f"file://{root}"
    whole = path.read_bytes()
    near = [one for one in objects(root) if one != name and not one.endswith(".partial")]
    other = (root / draw.choice(near)).read_bytes()
    data = DAMAGES[damage](whole, other, other, draw)
    before = max(objects(root / "e00000001" / "manifests"))
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    try:
        # The node goes on: what is built upon the damaged object is there too.
        cluster.wait_for(
            "the chain to go on",
            lambda: max(objects(root / "e00000001" / "manifests")) > before,
            CATCH_UP_S,
        )
        archived = int(cluster.status("n1")["archive"][0]["archived_index"])
        said = process(("archive", "verify", "--from", url), keyring)
        wrong = "" if names_it(said.text, name) else f"NOT FOUND by verify: {said.text}"
        said, facts = _restored(url, root.parent / "restored.db", keyring)
        if not said.code and int(str(facts["point"]).partition(".")[0]) < archived:
            wrong = f"SILENT: it ended at {facts['point']}, {archived} is archived"
        return Outcome("running", name, damage, not said.code, wrong)
    finally:
        path.write_bytes(whole)
