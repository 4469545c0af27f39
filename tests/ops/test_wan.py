"""The lines between regions: docker-compose.yml, docker/wan.json and the profiles fit together."""

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from raftdb.base.errors import ConfigError, UnavailableError
from raftdb.base.ids import Address
from raftdb.ops import wan
from raftdb.ops.ports import free_ports
from raftdb.runtime.clock import RealClock

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROXIES = {one["name"]: one for one in json.loads((ROOT / "docker/wan.json").read_text())}
REGIONS = {"virginia", "ireland", "frankfurt", "oregon"}
MEMBERS: dict[str, Mapping[str, str]] = {
    found["id"]: found.groupdict()
    for text in COMPOSE["services"]["found"]["command"][1:]
    if (
        found := re.fullmatch(
            r"(five:)?(?P<id>\w+),location=(?P<region>\w+)/\w+,"
            r"peer=\w+:(?P<peer>\d+),client=\w+:(?P<client>\d+)",
            text,
        )
    )
}
_, ID, LOCATION, PEER, CLIENT = COMPOSE["services"]["enlist"]["command"]
MEMBERS[ID] = {
    "region": LOCATION.split("/")[0],
    "peer": PEER.removeprefix(f"{ID}:"),
    "client": CLIENT.removeprefix(f"{ID}:"),
}
"""The read replica, which is no founder."""


def aliases(service: str, network: str) -> set[str]:
    return set(COMPOSE["services"][service]["networks"][network].get("aliases", []))


def test_every_node_stands_in_the_network_of_its_region_and_in_no_other() -> None:
    assert len(MEMBERS) == 6
    for name, member in MEMBERS.items():
        assert list(COMPOSE["services"][name]["networks"]) == [member["region"]]
        assert f"at-{name}" in aliases(name, member["region"])


@pytest.mark.parametrize("region", sorted(REGIONS | {"office"}))
def test_whatever_stands_elsewhere_is_reached_through_the_wan(region: str) -> None:
    named = aliases("wan", region)
    away = {name for name, member in MEMBERS.items() if member["region"] != region}
    assert named == away | {f"wan.{region}", "store"}
    services = ("client",) if region == "office" else ("peer", "client")
    wanted = {f"{region}-offsite-store": (f"wan.{region}:8333", "at-store:8333")}
    for name in away:
        for service in services:
            port = MEMBERS[name][service]
            line = f"{region}-{MEMBERS[name]['region']}-{name}-{service}"
            wanted[line] = (f"wan.{region}:{port}", f"at-{name}:{port}")
    lines = {name: one for name, one in PROXIES.items() if name.startswith(f"{region}-")}
    assert {name: (one["listen"], one["upstream"]) for name, one in lines.items()} == wanted


def test_a_profile_names_places_that_there_are_and_the_default_names_every_pair() -> None:
    places = REGIONS | {"office", "offsite"}
    for name, pairs in wan.PROFILES.items():
        assert all(len(pair) == 2 and pair <= places for pair in pairs), name
    assert set(wan.PROFILES["transatlantic"]) == {frozenset(two) for two in combinations(places, 2)}


def test_halves_add_up_also_when_they_are_odd() -> None:
    for rtt_ms in (1.0, 2.0, 75.0, 90.0):
        halves = [wan._latency(name, rtt_ms)["attributes"]["latency"] for name in wan._TOXICS]
        assert sum(halves) == rtt_ms


def test_a_server_that_is_not_there_is_named_after_the_wait() -> None:
    address = Address("127.0.0.1", free_ports(1))
    with pytest.raises(UnavailableError, match=f"toxiproxy at {address} does not answer") as caught:
        wan.open_wan(address, 0.3, RealClock())
    assert "--api" in caught.value.hint


def test_an_unknown_profile_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown profile 'transatlantik'") as caught:
        wan.Wan(Address("127.0.0.1", 1)).apply("transatlantik")
    assert "transatlantic" in caught.value.hint
