"""Read levels and tokens, from the client's side."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import raftdb
from raftdb.base.errors import ConfigError, DeadlineError, InterfaceError
from raftdb.client.levels import parse_level
from raftdb.client.options import Options
from raftdb.command import ReadToken
from raftdb.wire import Ping, Query
from tests.client.server import FakeNode
from tests.client.world import READ, World, write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linearizable", ("linearizable", 0)),
        ("session", ("session", 0)),
        ("local", ("local", 0)),
        ("bounded(1.5)", ("bounded", 1500)),
        ("bounded( 60 )", ("bounded", 60_000)),
        ("bounded(0.0001)", ("bounded", 1)),
    ],
)
def test_levels_by_name(text: str, expected: tuple[str, int]) -> None:
    assert parse_level(text) == expected
    assert Options(read=text).read == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "strong",
        "bounded",
        "bounded()",
        "bounded(0)",
        "bounded(-1)",
        "bounded(1.2.3)",
        "bounded(90000)",
        "LOCAL",
    ],
)
def test_what_is_no_level(text: str, connect: Callable[..., raftdb.Connection]) -> None:
    with pytest.raises(InterfaceError, match="read level"):
        parse_level(text)
    with pytest.raises(ConfigError):
        connect(read=text)
    with pytest.raises(InterfaceError):
        connect().execute("SELECT 1", read=text)


def queries(world: World) -> list[tuple[str, Query]]:
    return [(node, message) for node, message in world.heard if isinstance(message, Query)]


def ask(world: World, core: object, level: str, **options: object) -> object:
    return world.run(core.query(READ, level=level, timeout_s=2.0, **options))  # type: ignore[attr-defined]


def test_session_reads_carry_what_was_seen_and_go_to_any_node() -> None:
    world = World(leader=2)
    core = world.core(prefer="n3")
    ask(world, core, "session")
    write(world, core, "a")
    written = world.index
    ask(world, core, "session")
    [(_, first), (node, second)] = queries(world)
    assert first.token == ""
    assert node == "n3"
    seen = ReadToken.from_text(second.token)
    assert (seen.history.hex(), seen.fork, seen.index) == (world.history, 0, written)


def test_a_node_that_lags_is_left_for_another() -> None:
    world = World(leader=2)
    world.nodes["n1"].behind = True
    core = world.core()
    outcome = ask(world, core, "bounded", max_age_ms=500)
    assert [node for node, _ in queries(world)] == ["n1", "n2"]
    assert queries(world)[1][1].max_age_ms == 500
    assert outcome.age_ms == 250  # type: ignore[attr-defined]
    for node in world.nodes.values():
        node.behind = True
    with pytest.raises(DeadlineError, match="lags"):
        ask(world, core, "session")


def test_a_preferred_node_answers_linearizable_reads_too() -> None:
    world = World(leader=2)
    world.nodes["n3"].follower_reads = True
    ask(world, world.core(), "linearizable")
    ask(world, world.core(prefer="n3"), "linearizable")
    world.nodes["n3"].follower_reads = False
    ask(world, world.core(prefer="n3"), "linearizable")
    asked = [node for node, _ in queries(world)]
    assert asked[:3] == ["n2", "n3", "n3"]
    assert asked[-1] == "n2", "one that knows no leader is left for another"


def test_tokens_are_handed_from_connection_to_connection(
    node: FakeNode, connect: Callable[..., raftdb.Connection]
) -> None:
    one, two = connect(), connect(read="session")
    assert one.token == ""
    two.see("")
    one.execute("CREATE TABLE t (a)")
    two.see(one.token)
    assert two.token == one.token
    cursor = two.execute("SELECT a FROM t")
    assert cursor.index == node.database.index
    assert cursor.age_s is None
    [query] = [message for message in node.requests if isinstance(message, Query)]
    assert (query.level, query.token) == ("session", one.token)
    older = ReadToken(ReadToken.from_text(one.token).history, 0, 0).to_text()
    two.see(older)
    assert two.token == one.token
    other = ReadToken(bytes(16), 0, 5).to_text()
    with pytest.raises(InterfaceError) as caught:
        two.see(other)
    assert caught.value.code == "token_other_history"
    with pytest.raises(InterfaceError):
        two.see("nonsense")


def restored(world: World, history: str) -> None:
    """Another history, with other indexes; all connections are lost."""
    world.history, world.index = history, 3
    for name in world.nodes:
        world.kill(name)
        world.start(name)
    world.elect("n2")


def test_a_client_that_lives_through_a_restore_is_told_once() -> None:
    """What it had seen may be gone: a session read is not answered as if nothing had been."""
    world = World(leader=2)
    core = world.core(prefer="n3")
    write(world, core, "a")
    before = core.token()
    restored(world, "e" * 32)
    world.run(core.query(READ, level="linearizable", timeout_s=2.0))
    with pytest.raises(InterfaceError) as told:
        ask(world, core, "session")
    assert (told.value.code, told.value.outcome) == ("token_other_history", "not_applied")
    ask(world, core, "session")
    seen = ReadToken.from_text(core.token())
    assert (seen.history.hex(), seen.index) == (world.history, world.index)
    # By its token, too: others may go by that.
    restored(world, "f" * 32)
    world.run(core.query(READ, level="linearizable", timeout_s=2.0))
    with pytest.raises(InterfaceError, match="restored"):
        core.token()
    assert ReadToken.from_text(core.token()).history.hex() == world.history
    assert ReadToken.from_text(before).history.hex() != world.history


def test_a_history_that_goes_on_from_what_was_seen_is_no_news() -> None:
    """Restored to a moment after all that this client saw: the node takes its token."""
    world = World(leader=2)
    core = world.core(prefer="n3")
    write(world, core, "a")
    restored(world, "e" * 32)
    ask(world, core, "session")
    write(world, core, "b")
    ask(world, core, "session")
    assert ReadToken.from_text(core.token()).history.hex() == world.history


def test_a_token_that_a_node_refuses_is_forgotten() -> None:
    """The client was told so: it goes on with what it sees from now on."""
    world = World(leader=2)
    core = world.core(prefer="n3")
    write(world, core, "a")
    refusal = InterfaceError("of another history", code="token_other_history")
    world.nodes["n3"].refuse = [refusal]
    with pytest.raises(InterfaceError, match="another history"):
        ask(world, core, "session")
    ask(world, core, "session")
    assert queries(world)[-1][1].token == ""


def test_a_long_read_at_any_node_is_waited_for_while_the_node_lives() -> None:
    world = World(leader=2)
    core = world.core("n1", prefer="n1")
    node = world.nodes["n1"]
    node.slow_reads_s = 1.9
    ask(world, core, "local")
    assert len(queries(world)) == 1, "not sent twice because somebody else leads"
    assert any(isinstance(message, Ping) for _, message in world.heard)


def test_a_read_that_takes_too_long_is_not_blamed_on_the_network() -> None:
    world = World(leader=2)
    core = world.core("n1", prefer="n1")
    world.nodes["n1"].slow_reads_s = 1_000.0
    with pytest.raises(DeadlineError, match="is alive, and not done") as caught:
        ask(world, core, "local")
    assert caught.value.outcome == "not_applied"
    assert "timeout=" in caught.value.hint


def test_a_silent_node_is_left_for_another() -> None:
    world = World(leader=2)
    core = world.core("n1", "n2", prefer="n1")
    ask(world, core, "local")
    world.pause("n1")
    ask(world, core, "local")
    assert [node for node, _ in queries(world)] == ["n1", "n2"]


@pytest.mark.parametrize("level", ["local", "session", "bounded"])
def test_reads_that_any_node_may_answer_go_to_the_nearest(level: str) -> None:
    world = World(leader=1)
    for node_id, location in (("n1", "us/a"), ("n2", "asia/a"), ("n3", "eu/b/r1")):
        world.nodes[node_id].location = location
    core = world.core("n1", "n2", location="eu/a")
    for _ in range(2):
        ask(world, core, level)
    assert [node for node, _ in queries(world)] == ["n3", "n3"]
    world.kill("n3")
    ask(world, core, level)
    assert queries(world)[-1][0] in ("n1", "n2")
    ask(world, core, "linearizable")
    assert queries(world)[-1][0] == "n1", "the leader's"
