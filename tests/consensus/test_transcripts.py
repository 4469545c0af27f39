"""The transcripts, word for word; and that their reader sees a difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftdb.consensus.wall import Wall
from tests.consensus.transcripts import known_walls, parse, perform, transcripts


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_members_behave_as_recorded(path: Path) -> None:
    recorded = path.read_text(encoding="utf-8")
    assert perform(recorded, known_walls()) == recorded, (
        "read the difference; `python -m tests.consensus.transcripts --rewrite` records it"
    )


def test_every_transcript_says_why() -> None:
    for path in transcripts():
        blocks = list(parse(path.read_text(encoding="utf-8")))
        assert blocks, path.name
        assert blocks[0].head[0].startswith("# "), path.name
        assert any(block.output for block in blocks), path.name


def test_a_change_of_behaviour_is_a_difference() -> None:
    path = next(path for path in transcripts() if path.stem == "elections")
    recorded = path.read_text(encoding="utf-8")
    changed = "without OwnVoteDoesNotWait\n" + recorded.replace("# Elections", "# elections")
    now = perform(changed, known_walls())
    assert now.split("----", 1)[1] != recorded.split("----", 1)[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("members 3\n", "without ----"),
        ("dance n1\n----\n", "unknown command"),
        ("deadline n1\n----\n", "members"),
    ],
)
def test_what_is_no_transcript_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        perform(text, {"Wall": Wall})
