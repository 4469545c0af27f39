"""A slice of `python -m tests.archive attack`: archives damaged object by object, from outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from raftdb.archive import Keyring
from tests.archive.attack import (
    DAMAGES,
    Said,
    attack,
    build,
    here,
    objects,
    process,
    restore,
)

ONE_OF = 31
"""Of all damages; prime, so that each folder has some."""


@pytest.mark.parametrize("name", ["merged plain", "two destinations"])
def test_no_damage_is_silent(name: str, tmp_path: Path) -> None:
    kinds = list(DAMAGES)

    def chosen(number: int, damage: str) -> bool:
        return not (number * len(kinds) + kinds.index(damage)) % ONE_OF

    found = list(attack(build(name, tmp_path), here, tmp_path / "work", chosen=chosen))
    assert len({one.object.rpartition("/")[0] for one in found}) >= 3
    assert [one for one in found if one.wrong] == []


def test_what_is_silent_is_caught(tmp_path: Path) -> None:
    scene = build("sealed", tmp_path)
    newest = max(place for place, one in enumerate(objects(scene.root)) if "segments" in one)

    def only(place: int, damage: str) -> bool:
        return place == newest and damage == "deleted"

    assert restore(scene, process, tmp_path / "process.db")[1] == ""
    [one] = attack(scene, here, tmp_path / "work", chosen=only)
    assert (one.wrong, one.restored) == ("", False)

    def deaf(arguments: Sequence[str], keyring: Keyring) -> Said:
        return Said(0, "whole", "") if "verify" in arguments else here(arguments, keyring)

    [one] = attack(scene, deaf, tmp_path / "work", chosen=only)
    assert one.wrong.startswith("NOT FOUND")

    def early(arguments: Sequence[str], keyring: Keyring) -> Said:
        damaged = len(objects(scene.root)) < count
        flags = ("--index", "17") if damaged and "restore" in arguments else ()
        return here([*arguments, *flags], keyring)

    count = len(objects(scene.root))
    [one] = attack(scene, early, tmp_path / "work", chosen=only)
    assert one.wrong.startswith("SILENT: it ended at 17")
