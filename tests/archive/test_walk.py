"""Going through an archive once, and keeping nothing: whole is what reading all of it calls so."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from raftdb.archive import Archive, Problem, load_timeline, open_store
from raftdb.archive.links import Link, Links
from raftdb.archive.records import Manifest
from raftdb.archive.verify import verify_objects, walk
from tests.archive.attack import BUILDERS, DAMAGES, Scene, build, damaged_bytes, objects
from tests.archive.support import sealer


def opened(scene: Scene) -> Archive:
    return Archive.open(open_store(f"file://{scene.root}"), sealer(scene.keyring))


def in_full(archive: Archive) -> tuple[list[Problem], int]:
    """Problems, and how many objects were read."""
    timeline = load_timeline(archive)
    problems = timeline.problems + verify_objects(timeline)
    objects = sum(len(chain.links) for chain in timeline.chains)
    return problems, objects + len(timeline.links("segment", "base"))


@pytest.mark.parametrize("name", ["plain", "pruned", "merged", "two epochs"])
def test_what_is_whole_is_walked_through(name: str, tmp_path: Path) -> None:
    archive = opened(build(name, tmp_path))
    walked = walk(archive)
    assert walked is not None
    problems, objects = in_full(archive)
    assert (walked.notes, walked.objects) == (problems, objects)


@pytest.mark.parametrize("name", ["pruned", "merged"])
def test_what_is_not_is_not(name: str, tmp_path: Path) -> None:
    """One object of each folder damaged in each way; what reading all of it finds harmless (an
    upload that was cut short looks the same) is a note here too."""
    assert name in BUILDERS
    scene = build(name, tmp_path)
    draw = random.Random(name)
    folders: dict[str, str] = {}
    for one in objects(scene.root):
        folders.setdefault(one.rpartition("/")[0], one)
    harmful = 0
    for one in [*folders.values(), objects(scene.root)[-1]]:
        if one == "archive":
            continue
        path = scene.root / one
        whole = path.read_bytes()
        for damage in ("deleted", "tampered", "swapped"):
            assert damage in DAMAGES
            data = damaged_bytes(scene, one, damage, draw)
            if data == whole:
                continue
            path.unlink() if data is None else path.write_bytes(data)
            archive = opened(scene)
            try:
                problems, _objects = in_full(archive)
            except Exception as error:
                problems = [Problem(one, str(error), "")]
            bad = [problem for problem in problems if not problem.harmless]
            walked = walk(archive)
            assert (walked is None) == bool(bad), (one, damage, bad)
            if walked is not None:
                assert walked.notes == problems
            harmful += bool(bad)
            path.write_bytes(whole)
    assert harmful > 8
    assert walk(opened(scene)) is not None


def test_packed_links_are_as_they_were() -> None:
    links = Links()
    one = Link(
        Manifest(1, 7, b"p" * 32, "h" * 32, 3, "n1", 1, "segment", object="o", archived=1 << 40),
        "m7",
        b"d" * 32,
    )
    odd = Link(Manifest(1, 5, b"", "h" * 32, 3, "n2", 1, "news", note="ä"), "m5", b"", True, 2, 9)
    links[7], links[5] = one, odd
    assert (links[7], links[5], links.get(6)) == (one, odd, None)
    assert (sorted(links), max(links), len(links), 5 in links, 6 in links) == (
        [5, 7],
        7,
        2,
        True,
        False,
    )
    assert list(links.of_kind("segment", "base")) == [one]
    del links[7]
    assert list(links.items()) == [(5, odd)]
