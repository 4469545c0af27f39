"""A network namespace for each node: its own interface, whose cable can be pulled, and whose
packets can be lost. Toxiproxy answers for whoever is cut off; here nobody does, as on a real
network: no ACK, no refusal, a connection that only a time-out ends.

    node n1 [198.18.K.6 eth0] ---- veth ---- [rcKn1 198.18.K.5] toxiproxy, clients

Needs root, and the programs `ip` (iproute2), `nsenter` (util-linux) and `iptables`. The addresses
are of the range for tests of networks (RFC 2544), and exist on this machine only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress

from raftdb.base.errors import ConfigError

PROGRAMS = ("ip", "nsenter", "iptables")
COMMAND_S = 20.0
NETWORKS = 256
_PATH = "/usr/sbin:/sbin"
_PREFIX = "raftdb-chaos"
_OURS = re.compile(rf"({_PREFIX}-(\d+)-(\d+)-(\w+))")

Rule = tuple[str, tuple[str, ...]]
"""Node, and what iptables drops there."""


def _run(*command: str) -> str:
    """Run it; its output. Raises ConfigError."""
    environ = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_PATH}"}
    program = shutil.which(command[0], path=environ["PATH"])
    if program is None:
        raise ConfigError(f"there is no {command[0]} here")
    done = subprocess.run(
        [program, *command[1:]],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout


class Namespaces:
    """Those of one cluster's nodes."""

    def __init__(self, nodes: Sequence[str]) -> None:
        """Make them. Raises ConfigError, and leaves nothing, where that cannot be."""
        if os.geteuid() != 0:
            raise ConfigError("network namespaces need root")
        for program in PROGRAMS:
            if shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}") is None:
                raise ConfigError(f"there is no {program} here")
        _sweep()
        self._nodes = list(nodes)
        self._dropped: set[Rule] = set()
        self._down: set[str] = set()
        self._network = self._reserve()
        try:
            for node in self._nodes:
                self._make(node)
                # Where the rules of a firewall cannot be made, that is known at once.
                self._iptables(node, "-L", ())
        except ConfigError:
            self.close()
            raise

    # ---- making

    def _reserve(self) -> int:
        """A network that nobody else has: the name of an interface is there once."""
        first = os.getpid() % NETWORKS
        problem = None
        candidates: list[int] = [*range(first, NETWORKS), *range(first)]
        for number in candidates:
            self._network = number
            try:
                kind = ("type", "veth", "peer", "name", self._outer("y"))
                _run("ip", "link", "add", self._outer("x"), *kind)
            except ConfigError as error:
                problem = error
                if "exists" in error.message:
                    continue
                raise
            return number
        raise ConfigError(f"all {NETWORKS} networks for tests are taken") from problem

    def _make(self, node: str) -> None:
        name, outer = self.name(node), self._outer(node)
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "address", "add", f"{self.gateway(node)}/30", "dev", outer)
        _run("ip", "link", "set", outer, "up")
        _run("ip", "-n", name, "address", "add", f"{self.address(node)}/30", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")

    def name(self, node: str) -> str:
        """Of a node's namespace; the process that made it is in it."""
        return f"{_PREFIX}-{os.getpid()}-{self._network}-{node}"

    def _outer(self, node: str) -> str:
        return f"rc{self._network}{node}"

    def _host(self, node: str, number: int) -> str:
        return f"198.18.{self._network}.{4 * (self._nodes.index(node) + 1) + number}"

    def gateway(self, node: str) -> str:
        """The other end of its cable: where it reaches what is outside."""
        return self._host(node, 1)

    def address(self, node: str) -> str:
        """The node's own."""
        return self._host(node, 2)

    def enter(self, node: str) -> tuple[str, ...]:
        """What runs a command there, before the command."""
        return ("nsenter", f"--net=/run/netns/{self.name(node)}")

    # ---- breaking

    def unplug(self, node: str) -> None:
        """Its cable is pulled."""
        _run("ip", "-n", self.name(node), "link", "set", "eth0", "down")
        self._down.add(node)

    def plug(self, node: str) -> None:
        """And put back."""
        _run("ip", "-n", self.name(node), "link", "set", "eth0", "up")
        self._down.discard(node)

    def drop(self, rules: Iterable[Rule]) -> None:
        """These packets are lost from now on."""
        for rule in rules:
            if rule not in self._dropped:
                self._iptables(rule[0], "-A", rule[1])
                self._dropped.add(rule)

    def pass_again(self, rules: Iterable[Rule]) -> None:
        """They are not any more."""
        for rule in rules:
            if rule in self._dropped:
                self._iptables(rule[0], "-D", rule[1])
                self._dropped.discard(rule)

    def heal(self) -> None:
        """All cables in place, nothing lost."""
        self.pass_again(sorted(self._dropped))
        for node in sorted(self._down):
            self.plug(node)

    def _iptables(self, node: str, what: str, rule: tuple[str, ...]) -> None:
        target = ("-j", "DROP") if rule else ("-n",)
        chain = (rule[0],) if rule else ("INPUT",)
        _run(*self.enter(node), "iptables", "-w", "10", what, *chain, *rule[1:], *target)

    def close(self) -> None:
        """Remove all of it."""
        for node in ("x", *self._nodes):
            with suppress(ConfigError):
                _run("ip", "link", "delete", self._outer(node))
            if node != "x":
                with suppress(ConfigError):
                    _run("ip", "netns", "delete", self.name(node))


def lost_words(source: str, target: str, ports: dict[tuple[str, str], int]) -> list[Rule]:
    """Rules by which nothing that one node says reaches another. Who dialled goes out through the
    proxy `source-target`; on a connection that the other one dialled, words (and ACKs) come back to
    it from the proxy `target-source`."""
    return [
        (source, ("OUTPUT", "-p", "tcp", "--dport", str(ports[source, target]))),
        (target, ("INPUT", "-p", "tcp", "--sport", str(ports[target, source]))),
    ]


def _sweep() -> None:
    """Remove what a run that was killed left behind."""
    for name, pid, network, node in set(_OURS.findall(_run("ip", "netns", "list"))):
        if not os.path.exists(f"/proc/{pid}"):
            for outer in (f"rc{network}{node}", f"rc{network}x"):
                with suppress(ConfigError):
                    _run("ip", "link", "delete", outer)
            with suppress(ConfigError):
                _run("ip", "netns", "delete", name)
