"""Where to go next."""

from __future__ import annotations

from raftdb.base.errors import AuthError
from raftdb.base.ids import Address
from raftdb.client.routing import ADDRESSES_MAX, EXPLORE_S, Routes

A, B, C = (Address("h", port) for port in (1, 2, 3))


def test_the_leader_comes_first_and_newer_terms_win() -> None:
    routes = Routes((A, B, C))
    routes.leads(B, 5)
    assert routes.next(0.0) == B
    routes.leads(A, 4)
    assert routes.next(0.0) == B, "an older term is not believed"
    routes.leads(C, 6)
    assert routes.next(0.0) == C
    routes.does_not_lead(C, 5)
    assert routes.next(0.0) == C
    routes.does_not_lead(C, 6)
    assert routes.leader is None


def test_without_a_leader_all_are_asked_in_turn() -> None:
    routes = Routes((A, B, C))
    assert {routes.next(0.0) for _ in range(3)} == {A, B, C}


def test_who_failed_rests_longer_each_time() -> None:
    routes = Routes((A,))
    rests = []
    now_s = 0.0
    for _ in range(8):
        routes.failed(A, now_s, "refused")
        rests.append(round(routes.awake_at_s() - now_s, 6))
        now_s = routes.awake_at_s()
    assert rests == sorted(rests)
    assert rests[0] < 0.1 < rests[-1] <= 0.5
    routes.found("n1", A)
    assert routes.next(now_s) == A


def test_a_resting_leader_is_not_asked() -> None:
    routes = Routes((A, B))
    routes.leads(A, 1)
    routes.failed(A, 0.0, "refused", silent=True)
    assert routes.next(0.5) == B
    routes.leads(A, 1)
    assert routes.next(0.5) == B, "that others believe in it does not make it answer"
    assert routes.next(1.5) == A


def test_who_only_did_not_lead_is_asked_at_once_when_it_does() -> None:
    routes = Routes((A, B))
    routes.rest(A, 9.0, "knows no leader")
    routes.leads(A, 2)
    assert routes.next(0.0) == A


def test_an_address_that_worked_is_believed_more_than_what_others_say() -> None:
    routes = Routes((A,))
    routes.found("n1", A)
    assert routes.heard_of("n1", "inside.example:9") == A
    routes.failed(A, 0.0, "refused")
    assert routes.heard_of("n1", "inside.example:9") == Address("inside.example", 9)


def test_nonsense_is_not_learned() -> None:
    routes = Routes((A,))
    assert routes.heard_of("n2", "no address") is None
    assert routes.known == (A,)


def test_what_is_learned_is_bounded() -> None:
    routes = Routes((A,))
    for port in range(1000, 2000):
        routes.heard_of(f"n{port}", f"h:{port}")
    assert len(routes.known) == ADDRESSES_MAX


def test_pinned_routes_learn_nothing() -> None:
    routes = Routes((A,), pin=True)
    assert routes.heard_of("n2", str(B)) is None
    assert routes.known == (A,)


def test_any_node_means_the_preferred_then_the_given() -> None:
    routes = Routes((A, B))
    routes.heard_of("n3", str(C))
    assert routes.next_given(0.0, "") == A
    assert routes.next_given(0.0, str(B)) == B
    assert routes.next_given(0.0, "n3") == C
    routes.failed(C, 0.0, "refused")
    assert routes.next_given(0.0, "n3") == A
    for address in (A, B):
        routes.failed(address, 0.0, "refused")
    assert routes.next_given(0.0, "n3") is None


def test_hopeless_only_if_all_are() -> None:
    routes = Routes((A, B))
    error = AuthError("refused certificate")
    routes.failed(A, 0.0, "certificate", error)
    assert routes.hopeless() is None
    routes.failed(B, 0.0, "certificate", error)
    assert routes.hopeless() is error
    routes.failed(B, 0.0, "refused")
    assert routes.hopeless() is None


def test_problems_name_addresses() -> None:
    routes = Routes((A, B))
    routes.failed(A, 0.0, "refused the connection")
    assert routes.problems() == "h:1: refused the connection"


def test_near_goes_by_location_when_the_clients_own_is_known() -> None:
    routes = Routes((A, B, C))
    for address, location, trip_s in ((A, "us/east/r1", 0.001), (B, "eu/lyon/r1", 0.09)):
        routes.located(address, location)
        routes.measured(address, trip_s)
    routes.located(C, "eu/madrid/r2")
    assert routes.next_near(0.0, "eu/madrid/r1") == C
    assert routes.next_near(0.0, "eu") == B, "equally near: the one that answers sooner"
    assert routes.next_near(0.0, "us") == A
    routes.failed(C, 0.0, "refused")
    assert routes.next_near(0.0, "eu/madrid/r1") == B


def test_near_goes_by_measured_latency_else_and_tries_others_now_and_then() -> None:
    routes = Routes((A, B, C))
    assert routes.next_near(0.0, "") == A
    routes.measured(A, 0.08)
    assert routes.next_near(0.0, "") == B, "80 ms: perhaps another one is nearer"
    routes.measured(B, 0.02)
    assert routes.next_near(1.0, "") == B
    assert routes.next_near(EXPLORE_S, "") == C
    routes.measured(C, 0.3)
    assert routes.next_near(3 * EXPLORE_S, "") == B
    routes.failed(B, 3 * EXPLORE_S, "refused")
    assert routes.next_near(3 * EXPLORE_S, "") == A


def test_with_a_near_node_nothing_is_explored() -> None:
    routes = Routes((A, B, C))
    routes.measured(B, 0.001)
    assert [routes.next_near(float(now), "") for now in range(0, 100, 10)] == [B] * 10
