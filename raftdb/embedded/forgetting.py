"""The beginning of a node whose log has lost its end: what it promised is not known any more.

The damaged log stays where it is: each start finds it anew, and an older release stops at it.
Meanwhile the node runs on an empty log, takes no part, and asks the leader (`raftdb.node.amnesia`).
When it has been relieved of its vote and has a database from after that, a start founds a new log
behind that database.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raftdb.base.amnesia import Amnesia, write_amnesia
from raftdb.base.config import NodeConfig
from raftdb.base.damage import DATABASE, LOG_END, Damage, DamageNote, write_note
from raftdb.base.errors import ConfigError, FatalError, JournalCorruptError
from raftdb.base.layout import empty_log_path, journal_path
from raftdb.base.ports import Ports
from raftdb.consensus.membership import VOTER, decode_configuration
from raftdb.journal import Journal, refound_journal
from raftdb.machine import Machine


def ends_too_early(
    directory: str, journal: Journal, machine: Machine
) -> JournalCorruptError | None:
    """What is applied was in the log, on disk: a log that ends below it has lost its end, though
    nothing that is left of it is damaged. Not so where a copy was installed."""
    applied = machine.applied()
    if int(applied[0]) <= int(journal.last_index) or machine.copied() == applied:
        return None
    return JournalCorruptError(
        f"the database has applied entry {applied[0]}, but the log ends at {journal.last_index}",
        detail={"file": directory, "offset": -1},
    )


def forget(
    config: NodeConfig,
    ports: Ports,
    memory: Amnesia | None,
    error: ConfigError | FatalError,
    database: Callable[[], Machine],
) -> tuple[Amnesia, Damage, tuple[int, bytes] | None]:
    """Note the loss; an empty log for the meantime. And the last configuration that is known here:
    whom to ask, and whether this node had a vote."""
    now_ms = ports.clock.wall_ms()
    file = str(error.detail.get("file", ""))
    damage = Damage(LOG_END, file, int(error.detail.get("offset", -1)), error.message, now_ms)
    stored = _configuration(ports, database)
    if memory is None:
        memory = Amnesia(file, error.message, now_ms, _votes(config, stored))
        write_amnesia(ports.files, config.data_dir, memory)
        ports.log.error("damage_found", reason=error.message, file=file, offset=damage.offset)
    refound_journal(ports.files, empty_log_path(config.data_dir), ports.random, (1, 0))
    return memory, damage, stored


def _configuration(ports: Ports, database: Callable[[], Machine]) -> tuple[int, bytes] | None:
    try:
        machine = database()
    except (ConfigError, FatalError) as error:
        ports.log.warning("database_not_read", reason=str(error))
        return None
    try:
        return machine.configuration()
    finally:
        machine.close()


def _votes(config: NodeConfig, stored: tuple[int, bytes] | None) -> bool:
    """As far as it knows; the founders all do."""
    if stored is None:
        return True
    member = decode_configuration(stored[1]).member(config.node_id)
    return member is None or member.role == VOTER


def begin_anew(
    config: NodeConfig,
    ports: Ports,
    memory: Amnesia,
    note: DamageNote,
    database: Callable[[], Machine],
) -> tuple[Amnesia, DamageNote]:
    """Relieved of its vote: if the database is from after that, a new log goes on behind it.
    Otherwise nothing happens. The permission is used up before the log is used."""
    try:
        machine = database()
    except (ConfigError, FatalError):
        return memory, note
    try:
        index, term = machine.applied()
    finally:
        machine.close()
    if int(index) < memory.relieved_index:
        return memory, note
    refound_journal(
        ports.files, journal_path(config.data_dir), ports.random, (int(index), int(term))
    )
    ports.log.warning("log_founded_anew", behind=int(index), relieved_index=memory.relieved_index)
    memory = replace(memory, relieved_index=0)
    write_amnesia(ports.files, config.data_dir, memory)
    if note.damage is not None and note.damage.kind != DATABASE:
        note = replace(note, damage=None)
        write_note(ports.files, config.data_dir, note)
    return memory, note


def whole(config: NodeConfig, ports: Ports, memory: Amnesia | None) -> Amnesia | None:
    """The log is sound, whatever was thought of it: what was allowed then is not allowed now."""
    if memory is None or not memory.relieved_index:
        return memory
    memory = replace(memory, relieved_index=0)
    write_amnesia(ports.files, config.data_dir, memory)
    return memory
