"""Opening a node's data: its log, and its database or, where that is damaged, nothing instead.

A node with a damaged database takes part in the log, which is sound: it votes and acknowledges; and
it fetches a copy from another member. One that has nobody to fetch from stops instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from raftdb.base.config import NodeConfig
from raftdb.base.damage import DATABASE, Damage, DamageNote, damage_of, read_note, write_note
from raftdb.base.errors import ConfigError, FatalError
from raftdb.base.ids import Index
from raftdb.base.layout import database_path, journal_path
from raftdb.base.ports import Ports
from raftdb.journal import Journal, RetentionBounds
from raftdb.machine import AbsentMachine, Machine
from raftdb.machine.generations import named

ALONE_HINT = "there is no other member to fetch a copy from: keep the directory, and restore from "
ALONE_HINT += "the archive (raftdb restore, docs/archive.md)"


@dataclass(frozen=True, slots=True)
class Opened:
    """What a node begins with."""

    journal: Journal
    machine: Machine
    note: DamageNote
    damage: Damage | None
    """Why the machine is absent; None when it is there."""


def open_data(
    config: NodeConfig,
    ports: Ports,
    journal_class: type[Journal],
    machine_class: type[Machine],
    vfs_base: str,
) -> Opened:
    """Raises ConfigError or FatalError, and then holds nothing."""
    note = read_note(ports.files, config.data_dir, ports.log)
    journal = _open_journal(journal_class, config, ports)
    try:
        return _open_database(config, ports, journal, note, machine_class, vfs_base)
    except BaseException:
        journal.close(_ignore)
        raise


def _open_database(
    config: NodeConfig,
    ports: Ports,
    journal: Journal,
    note: DamageNote,
    machine_class: type[Machine],
    vfs_base: str,
) -> Opened:
    files, directory = ports.files, database_path(config.data_dir)
    damage = note.damage
    if damage is not None and damage.kind == DATABASE:
        name = named(files, directory).strip()
        if name and f"/{name}/" in damage.file:
            return _without(journal, note, damage, ports)
        ports.log.info("damage_is_gone", file=damage.file, current=name)
        note = replace(note, damage=None)
        write_note(files, config.data_dir, note)
    try:
        machine = machine_class.open(
            directory,
            history=config.history,
            limits=config.limits,
            files=files,
            log=ports.log,
            clock=ports.clock,
            vfs_base=vfs_base,
        )
    except (ConfigError, FatalError) as error:
        damage = damage_of(error, ports.clock.wall_ms())
        if damage is None or damage.kind != DATABASE:
            raise
        if len(config.members) == 1:
            raise alone(error) from error
        ports.log.error("damage_found", file=damage.file, offset=damage.offset, reason=str(error))
        return _without(journal, replace(note, damage=damage), damage, ports)
    return Opened(journal, machine, note, None)


def _without(journal: Journal, note: DamageNote, damage: Damage, ports: Ports) -> Opened:
    """The log begins behind what was applied here: that much is known without a database."""
    base = Index(journal.first_index - 1)
    machine = AbsentMachine((base, journal.term_at(base)), ports.clock)
    return Opened(journal, machine, note, damage)


def alone(error: ConfigError | FatalError) -> FatalError:
    """The same damage, where nobody can help."""
    return FatalError(error.message, code=error.code, hint=ALONE_HINT, detail=dict(error.detail))


def _open_journal(kind: type[Journal], config: NodeConfig, ports: Ports) -> Journal:
    return kind.open(
        ports.files,
        journal_path(config.data_dir),
        ports.executor,
        config.limits,
        ports.log,
        RetentionBounds(config.journal.keep_bytes, config.journal.pinned_bytes_max),
    )


def _ignore(_what: Any) -> None:
    pass
