"""Applies committed entries: many requests in one transaction, each as if it were alone.

The unit is the request (rule M1): its own savepoint, time, seed, foreign-key check, reply and hash.
What cannot share a transaction is applied alone, and a request that ends the transaction (OR
ROLLBACK, RAISE(ROLLBACK)) takes none of its neighbours with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw

from raftdb.base.errors import APPLIED, DataError, Error, FatalError
from raftdb.base.ids import Index
from raftdb.command import (
    CloseSession,
    Commit,
    Configure,
    Execute,
    Failed,
    Key,
    Opened,
    OpenSession,
    Outcome,
    Request,
    ResultDropped,
    Results,
    SessionId,
    StatementResult,
    Verdict,
    decode_reply,
    decode_request,
    decode_verdict,
    encode_reply,
    resolved,
)
from raftdb.command.requests import session_number
from raftdb.machine import failures, stored
from raftdb.machine.content import ContentHasher
from raftdb.machine.determinism import RequestClock, RequestFunctions
from raftdb.machine.failures import StatementFailed, keeps_rows
from raftdb.machine.format import MARK, RESULT_BYTES_MAX, SESSION_STEP_MS_MAX, TIME_MS_MAX
from raftdb.machine.keys import Keys
from raftdb.machine.layout import Run
from raftdb.machine.patience import ABORTED, Held
from raftdb.machine.policy import WriteAuthorizer
from raftdb.machine.reader import SchemaEpoch
from raftdb.machine.replay import Replay, TransactionLostError, sql_digest
from raftdb.machine.rowhash import chain
from raftdb.machine.samples import Samples
from raftdb.machine.sessions import Sessions
from raftdb.machine.settings import Settings
from raftdb.machine.sqltext import DML, leading_verb
from raftdb.machine.statements import StatementRunner
from raftdb.machine.stored import PROGRESS, Progress, read_progress, shown_index
from raftdb.machine.switches import RecursiveTriggers
from raftdb.machine.units import Entry, Unit, check_alone

_BRIEF = "raftdb-brief"
_BRIEF_STEPS = 2_000
"""Steps of SQLite's virtual machine between two looks at the time: some tens of microseconds."""

_BEGIN = f"BEGIN IMMEDIATE {MARK}"
_COMMIT = f"COMMIT {MARK}"
_ROLLBACK = f"ROLLBACK {MARK}"
_SAVEPOINT = f"SAVEPOINT r {MARK}"
_RELEASE = f"RELEASE r {MARK}"
_ROLLBACK_TO = f"ROLLBACK TO r {MARK}"
_FLUSH_OPEN = f"SAVEPOINT f {MARK}"
_FLUSH_CLOSE = f"RELEASE f {MARK}"
Recorder = Callable[[int, Sequence[tuple[int, int, bytes]]], None]
"""Takes (logged time, hashes): content hashes as (index, position, 16 bytes), one per request of a
transaction, right before that is committed. What it raises stops the node."""

_WRITES = (Execute, Commit)
_DONE = encode_reply(Results(()))
_DROPPED = encode_reply(ResultDropped(0))


class Applier:
    """The writer connection's owner. All methods on the apply lane."""

    def __init__(
        self,
        connection: apsw.Connection,
        run: Run,
        clock: RequestClock,
        history: bytes,
        hash_key: bytes,
    ) -> None:
        self._connection = connection
        self._run = run
        self._control = connection.cursor().execute
        self._clock = clock
        self._history = history
        self._authorizer = WriteAuthorizer()
        connection.authorizer = self._authorizer
        self._statements = StatementRunner(
            connection, self._authorizer, RequestFunctions(connection)
        )
        self._steps = self._statements.steps
        self._verdicts: dict[tuple[int, int], bool] = {}
        """By (index, position): whether that request is kept. The first in the log counts."""
        self._held: Unit | None = None
        """It took long, and waits for its verdict."""
        self._again = False
        """Requests that did not take long are applied once more."""
        self._early: dict[int, bytes] = {}
        """Replies of an entry whose later request is held, by position."""
        self.sessions = Sessions(run, self._control)
        self.keys = Keys(run)
        self.settings = Settings(run)
        self._statements.refuses_local = self.settings.refuses_local
        self._content = ContentHasher(connection, run, hash_key, self.settings, self._statements)
        self.virtual = self._content.virtual
        self.recursive_triggers = RecursiveTriggers(run)
        self._replay = Replay(
            connection, self._control, clock, self._statements, self._content, self
        )
        self._time_ms = 0
        self._session_ms = 0
        self._results = b""
        self._schema_changed = False
        self.recorder: Recorder | None = None
        self.epoch = SchemaEpoch()
        self.samples = Samples(self._content.sums)
        self.progress = read_progress(run)
        """As of the last commit. Replaced as a whole: any thread may look."""
        self._reload()
        self._take_sample()

    def _reload(self) -> None:
        self._take_progress()
        self.recursive_triggers.take()
        self.sessions.load()
        self.keys.load()
        self.settings.load()
        self._content.load()

    def _take_progress(self) -> None:
        progress = self.progress
        # The newest entry that queries may see something of, a COMMIT under way included.
        self.shown_index = shown_index(progress)
        self._time_ms, self._session_ms = progress.time_ms, progress.session_ms
        self._results = progress.results
        self._clock.set_time(self._time_ms)

    def apply(self, entries: Sequence[Entry]) -> list[list[bytes]]:
        """See Machine.apply."""
        return self._apply_units(entries, *self._units(entries))

    def apply_briefly(
        self, entries: Sequence[Entry], overrun: Callable[[], bool]
    ) -> list[list[bytes]] | None:
        """`apply`, given up without a trace when `overrun` says so; None then. What needs several
        transactions is not begun: only what was not committed can be given up (rule M4)."""
        units, skipped = self._units(entries)
        ends = any(unit.alone for unit in units) or any(unit.is_mark for unit in units[:-1])
        if skipped or ends or self.virtual.exist:
            return None
        before = self.progress
        self._connection.set_progress_handler(overrun, _BRIEF_STEPS, id=_BRIEF)
        self._statements.brief = True
        try:
            return self._apply_units(entries, units, skipped)
        except (apsw.InterruptError, FatalError) as error:
            interrupted = isinstance(error.__cause__ or error, apsw.InterruptError)
            if not interrupted or self.progress is not before:
                raise
            # What is read anew now takes its time: the idempotency keys may be many.
            self._connection.set_progress_handler(None, id=_BRIEF)
            self._revert()
            return None
        finally:
            self._statements.brief = False
            self._connection.set_progress_handler(None, id=_BRIEF)

    def _apply_units(
        self, entries: Sequence[Entry], units: list[Unit], skipped: list[bytes]
    ) -> list[list[bytes]]:
        start = 0
        while start < len(units) and not self._waits(units[start]):
            end = start + 1
            if not units[start].alone:
                while end < len(units) and not units[end].alone and not units[end - 1].is_mark:
                    end += 1
            start = self._apply_group(units[start:end]) + start
        replies = iter(skipped + [unit.reply for unit in units[:start] if unit.request is not None])
        if start == len(units):
            self._early = {}
            return [[next(replies) for _payload in entry.payloads] for entry in entries]
        complete = [entry for entry in entries if entry.index <= self.progress.index]
        done = [[next(replies) for _payload in entry.payloads] for entry in complete]
        self._early = dict(enumerate(replies))
        return done

    # Requests that run long

    @property
    def held(self) -> tuple[int, int] | None:
        """(index, position) of the request that waits for its verdict."""
        held = self._held
        return (held.index, held.position) if held is not None else None

    @property
    def has_verdict(self) -> bool:
        """The request that is held has its verdict."""
        return self.held in self._verdicts

    def _waits(self, unit: Unit) -> bool:
        held = self._held
        if held is None or (held.index, held.position) != (unit.index, unit.position):
            return False
        if (unit.index, unit.position) not in self._verdicts:
            return True
        self._held = None
        return False

    def note_verdict(self, payload: bytes) -> None:
        """A committed request, in the log's order: remember it if it is a verdict."""
        verdict = decode_verdict(payload)
        if verdict is not None:
            self._verdicts.setdefault((verdict.index, verdict.position), verdict.keep)

    def try_held(self, expired: Callable[[], bool], cancelled: Callable[[], bool]) -> bool | None:
        """The leader's trial: execute the request that is held, and undo it. Whether it came to
        its end; False when `expired` said so after enough steps; None when it was cancelled."""
        unit, steps = self._held, self._steps
        if unit is None or unit.request is None:
            return None
        steps.begin_trial(lambda: cancelled() or (steps.may_abort and expired()))
        try:
            self._begin(unit)
            self._request(unit, unit.request, None, trial=True)
        except (TransactionLostError, apsw.InterruptError, FatalError) as error:
            if isinstance(error, FatalError) and not steps.over:
                raise
        finally:
            stopped = steps.over
            self._undo_long(unit)
        if cancelled():
            return None
        return not stopped

    def _undo_long(self, unit: Unit) -> None:
        """Nothing of it stays, in memory neither."""
        self._steps.begin(free=True)
        self._revert()
        if self._schema_changed or unit.alone:
            self._renew_schema()

    def _units(self, entries: Sequence[Entry]) -> tuple[list[Unit], list[bytes]]:
        """Decode; check that nothing is missing and nothing comes twice. Requests of the first
        entry that are applied already (the process ended between two transactions of it) are left
        out, and get a reply for whoever may still ask."""
        units: list[Unit] = []
        skipped: list[bytes] = []
        progress = self.progress
        expected, term = progress.index + 1, progress.term
        for entry in entries:
            if entry.index != expected:
                raise FatalError(
                    f"entry {entry.index} was handed to the database, which needs {expected}",
                    code="apply_order",
                    hint="the journal does not fit the database; please report it",
                )
            last = len(entry.payloads) - 1
            if last < 0:
                units.append(Unit(entry, 0, None, True, term))
            for position, payload in enumerate(entry.payloads):
                if expected == progress.index + 1 and position < progress.position:
                    skipped.append(self._early.get(position, _DROPPED))
                else:
                    self.note_verdict(payload)
                    request = decode_request(payload)
                    units.append(Unit(entry, position, request, position == last, term))
            expected, term = expected + 1, entry.term
        return units, skipped

    # Transactions

    def _apply_group(self, units: list[Unit]) -> int:
        """Apply units in one transaction; how many of them are committed then. When one of them
        ends the transaction, those before it are applied again without it, and it goes alone the
        next time."""
        try:
            return self._transaction(units)
        except TransactionLostError as lost:
            # Several transactions now: there is no giving up between them.
            self._connection.set_progress_handler(None, id=_BRIEF)
            self._statements.brief = False
            self._revert()
            if lost.place == 0:
                return self._transaction(units[:1], lost.reply)
            return self._apply_again(units[: lost.place])
        except Held as held:
            self._connection.set_progress_handler(None, id=_BRIEF)
            self._statements.brief = False
            self._held = units[held.place]
            self._undo_long(units[held.place])
            done = 0
            while done < held.place:
                done += self._apply_again(units[done : held.place])
            return done

    def _apply_again(self, units: list[Unit]) -> int:
        self._again = True
        try:
            return self._transaction(units)
        finally:
            self._again = False

    def _begin(self, unit: Unit) -> None:
        if not unit.foreign_keys:
            self._control(f"PRAGMA foreign_keys = OFF {MARK}")
        self._control(_BEGIN)

    def _transaction(self, units: list[Unit], failed: bytes | None = None) -> int:
        """BEGIN to COMMIT; how many of them are committed. `failed`: the known reply of a unit that
        ended a transaction before."""
        foreign_keys = units[0].foreign_keys
        self._begin(units[0])
        for place, unit in enumerate(units):
            if unit.request is not None:
                try:
                    unit.reply = self._request(unit, unit.request, failed)
                except TransactionLostError as lost:
                    lost.place = place
                    raise
                except Exception as error:
                    if self._steps.over:
                        raise Held(place) from error
                    raise
                if self._steps.over:
                    raise Held(place)
                if self.recorder is not None:
                    self._content.note_request(unit.index, unit.position)
                if self.virtual.stale:
                    units = units[: place + 1]
                    break
            elif unit.configuration:
                stored.write_configuration(self._run, unit.index, unit.configuration)
        self._commit(units[-1])
        for unit in units if self._verdicts else ():
            if isinstance(unit.request, Verdict):
                # Not before the commit: the request that it is on may have to be applied again.
                self._verdicts.pop((unit.request.index, unit.request.position), None)
        if not foreign_keys:
            self._control(f"PRAGMA foreign_keys = ON {MARK}")
        if self._schema_changed or units[0].alone or self.virtual.stale:
            self._renew_schema()
        return len(units)

    def _commit(self, last: Unit) -> None:
        # Nothing may stop it from here on: SQLite asks once more when a COMMIT ends, and calls one
        # interrupted that it has done (sqlite3VdbeExec, at vdbe_return).
        self._steps.begin(free=True)
        if self._statements.brief:
            self._connection.set_progress_handler(None, id=_BRIEF)
        if self.virtual.exist:
            # Virtual tables write what they kept in memory, before the sums are written.
            self._control(_FLUSH_OPEN)
            self._control(_FLUSH_CLOSE)
        self._content.flush()
        self.sessions.flush()
        if last.is_last:
            index, term, position = last.index, last.term, 0
        else:
            index, term = Index(last.index - 1), last.term_before
            position = last.position + 1
        values = (index, term, position, self._time_ms, self._session_ms, self._results)
        progress = Progress(*values)
        self._control(PROGRESS, values)
        if self.recorder is not None and (recorded := self._content.totals.take()):
            self.recorder(self._time_ms, recorded)
        self.shown_index = int(last.index)
        if self._schema_changed:
            self.epoch.value += 1
            self._control(_COMMIT)
            self.epoch.value += 1
        else:
            self._control(_COMMIT)
        self._content.committed()
        self.sessions.committed()
        self.keys.dirty = False
        if self.settings.dirty:
            self.settings.committed()
        self.progress = progress
        self._take_sample()

    def _take_sample(self) -> None:
        if (progress := self.progress).position == 0:
            self.samples.add(progress.index, self._content.digest, progress.results)

    def _revert(self) -> None:
        """The transaction is lost: go back to the last commit."""
        if self._connection.in_transaction:
            self._control(_ROLLBACK)
        self._take_progress()
        self.sessions.revert()
        if self.keys.dirty:
            self.keys.load()
        if self.settings.dirty:
            self.settings.load()
        if self._schema_changed:
            self._content.load()
        else:
            self._content.revert()
        self._control(f"PRAGMA foreign_keys = ON {MARK}")
        if self.virtual.exist:
            self._renew_schema()

    def _renew_schema(self) -> None:
        """Read schema and statistics from the file again: the planner's state is a function of what
        is stored (rule M5), and so is what virtual tables remember. Outside of transactions: there
        they keep rows in memory."""
        self._schema_changed = self.virtual.stale = False
        self._control(f"PRAGMA writable_schema = RESET {MARK}")
        self.recursive_triggers.take()
        self._statements.forget_infos()

    # Requests

    def _request(
        self, unit: Unit, request: Request, failed: bytes | None, trial: bool = False
    ) -> bytes:
        now = request.stamp.time_ms
        if now > self._time_ms:
            now = min(now, TIME_MS_MAX)
            self._session_ms += min(now - self._time_ms, SESSION_STEP_MS_MAX)
            self._time_ms = now
            self._clock.set_time(now)
        sessions = self.sessions
        sessions.expire(self._session_ms)
        if isinstance(request, _WRITES):
            if not trial:
                kept = self._verdicts.get((unit.index, unit.position))
                self._steps.begin(free=self._again or kept is not None)
                if kept is False:
                    failed = ABORTED
            reply = self._execute_once(unit, request, failed)
        elif isinstance(request, Outcome):
            reply = self._outcome(request)
        elif isinstance(request, OpenSession):
            reply = self._open_session(unit, request)
        elif isinstance(request, Configure):
            reply = self.settings.change(request)
        else:
            if isinstance(request, CloseSession):
                sessions.close(request.session)
            reply = _DONE
        if sessions.ended:
            for number in sessions.ended:
                self._results = chain(self._results, number, 0xFFFFFFFF, b"ended")
            sessions.ended.clear()
        self._results = chain(self._results, unit.index, unit.position, reply)
        return reply

    def _open_session(self, unit: Unit, request: OpenSession) -> bytes:
        number = session_number(unit.index, unit.position)
        error = self.sessions.open(
            number, request.token, request.label, self._time_ms, self._session_ms
        )
        if error is not None:
            return encode_reply(Failed(error, -1))
        return encode_reply(Opened(SessionId(self._history, number, request.token)))

    def _execute_once(self, unit: Unit, request: Execute | Commit, failed: bytes | None) -> bytes:
        """The reply of the first time, or the request's effect together with its reply."""
        sessions = self.sessions
        known = sessions.check(request.session, request.sequence)
        if known is not None:
            return known if isinstance(known, bytes) else encode_reply(Failed(known, -1))
        if request.key is not None:
            reply = self._execute_keyed(unit, request, request.key, failed)
        else:
            reply = self._perform(unit, request) if failed is None else failed
        sessions.record(request.session, request.sequence, request.floor, reply, self._session_ms)
        return reply

    def _perform(self, unit: Unit, request: Execute | Commit) -> bytes:
        self._content.careful = unit.careful
        try:
            if isinstance(request, Execute):
                return self._execute(request, unit.alone)
            return self._replay.run(request)
        finally:
            self._steps.end()
            self._clock.set_time(self._time_ms)

    def _execute_keyed(
        self, unit: Unit, request: Execute | Commit, key: Key, failed: bytes | None
    ) -> bytes:
        """As above, across sessions. A failure that changed nothing leaves the key free."""
        digest = sql_digest(request)
        known = self.keys.find(key, digest, self._session_ms)
        if known is not None:
            return known if isinstance(known, bytes) else encode_reply(Failed(known, -1))
        reply = self._perform(unit, request) if failed is None else failed
        made = decode_reply(reply)
        if not isinstance(made, Failed) or made.error.outcome == APPLIED:
            self.keys.record(key, digest, reply, self._session_ms)
        return reply

    def _outcome(self, request: Outcome) -> bytes:
        """What became of a request; one that was not seen never takes effect (rule S3)."""
        now_ms = self._session_ms
        if request.key is None:
            known = self.sessions.burn(request.session, request.sequence, now_ms)
        else:
            known = self.keys.burn(request.key, now_ms)
        return known if isinstance(known, bytes) else encode_reply(Failed(known, -1))

    def _execute(self, request: Execute, alone: bool) -> bytes:
        """Execute the statements in a savepoint: all of them stay, or none."""
        content = self._content
        if content.mentions_fail:
            content.settle()
        self._control(_SAVEPOINT)
        content.begin_request()
        self._statements.begin_request(request.stamp.seed)
        number = -1
        try:
            if alone:
                check_alone(request)
            results: list[StatementResult] = []
            for number, statement in enumerate(request.statements):
                if statement.references:
                    statement = resolved(statement, results)
                results.append(self._statements.run(statement, number))
                content.statement_done()
                if content.unknown_table or (alone and leading_verb(statement.sql) not in DML):
                    self.schema_touched()
            self.check_foreign_keys()
            reply = encode_reply(Results(tuple(results)))
            if len(reply) > RESULT_BYTES_MAX:
                raise DataError("the results are too large", code="result_too_large")
        except FatalError:
            raise
        except (StatementFailed, Error) as error:
            return self._fail(request, number, error)
        self._control(_RELEASE)
        content.keep_request()
        return reply

    def schema_touched(self) -> None:
        """The statement may have changed the schema: what is known of it follows."""
        self._schema_changed = True
        self._statements.forget_infos()
        self.recursive_triggers.store()
        try:
            self._content.schema_changed()
        except UnicodeError as error:
            # A table that was filled from a SELECT: the hook did not see its rows.
            raise StatementFailed(error) from error

    def check_foreign_keys(self) -> None:
        """Deferred keys are due at the end of the request, not of the transaction it shares."""
        if self.virtual.exist:
            # Here, so that what a virtual table has against its content is this request's failure.
            try:
                self._control(_FLUSH_OPEN)
                self._control(_FLUSH_CLOSE)
            except apsw.Error as error:
                raise StatementFailed(error) from error
            if self._content.error is not None:
                raise self._content.error
            if self._content.unknown_table:
                self.schema_touched()
        if self._content.touched_now:
            self._steps.uncounted(self._content.check_touched)
        if self._connection.status(apsw.SQLITE_DBSTATUS_DEFERRED_FKS)[0]:
            raise failures.foreign_key()

    def _fail(self, request: Execute, number: int, error: Exception) -> bytes:
        """The request failed: undo it (or keep what OR FAIL keeps), and say so."""
        content = self._content
        if self._schema_changed:
            self._statements.forget_infos()
        if content.error is not None:
            error, content.error = content.error, None
        failure = failures.translate(error)
        if not self._connection.in_transaction:
            raise TransactionLostError(encode_reply(Failed(failure, number)))
        if isinstance(error, StatementFailed) and keeps_rows(
            request, error.cause, content, self._connection
        ):
            failure.outcome = APPLIED
            if content.unknown_table:
                self.schema_touched()
            self._control(_RELEASE)
            content.keep_request()
        else:
            self._control(_ROLLBACK_TO)
            self._control(_RELEASE)
            content.drop_request()
        return encode_reply(Failed(failure, number))
