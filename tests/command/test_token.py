"""Read tokens: small, safe in URLs and cookies, and refused when they are anything else."""

from __future__ import annotations

import re

import pytest

from raftdb.base.errors import InterfaceError
from raftdb.command import ReadToken


@pytest.mark.parametrize("index", [0, 1, 255, 1 << 40, (1 << 63) - 1])
def test_there_and_back(index: int) -> None:
    token = ReadToken(bytes(range(240, 256)), 3, index)
    text = token.to_text()
    assert re.fullmatch(r"[A-Za-z0-9._-]{41}", text)
    assert ReadToken.from_text(text) == token


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r1.",
        "r1.AAAA",
        "r2." + "A" * 38,
        "r1." + "A" * 37 + "=",
        "r1." + "A" * 39,
        "r1." + "A" * 37 + "é",
        "x" * 1000,
        None,
        7,
    ],
)
def test_what_is_none_is_refused(text: object) -> None:
    with pytest.raises(InterfaceError) as caught:
        ReadToken.from_text(text)  # type: ignore[arg-type]
    assert caught.value.code == "token"
    assert len(str(caught.value)) < 400
