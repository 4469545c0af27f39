"""An archive from outside: what it holds, what happened when, whether it is whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raftdb.archive import (
    Archive,
    ArchiveDamagedError,
    ArchiveEntry,
    ArchiveUnavailableError,
    Chain,
    ChainMovedError,
    ChainWriter,
    Claim,
    Keyring,
    Near,
    NotRestorableError,
    Point,
    Problem,
    Sealer,
    Sources,
    Timeline,
    layout,
    load_keys,
    load_near,
    load_points,
    load_timeline,
    open_store,
    replay_s,
)
from raftdb.archive.chain import fork_of
from raftdb.base.atomic import replace_file
from raftdb.base.config import ArchiveConfig
from raftdb.base.errors import ConfigError
from raftdb.base.ports import Clock, Files
from raftdb.base.startup import logged_time, time_text
from raftdb.command import Commit, Execute, decode_request
from raftdb.machine import fingerprint

__all__ = [
    "Destinations",
    "LogLine",
    "add_mark",
    "answering_archives",
    "archive_log",
    "find_point",
    "open_archives",
    "near_of",
    "open_destinations",
    "points",
    "request_times",
    "status",
    "write_key",
]

Decode = Callable[[bytes], tuple[bytes, ...]]
SQL_SHOWN = 200
VERIFIED_AGE_MS_MAX = 2 * 86_400_000
ATTEMPTS = 20
UNUSABLE = ("archive_missing", "archive_key_missing")
"""What one destination may be while another one has all."""
_TABLE = re.compile(
    r"\b(?:INTO|UPDATE|FROM|JOIN|TABLE|VIEW|TRIGGER|ON)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
    r"(?:OR\s+\w+\s+)?(\"[^\"]+\"|\[[^\]]+\]|`[^`]+`|\w+)",
    re.IGNORECASE,
)
_POINT = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Archives that answered, and what they hold together."""

    archives: tuple[Archive, ...]
    sources: Sources
    unreachable: tuple[Problem, ...]

    @property
    def problems(self) -> list[Problem]:
        """All of them."""
        return [*self.unreachable, *self.sources.problems]

    @property
    def damage(self) -> list[Problem]:
        """Those that are not harmless."""
        return [one for one in self.problems if not one.harmless]


def keys_of(key_file: str | None, environ: Mapping[str, str], files: Files) -> Keyring:
    """Keys from a file or the environment; none: an archive without encryption."""
    config = ArchiveConfig(key_file=os.path.abspath(key_file) if key_file else "")
    return load_keys(config, files, environ)


def open_archives(urls: Sequence[str], keyring: Keyring) -> list[Archive]:
    """All of them. Raises ArchiveUnavailableError when one does not answer."""
    sealer = Sealer(keyring, os.urandom)
    return [Archive.open(open_store(url), sealer) for url in urls]


def answering_archives(
    urls: Sequence[str], keyring: Keyring
) -> tuple[list[Archive], list[Problem]]:
    """Those that answer, and which do not. Raises ArchiveUnavailableError when none does."""
    found: list[Archive] = []
    problems: list[Problem] = []
    failure: ArchiveUnavailableError | None = None
    for url in urls:
        try:
            found += open_archives([url], keyring)
        except ArchiveUnavailableError as error:
            failure = error
            problems.append(Problem(url.partition("?")[0], error.message, "not reached"))
    if not found and failure is not None:
        raise failure
    return found, problems


def open_destinations(
    urls: Sequence[str],
    keyring: Keyring,
    *,
    newest: bool = False,
    near: Near | None = None,
    summary: bool = False,
) -> Destinations:
    """Read the chains of all that answer; with `newest` what their newest moments need, with `near`
    what that moment does, with `summary` the newest part, and of what is before all but segments.
    Raises what the last one raised when none can be used."""
    if not urls:
        raise ConfigError("no destination is given", hint="--from file:///directory, or s3://…")
    sealer = Sealer(keyring, os.urandom)
    archives: list[Archive] = []
    timelines: list[Timeline] = []
    problems: list[Problem] = []
    failure: Exception | None = None
    for url in urls:
        try:
            archive = Archive.open(open_store(url), sealer)
            part = None if near is None else _part(near)
            every = load_points if summary else None
            epoch = None if near is None else _epoch_with(archive, near)
            timelines.append(load_timeline(archive, epoch, newest=newest, part=part, every=every))
            archives.append(archive)
        except ArchiveUnavailableError as error:
            failure = error
            problems.append(Problem(url.partition("?")[0], error.message, "not reached"))
        except ArchiveDamagedError as error:
            failure = error
            problems.append(Problem(error.name, error.what, url.partition("?")[0]))
        except ConfigError as error:
            if error.code not in UNUSABLE:
                raise
            failure = error
            problems.append(Problem(url.partition("?")[0], error.message, "not usable"))
    if not archives and failure is not None:
        raise failure
    problems += _one_history(timelines)
    problems += [note for line in timelines if (note := _given_up(line)) is not None]
    return Destinations(tuple(archives), Sources(timelines), tuple(problems))


def _one_history(timelines: Sequence[Timeline]) -> list[Problem]:
    """A destination that could not be reached when an epoch was claimed goes on with the former
    history: of that, only what is up to the fork is the newest one's past. Returns what to know of
    it. Raises ConfigError where neither of two histories descends from the other."""
    if len(timelines) < 2:
        return []
    newest = max(timelines, key=lambda one: len(one.chains))
    line = [chain.claim for chain in newest.chains]
    epochs = {claim.history: claim.epoch for claim in line}
    notes = []
    for one in timelines:
        history = one.chains[-1].claim.history
        if history == line[-1].history:
            continue
        if history not in epochs:
            raise ConfigError(
                f"{newest.archive.url} is of history {line[-1].history}, {one.archive.url} of "
                f"history {history}: they went apart, and are not put together",
                code="destinations_apart",
                hint="give the one that is meant; `raftdb archive status` shows what it holds",
            )
        one.left_at = fork_of(line, epochs[history])
        text = f"{line[-1].epoch} is not claimed here: entries after {one.left_at} do not count"
        notes.append(Problem(layout.EPOCHS, text, one.archive.url, harmless=True))
    return notes


def _given_up(line: Timeline) -> Problem | None:
    """What to know of an epoch under which nothing was written, while the one before it has more
    than that goes on from: a restore that was given up leaves one."""
    if len(line.chains) < 2 or line.chains[-1].links:
        return None
    claim, former = line.chains[-1].claim, line.chains[-2].last
    if former is None or former.manifest.archived <= claim.fork_index:
        return None
    last = former.manifest.archived
    what = (
        f"was made at {time_text(claim.claimed_ms)} by {claim.claimed_by}, to go on from entry "
        f"{claim.fork_index}, and nothing was archived under it: what epoch {claim.parent} has up "
        f"to entry {last} is left out; if that was given up, --index {last} restores it"
    )
    return Problem(layout.claim_name(claim.epoch), what, line.archive.url, harmless=True)


def _epoch_with(archive: Archive, near: Near) -> int | None:
    """The epoch that has an entry that is named: the newest one, or one before, where the newer
    ones forked before it and nothing was written under them. None: the newest."""
    if near.index is None:
        return None
    claims = archive.claims()
    epoch = len(claims)
    while epoch and claims[epoch - 1].parent and near.index > claims[epoch - 1].fork_index:
        if archive.listing(layout.folder(epoch, "manifests")):
            return None
        epoch = claims[epoch - 1].parent
    return epoch or None


def _part(near: Near) -> Callable[[Archive, Claim], Chain | None]:
    return lambda archive, claim: load_near(archive, claim, near)


# ---- what there is


def status(found: Destinations, clock: Clock) -> dict[str, Any]:
    """Of each destination, and of all together."""
    return {
        "destinations": [_facts(line, clock) for line in found.sources.timelines],
        "problems": [str(one) for one in found.problems if not one.harmless],
        "notes": [str(one) for one in found.problems if one.harmless]
        + [text for line in found.sources.timelines for text in _verified_notes(line, clock)]
        + [text for line in found.sources.timelines for text in _unreferenced_notes(line)],
    }


def _unreferenced_notes(line: Timeline) -> list[str]:
    """What that number of the facts means."""
    count = _unreferenced(line)
    if not count:
        return []
    return [
        f"{line.archive.url}: {count} objects that no manifest names: uploads that lost a race to "
        "another node's or were cut short, or one under way; they are no damage, and "
        "`raftdb archive prune` takes those older than a day"
    ]


def _unreferenced(line: Timeline) -> int:
    return sum(len(chain.unreferenced) for chain in line.chains)


def _verified_notes(line: Timeline, clock: Clock) -> list[str]:
    """A restore that nobody has tried for long may not be possible."""
    verified = line.links("verified")
    if not verified:
        return [
            f"{line.archive.url} was never restored on trial: `raftdb archive verify --restore`"
        ]
    age_ms = clock.wall_ms() - verified[-1].manifest.created_ms
    if age_ms <= VERIFIED_AGE_MS_MAX:
        return []
    days = age_ms / 86_400_000
    return [f"{line.archive.url} was last restored on trial {days:.1f} days ago"]


def _facts(line: Timeline, clock: Clock) -> dict[str, Any]:
    bases = line.links("base")
    segments, segment_bytes = _segments(line)
    last = line.last
    verified = line.links("verified")
    newest = line.chains[-1].claim
    stored = sum(one.manifest.size + one.manifest.packs_bytes for one in bases)
    return {
        "url": line.archive.url,
        "cluster_id": line.archive.root.cluster_id,
        "epoch": newest.epoch,
        "history": newest.history,
        "first_index": min((one.manifest.last for one in bases), default=None),
        "last_index": None if last is None else last.manifest.archived,
        "last_time": None if last is None else logged_time(last.manifest.time_ms),
        "age_s": None
        if last is None
        else round((clock.wall_ms() - last.manifest.created_ms) / 1000, 1),
        "bases": len(bases),
        "segments": segments,
        "segment_bytes": segment_bytes,
        "base_bytes": stored,
        "replay_requests": 0 if last is None else last.manifest.since_requests,
        "replay_s": 0.0 if last is None else round(replay_s(last.manifest), 1),
        "encrypted": bool(line.archive.sealer.keyring.keys),
        "verified": None if not verified else time_text(verified[-1].manifest.created_ms),
        "verified_age_s": None
        if not verified
        else round((clock.wall_ms() - verified[-1].manifest.created_ms) / 1000, 1),
        "verified_index": None if not verified else verified[-1].manifest.last,
        "unreferenced": _unreferenced(line),
    }


def _segments(line: Timeline) -> tuple[int, int]:
    """How many there are, and their bytes."""
    told = {chain.claim.epoch: chain.totals for chain in line.chains if chain.totals is not None}
    sizes = [one.manifest.size for one in line.links("segment") if one.manifest.epoch not in told]
    count = len(sizes) + sum(one.segments for one in told.values())
    return count, sum(sizes) + sum(one.size for one in told.values())


def points(found: Destinations) -> list[dict[str, Any]]:
    """Bases, marks and gaps, in order, each with its moment."""
    rows = []
    for line in found.sources.timelines:
        for link in line.links("base", "mark", "gap", "verified"):
            one = link.manifest
            rows.append(
                {
                    "kind": one.kind,
                    "point": str(Point(one.last, one.position)),
                    "first": one.first or None,
                    "time": logged_time(one.time_ms),
                    "note": one.note,
                    "bytes": one.total_bytes or None,
                    "epoch": one.epoch,
                    "url": line.archive.url,
                }
            )
    return rows


# ---- moments


def request_times(decode: Decode) -> Callable[[ArchiveEntry], list[int]]:
    """The times of an entry's requests, as they were stamped."""

    def times(entry: ArchiveEntry) -> list[int]:
        return [decode_request(payload).stamp.time_ms for payload in decode(entry.data)]

    return times


def parse_time(text: str) -> int:
    """ISO 8601 to Unix milliseconds; without an offset it is UTC. Raises ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time", hint="write 2026-11-23T10:30:00Z; without Z it is UTC too"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def parse_point(text: str) -> Point:
    """`N` or `N.P`. Raises ConfigError."""
    match = _POINT.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{text!r} is not a point", hint="write an index such as 1234, or 1234.5 as in the log"
        )
    return Point(int(match[1]), int(match[2] or 0))


def near_of(at: str | None, index: str | None) -> Near | None:
    """Of a moment by time or index; None of any other. Raises ConfigError."""
    if index is not None:
        point = parse_point(index)
        return Near(index=point.index + (1 if point.position else 0))
    return None if at is None else Near(time_ms=parse_time(at))


def find_point(
    found: Destinations,
    decode: Decode,
    *,
    at: str | None = None,
    index: str | None = None,
    mark: str | None = None,
    before_statement: str | None = None,
) -> Point:
    """The moment that is meant; without any, the newest. Raises ConfigError."""
    if sum(one is not None for one in (at, index, mark, before_statement)) > 1:
        raise ConfigError("more than one moment is given", hint="give one of them")
    if index is not None:
        return parse_point(index)
    if at is not None:
        return found.sources.at_time(parse_time(at), request_times(decode))
    if mark is not None:
        return found.sources.find_mark(mark)
    if before_statement is not None:
        last: Point | None = None
        for line in archive_log(found, decode, search=before_statement):
            last = line.before
        if last is None:
            raise NotRestorableError(
                f"no statement in the archive's log contains {before_statement!r}",
                hint="see `raftdb archive log`",
            )
        return last
    return found.sources.last()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One request of the log."""

    before: Point
    """The moment right before it: what `restore --index` takes."""
    after: Point
    time_ms: int
    digest: str
    """16 hexadecimal digits of BLAKE2b over its statements: equal for equal statements."""
    tables: tuple[str, ...]
    """Names that its statements mention as tables, as far as their text tells."""
    sql: str
    statements: int


def archive_log(
    found: Destinations,
    decode: Decode,
    *,
    first: int | None = None,
    last: int | None = None,
    search: str | None = None,
) -> Iterator[LogLine]:
    """Requests with statements, in order; `search` keeps those whose SQL contains it, whatever the
    case and the blanks. Failed ones are there too."""
    lines = found.sources.timelines
    begins = [one.manifest.last + 1 for line in lines for one in line.links("base")]
    if first is not None:
        # A part of the chain may begin far behind a base.
        begins += [one.manifest.first for line in lines for one in line.links("segment")]
    begin = max(first or 0, min(begins, default=1))
    end = min(last or (1 << 62), found.sources.last().index)
    wanted = _plain(search) if search is not None else None
    for entry in found.sources.entries(begin, end):
        payloads = decode(entry.data)
        for position, payload in enumerate(payloads):
            request = decode_request(payload)
            if isinstance(request, Commit):
                texts = [one.statement.sql for one in request.statements]
            elif isinstance(request, Execute):
                texts = [one.sql for one in request.statements]
            else:
                continue
            sql = "; ".join(texts)
            if wanted is not None and wanted not in _plain(sql):
                continue
            is_last = position == len(payloads) - 1
            yield LogLine(
                before=Point(entry.index - 1, position),
                after=Point(entry.index) if is_last else Point(entry.index - 1, position + 1),
                time_ms=request.stamp.time_ms,
                digest=hashlib.blake2b(sql.encode(), digest_size=8).hexdigest(),
                tables=_tables(sql),
                sql=sql if len(sql) <= SQL_SHOWN else sql[:SQL_SHOWN] + "…",
                statements=len(texts),
            )


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _tables(sql: str) -> tuple[str, ...]:
    names = {match.strip('"[]`') for match in _TABLE.findall(sql)}
    return tuple(sorted(names - {"SELECT", "select", "VALUES", "values"}))


# ---- changes


def add_mark(archive: Archive, name: str, index: int, clock: Clock, by: str) -> None:
    """Name the moment right after entry `index`. Raises ArchiveUnavailableError."""
    history = archive.claims()[-1].history
    writer = ChainWriter(
        archive,
        history=history,
        node=by,
        wall_ms=clock.wall_ms,
        randbytes=os.urandom,
        build=fingerprint().to_bytes(),
    )
    tail = writer.begin()
    for _attempt in range(ATTEMPTS):
        term = tail.last.term if tail.last is not None else 0
        try:
            writer.mark(tail, term, index, 0, name)
            return
        except ChainMovedError:
            tail = writer.follow(tail)
    raise ArchiveUnavailableError("the chain moved on too fast", hint="try again")


def write_key(path: str, line: str, files: Files) -> None:
    """Put a new key at the top of a key file, durably; only its owner may read a new file."""
    before = files.read_file(path) if files.exists(path) else b""
    head = b"" if before else b"# Keys of a raftdb archive: the first seals, all of them open.\n"
    replace_file(files, path, head + line.encode("ascii") + before)
