"""What is left of a cluster that has lost its majority: whose log is the newest, and what counts.

Looking changes nothing. The newest log is the one with the highest (last term, last index), as in
an election: an entry that a majority had, and one survivor still has, is in it (Raft thesis, 3.6).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from raftdb.base.config import NodeConfig, load_config
from raftdb.base.errors import ConfigError
from raftdb.base.layout import quarantine_path
from raftdb.base.ports import Files
from raftdb.base.settings import MemberConfig
from raftdb.command import decode_request
from raftdb.journal import LogEntry, inspect_journal, read_entries, read_on
from raftdb.machine import inspect_database
from raftdb.ops.inspect import CONFIG_FILE, NodeDirectory, Payloads, find_node

__all__ = [
    "Account",
    "Kept",
    "LogFormat",
    "Survivor",
    "choose",
    "look_at",
    "merge",
    "parse_account",
]

ACCOUNT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Account:
    """What one survivor has, as plain values: they travel between machines as JSON."""

    node_id: str
    cluster_id: str
    history: str
    voters: tuple[str, ...]
    first_index: int
    """Of its log; 0: there is none."""
    last_index: int
    last_term: int
    applied_index: int
    """Of the database; its journal has what follows."""
    time_ms: int
    """Logged time of the last request in the log."""
    journal_damage: tuple[str, ...] = ()
    """If there is any, what its database has applied counts, with the entries that follow in the
    log up to the damage; nothing does if the database is damaged too."""
    database_damage: tuple[str, ...] = ()
    format: int = ACCOUNT_FORMAT

    @property
    def counts(self) -> bool:
        """It has anything that can be relied upon."""
        return not (self.journal_damage and self.database_damage)

    @property
    def newest(self) -> tuple[int, int]:
        """By which logs are compared."""
        return self.last_term, self.last_index

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LogFormat:
    """What consensus alone knows of an entry; the composition root hands it in."""

    payloads: Payloads
    configuration: Callable[[bytes], bytes]
    """The members that an entry brings, from its data, as bytes; empty for any other entry."""
    members: Callable[[bytes], tuple[tuple[MemberConfig, ...], tuple[str, ...]]]
    """From such bytes: all members, and the ids of those that vote."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """A survivor whose directory is here."""

    account: Account
    directory: Path
    node: NodeDirectory
    config: NodeConfig
    members: tuple[MemberConfig, ...]
    """Of the cluster, as of the end of its log: its configuration file is of its beginning."""
    applied_term: int = 0
    """Of the last entry that its database has applied."""

    def entries(self, files: Files) -> Iterator[LogEntry]:
        """Of its log, those that count."""
        account, journal = self.account, self.node.journal
        if not account.journal_damage:
            yield from read_entries(files, journal)
        elif account.first_index and not account.database_damage:
            yield from read_on(files, journal, account.applied_index, self.applied_term)


def parse_account(value: object, where: str) -> Account:
    """Read what `to_json` gave; `where` is its file. Raises ConfigError."""
    try:
        if not isinstance(value, Mapping) or value.get("format") != ACCOUNT_FORMAT:
            raise ValueError("its format is another")
        found: dict[str, Any] = {}
        for one in fields(Account):
            item = value[one.name]
            if one.name in ("voters", "journal_damage", "database_damage"):
                item = tuple(str(part) for part in item)
            elif not isinstance(item, str if "_id" in one.name or one.name == "history" else int):
                raise ValueError(f"{one.name} is {item!r}")
            found[one.name] = item
        return Account(**found)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{where} is not an account of a survivor: {error}",
            hint="it is what `raftdb recover DIR --json` prints on the other machine",
        ) from error


def look_at(directory: Path, files: Files, log: LogFormat) -> Survivor:
    """Read a stopped node's journal and database, all of both. Raises ConfigError."""
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(
            f"{directory} has no {CONFIG_FILE}",
            hint="give the node's directory, as `raftdb init` made it: with configuration and data",
        )
    config, node = load_config(str(path)), find_node(directory, files)
    if node.identity.history != config.history:
        raise ConfigError(
            f"{node.data_dir} follows history {node.identity.history}, and {path} says "
            f"{config.history}",
            hint="a recovery that was interrupted is finished by `raftdb rejoin BUNDLE DIR`",
        )
    state = _database(node, files)
    first_index, last, damage = _journal(node, files)
    if not state.damage and (damage or last[0] < state.index):
        # What is applied is committed: where a copy was installed and nothing has come since, and
        # where it cannot be told any more what the log held behind its damage.
        last = state.index, state.term
    account = Account(
        node_id=config.node_id,
        cluster_id=config.cluster_id,
        history=config.history,
        voters=(),
        first_index=first_index,
        last_index=last[0],
        last_term=last[1],
        applied_index=state.index,
        time_ms=state.time_ms,
        journal_damage=damage,
        database_damage=state.damage,
    )
    found = Survivor(account, directory.absolute(), node, config, (), state.term)
    time_ms, brought = state.time_ms, state.configuration
    for entry in found.entries(files):
        time_ms = max([time_ms, *_times(log.payloads, entry.data)])
        body = log.configuration(entry.data)
        if body and entry.index > brought[0]:
            brought = int(entry.index), body
        if damage:
            last = int(entry.index), int(entry.term)
    members, voters = config.members, tuple(str(one.node_id) for one in config.members)
    if brought[1]:
        members, voters = log.members(brought[1])
    account = replace(
        account, voters=voters, last_index=last[0], last_term=last[1], time_ms=time_ms
    )
    return replace(found, account=account, members=members)


def _journal(node: NodeDirectory, files: Files) -> tuple[int, tuple[int, int], tuple[str, ...]]:
    """Its first index, its last index and term, what is damaged."""
    try:
        report = inspect_journal(files, node.journal)
    except ConfigError as error:
        if error.code != "journal_missing":
            raise
        return 0, (0, 0), (error.message,)
    damage = tuple(f"{one.file}, offset {one.offset}: {one.text}" for one in report.damage)
    return int(report.first_index), (int(report.last_index), int(report.last_term)), damage


def _times(payloads: Payloads, data: bytes) -> list[int]:
    return [decode_request(payload).stamp.time_ms for payload in payloads(data)]


@dataclass(frozen=True, slots=True)
class _Database:
    index: int
    term: int
    time_ms: int
    damage: tuple[str, ...]
    configuration: tuple[int, bytes]


def _database(node: NodeDirectory, files: Files) -> _Database:
    try:
        report = inspect_database(node.database, files=files)
    except ConfigError as error:
        return _Database(0, 0, 0, (error.message,), (0, b""))
    damage = list(report.integrity)
    if report.content_matches is False:
        damage.append("the rows do not have the content hash that was kept for them")
    if report.history != node.identity.history:
        damage.append(f"it belongs to history {report.history}")
    if files.exists(quarantine_path(node.data_dir)):
        damage.append("the node was quarantined: its content differed from the majority's")
    return _Database(
        int(report.index),
        int(report.term),
        report.time_ms,
        tuple(damage),
        report.configuration or (0, b""),
    )


def choose(here: Sequence[Survivor], elsewhere: Sequence[Account]) -> tuple[Survivor, Survivor]:
    """Whose log counts, and whose database it is applied to. Raises ConfigError."""
    accounts = [*(one.account for one in here), *elsewhere]
    _check_together(accounts)
    usable = [one for one in accounts if one.counts]
    if not usable:
        raise ConfigError(
            "no survivor has a journal or a database that is whole",
            code="nothing_to_recover",
            hint="`raftdb restore --replace` makes a cluster from the archive; `raftdb inspect` "
            "shows the damage",
        )
    best = max(usable, key=lambda one: (one.newest, not one.journal_damage, one.applied_index))
    at_hand = [one for one in here if one.account.counts and one.account.newest == best.newest]
    if not at_hand:
        raise ConfigError(
            f"the newest log is that of {best.node_id}: term {best.last_term}, entry "
            f"{best.last_index}; its directory is not here",
            code="survivor_elsewhere",
            hint=f"run the command where {best.node_id} is, with accounts of the others",
        )
    source = max(
        at_hand,
        key=lambda one: (
            not one.account.journal_damage,
            not one.account.database_damage,
            one.account.node_id,
        ),
    )
    donors = [
        one
        for one in [source, *here]
        if not one.account.database_damage
        and _log_begins(source.account) <= one.account.applied_index + 1
        and one.account.applied_index <= source.account.last_index
    ]
    if not donors:
        raise ConfigError(
            "no survivor has a database that is whole and that the newest log continues",
            code="nothing_to_recover",
            hint="`raftdb restore --replace` makes a cluster from the archive; `raftdb inspect` "
            "shows the damage",
        )
    return source, donors[0]


def _log_begins(one: Account) -> int:
    """The first entry that it can give: with a damaged log, none before what is applied."""
    return one.applied_index + 1 if one.journal_damage else one.first_index


def _check_together(accounts: Sequence[Account]) -> None:
    first = accounts[0]
    names = [one.node_id for one in accounts]
    if len(set(names)) < len(names):
        raise ConfigError("a node is given twice", hint="one directory or account for each")
    for one in accounts[1:]:
        if one.cluster_id != first.cluster_id:
            raise ConfigError(
                f"{first.node_id} and {one.node_id} are of different clusters",
                hint="give survivors of one cluster",
            )
        if one.history != first.history:
            raise ConfigError(
                f"{first.node_id} follows history {first.history}, {one.node_id} {one.history}",
                hint="one of them was recovered or restored already: bring the other one back by "
                "`raftdb rejoin`",
            )


@dataclass(frozen=True, slots=True)
class Kept:
    """Which entries make the recovered log."""

    log_to: int
    """The survivor's log counts up to here."""
    archive_to: int
    """Entries after it and up to here come from the archive; equal: none do."""
    dropped: int
    """Entries of the survivor's log after `log_to`: no majority ever had them."""


def merge(log: Mapping[int, int], archive: Mapping[int, int]) -> Kept:
    """Join a survivor's log and the archive's; both map indexes to terms without gaps, the log from
    what the database has applied on, the archive from behind that.

    What is archived was committed. So where the two differ, the survivor's entries from there on
    never were; that is possible only if its last term is not above the archive's. Raises
    ConfigError when it is: then the two are not of one history.
    """
    applied, last = min(log), max(log)
    if not archive:
        return Kept(last, last, 0)
    first, newest = min(archive), max(archive)
    if first > last + 1 or (first == last + 1 and applied < last):
        raise _apart(f"the archive's entries begin at {first}, the log ends at {last}")
    if newest <= last and log[newest] == archive[newest]:
        return Kept(last, last, 0)
    if newest > last and (first == last + 1 or log[last] == archive[last]):
        return Kept(last, newest, 0)
    if log[last] > archive[newest]:
        raise _apart(
            f"entry {newest} is of term {archive[newest]} in the archive, and the log, which has "
            f"term {log[last]} later, has it otherwise"
        )
    keep = max((one for one in archive if log.get(one) == archive[one]), default=first - 1)
    if keep < first and keep > applied:
        raise _apart(f"they have nothing in common between {applied} and {first}")
    return Kept(keep, newest, last - keep)


def _apart(what: str) -> ConfigError:
    return ConfigError(
        f"the survivor's log and the archive do not belong together: {what}",
        code="archive_apart",
        hint="check the archive's URL; `raftdb restore --replace` uses the archive alone, "
        "--ignore-archive the survivors alone",
    )


def _voters(accounts: Sequence[Account]) -> set[str]:
    """As the newest log has them."""
    return set(max(accounts, key=lambda one: (one.counts, one.newest)).voters)


def lost_voters(accounts: Sequence[Account], running: Sequence[str]) -> list[str]:
    """Voters that nobody looked at."""
    return sorted((_voters(accounts) | set(running)) - {one.node_id for one in accounts})


def may_lack(accounts: Sequence[Account]) -> bool:
    """Whether a majority of voters was not looked at: it may have acknowledged more."""
    voters = _voters(accounts)
    sound = {one.node_id for one in accounts if not one.journal_damage}
    return len(voters - sound) >= len(voters) // 2 + 1


def data_set_aside(data_dir: str, history: str) -> str:
    """Where a node's former data go."""
    return f"{os.path.normpath(data_dir)}.before-{history[:8]}"
