"""Opening a node's data: its log, and its database or, where that is damaged, nothing instead.

A node with a damaged database takes part in the log, which is sound: it votes and acknowledges;
and it fetches a copy from another member. A log that is damaged before its last segment begins
behind the damage, where the database has all the entries that are gone: where it ends, and what
was voted, is known, so it goes on voting. A log whose end is damaged, or that is gone but for its
mark, or that ends before the database does, or that would begin behind entries that the database
lacks, says no more what was promised: `raftdb.embedded.forgetting`. A node that has nobody to fetch
from stops instead.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from raftdb.base.amnesia import Amnesia, read_amnesia
from raftdb.base.config import NodeConfig
from raftdb.base.damage import DATABASE, LOG, Damage, DamageNote, damage_of, read_note, write_note
from raftdb.base.errors import ConfigError, FatalError, JournalCorruptError
from raftdb.base.ids import Index
from raftdb.base.layout import database_path, empty_log_path, journal_path
from raftdb.base.ports import Ports
from raftdb.embedded.forgetting import begin_anew, ends_too_early, forget, whole
from raftdb.journal import Journal, RetentionBounds, Salvage
from raftdb.journal.format import segment_number
from raftdb.journal.recovery import FIRST_INDEX, MARK_NAME
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
    memory: Amnesia | None = None
    """What this node had promised is lost (with `damage`), or was, and it asks for its vote."""


def open_data(
    config: NodeConfig,
    ports: Ports,
    journal_class: type[Journal],
    machine_class: type[Machine],
    vfs_base: str,
) -> Opened:
    """Raises ConfigError or FatalError, and then holds nothing."""
    note = read_note(ports.files, config.data_dir, ports.log)
    memory = read_amnesia(ports.files, config.data_dir, ports.log)

    def database() -> Machine:
        return _machine(machine_class, config, ports, vfs_base)

    if memory is not None and memory.relieved_index:
        memory, note = begin_anew(config, ports, memory, note, database)
    try:
        journal, damage = _open_log(journal_class, config, ports, note, database)
    except (JournalCorruptError, ConfigError) as error:
        missing = error.code == "journal_missing" and (
            memory is not None or _had_log(config, ports, database)
        )
        if len(config.members) == 1 or not (missing or isinstance(error, JournalCorruptError)):
            raise
        return _without_memory(journal_class, config, ports, note, memory, error, database)
    try:
        opened = _open_database(config, ports, journal, note, database)
        opened = _after(opened, damage, config, ports)
        lost = ends_too_early(journal_path(config.data_dir), opened.journal, opened.machine)
        if lost is None or len(config.members) == 1:
            return replace(opened, memory=whole(config, ports, memory))
        opened.machine.close()
    except BaseException:
        journal.close(_ignore)
        raise
    journal.close(_ignore)
    return _without_memory(journal_class, config, ports, note, memory, lost, database)


def _had_log(config: NodeConfig, ports: Ports, database: Callable[[], Machine]) -> bool:
    """Whether this is a member that has lost its log, as opposed to a directory that never had one
    (a member of that name has to be admitted), or one whose device is not there (it may come back).
    """
    mark = posixpath.join(journal_path(config.data_dir), MARK_NAME)
    return ports.files.exists(mark) and _stored(database, ports) > FIRST_INDEX


def _without_memory(
    kind: type[Journal],
    config: NodeConfig,
    ports: Ports,
    note: DamageNote,
    memory: Amnesia | None,
    error: ConfigError | FatalError,
    database: Callable[[], Machine],
) -> Opened:
    """On an empty log, which nothing is written to, and without a database."""
    memory, damage, stored = forget(config, ports, memory, error, database)
    journal = _open_journal(kind, config, ports, None, empty_log_path(config.data_dir))
    base = Index(journal.first_index - 1)
    machine = AbsentMachine((base, journal.term_at(base)), ports.clock, stored)
    return Opened(journal, machine, note, damage, memory)


def _machine(kind: type[Machine], config: NodeConfig, ports: Ports, vfs_base: str) -> Machine:
    return kind.open(
        database_path(config.data_dir),
        history=config.history,
        limits=config.limits,
        files=ports.files,
        log=ports.log,
        clock=ports.clock,
        vfs_base=vfs_base,
    )


def _open_log(
    kind: type[Journal],
    config: NodeConfig,
    ports: Ports,
    note: DamageNote,
    database: Callable[[], Machine],
) -> tuple[Journal, Damage | None]:
    """The log; and the damage that it begins behind, if that was found just now."""
    noted = note.damage if note.damage is not None and note.damage.kind == LOG else None
    if noted is not None:
        number = segment_number(posixpath.basename(noted.file)) or 0
        salvage = Salvage(number, _stored(database, ports))
        return _open_journal(kind, config, ports, salvage), noted
    try:
        return _open_journal(kind, config, ports, None), None
    except JournalCorruptError as error:
        if len(config.members) == 1:
            raise alone(error) from error
        journal = _open_journal(kind, config, ports, Salvage(0, _stored(database, ports)))
        damage = damage_of(error, ports.clock.wall_ms())
        ports.log.error("damage_found", reason=str(error), **error.detail)
        return journal, damage


def _stored(database: Callable[[], Machine], ports: Ports) -> int:
    """Up to where the database has what the log's entries say, on disk."""
    try:
        machine = database()
    except (ConfigError, FatalError) as error:
        ports.log.warning("database_not_read", reason=str(error))
        return 0
    try:
        return int(machine.applied()[0])
    finally:
        machine.close()


def _after(opened: Opened, damage: Damage | None, config: NodeConfig, ports: Ports) -> Opened:
    """The database has what was lost of the log, so nobody here needs it."""
    note = opened.note
    if damage is None or opened.machine.absent:
        return opened
    ports.log.warning("log_begins_behind_damage", first_index=int(opened.journal.first_index))
    if note.damage is not None:
        note = replace(note, damage=None)
        write_note(ports.files, config.data_dir, note)
    return replace(opened, note=note)


def _open_database(
    config: NodeConfig,
    ports: Ports,
    journal: Journal,
    note: DamageNote,
    database: Callable[[], Machine],
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
        machine = database()
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


def alone(error: ConfigError | FatalError) -> ConfigError | FatalError:
    """The same damage, where nobody can help."""
    return type(error)(error.message, code=error.code, hint=ALONE_HINT, detail=dict(error.detail))


def _open_journal(
    kind: type[Journal],
    config: NodeConfig,
    ports: Ports,
    salvage: Salvage | None,
    directory: str = "",
) -> Journal:
    return kind.open(
        ports.files,
        directory or journal_path(config.data_dir),
        ports.executor,
        config.limits,
        ports.log,
        RetentionBounds(config.journal.keep_bytes, config.journal.pinned_bytes_max),
        salvage,
    )


def _ignore(_what: Any) -> None:
    pass
