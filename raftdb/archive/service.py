"""A node's archive: all its destinations, the log of hashes, and the pin on the journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raftdb.archive.baseupload import BaseJob
from raftdb.archive.envelope import Sealer
from raftdb.archive.errors import SupersededError
from raftdb.archive.hashlog import HashLog
from raftdb.archive.keys import KEYS_VARIABLE, Keyring, parse_keys
from raftdb.archive.known import known_path, open_known
from raftdb.archive.progress import Known, Progress, destination_id
from raftdb.archive.rehearsal import Rehearsal, Verifier
from raftdb.archive.store import Store
from raftdb.archive.stores import open_store
from raftdb.archive.uploader import Destination, View
from raftdb.archive.writer import ChainWriter
from raftdb.base.config import ArchiveConfig, NodeConfig
from raftdb.base.errors import ConfigError
from raftdb.base.ports import Files, Ports
from raftdb.journal import Journal
from raftdb.machine import Machine, fingerprint

__all__ = ["ArchiveService", "OpenStore", "Standing", "load_keys"]

OpenStore = Callable[[str], Store]
HOUSEKEEPING_S = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the node knows of its place in the cluster."""

    role: str
    term: int
    applied_index: int
    members: int


def load_keys(config: ArchiveConfig, files: Files, environ: Mapping[str, str]) -> Keyring:
    """The keys of an archive, from the file or the environment. Raises ConfigError."""
    if config.key_file:
        try:
            text = files.read_file(config.key_file).decode("utf-8", "replace")
        except OSError as error:
            raise ConfigError(
                f"cannot read the key file {config.key_file}: {error.strerror}",
                hint="make one by `raftdb archive keygen`, the same on all nodes",
            ) from error
        return parse_keys(text, config.key_file)
    text = environ.get(KEYS_VARIABLE, "")
    return parse_keys(text, KEYS_VARIABLE) if text else Keyring({})


class ArchiveService:
    """Starts and stops with its node; on the loop."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        keyring: Keyring,
        journal: Journal,
        machine: Machine,
        standing: Callable[[], Standing],
        ports: Ports,
        superseded: Callable[[SupersededError], None],
        confirmed: Callable[[], int] | None = None,
        stores: OpenStore = open_store,
        verifier: Verifier | None = None,
    ) -> None:
        """`confirmed` gives the highest index whose content hash a second replica has confirmed
        (rule A5); without it, what this node has applied counts. Raises ConfigError and OSError."""
        self._config = config.archive
        self._journal = journal
        self._ports = ports
        self._standing = standing
        self._confirmed = confirmed
        self._hashes = HashLog(ports.files, config.data_dir, config.archive.hash_log_bytes)
        self._hash_failure_told = False
        machine.record_hashes(self._hashes.record, self._hashes.sync)
        self._pin = journal.pin(int(journal.first_index))
        ids = [destination_id(url) for url in config.archive.destinations]
        self.progress = Progress(ids, self._known, ports)
        """How far the destinations are, whoever uploads."""
        self.progress.hurry = self._hurry
        self.progress.agree = self._asked_to_agree
        self.hurried: Callable[[int], None] = _ignore
        """Called with an entry that the nodes are to agree upon as soon as they can."""
        sealer = Sealer(keyring, ports.random.randbytes, config.archive.cipher)
        self._destinations: list[Destination] = []
        self._destinations += [
            self._destination(number, url, config, sealer, machine, stores, superseded)
            for number, url in enumerate(config.archive.destinations)
        ]
        self._verifier = verifier
        minutes = config.archive.verify_minutes
        self._rehearsals = [
            Rehearsal(url, one.url, minutes, ports)
            for url, one in zip(config.archive.destinations, self._destinations, strict=True)
        ]
        self._timer: Any = None

    def _destination(
        self,
        number: int,
        url: str,
        config: NodeConfig,
        sealer: Sealer,
        machine: Machine,
        stores: OpenStore,
        superseded: Callable[[SupersededError], None],
    ) -> Destination:
        ports = self._ports
        known = known_path(config.data_dir, destination_id(url))

        def connect() -> ChainWriter:
            now_ms = ports.clock.wall_ms()
            archive = open_known(stores(url), sealer, config.cluster_id, now_ms, ports.files, known)
            return ChainWriter(
                archive,
                history=config.history,
                node=config.node_id,
                wall_ms=ports.clock.wall_ms,
                randbytes=ports.random.randbytes,
                build=fingerprint().to_bytes(),
            )

        directory = os.path.join(config.data_dir, "archive", f"base-{number}")
        base = BaseJob(
            machine,
            directory,
            f"archive-base-{number}",
            config.archive.rate_bytes_per_s,
            ports,
            2 * config.disk.reserve_bytes,
        )
        return Destination(
            url=url.partition("?")[0],
            lane=f"archive-{number}",
            connect=connect,
            view=self._view,
            journal=self._journal,
            hashes=self._hashes,
            base=base,
            config=config.archive,
            ports=ports,
            superseded=superseded,
            changed=self.progress.changed,
            agree=self.progress.ask,
        )

    # ---- life

    def start(self) -> None:
        """Begin."""
        for destination in self._destinations:
            destination.start()
        self._arm()

    def stop(self) -> None:
        """Upload nothing more."""
        for destination in self._destinations:
            destination.stop()
        if self._verifier is not None:
            self._verifier.stop()
        if self._timer is not None:
            self._timer.cancel()
        self._pin.release()

    def close(self) -> None:
        """Close files; after the machine is closed."""
        self._hashes.close()

    def status(self) -> list[dict[str, Any]]:
        """One map per destination."""
        both = zip(self._destinations, self._rehearsals, strict=True)
        return [
            one.status() | rehearsal.facts(one.verified_age_s() if self._verifier else 0.0)
            for one, rehearsal in both
        ]

    def poke(self) -> None:
        """More entries may be archived than before: the content of more is agreed upon."""
        for one in self._destinations:
            one.poke()

    # ---- inside

    def _known(self) -> dict[str, Known]:
        return {destination_id(one.url): one.known for one in self._destinations}

    def _hurry(self, index: int) -> None:
        self.hurried(index)
        for one in self._destinations:
            one.hurry(index)

    def _asked_to_agree(self, index: int) -> None:
        self.hurried(index)

    def _view(self) -> View:
        standing = self._standing()
        upto = standing.applied_index
        if self._confirmed is not None:
            upto = min(upto, self._confirmed())
        return View(standing.role, standing.term, upto, standing.applied_index, standing.members)

    def _rehearse(self) -> None:
        """One restore at a time; the uploader's own node does it."""
        if self._verifier is None or any(one.running for one in self._rehearsals):
            return
        for one, rehearsal in zip(self._destinations, self._rehearsals, strict=True):
            age_s = one.verified_age_s()
            rehearsal.late(age_s)
            if rehearsal.due(active=one.active, archived=one.known.archived, verified_age_s=age_s):
                rehearsal.start(self._verifier, one.refresh)
                return

    def _arm(self) -> None:
        self._timer = self._ports.executor.call_later(HOUSEKEEPING_S, self._tidy)

    def _tidy(self) -> None:
        """What every destination has, this node need not keep."""
        self._arm()
        self.progress.changed()
        self._rehearse()
        archived = min(one.archived for one in self._destinations)
        if self._pin.overrun:
            self._pin = self._journal.pin(int(self._journal.first_index))
        self._pin.move_to(archived + 1)
        self._hashes.drop_below(archived + 1)
        if self._hashes.failed and not self._hash_failure_told:
            self._hash_failure_told = True
            self._ports.log.error(
                "archive_hashes_lost",
                hint="content hashes cannot be written to the data directory; the log is archived "
                "without them until this node is restarted",
            )


def _ignore(_index: int) -> None:
    pass
