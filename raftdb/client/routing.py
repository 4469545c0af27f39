"""Where to go next: addresses, who is said to lead, and who is better left alone for a moment.

Values and decisions only. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftdb.base.errors import ConfigError, Error
from raftdb.base.ids import Address, parse_address

ADDRESSES_MAX = 128
REST_MIN_S = 0.05
REST_MAX_S = 0.25
"""Bounds of the rest after a quick refusal: a node that starts is found soon."""
NEAR_S = 0.005
"""A node at such a distance is near enough: no other one is tried only to measure it."""
EXPLORE_S = 10.0
"""So often at most a node is tried that may be nearer."""
REST_SILENT_S = 1.0
"""Rest of a node that let us wait for nothing."""


@dataclass(slots=True)
class _Route:
    """What is known of one address."""

    address: Address
    given: bool
    """The user gave it; the others were learned."""
    rest_until_s: float = 0.0
    failures: int = 0
    declined_term: int = -1
    """The newest term in which it said itself that it does not lead."""
    problem: str = ""
    cause: Error | None = None
    location: str = ""
    round_trip_s: float | None = None
    """From hello to welcome, when it was connected to last."""


class Routes:
    """All addresses of one cluster, as one client knows them."""

    def __init__(self, given: tuple[Address, ...], pin: bool = False) -> None:
        self._routes = {address: _Route(address, given=True) for address in given}
        self._by_node: dict[str, Address] = {}
        self._told: dict[str, Address] = {}
        self._pin = pin
        self._turn = 0
        self._leader: Address | None = None
        self._leader_term = 0
        self._explore_at_s = 0.0

    @property
    def leader(self) -> Address | None:
        """Who is said to lead, by the newest term heard of."""
        return self._leader

    @property
    def known(self) -> tuple[Address, ...]:
        """All addresses, the given ones first."""
        return tuple(self._routes)

    # ---- learning

    def found(self, node_id: str, address: Address) -> None:
        """That node answered at that address."""
        self._by_node[node_id] = address
        route = self._routes.get(address)
        if route is not None:
            route.failures, route.rest_until_s, route.problem, route.cause = 0, 0.0, "", None

    def heard_of(self, node_id: str, text: str) -> Address | None:
        """Someone says that `node_id` is to be found at `text`. Gives the address to use: one at
        which that node answered before is believed more than what others say (they may see it by
        another name than we do). None when it is of no use."""
        known = self._by_node.get(node_id)
        try:
            told = parse_address(text)
        except ConfigError:
            return known
        if not self._pin and told not in self._routes and len(self._routes) < ADDRESSES_MAX:
            self._routes[told] = _Route(told, given=False)
        if told in self._routes and len(self._told) < ADDRESSES_MAX:
            self._told[node_id] = told
        if known is not None and not self._routes[known].failures:
            return known
        return told if told in self._routes else known

    def is_of(self, address: Address, node_id: str) -> bool:
        """Whether that node is to be found at `address`, perhaps beside others: a node in this
        process has one of its own, another by its socket."""
        return address in (self._by_node.get(node_id), self._told.get(node_id))

    def leads(self, address: Address | None, term: int, *, itself: bool = False) -> None:
        """Someone (the node `itself`) says that the node at `address` leads in `term`. Older terms
        are not believed."""
        if address is None or term < self._leader_term:
            return
        self._leader, self._leader_term = address, term
        route = self._routes.get(address)
        # It may be resting because it did not lead. Others who have not noticed yet that it stepped
        # down must not wake it again and again.
        if route is not None and not route.failures and (itself or term > route.declined_term):
            route.rest_until_s = 0.0

    def does_not_lead(self, address: Address, term: int) -> None:
        """The node at `address` says so itself, in `term`."""
        route = self._routes.get(address)
        if route is not None:
            route.declined_term = max(route.declined_term, term)
        if self._leader == address and term >= self._leader_term:
            self._leader, self._leader_term = None, term

    def forget_terms(self) -> None:
        """Another history: its terms start afresh."""
        self._leader, self._leader_term = None, 0
        for route in self._routes.values():
            route.declined_term = -1

    def failed(
        self,
        address: Address,
        now_s: float,
        problem: str,
        cause: Error | None = None,
        *,
        silent: bool = False,
    ) -> None:
        """Could not connect, or it went silent: leave it alone, longer each time."""
        route = self._routes.get(address)
        if route is None:
            return
        rest_s = min(REST_MIN_S * 2**route.failures, REST_MAX_S)
        if silent or cause is not None:
            rest_s = REST_SILENT_S
        route.failures = min(route.failures + 1, 16)
        route.rest_until_s = now_s + rest_s
        route.problem, route.cause = problem, cause

    def rest(self, address: Address, until_s: float, problem: str) -> None:
        """It answers, and is of no use just now."""
        route = self._routes.get(address)
        if route is not None:
            route.rest_until_s = max(route.rest_until_s, until_s)
            route.problem = problem

    # ---- choosing

    def next(self, now_s: float, avoid: Address | None = None) -> Address | None:
        """The best address for who looks for the leader; None when all are resting."""
        leader = self._leader
        if leader is not None and leader != avoid and self.is_awake(leader, now_s):
            return leader
        awake = [
            route.address
            for route in self._routes.values()
            if route.rest_until_s <= now_s and route.address != avoid
        ]
        if not awake:
            return None
        self._turn += 1
        return awake[self._turn % len(awake)]

    def next_given(self, now_s: float, prefer: str) -> Address | None:
        """The best address for who would ask any node: the preferred one, then those given, then
        the others, always in the same order; None when all are resting."""
        ordered = sorted(
            self._routes.values(),
            key=lambda route: (not self._is_preferred(route.address, prefer), not route.given),
        )
        for route in ordered:
            if route.rest_until_s <= now_s:
                return route.address
        return None

    def next_near(self, now_s: float, location: str) -> Address | None:
        """The nearest address for a read that any node may answer: by their locations when the
        client's own is known, else by the round trips that were measured. While all of those are
        long, one that was never measured has a turn now and then."""
        awake = [route for route in self._routes.values() if route.rest_until_s <= now_s]
        if not awake:
            return None
        if location:
            best = max(awake, key=lambda route: (_shared(route.location, location), _near(route)))
            return best.address
        measured = [route for route in awake if route.round_trip_s is not None]
        if not measured:
            return awake[0].address
        nearest = max(measured, key=_near)
        if -_near(nearest) > NEAR_S and now_s >= self._explore_at_s:
            self._explore_at_s = now_s + EXPLORE_S
            for route in awake:
                if route.round_trip_s is None:
                    return route.address
        return nearest.address

    def measured(self, address: Address, round_trip_s: float) -> None:
        """So long it took from hello to welcome."""
        route = self._routes.get(address)
        if route is not None:
            route.round_trip_s = round_trip_s

    def located(self, address: Address, location: str) -> None:
        """The node at `address` is there."""
        route = self._routes.get(address)
        if route is not None:
            route.location = location

    def _is_preferred(self, address: Address, prefer: str) -> bool:
        if not prefer:
            return False
        return str(address) == prefer or address == (
            self._by_node.get(prefer) or self._told.get(prefer)
        )

    def is_awake(self, address: Address | None, now_s: float) -> bool:
        """Whether that address may be tried now."""
        route = self._routes.get(address) if address is not None else None
        return route is not None and route.rest_until_s <= now_s

    def awake_at_s(self) -> float:
        """When the first of all resting ones may be tried again."""
        return min((route.rest_until_s for route in self._routes.values()), default=0.0)

    # ---- telling

    def problems(self) -> str:
        """What each address did wrong last, for an error's message."""
        told = [
            f"{route.address}: {route.problem}" for route in self._routes.values() if route.problem
        ]
        return "; ".join(told[:8])

    def all_fail(self) -> bool:
        """Whether no address could be connected to the last time."""
        return all(route.failures for route in self._routes.values())

    def hopeless(self) -> Error | None:
        """The error when every address fails for a reason that no retry will mend."""
        causes = [route.cause for route in self._routes.values()]
        return causes[0] if causes and all(cause is not None for cause in causes) else None


def _near(route: _Route) -> float:
    """The greater, the nearer."""
    return -route.round_trip_s if route.round_trip_s is not None else float("-inf")


def _shared(one: str, other: str) -> int:
    """How many leading parts two locations have in common."""
    count = 0
    for left, right in zip(one.split("/"), other.split("/"), strict=False):
        if left != right:
            break
        count += 1
    return count
