"""What is decided before anything runs: slices, seeds, commands, pictures."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from chaos import matrix, namespaces, report
from chaos.__main__ import _faults_of, main, parser
from chaos.cluster import SHIM
from chaos.failover import WAYS, Way, picture, planned
from chaos.faults import FAULTS
from chaos.links import BLOCK, Links, both_ways, latency
from chaos.namespaces import lost_words
from chaos.run import Plan, Round, _namespaces
from chaos.traffic import of_round, silence_s
from raftdb.base.errors import ConfigError
from tests.workloads import WORKLOADS
from tests.workloads.counters import Counters


def test_slices_go_around_the_whole_matrix() -> None:
    everything = matrix.cells()
    assert len(everything) == len(set(everything)) == 2 * len(WORKLOADS) * len(FAULTS)
    seen = [cell for number in range(len(everything)) for cell in matrix.slice_of(number, 10)]
    assert set(seen) == set(everything)
    assert matrix.slice_of(3, 10) == matrix.slice_of(3 + len(everything), 10)
    assert len(matrix.slice_of(0, 10**6)) == len(everything)


def test_a_slice_has_rounds_on_clusters_of_both_sizes() -> None:
    chosen = matrix.slice_of(0, 40)
    plans = matrix.plans_of(chosen, "s", 5.0)
    assert sorted(plans) == [3, 5]
    assert sum(map(len, plans.values())) == 40


def test_the_seed_decides_the_kinds_of_faults() -> None:
    options = parser().parse_args([])
    assert _faults_of(options, "7") == _faults_of(options, "7")
    assert len({_faults_of(options, str(seed)) for seed in range(20)}) > 10
    assert main(["--faults", "kill,nonsense"]) == 2
    mixed = parser().parse_args(["--mixed"])
    assert _faults_of(mixed, "7") == (*_faults_of(options, "7"), "other-release")
    assert main(["--faults", "other-release"]) == 2, "there are two releases with --mixed only"


@pytest.mark.parametrize(
    ("words", "kills", "ways"),
    [
        ([], 20, ["kill"]),
        (["--quick"], 1, ["kill", "hand-over"]),
        (["--quick", "--how", "deaf,stop", "--kills", "3"], 3, ["deaf", "stop"]),
    ],
)
def test_what_was_asked_for_goes_before_quick(
    words: list[str], kills: int, ways: list[str]
) -> None:
    asked = planned(parser().parse_args(["failover", *words]))
    assert (asked[0], [way.name for way in asked[1]]) == (kills, ways)
    assert main(["failover", "--quick", "--how", "nonsense"]) == 2


def test_a_failure_names_its_command() -> None:
    one = Round(Plan("7.3", "bank", ("kill", "split"), 20.0), 5)
    words = report.command(one).split()
    options = parser().parse_args(words[3:])
    assert (options.seed, options.nodes, options.workload) == ("7.3", 5, "bank")
    assert _faults_of(options, "7.3") == ("kill", "split")
    mixed = Round(Plan("7.3", None, ("other-release",), 20.0, mixed=True), 3)
    options = parser().parse_args(report.command(mixed).split()[3:])
    assert options.mixed
    assert _faults_of(options, "7.3") == ("other-release",)
    one.broken.append("lost")
    assert report.as_dict([one], [])["verdict"] == "broken"


class FakeApi:
    """Remembers what toxiproxy would be told."""

    def __init__(self) -> None:
        self.toxics: set[tuple[str, str]] = set()

    def create(self, *, upstream: str, name: str, listen: str) -> FakeProxy:
        return FakeProxy(self, name)


class FakeProxy:
    def __init__(self, api: FakeApi, name: str) -> None:
        self._api, self._name = api, name

    def add_toxic(self, *, name: str, **_: object) -> None:
        assert (self._name, name) not in self._api.toxics
        self._api.toxics.add((self._name, name))

    def destroy_toxic(self, name: str) -> None:
        self._api.toxics.remove((self._name, name))


def test_each_direction_of_a_pair_is_cut_in_both_of_its_proxies() -> None:
    api = FakeApi()
    links = Links(api)
    links.make("a", "b", "127.0.0.1:1", "x")
    links.make("b", "a", "127.0.0.1:2", "x")
    links.make("clients", "a", "127.0.0.1:3", "x")
    links.cut([("a", "b")])
    assert api.toxics == {("a-b", "timeout_upstream"), ("b-a", "timeout_downstream")}
    links.cut([("a", "b")])
    links.put("a", "b", latency(5))
    links.mend([("a", "b")])
    assert api.toxics == {("a-b", "latency_upstream"), ("b-a", "latency_downstream")}
    links.cut(both_ways([("clients", "a")]))
    links.heal()
    assert api.toxics == set()
    assert str(BLOCK) == "timeout(timeout 0)"


def test_lost_packets_are_those_of_one_direction_in_both_proxies() -> None:
    ports = {("a", "b"): 1, ("b", "a"): 2}
    assert lost_words("a", "b", ports) == [
        ("a", ("OUTPUT", "-p", "tcp", "--dport", "1")),
        ("b", ("INPUT", "-p", "tcp", "--sport", "2")),
    ]


class FakeSystem:
    """What the kernel would have after these commands."""

    def __init__(self, fails_at: str = "") -> None:
        self.there: set[str] = {"taken"}
        self.fails_at = fails_at

    def __call__(self, *command: str) -> str:
        words = [one for one in command if not one.startswith("--net")]
        if self.fails_at and self.fails_at in command:
            raise ConfigError("`ip` failed: not permitted")
        if words[:3] in (["ip", "link", "add"], ["ip", "netns", "add"]):
            if words[3] in self.there:
                raise ConfigError("`ip` failed: File exists")
            self.there.add(words[3])
        if words[:3] in (["ip", "link", "delete"], ["ip", "netns", "delete"]):
            self.there.discard(words[3])
        if "iptables" in words and "-A" in words:
            self.there.add(" ".join(words[5:]))
        if "iptables" in words and "-D" in words:
            self.there.remove(" ".join(words[5:]))
        return ""


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    fake = FakeSystem()
    monkeypatch.setattr(namespaces, "_run", fake)
    monkeypatch.setattr(namespaces, "_sweep", lambda: None)
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces.shutil, "which", lambda name, path: name)
    return fake


def test_namespaces_are_made_broken_healed_and_removed(system: FakeSystem) -> None:
    first = os.getpid() % namespaces.NETWORKS
    system.there.add(f"rc{first}x")
    made = namespaces.Namespaces(["n1", "n2", "n3"])
    after = (first + 1) % namespaces.NETWORKS
    assert made.address("n2") == f"198.18.{after}.10", "the first network is somebody else's"
    assert made.gateway("n2") == f"198.18.{after}.9"
    whole = set(system.there)
    rules = lost_words("n1", "n2", {("n1", "n2"): 1, ("n2", "n1"): 2})
    made.drop(rules)
    made.drop(rules)
    assert len(system.there) == len(whole) + 2
    made.heal()
    assert system.there == whole
    made.close()
    assert system.there == {"taken", f"rc{first}x"}


def test_what_cannot_be_made_leaves_nothing(system: FakeSystem) -> None:
    system.fails_at = "iptables"
    with pytest.raises(ConfigError, match="not permitted"):
        namespaces.Namespaces(["n1", "n2", "n3"])
    assert system.there == {"taken"}


def test_namespaces_without_root_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="need root"):
        namespaces.Namespaces(["n1"])
    missing: dict[str, str] = {}
    assert _namespaces(3, {"link-down", "kill"}, missing) is None
    assert missing == {"link-down": "network namespaces need root"}
    assert _namespaces(3, {"kill"}, missing) is None


@pytest.mark.parametrize("seconds", [0, -86_400])
def test_the_clock_shim_moves_the_wall_clock_alone(tmp_path: Path, seconds: int) -> None:
    path = tmp_path / "clock"
    path.write_bytes(struct.pack("<q", seconds * 1_000_000_000))
    code = "import time; print(time.time_ns() // 10**9, time.monotonic())"
    env = {**os.environ, "PYTHONPATH": str(SHIM), "CHAOS_CLOCK": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    wall, monotonic = done.stdout.split()
    assert abs(int(wall) - time.time() - seconds) < 60
    assert abs(float(monotonic) - time.monotonic()) < 60


def test_no_idempotency_key_comes_again_in_another_round() -> None:
    draw = random.Random("keys")
    counters = [Counters(), Counters()]
    asked = [[one.next(0, draw) for _ in range(50)] for one in counters]
    first, second = (
        {of_round(one, seed).key for one in operations if one.key}
        for operations, seed in zip(asked, ("7", "7.1"), strict=True)
    )
    assert first
    assert not first & second
    unkeyed = next(one for one in asked[0] if not one.key)
    assert of_round(unkeyed, "7") is unkeyed


def test_silence() -> None:
    assert silence_s([1.0, 1.5, 4.0], 0.5, 4.5) == 2.5
    assert silence_s([], 0.0, 2.0) == 2.0


def test_the_picture_has_a_dot_for_each_loss() -> None:
    ways = [Way(name, [0.1 * n for n in range(1, 9)]) for name in WAYS]
    shapes = ElementTree.fromstring(picture(ways, 100))
    dots = [one for one in shapes if one.tag.endswith("circle")]
    assert len(dots) == 8 * len(WAYS)
    assert ways[0].as_dict()["max_ms"] == 800
    ElementTree.fromstring(picture([Way("kill")]))
