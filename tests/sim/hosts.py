"""A cluster of simulated machines: founding, starting, killing, cutting power, looking on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raftdb.base.config import CheckpointConfig, JournalConfig, NodeConfig, TimingConfig
from raftdb.base.errors import ConfigError, Error, FatalError
from raftdb.base.ids import Address, ClusterId, HistoryId, NodeId
from raftdb.base.layout import database_path, journal_path
from raftdb.base.limits import Limits
from raftdb.base.ports import Ports
from raftdb.base.settings import MemberConfig
from raftdb.base.startup import NodeIdentity, write_identity
from raftdb.consensus.membership import (
    LEARNER,
    Configuration,
    Member,
    configuration_of,
    encode_configuration,
)
from raftdb.consensus.wall import Wall
from raftdb.embedded.assembly import StartAgain
from raftdb.embedded.given import members_of
from raftdb.journal import Journal
from raftdb.machine import Machine
from tests.sim.checkers import Broken, Checker, blamed, told
from tests.sim.checkers.memberships import FOUNDED
from tests.sim.disk import SimFiles
from tests.sim.network import Fabric, SimNetwork, Weather
from tests.sim.node import WholeNode
from tests.sim.ports import (
    WALL_START_MS,
    CpuClock,
    Quiet,
    SimClock,
    SimExecutor,
    SimLog,
    SimRandom,
    Threads,
)
from tests.sim.vfs import LockDirectory, Route, simulated
from tests.sim.world import Life, World

CLUSTER = ClusterId("5" * 32)
HISTORY = HistoryId("7" * 32)
CLIENT_PORT = 7001
PEER_PORT = 7000
REFUSALS_MAX = 3
"""So often a damaged node is started again."""
REMOVED = "removed"
"""Code of a node's end when it was removed."""
HONEST_ENDS = (FatalError, ConfigError, OSError)
"""How a node may end when its disk has failed it. Anything else is a defect."""


@dataclass
class Host:
    """One machine, and the process that may run on it."""

    name: str
    files: SimFiles
    clock: SimClock
    config: NodeConfig
    random: random.Random
    lives: int = 0
    life: Life | None = None
    network: SimNetwork | None = None
    node: WholeNode | None = None
    disk_slow_s: float = 0.0
    stalled_until_s: float = 0.0
    step_s: float = 0.0
    look_s: float = 0.0
    call_s: float = 0.0
    """So much of the time of a call of the disk is stolen, at most."""
    excused: bool = False
    """Its disk was made to fail, so that stopping is what it should do."""
    damaged: bool = False
    """What it had on its disk was changed: it may never come back."""
    strays: bool = False
    """Something wrote into the log that its process reads: what it shows may be wrong."""
    strayed_until_s: float = -1.0
    """Until then that was so the last time."""
    failed: bool = False
    """A call of its disk has failed, since it was whole for the last time."""
    held_down: bool = False
    """Nobody starts it again but who did this."""
    retired: bool = False
    """Nobody ever starts it again: it was removed and knows it, or its machine is gone."""
    refusals: int = 0
    stops: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sizes:
    """What the nodes of a run are configured to."""

    places: tuple[str, ...]
    """One per node."""
    timing: TimingConfig
    limits: Limits
    wal_bytes: int
    weather: Weather
    slow_apply_chance: float = 0.02
    keep_bytes: int = 1 << 20
    """Of the journal, behind the database."""
    between_chance: float = 0.0
    """That another lane's work happens in the midst of a disk call of SQLite's."""
    job_chance: float = 0.0
    """That a lane's work runs on a thread of its own, and stops in its midst."""
    stop_chance: float = 0.0
    """That it stops, at each call of the disk."""
    look_steps: int = 0
    """So often a write looks whether it has run too long, in steps of SQLite's; 0: as it does."""
    patience_s: float = 0.5
    """How long a client waits before it looks elsewhere."""
    timeout_s: float = 5.0
    """How long a client's operation may take; then it is given up."""


class Cluster:
    """Machines and their processes."""

    def __init__(
        self, world: World, sizes: Sizes, *, wall: Wall, checkers: Sequence[Checker]
    ) -> None:
        self.world = world
        self.sizes = sizes
        self.fabric = Fabric(world, sizes.weather)
        self.checkers = checkers
        self._after_event = told(checkers, "after_event")
        self._wall = wall
        self._locks = LockDirectory()
        self._nodes: list[WholeNode] = []
        self.hosts: dict[str, Host] = {}
        self.copies_installed = 0
        self.asked_for_changes = False
        self.members = tuple(
            MemberConfig(
                NodeId(f"n{number}"),
                place,
                Address(f"n{number}", PEER_PORT),
                Address(f"n{number}", CLIENT_PORT),
            )
            for number, place in enumerate(sizes.places, 1)
        )
        for member in self.members:
            self._found(member, self.members)
        founders = members_of(next(iter(self.hosts.values())).config)
        facts = {
            "configuration": configuration_of(founders),
            "events": lambda: world.events,
        }
        for checker in checkers:
            checker.on_event(FOUNDED, "", facts)

    def add_host(self, member: MemberConfig, known: Sequence[Member]) -> Host:
        """A machine with a node that is to become a member, as `raftdb member add` prepares it: it
        takes itself for a learner until the log says otherwise. `known`: the members, as told."""
        taken = {member.peer_address, member.client_address}
        others = [one for one in known if not taken & {one.peer_address, one.client_address}]
        own = Member(
            member.node_id,
            member.location,
            member.peer_address,
            member.client_address,
            LEARNER,
        )
        members = [
            MemberConfig(one.node_id, one.location, one.peer_address, one.client_address)
            for one in others
        ]
        host = self._found(member, (*members, member), configuration_of([*others, own]))
        self.fabric.residents[member.peer_address.host] = host.name
        return host

    def _found(
        self,
        member: MemberConfig,
        members: tuple[MemberConfig, ...],
        configuration: Configuration | None = None,
    ) -> Host:
        """As `raftdb init` does it, on a disk of its own."""
        name = str(member.node_id)
        config = NodeConfig(
            cluster_id=CLUSTER,
            history=HISTORY,
            node_id=member.node_id,
            data_dir=f"/{name}/data",
            peer_listen=member.peer_address,
            client_listen=member.client_address,
            members=members,
            insecure=True,
            timing=self.sizes.timing,
            limits=self.sizes.limits,
            checkpoint=CheckpointConfig(wal_bytes=self.sizes.wal_bytes),
            journal=JournalConfig(keep_bytes=self.sizes.keep_bytes),
        )
        files = self.new_disk(config, configuration)
        self.fabric.places[name] = member.location
        host = self.hosts[name] = Host(
            name,
            files,
            SimClock(self.world),
            config,
            random.Random(f"{self.world.seed} host {name}"),
        )
        return host

    def new_disk(self, config: NodeConfig, configuration: Configuration | None = None) -> SimFiles:
        """What `raftdb init` leaves on a disk."""
        world, name = self.world, str(config.node_id)
        files = SimFiles(random.Random(f"{world.seed} disk {name}"))
        write_identity(
            files,
            config.data_dir,
            NodeIdentity(CLUSTER, config.history, config.node_id, "2026-01-01"),
        )
        for path in (journal_path(config.data_dir), database_path(config.data_dir)):
            files.make_directory(path)
        files.sync_directory(config.data_dir)
        Journal.create(
            files, journal_path(config.data_dir), SimRandom(f"{world.seed} found {name}")
        )
        vfs = simulated()
        vfs.now_ms = lambda: WALL_START_MS + int(world.now_s * 1000)
        vfs.routes[name] = Route(files, self._locks.new_prefix())
        path = database_path(config.data_dir)
        Machine.create(path, config.history, files=files, vfs_base=vfs.name)
        if configuration is not None:
            machine = Machine.open(
                path,
                history=config.history,
                limits=config.limits,
                files=files,
                log=Quiet(),
                vfs_base=vfs.name,
            )
            machine.seed_configuration(encode_configuration(configuration))
            machine.close()
        return files

    # -- processes -------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the node's process, unless it runs."""
        host, world = self.hosts[name], self.world
        if host.life is not None or host.held_down or host.retired:
            return
        host.lives += 1
        life = host.life = Life(world, name, host.lives)
        life.step_s = host.step_s
        host.network = SimNetwork(life, self.fabric, "node", CLUSTER)
        host.excused = False
        tag = f"{world.seed} {name} {host.lives}"
        cpu_clock = self._cpu_clock(host, tag)
        executor = SimExecutor(
            life,
            lambda lane: self._lane_latency_s(host, lane),
            random.Random(f"{tag} lanes"),
        )
        executor.is_stalled = lambda lane: (
            host.stalled_until_s > world.now_s and lane in ("journal", "checkpoint")
        )
        executor.between_chance = self.sizes.between_chance
        self._thread(host, executor, tag)
        ports = Ports(
            clock=host.clock,
            random=SimRandom(f"{tag} port"),
            executor=executor,
            files=host.files,
            network=host.network,
            log=SimLog(life),
        )
        host.failed = host.failed or host.files.dropped or host.files.failed
        host.files.dropped = host.files.failed = False
        host.files.on_remove = None
        self.note("start", name, life=host.lives)
        vfs = simulated()
        on_call = self._on_call(life, executor, cpu_clock)
        vfs.routes[name] = Route(host.files, self._locks.new_prefix(), on_call)

        def stopped(error: BaseException | None) -> None:
            self._on_stopped(host, life, error)

        try:
            node = WholeNode(
                host.config,
                ports,
                stopped,
                wall=self._wall,
                vfs_base=vfs.name,
                cpu_clock=cpu_clock,
                checkers=self.checkers,
            )
        except Exception as error:
            self._on_stopped(host, life, error)
            return
        if node.forgotten and not host.damaged:
            why = f"{name} has lost its memory: {node.assembly.damage}"
            self.world.fail(Broken("no node forgets by itself", why))
        if not node.assembly.damage:
            host.failed = False
        elif not (host.damaged or host.failed):
            why = f"{name} takes what is sound for damaged: {node.assembly.damage}"
            self.world.fail(Broken("no node heals what is sound", why))
        host.node = node
        node.threads = executor.threads
        executor.may_run = node.may_run
        self._nodes.append(node)
        life.after_each = self._look_at(node)
        life.on_crash = node.assembly.fail
        life.run(node.assembly.start, _nothing)

    def _cpu_clock(self, host: Host, tag: str) -> CpuClock:
        clock = CpuClock(self.world, random.Random(f"{tag} cpu"))
        clock.look_s, clock.call_s = host.look_s, host.call_s
        clock.everywhere = bool(self.sizes.look_steps)
        return clock

    def _on_call(
        self, life: Life, executor: SimExecutor, cpu_clock: CpuClock
    ) -> Callable[[], None] | None:
        """What happens at SQLite's calls for data."""
        between = executor.between if executor.between_chance else None
        if not self.sizes.look_steps:
            return between

        def on_call() -> None:
            took_s = cpu_clock.called()
            if took_s and not executor.is_in_lane:
                life.keep(took_s)
            if between is not None:
                between()

        return on_call

    def _thread(self, host: Host, executor: SimExecutor, tag: str) -> None:
        """Where the run says so, lanes are threads that stop in their midst."""
        host.files.before_each = None
        if self.sizes.job_chance:
            executor.threads = Threads(
                self.sizes.job_chance, self.sizes.stop_chance, random.Random(f"{tag} threads")
            )
            host.files.before_each = executor.pause

    def kill(self, name: str, *, power: bool) -> None:
        """SIGKILL, or the machine loses power."""
        host = self.hosts[name]
        self.note("power lost" if power else "killed", name)
        if host.life is not None:
            self._end_process(host, power=power)
        if power:
            host.files.crash()
        else:
            host.files.kill()

    def die_in_write(self, name: str, mutations: int, *, power: bool) -> None:
        """The same, in the middle of what the node is doing: at one of its next disk calls."""
        host = self.hosts[name]
        life = host.life
        if life is None:
            return
        host.excused = True

        def now() -> None:
            if host.life is not life:
                return
            self.note("power lost in a write" if power else "killed in a write", name)
            if host.node is not None:
                for checker in self.checkers:
                    checker.on_cut_short(host.node)
            self._end_process(host, power=power)
            self.world.at(0.0, host.files.crash if power else host.files.kill)

        host.files.power_off_after(mutations, now)

    def terminate(self, name: str) -> None:
        """SIGTERM: the node hands over, and ends in order."""
        host = self.hosts[name]
        if host.node is not None and host.life is not None:
            self.note("terminated", name)
            host.life.run(host.node.assembly.stop)

    def _end_process(self, host: Host, *, power: bool) -> None:
        life, network, node = host.life, host.network, host.node
        host.life = host.network = host.node = None
        if host.strays:
            # A start reads the log up to what does not fit.
            host.strays, host.strayed_until_s = False, self.world.now_s
        if life is not None and network is not None:
            life.end()
            network.die(silently=power)
        if node is not None:
            self.world.at(0.0, self._abandon, node)

    def _abandon(self, node: WholeNode) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
            node.abandon()

    def close(self) -> None:
        """The run is over: give everything back."""
        for host in self.hosts.values():
            host.files.kill()
        for node in list(self._nodes):
            self._abandon(node)
        self._locks.remove()

    def _on_stopped(self, host: Host, life: Life, error: BaseException | None) -> None:
        if host.life is not life:
            return
        if isinstance(error, StartAgain):
            # It got a copy of the database, and its owner makes it anew at once.
            self.note("starts again", host.name)
            self.copies_installed += 1
            self._end_process(host, power=False)
            host.files.kill()
            self.world.at(0.0, self.start, host.name)
            return
        code = error.code if isinstance(error, Error) else type(error).__name__
        self.note("stopped", host.name, error=f"{code}: {error}" if error is not None else "")
        if code == REMOVED:
            self._on_removed(host)
        elif error is not None:
            host.stops.append(code)
            may = (host.excused or host.damaged) and isinstance(error, HONEST_ENDS)
            if not may:
                self.world.fail(
                    blamed(error)
                    or Broken("no node stops by itself", f"{host.name}: {code}: {error!r}")
                )
        self._end_process(host, power=False)
        host.files.kill()
        host.refusals += error is not None and host.damaged
        if host.refusals < REFUSALS_MAX:
            self.world.at(host.random.uniform(0.2, 2.0), self.start, host.name)

    def _on_removed(self, host: Host) -> None:
        """A node says that it is no member any more; who starts it again hears the same."""
        host.retired = REMOVED in host.stops
        host.stops.append(REMOVED)
        for checker in self.checkers:
            checker.on_event("removed", host.name, {})

    def retire(self, name: str, *, lost: bool = False) -> None:
        """Take the machine away, for good; `lost`: with what its disk held."""
        host = self.hosts[name]
        self.kill(name, power=True)
        host.retired = True
        host.damaged = host.damaged or lost

    # -- looking ---------------------------------------------------------------------------------

    def configuration(self) -> Configuration:
        """The newest one that a live node knows to be committed."""
        known = [node.configurations for node in self.live()]
        if not known:
            return configuration_of(members_of(self.hosts[str(self.members[0].node_id)].config))
        return max(known, key=lambda one: one.committed_index).committed

    @property
    def changes(self) -> bool:
        """Whether members ever came or went in this run."""
        return len(self.hosts) > len(self.members) or self.asked_for_changes

    def client_addresses(self) -> list[Address]:
        """What a client that begins now is told."""
        if not self.changes:
            return [member.client_address for member in self.members]
        return [member.client_address for member in self.configuration().members]

    def members_now(self) -> list[Host]:
        """Machines of members, as of `configuration`."""
        if not self.changes:
            return list(self.hosts.values())
        return [self.hosts[str(one.node_id)] for one in self.configuration().members]

    def live(self) -> list[WholeNode]:
        """Nodes whose process runs (paused ones too)."""
        return [host.node for host in self.hosts.values() if host.node is not None]

    def leaders(self) -> list[WholeNode]:
        """Nodes that believe to lead."""
        return [node for node in self.live() if node.role == "leader"]

    def call(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        """From outside into the node's process, if it runs."""
        life = self.hosts[name].life
        if life is not None:
            life.run(call, *arguments)

    def note(self, kind: str, name: str, **facts: Any) -> None:
        """Something happened to a machine or its process: into the story, and to checkers."""
        host = self.hosts.get(name)
        if host is not None and host.files.dropped:
            # A failed sync lost what was not on the device, as a power cut does.
            facts["dropped"] = True
        text = " ".join(f"{key}={value}" for key, value in facts.items())
        self.world.note(f"{name} {kind} {text}")
        for checker in self.checkers:
            checker.on_event(kind, name, facts)

    def _look_at(self, node: WholeNode) -> Callable[[], None]:
        """Look at the node after each of its events. There are many events, and few of them change
        anything that checkers look at."""
        for checker in self.checkers:
            checker.on_started(node)
        raft, told = node._library.raft, self._after_event
        role: Any = None
        term: Any = None
        commit: Any = None

        def look() -> None:
            nonlocal role, term, commit
            now_role, now_term = raft._SyncObj__raftState, raft._SyncObj__raftCurrentTerm
            now_commit = raft._SyncObj__raftCommitIndex
            if now_commit == commit and now_term == term and now_role == role:
                return
            role, term, commit = now_role, now_term, now_commit
            for after_event in told:
                after_event(node)

        return look

    def _lane_latency_s(self, host: Host, lane: str) -> float:
        draw = host.random
        if lane == "journal":
            return draw.uniform(0.0003, 0.004) + host.disk_slow_s
        if lane == "checkpoint":
            return draw.uniform(0.001, 0.05) + host.disk_slow_s
        if draw.random() < self.sizes.slow_apply_chance:
            return draw.uniform(0.01, 0.2)
        return draw.uniform(0.0001, 0.002)


def _nothing() -> None:
    pass
