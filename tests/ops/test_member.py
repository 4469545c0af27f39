"""A member's new address is asked who is there before anybody is sent to it."""

from __future__ import annotations

from typing import Any

import pytest

from raftdb.base.errors import ConfigError, UnavailableError
from raftdb.ops.member import check_address


class Node:
    """Says who it is."""

    closed = 0

    def status(self) -> dict[str, Any]:
        return {"node_id": "n2"}

    def close(self) -> None:
        Node.closed += 1


def connect_to(address: str) -> Node:
    if address != "h:1":
        raise UnavailableError(f"{address}: refused the connection")
    return Node()


def test_the_node_itself_has_to_answer_there() -> None:
    check_address("n2", "h:1", connect_to)
    with pytest.raises(ConfigError, match="who answers at h:1 is n2, and not n3") as taken:
        check_address("n3", "h:1", connect_to)
    assert taken.value.code == "address_taken"
    with pytest.raises(ConfigError, match=r"n2 does not answer at h:2: .* refused") as nobody:
        check_address("n2", "h:2", connect_to)
    assert nobody.value.code == "address_unreachable"
    assert "--force" in nobody.value.hint
    assert Node.closed == 2
