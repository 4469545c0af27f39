"""The uploader: one per destination and node, on the loop; all that blocks runs on its lanes.

Every node with an archive watches; one is at work. It adds what is committed as soon as it is
agreed upon, and at most every `interval_ms`. The others see from their own log that there is
something to archive, and when nobody has done it in time they read the chain and take over;
followers sooner than the leader. Two at work harm nothing: the chain's conditional puts let one of
them win, and the other goes back to watching.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftdb.archive.baseupload import BaseJob
from raftdb.archive.errors import ArchiveDamagedError, ChainMovedError, SupersededError
from raftdb.archive.hashlog import HashLog, HashReader
from raftdb.archive.progress import Known, state_of
from raftdb.archive.records import ArchiveEntry
from raftdb.archive.writer import ChainWriter, Tail
from raftdb.base.config import ArchiveConfig
from raftdb.base.errors import Error
from raftdb.base.ports import Ports

__all__ = ["Connect", "Destination", "LogSource", "View"]

TAKE_OVER_S = 1.5
TAKE_OVER_SPREAD_S = 1.0
LEADER_WAITS_S = 3.0
"""The leader leaves uploading to followers: it takes over this much later."""
EPOCH_CHECK_S = 10.0
BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 10.0
AGREE_S = 0.1
"""How long an upload that is due waits for the others' word on the newest entries."""
READ_BYTES = 256 * 1024
"""Read from the journal in one go: it happens on the loop."""
ALARM_REPEAT_S = 60.0
SAMPLES_MAX = 512


class LogSource(Protocol):
    """Committed entries, as the journal has them."""

    @property
    def first_index(self) -> int: ...

    def entries(self, first: int, last: int, max_bytes: int) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class View:
    """What the uploader asks of its node."""

    role: str
    term: int
    upto: int
    """Entries up to here may be archived: applied here, and their hashes agreed upon."""
    applied: int
    """Entries up to here are committed and applied here."""
    members: int


Connect = Callable[[], ChainWriter]
"""Opens the destination; on its lane."""


class Destination:
    """One destination of one node."""

    def __init__(
        self,
        *,
        url: str,
        lane: str,
        connect: Connect,
        view: Callable[[], View],
        journal: LogSource,
        hashes: HashLog,
        base: BaseJob,
        config: ArchiveConfig,
        ports: Ports,
        superseded: Callable[[SupersededError], None],
        changed: Callable[[], None],
        agree: Callable[[int], None],
    ) -> None:
        """`changed` is called after each event that may have moved what `known` tells; `agree` asks
        all nodes to agree now upon what they hold as of an entry."""
        self.url = url
        self._lane = lane
        self._connect = connect
        self._view = view
        self._journal = journal
        self._hashes = HashReader(ports.files, hashes)
        self._base = base
        self._config = config
        self._ports = ports
        self._superseded = superseded
        self._changed = changed
        self._agree = agree
        self._writer: ChainWriter | None = None
        self._tail: Tail | None = None
        self._active = False
        self._was_leader = False
        self._busy = False
        self._stopped = False
        self._again = False
        self._failures = 0
        self._error = ""
        self._not_before_s = 0.0
        self._next_epoch_check_s = 0.0
        self._spread_s = ports.random.random() * TAKE_OVER_SPREAD_S
        self._samples: deque[tuple[int, float]] = deque()
        """(index, when it was first seen committed): for the lag in seconds."""
        self._alarm = False
        self._alarm_s = 0.0
        self._sent_bytes = 0
        self._wanted = 0
        """Somebody waits until this entry is archived."""
        self._sent_s = float("-inf")
        self._asked = False
        """The upload that is due waits for the others' word."""
        self._hurrying = False
        self._timer: Any = None

    # ---- life

    def start(self) -> None:
        """Begin to watch."""
        self._arm()

    def stop(self) -> None:
        """Watch no more; what is under way on a lane ends unheard."""
        self._stopped = True
        self._base.stop()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def archived(self) -> int:
        """Entries up to here are archived, as far as this node knows."""
        return 0 if self._tail is None else self._tail.archived

    @property
    def known(self) -> Known:
        """For the other nodes. Without a base nothing can be restored, whatever is archived."""
        tail = self._tail
        restorable = 0 if tail is None or not tail.has_base else tail.archived
        failing = self._failures > 0
        return Known(
            restorable, state_of(active=self._active, failing=failing, begun=tail is not None)
        )

    def hurry(self, index: int) -> None:
        """Somebody waits for that entry: do not wait for the next turn of the clock."""
        self._wanted = max(self._wanted, index)
        self.poke()

    def poke(self) -> None:
        """More may be archived than before: begin at once, but not more often than each
        `interval_ms`, or each `hurry_ms` while somebody waits: what comes meanwhile shares the next
        object."""
        if self._stopped or self._hurrying:
            return
        waited = self._wanted > self.archived
        if not (waited or self._active):
            return
        pause_ms = self._config.hurry_ms if waited else self._config.interval_ms
        pause_s = self._sent_s + pause_ms / 1000 - self._ports.clock.monotonic_s()
        if pause_s <= 0:
            self._work()
        elif waited:
            self._hurrying = True
            self._ports.executor.call_later(pause_s, self._hurried)

    def refresh(self) -> None:
        """A command added to the chain: look."""
        if self._tail is not None and not self._busy and not self._stopped:
            self._submit(self._follow, self._moved)

    def _hurried(self) -> None:
        self._hurrying = False
        self.poke()

    @property
    def active(self) -> bool:
        """This node uploads there."""
        return self._active

    def verified_age_s(self) -> float | None:
        """Since a restore was last done and proven, by anybody; None: never, as far as is known."""
        last = self._tail.last if self._tail is not None else None
        return self._age_s(0 if last is None else last.verified_ms)

    def lag_s(self) -> float:
        """For how long the oldest entry that is not archived has been committed."""
        if not self._samples:
            return 0.0
        return max(0.0, self._ports.clock.monotonic_s() - self._samples[0][1])

    def status(self) -> dict[str, Any]:
        """For operators."""
        last = self._tail.last if self._tail is not None else None
        applied = self._view().applied
        state = "active" if self._active else "standby"
        if self._failures:
            state = "failing"
        return {
            "url": self.url,
            "state": state,
            "archived_index": self.archived,
            "lag_entries": max(0, applied - self.archived),
            "lag_s": round(self.lag_s(), 3),
            "alarm": self._alarm,
            "error": self._error,
            "manifest": 0 if last is None else last.sequence,
            "replay_requests": 0 if last is None else last.since_requests,
            "replay_s": round(0.0 if self._tail is None else self._tail.replay_s, 1),
            "base_age_s": self._base_age_s(),
            "verified_age_s": self.verified_age_s(),
            "sent_bytes": self._sent_bytes + self._base.sent_bytes,
            "base_under_way": self._base.busy,
        }

    # ---- the clock

    def _arm(self, pause_s: float | None = None) -> None:
        """Look again after `interval_ms` from now."""
        if self._timer is not None:
            self._timer.cancel()
        pause_s = self._config.interval_ms / 1000 if pause_s is None else pause_s
        self._timer = self._ports.executor.call_later(pause_s, self._tick)

    def _tick(self) -> None:
        if self._stopped:
            return
        self._note_lag()
        if self._asks():
            self._asked = True
            self._arm(AGREE_S)
            self._agree(self._view().applied)
            return
        self._asked = False
        self._arm()
        self._work()

    def _asks(self) -> bool:
        """Whether the others' word is worth waiting for: what they agreed upon by themselves is up
        to some tenths of a second old, and what is not uploaded now waits for another turn. Their
        answer is heard by `poke`."""
        if self._asked or not self._active or self._busy:
            return False
        view = self._view()
        return view.applied > max(view.upto, self.archived)

    def _note_lag(self) -> None:
        now_s = self._ports.clock.monotonic_s()
        applied, samples = self._view().applied, self._samples
        newest = samples[-1][0] if samples else self.archived
        if applied > max(newest, self.archived) and len(samples) < SAMPLES_MAX:
            samples.append((applied, now_s))
        while samples and samples[0][0] <= self.archived:
            samples.popleft()
        late = self.lag_s() * 1000 > self._config.alarm_ms
        if late and now_s >= self._alarm_s:
            self._alarm_s = now_s + ALARM_REPEAT_S
            self._ports.log.error(
                "archive_lags",
                destination=self.url,
                lag_s=round(self.lag_s(), 1),
                archived_index=self.archived,
                reason=self._error or "no node uploads fast enough",
            )
        if self._alarm and not late:
            self._alarm_s = 0.0
            self._ports.log.info("archive_caught_up", destination=self.url)
        self._alarm = late

    def _work(self) -> None:
        """One step, if there is one to take."""
        now_s = self._ports.clock.monotonic_s()
        if self._stopped or self._busy or now_s < self._not_before_s:
            return
        view = self._view()
        self._yield_when_elected(view)
        if self._tail is None:
            self._submit(self._begin, self._began)
        elif now_s >= self._next_epoch_check_s:
            self._submit(self._check_epoch, self._checked)
        elif not self._active:
            if self._may_take_over(view):
                self._submit(self._follow, self._followed)
        else:
            self._upload(view)

    def _yield_when_elected(self, view: View) -> None:
        leads = view.role == "leader" and view.members > 1
        if leads and not self._was_leader:
            self._active = False
        self._was_leader = leads

    def _may_take_over(self, view: View) -> bool:
        assert self._tail is not None
        if view.upto <= self.archived and self._tail.has_base:
            return False
        if view.members == 1:
            return True
        waits_s = TAKE_OVER_S + self._spread_s
        if view.role == "leader":
            waits_s += LEADER_WAITS_S
        return self.lag_s() >= waits_s

    # ---- what an active one does

    def _upload(self, view: View) -> None:
        tail = self._tail
        assert tail is not None
        index = self._base.index
        if self._base.ready and not tail.has_base and index < tail.archived:
            # It was begun before a gap: the log behind it is not in the archive, and cannot be.
            self._base.drop()
        fits = not tail.has_base or index <= tail.archived
        if self._base.ready and fits and index <= view.upto:
            self._submit(self._add_base, self._added)
            return
        if tail.has_base and tail.archived + 1 < self._journal.first_index:
            self._submit(self._add_gap, self._added)
            return
        if not self._base.busy and not self._base.ready and self._base_due(tail, view):
            self._begin_base(tail)
        if tail.has_base and view.upto > tail.archived:
            self._send(tail, view)

    def _send(self, tail: Tail, view: View) -> None:
        first = tail.archived + 1
        entries: list[Any] = []
        total = 0
        limit = self._config.segment_bytes
        while first <= view.upto and total < limit:
            found = self._journal.entries(first, view.upto, min(READ_BYTES, limit - total))
            if not found:
                break
            entries += found
            total += sum(len(one.data) + 64 for one in found)
            first = found[-1].index + 1
        if not entries:
            return
        self._again = first <= view.upto
        self._asked = False
        self._sent_s = self._ports.clock.monotonic_s()
        self._arm()
        term = view.term

        def work() -> Tail:
            assert self._writer is not None
            recorded = self._hashes.take(entries[0].index, entries[-1].index)
            archived = [
                ArchiveEntry(
                    int(one.index), int(one.term), one.data, recorded.hashes.get(one.index, b"")
                )
                for one in entries
            ]
            return self._counted(self._writer.segment(tail, term, archived, recorded.time_ms))

        self._submit(work, self._added)

    def _add_gap(self) -> Tail:
        assert self._writer is not None
        assert self._tail is not None
        last = self._journal.first_index - 1
        self._ports.log.error(
            "archive_gap",
            destination=self.url,
            first=self.archived + 1,
            last=last,
            hint="these entries left the journal before they were archived; a new base follows",
        )
        reason = "the archive was behind by more than the journal may hold"
        return self._writer.gap(self._tail, self._view().term, last, reason)

    # ---- bases

    def _base_age_s(self) -> float | None:
        last = self._tail.last if self._tail is not None else None
        return self._age_s(last.base_ms if last is not None and last.base else 0)

    def _age_s(self, since_ms: int) -> float | None:
        if not since_ms:
            return None
        return round(max(0, self._ports.clock.wall_ms() - since_ms) / 1000, 1)

    def _base_due(self, tail: Tail, view: View) -> bool:
        last, config = tail.last, self._config
        if last is None or not tail.has_base:
            return True
        if view.upto <= tail.archived and not last.since_bytes:
            return False
        size_mib = self._base.last_size >> 20
        return (
            last.since_bytes >= max(config.base_log_bytes, self._base.last_size // 4)
            or last.since_requests >= config.base_requests
            or tail.replay_s >= config.base_replay_s
            or last.sequence - last.base >= max(2_000, size_mib)
            or (self._base_age_s() or 0) >= config.base_hours * 3600
        )

    def _begin_base(self, tail: Tail) -> None:
        assert self._writer is not None
        last = tail.last
        previous = last.base if last is not None else 0
        self._base.begin(self._writer, tail.epoch, previous, tail.sequence)

    def _add_base(self) -> Tail:
        assert self._writer is not None
        assert self._tail is not None
        return self._counted(self._base.add(self._writer, self._tail, self._view().term))

    # ---- on the lane

    def _begin(self) -> Tail:
        if self._writer is None:
            self._writer = self._connect()
        return self._counted(self._writer.begin())

    def _follow(self) -> Tail:
        assert self._writer is not None
        assert self._tail is not None
        return self._counted(self._writer.follow(self._tail))

    def _counted(self, tail: Tail) -> Tail:
        """What was added behind a claim is nobody's past, and must not be said to be archived: so
        the claim is looked for after the chain was. Who claims looks at the chain again after."""
        self._check_epoch()
        return tail

    def _check_epoch(self) -> None:
        assert self._writer is not None
        self._writer.check_epoch()

    # ---- back on the loop

    def _submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._busy = True

        def finished(result: Any, error: BaseException | None) -> None:
            self._busy = False
            if self._stopped:
                return
            if error is not None:
                self._failed(error)
                return
            if self._failures:
                self._ports.log.info("archive_reached", destination=self.url)
                self._ports.executor.call_soon(self._changed)
            self._failures, self._error = 0, ""
            done(result)

        self._ports.executor.submit(self._lane, work, finished)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, SupersededError) and error.code == SupersededError.default_code:
            self._error = str(error)
            self.stop()
            self._superseded(error)
            return
        if isinstance(error, ChainMovedError):
            self._submit(self._follow, self._moved)
            return
        if not isinstance(error, Error | OSError):
            raise error
        self._active = False
        self._failures += 1
        self._error = str(error)
        pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 10))
        self._not_before_s = self._ports.clock.monotonic_s() + pause_s
        # Nothing may be due when it answers again: look whether it does.
        self._next_epoch_check_s = 0.0
        self._changed()
        if self._failures == 1 or isinstance(error, ArchiveDamagedError):
            self._ports.log.warning("archive_fails", destination=self.url, reason=str(error))

    def _began(self, tail: Tail) -> None:
        self._noted(tail)
        self._next_epoch_check_s = self._ports.clock.monotonic_s() + EPOCH_CHECK_S

    def _checked(self, _nothing: object) -> None:
        # From when it is done: with a store that is slower than that there is still work between.
        self._next_epoch_check_s = self._ports.clock.monotonic_s() + EPOCH_CHECK_S
        self._work()

    def _noted(self, tail: Tail) -> None:
        self._tail = tail
        self._note_lag()
        self._changed()

    def _moved(self, tail: Tail) -> None:
        """Somebody else added something: another uploader, or a command a mark."""
        if tail.last is None or tail.last.kind not in ("mark", "verified"):
            self._active = False
        self._noted(tail)

    def _followed(self, tail: Tail) -> None:
        """Nobody went on: this node does."""
        moved = self._tail is not None and tail.sequence > self._tail.sequence
        self._noted(tail)
        if not moved or self._view().members == 1:
            self._active = True
            self._ports.log.info("archive_uploads", destination=self.url, after=tail.archived)
            self._changed()
            self._work()

    def _added(self, tail: Tail) -> None:
        last = tail.last
        if last is not None:
            self._sent_bytes += last.size
        if last is not None and last.kind == "base":
            self._base.added()
        self._noted(tail)
        rate = self._config.rate_bytes_per_s
        if rate and last is not None:
            self._not_before_s = self._ports.clock.monotonic_s() + last.size / rate
        if self._again:
            self._again = False
            self._ports.executor.call_soon(self._work)
        else:
            self.poke()
