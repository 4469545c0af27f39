"""Archives attacked and uploaders killed, for long: what the tests do a slice of.

python -m tests.archive attack                 every object, damaged in every way, in every scene
python -m tests.archive attack --scene packs   one scene; --every 5 takes a fifth of all
python -m tests.archive running --objects 40   under a node that goes on uploading
python -m tests.archive kills --kills 25 --points 200
                                               uploaders killed at random, two destinations (one
                                               slow), pruning; then random moments restored

Commands are real processes of `raftdb archive verify` and `raftdb restore`. Exit code 0: every
damage was found, no restore was silent, every moment equal; 4: not so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.archive import living
from tests.archive.attack import SCENES, Outcome, attack, build, here, process

BROKEN = 4


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m tests.archive",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    found.add_argument("what", choices=("attack", "running", "kills"))
    found.add_argument("--scene", choices=SCENES, action="append", help="default: all")
    found.add_argument("--every", type=int, default=1, help="one of so many damages")
    found.add_argument(
        "--here", action="store_true", help="attack by commands in this process: much quicker"
    )
    found.add_argument("--objects", type=int, default=40, help="of `running`")
    found.add_argument("--kills", type=int, default=25)
    found.add_argument("--points", type=int, default=200)
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--dir", type=Path, help="work there, and leave everything behind")
    return found


def _say(text: str) -> None:
    print(text, flush=True)


def _attack(options: argparse.Namespace, place: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for name in options.scene or SCENES:
        scene = build(name, place / name)
        count = 0

        def chosen(_number: int, _damage: str) -> bool:
            nonlocal count
            count += 1
            return not (count + options.seed) % options.every

        run = here if options.here else process
        found = list(_told(attack(scene, run, place / name / "work", options.seed, chosen)))
        whole = sum(one.restored for one in found)
        bad = sum(bool(one.wrong) for one in found)
        _say(f"{name}: {len(found)} damages, {whole} restored all the same, {bad} wrong")
        outcomes += found
    return outcomes


def _told(found: object) -> list[Outcome]:
    outcomes = []
    for one in found:  # type: ignore[attr-defined]
        outcomes.append(one)
        if one.wrong:
            _say(f"WRONG: {one.scene}: {one.object} {one.damage}: {one.wrong}")
    return outcomes


def main() -> int:
    """Returns the exit code."""
    options = parser().parse_args()
    place = options.dir or Path(tempfile.mkdtemp(prefix="raftdb-archive-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        if options.what == "kills":
            story = living.kills(place, options.kills, options.points, options.seed, _say)
            for text in story.wrong:
                _say(f"wrong: {text}")
            _say(
                f"{story.kills} kills; {story.equal} of {story.restores} random moments equal to "
                f"what was seen live; {len(story.wrong)} wrong"
            )
            return BROKEN if story.wrong or story.kills < options.kills else 0
        if options.what == "running":
            outcomes = _told(living.running(place, options.objects, options.seed, _say))
        else:
            outcomes = _attack(options, place)
        for damage, count in sorted(Counter(one.damage for one in outcomes).items()):
            _say(f"{damage:<12} {count}")
        bad = [one for one in outcomes if one.wrong]
        _say(f"{len(outcomes)} damages, {len(bad)} not found or silent")
        return BROKEN if bad else 0
    finally:
        if options.dir is None:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
