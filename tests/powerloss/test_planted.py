"""Every planted bug is found by the crash states: proof that they can see."""

from __future__ import annotations

import pytest

from tests.powerloss.planted import PLANTED, Planted, find


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_it_is_found(bug: Planted) -> None:
    result, opened = find(bug)
    assert result is not None, f"{opened} states, and none shows it"
