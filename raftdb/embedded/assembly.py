"""One node, from journal to client port, on whatever ports it is given.

Real ports make a process (`foreground`) or an embedded node (`node`); simulated ones make a member
of a simulated cluster. Nothing here knows which.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raftdb._version import __version__
from raftdb.archive import NOTE_MARK, ArchiveService, Standing, load_keys
from raftdb.base.atomic import replace_file
from raftdb.base.config import NodeConfig
from raftdb.base.damage import DATABASE, LOG_END, damage_of, write_note
from raftdb.base.errors import ConfigError, Error
from raftdb.base.ids import Index, NodeId
from raftdb.base.layout import (
    journal_path,
    quarantine_path,
    removed_path,
    reserve_path,
)
from raftdb.base.ports import Ports
from raftdb.base.startup import check_clock, check_identity, note_superseded, removed_error
from raftdb.consensus import Engine
from raftdb.consensus.membership import (
    Configuration,
    configuration_of,
    decode_configuration,
    encode_configuration,
)
from raftdb.consensus.port import EngineEvents, EngineStatus, Member
from raftdb.embedded.compatibility import compatibility
from raftdb.embedded.describing import describe
from raftdb.embedded.given import copy_settings, listening, members_of, timing_of
from raftdb.embedded.opening import open_data
from raftdb.embedded.verifier import VerifyProcess
from raftdb.journal import Journal
from raftdb.machine import Machine, fingerprint
from raftdb.node import (
    AMNESIA_MARK,
    DISK_FULL,
    PROXIMITY_MARK,
    Comparison,
    ContentScrub,
    DiskSpace,
    DiskWatch,
    FileScrub,
    Forgetful,
    Goals,
    Healing,
    Housekeeping,
    Identity,
    Membership,
    Pace,
    Preference,
    Proximity,
    Releases,
    Reliever,
    Replica,
    Room,
    Verdicts,
    quarantined,
)
from raftdb.server import ClientListener

Stopped = Callable[[BaseException | None], None]

CLOSE_S = 2.0
"""How long a node that failed tries to close its files; they are safe either way."""

HEAL_AFTER_S = 5.0
"""A node that was quarantined when it stopped may find that it agrees by now."""

LINGER_S = 0.05
"""How long answers that are already written get to leave before connections are closed."""


class StartAgain(Exception):
    """The node ended so that its owner makes a new one on the same directory, at once."""


class Assembly:
    """A node. Everything here runs on the loop; `stopped` is called once, last."""

    journal_class: type[Journal] = Journal
    machine_class: type[Machine] = Machine
    engine_class: Callable[..., Engine] = Engine
    """What the parts are made of; the simulation's are watched."""

    def __init__(
        self,
        config: NodeConfig,
        ports: Ports,
        stopped: Stopped,
        facts: Callable[[], dict[str, Any]] | None = None,
        vfs_base: str = "",
    ) -> None:
        """Open journal and database. Raises ConfigError or FatalError, and then holds nothing.

        `facts` adds to the status what only the owner knows (certificates, memory). `vfs_base`
        names the VFS below SQLite, `` for the system's: where the files port is not the system's
        (or is watched), the database's files have to go the same way.
        """
        self.config = config
        self._ports = ports
        self._stopped: Stopped | None = stopped
        self._facts = facts or dict
        self._started_s = ports.clock.monotonic_s()
        self._stopping = self._closing = self._again = False
        self.serves = False
        """Whether it may answer: not before it is known, nor after it ends. From any thread."""
        self._failure: BaseException | None = None
        check_identity(ports.files, config, ports.log)
        room = Room(
            ports.files,
            reserve_path(config.data_dir),
            config.data_dir,
            config.disk.reserve_bytes,
        )
        room.let_go()
        opened = open_data(config, ports, self.journal_class, self.machine_class, vfs_base)
        self.journal, self.machine = opened.journal, opened.machine
        self._note, self._memory = opened.note, opened.memory
        self.damage = opened.damage
        """What is wrong with the files of this node; None: nothing is known to be."""
        check_clock(ports.clock.wall_ms(), self.machine.time_ms(), ports.log)
        self.releases = self._make_releases()
        members = self._known_members()
        identity = Identity(config.cluster_id, config.history, config.node_id, members)
        self.engine = self._make_engine(identity, vfs_base)
        self.comparison = self._make_comparison(identity)
        self._verdicts = Verdicts(self.engine, self.machine, ports, config.limits)
        self.replica = Replica(
            identity=identity,
            engine=self.engine,
            machine=self.machine,
            ports=ports,
            limits=config.limits,
            refusal=self.refusal,
        )
        self._healing, self._forgetful = self._make_healing(), self._make_forgetful()
        self._reliever = Reliever(self.engine, ports)
        self._make_disks(room, identity)
        self.scrub = FileScrub(self.machine, journal_path(config.data_dir), ports, config.scrub)
        self._housekeeping = Housekeeping(
            self.replica, self.machine, self.journal, ports, config.checkpoint.wal_bytes
        )
        self._make_placed(ports)
        self._scrub = self._make_scrub()
        self._archive = self._open_archive()
        self.listener = ClientListener(
            replica=self.replica, ports=ports, limits=config.limits, describe=self.describe
        )

    def _make_disks(self, room: Room, identity: Identity) -> None:
        stall_s, alone = self.config.journal.stall_ms / 1000, lambda: len(identity.voters) == 1
        self.disk = DiskWatch(self.engine, self.journal, self._ports, stall_s, alone)
        self.space = DiskSpace(
            room,
            self.engine,
            self._ports,
            alone,
            lambda: [(name, self.proximity.unfit(name)) for name in identity.voters],
        )
        self.replica.read_only = self.space.refusal

    def _make_releases(self) -> Releases:
        """Raises ConfigError for data of a feature level that this release does not run."""
        machine = self.machine
        try:
            return Releases(lambda: machine.settings, self.config.data_dir, self._ports)
        except ConfigError:
            machine.close()
            self.journal.close(_ignore)
            raise

    def _make_placed(self, ports: Ports) -> None:
        """What has to do with where the members are."""
        config = self.config
        self.goals = Goals(
            self.replica, self.engine, self.machine, lambda: self.replica.identity.voting, ports
        )
        self.replica.settings_asked = self.goals.ask
        self.releases.connect(self.engine, self.replica, self.fail)
        membership = Membership(
            self.replica, self.engine, lambda: self.goals.settings, self.releases.member_facts
        )
        self.replica.members_asked, self.replica.compatibility = membership.ask, compatibility()
        self.proximity = Proximity(self.engine, ports, self._unfit)
        self.preference = Preference(
            self.engine,
            lambda: self.goals.settings,
            lambda: self.replica.identity.voting,
            self.proximity,
            ports,
        )
        self.replica.successor = self.preference.successor
        self.pace = Pace(
            self.engine,
            timing_of(config),
            str(config.node_id),
            lambda: self.replica.identity.voting,
            self.proximity,
            ports,
        )
        if config.timing.measured:
            self.proximity.measured = self.pace.measured

    def _known_members(self) -> tuple[Member, ...]:
        """As of what is applied; the configuration file's list is only the beginning of that, and
        what a node without a database has to be content with: it counts nobody, nor leads."""
        founders = members_of(self.config)
        self.machine.seed_configuration(encode_configuration(configuration_of(founders)))
        stored = self.machine.configuration()
        return founders if stored is None else decode_configuration(stored[1]).members

    def _events(self) -> EngineEvents:
        return EngineEvents(
            on_role=self._on_role,
            on_fatal=self.fail,
            on_note=self._on_note,
            on_waiting=lambda: self._verdicts.on_waiting(),
            on_members=self._on_members,
            on_removed=self._on_removed,
            on_superseded=lambda peer, history: self.fail(
                note_superseded(self._ports.files, self.config, history, peer)
            ),
            on_copied=lambda: self.start_again("a copy of the database was installed"),
        )

    def _make_engine(self, identity: Identity, vfs_base: str) -> Engine:
        return self.engine_class(
            node_id=self.config.node_id,
            members=listening(members_of(self.config), self.config),
            cluster_id=self.config.cluster_id,
            journal=self.journal,
            machine=self.machine,
            ports=self._ports,
            timing=timing_of(self.config),
            limits=self.config.limits,
            events=self._events(),
            fingerprint=json.dumps(fingerprint().to_wire(), sort_keys=True).encode(),
            history_id=self.config.history,
            former=[name for name, _last in self.machine.lineage],
            copies=copy_settings(
                self.config, self.machine, self.journal.pin, self._ports.files, vfs_base
            ),
            greeting=self.releases.greeting(),
            forgotten=self.forgotten,
        )

    @property
    def forgotten(self) -> bool:
        """What this node had promised is lost: it takes no part (row 22)."""
        return self.damage is not None and self.damage.kind == LOG_END

    def _make_comparison(self, identity: Identity) -> Comparison:
        return Comparison(
            node_id=identity.node_id,
            voters=identity.voters,
            members=[member.node_id for member in identity.members],
            engine=self.engine,
            machine=self.machine,
            ports=self._ports,
            quarantine_path=quarantine_path(self.config.data_dir),
            on_serving=self._on_serving,
        )

    def _make_healing(self) -> Healing | None:
        copies = self.engine.copies
        if self.damage is None or copies is None:
            return None
        others = [str(peer.node_id) for peer in self.engine.status().peers]
        return Healing(
            damage=self.damage,
            note=self._note,
            data_dir=self.config.data_dir,
            others=others,
            engine=self.engine,
            copies=copies,
            ports=self._ports,
            give_up=self.fail,
        )

    def _make_forgetful(self) -> Forgetful | None:
        if self._memory is None:
            return None
        return Forgetful(
            memory=self._memory,
            lost=self.forgotten,
            data_dir=self.config.data_dir,
            engine=self.engine,
            ports=self._ports,
            relieved=self._relieved,
            give_up=self.fail,
        )

    def _relieved(self, index: int) -> None:
        """Nothing rests on what was lost any more."""
        if self._healing is not None and not self._stopping:
            self._healing.start(index)

    def refusal(self, *, local: bool) -> Error | None:
        """Why a read (`local`: of this node's own content) or write is refused now; or None."""
        if self.damage is not None:
            return quarantined(self.config.node_id, self.damage)
        return self.comparison.refusal(local=local)

    def _make_scrub(self) -> ContentScrub:
        every_s = 0.0 if self.machine.absent else self.config.scrub.content_hours * 3600.0
        share = self.config.scrub.content_share_percent / 100
        return ContentScrub(self.machine, self.comparison.quarantine, self._ports, every_s, share)

    # ---- life

    def start(self, ready: Callable[[], None]) -> None:
        """Take part. `ready` is called when both ports are open; otherwise `stopped` is."""

        def opened(error: BaseException | None) -> None:
            if error is not None:
                self.fail(error)
                return
            self._ports.log.info(
                "started",
                peer=str(self.config.peer_listen),
                client=str(self.config.client_listen),
                applied_index=int(self.machine.applied()[0]),
                version=__version__,
            )
            ready()

        self.engine.start()
        self._housekeeping.start()
        self.disk.start()
        self.space.start()
        self.scrub.start()
        if self._forgetful is not None:
            self._forgetful.start()
        if self._healing is not None and self.forgotten:
            self._healing.stand_down()
        elif self._healing is not None:
            self._healing.start()
        if self._archive is not None:
            self._archive.start()
        self.comparison.start()
        if not self.comparison.quarantined:
            self._on_serving(True)
        for part in (self.goals, self.proximity, self.releases, self.preference, self._scrub):
            part.start()
        self.listener.open(self.config.client_listen, opened)

    def stop(self, *, again: bool = False) -> None:
        """Hand leadership over, finish what is under way, close. Ends with `stopped(None)`."""
        self._again = again
        if self._stopping:
            return
        self._stopping = True
        self._ports.log.info("stopping")
        self.proximity.say()
        self._stop_parts()
        self.listener.stop_accepting()
        self.listener.say_goodbye("this node is being stopped")
        self.replica.drain(self._drained)

    def start_again(self, reason: str) -> None:
        """End in order, with `stopped(StartAgain())`."""
        if self._stopping:
            return
        self._ports.log.info("starting_again", reason=reason)
        self.stop(again=True)
        # Nobody waits for a node that was far behind.
        self._ports.executor.call_later(CLOSE_S, self._drained)

    def fail(self, error: BaseException) -> None:
        """The node can't go on: nothing more is promised to anybody. Ends with `stopped(error)`,
        after a short try to close what can still be closed."""
        if self._stopped is None or self._failure is not None or self._mends(error):
            return
        self._failure = error
        self.serves = False
        self._stopping = True
        self._ports.log.error("node_stops", reason=str(error))
        self._ports.executor.call_later(CLOSE_S, self._end)
        self._stop_parts()
        self.listener.stop_accepting()
        self._close()

    def _mends(self, error: BaseException) -> bool:
        """Whether the node can go on in spite of the error: damage to its own files is noted, and
        it begins anew at once, in a way that heals it."""
        damage = damage_of(error, self._ports.clock.wall_ms())
        if damage is None or self._healing is not None or not self.engine.status().peers:
            return False
        if self._again or self._stopping:
            return self._again
        if damage.kind == DATABASE and not damage.file:
            damage = replace(damage, file=self.machine.path)
        self.damage, self.serves = damage, False
        log = self._ports.log
        log.error("damage_found", file=damage.file, offset=damage.offset, reason=damage.reason)
        try:
            note = replace(self._note, damage=damage)
            write_note(self._ports.files, self.config.data_dir, note)
        except OSError as problem:
            log.error("damage_not_noted", reason=str(problem))
            return False
        self.start_again("this node's files are damaged: it heals from the others")
        return True

    def _stop_parts(self) -> None:
        """What goes on by itself."""
        self._housekeeping.stop()
        self.disk.stop()
        self.space.stop()
        self.scrub.stop()
        for healer in (self._healing, self._forgetful):
            if healer is not None:
                healer.stop()
        if self._archive is not None:
            self._archive.stop()
        self.comparison.stop()
        for part in (self.goals, self.proximity, self.releases, self.preference, self._scrub):
            part.stop()
        self._verdicts.stop()

    def _drained(self) -> None:
        self._ports.executor.call_later(LINGER_S, self.listener.close)
        self._ports.executor.call_later(2 * LINGER_S, self._close)

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self.serves = False
            self.engine.stop(self._engine_stopped)

    def _engine_stopped(self) -> None:
        # Answers of what ended just now (as unknown) leave first.
        self._ports.executor.call_soon(self.listener.close)
        self._ports.executor.submit("apply", self.machine.close, self._machine_closed)

    def _machine_closed(self, _result: Any, error: BaseException | None) -> None:
        if self._archive is not None:
            self._archive.close()
        if error is not None:
            self._ports.log.warning("database_not_closed", reason=str(error))
        self.journal.close(self._journal_closed)

    def _journal_closed(self, error: BaseException | None) -> None:
        if self._failure is None:
            self._failure = error
        self._end()

    def _end(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            if self._failure is None:
                self._ports.log.info("stopped")
            again = self._again and self._failure is None
            stopped(StartAgain() if again else self._failure)

    # ---- the archive

    def _open_archive(self) -> ArchiveService | None:
        """Uploads begin with `start`. Raises ConfigError, and then closes what was opened."""
        if not self.config.archive.destinations or self.machine.absent:
            return None
        try:
            service = ArchiveService(
                config=self.config,
                keyring=load_keys(self.config.archive, self._ports.files, os.environ),
                journal=self.journal,
                machine=self.machine,
                standing=self._standing,
                ports=self._ports,
                superseded=self.fail,
                confirmed=self._confirmed,
                verifier=VerifyProcess(self.config, self._ports),
            )
        except BaseException:
            self.machine.close()
            self.journal.close(_ignore)
            raise
        service.progress.tell = self.engine.tell
        service.progress.moved = self.engine.durability_moved
        service.hurried = self._hasten
        self.replica.durable.archive = service.progress
        self.comparison.on_agreed = service.poke
        return service

    def _hasten(self, index: int) -> None:
        """A write waits to be archived: agree upon its content as soon as it is applied here."""
        self.engine.when_applied(Index(index), lambda _reason: self.comparison.hasten())

    def _standing(self) -> Standing:
        status = self.engine.status()
        return Standing(
            status.role,
            int(status.term),
            int(status.applied_index),
            len(self.replica.identity.voters),
        )

    def _confirmed(self) -> int:
        """Up to which entry a majority has the same content: only that is archived (D1, A5)."""
        if len(self.replica.identity.voters) == 1:
            return int(self.machine.applied()[0])
        return self.comparison.agreed_index

    # ---- comparing

    def _on_role(self, status: EngineStatus) -> None:
        self.releases.look()
        self._verdicts.on_role(status)

    def _on_members(self, configuration: Configuration) -> None:
        identity = self.replica.identity
        identity.members = configuration.members
        self.comparison.set_members(identity.voters, [one.node_id for one in identity.members])

    def _on_removed(self, index: Index) -> None:
        """This node is no member any more: it ends in order, and remembers."""
        if self._stopping:
            return
        text = json.dumps({"node_id": self.config.node_id, "index": int(index)}) + "\n"
        replace_file(self._ports.files, removed_path(self.config.data_dir), text.encode())
        self._failure = removed_error(self.config, int(index))
        self._ports.log.error("removed", index=int(index), reason=str(self._failure))
        self.stop()
        self._ports.executor.call_later(CLOSE_S, self._drained)

    def _on_note(self, peer: NodeId, data: bytes) -> None:
        if self.releases.on_note(peer, data):
            return
        if data[:1] == AMNESIA_MARK:
            self._reliever.on_note(peer, data)
            if self._forgetful is not None:
                self._forgetful.on_note(peer, data)
        elif data[:1] == PROXIMITY_MARK:
            self.proximity.on_note(peer, data)
        elif data[:1] != NOTE_MARK:
            self.comparison.on_note(peer, data)
        elif self._archive is not None:
            self._archive.progress.on_note(str(peer), data)

    def _unfit(self) -> str:
        """Why this node should not lead."""
        if self._stopping:
            return "it is being stopped"
        if self.disk.stalled:
            return "its disk does not answer"
        if self.space.full:
            return DISK_FULL
        return "" if self.serves else "it does not serve"

    def _on_serving(self, serves: bool) -> None:
        usable = not self._closing and self._failure is None and self.damage is None
        self.serves = serves and usable
        if not serves:
            self._ports.executor.call_later(HEAL_AFTER_S, self._heal)

    def _heal(self) -> None:
        """Still quarantined: fetch a copy of the database from a member of the majority (D1). It
        is verified, installed, and the log replayed behind it; the comparison then has the word."""
        sound = self.comparison.sound_members()
        if self._stopping or not self.comparison.quarantined or self.engine.copies is None:
            return
        if sound:
            self._ports.log.warning("healing", sources=", ".join(sound))
            self.engine.copies.need(sound, 0, damaged=True)
        else:
            self._ports.executor.call_later(HEAL_AFTER_S, self._heal)

    # ---- what it says of itself

    def describe(self) -> dict[str, Any]:
        """The status that clients are told."""
        return describe(self)


def _ignore(_what: object) -> None:
    pass
