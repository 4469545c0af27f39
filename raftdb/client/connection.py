"""`connect`, and the Connection that it gives: DB-API 2.0 over the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from raftdb.base import errors
from raftdb.base.errors import ConfigError, InterfaceError
from raftdb.base.ids import Address
from raftdb.client import forks
from raftdb.client.actions import Steps
from raftdb.client.core import NOT_READS, Core
from raftdb.client.cursor import Cursor, ResultSet, RowFactory, result_sets
from raftdb.client.driver import BlockingDriver, Cancelled
from raftdb.client.flight import ended_in_flight, resume_all
from raftdb.client.levels import parse_level
from raftdb.client.link import IN_PROCESS, Dialler, InProcessLink, own_cluster
from raftdb.client.options import Options, level_of, make_options, with_timeout
from raftdb.client.pipeline import Pipeline, pipeline_is_open
from raftdb.client.sqltext import READ, classify
from raftdb.client.stream import Stream, open_stream
from raftdb.client.values import BatchItem, batch_items, key_of
from raftdb.client.work import Transactions, Work
from raftdb.command import Key, Results, Statement
from raftdb.wire import LOCAL

_Value = TypeVar("_Value")


class Warning(Exception):
    """Part of DB-API 2.0; never raised."""


def connect(
    url: str | None = None, /, *, link: InProcessLink | None = None, **options: Any
) -> Connection:
    """A connection to a cluster.

    `url`: raftdb://host:port,host:port/?ca=…&cert=…&key=… ; every option of the URL can be given as
    a keyword too, and wins (see Options). `link`: a node in this process (`Node.link()`), which
    then is asked first. Nothing is dialled before the first request. Raises ConfigError.
    """
    return Connection(make_options(url, options), link)


class Connection(Transactions):
    """One user's connection to the cluster: used by one thread at a time (threadsafety 1).

    Behind it are up to a few sockets, opened as needed; it finds the leader, follows it, and
    retries, so that a request fails only if no majority can be reached before its deadline.
    """

    Warning = Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    def __init__(self, options: Options, link: InProcessLink | None = None) -> None:
        # Late: the real clock brings the real ports with it, which nobody needs before.
        from raftdb.runtime.clock import RealClock
        from raftdb.runtime.random import RealRandom

        options = complete_options(options, link)
        clock = RealClock()
        self.options = options
        self.row_factory: RowFactory | None = None
        """Makes what cursors give from (cursor, row): `raftdb.Row`, or any function."""
        self.foreign_keys = True
        """Whether foreign keys are enforced in the writes of this connection."""
        self._link = link
        self._reads_here = link is not None and options.read == LOCAL
        """Reads without a level of their own are the node's in this process."""
        self._core = Core(options, clock, RealRandom())
        self._driver = BlockingDriver(Dialler(options, clock, link), clock)
        self._closed = False
        self._busy = False
        self._pipeline: Pipeline | None = None
        self._work = Work(self._core, options)
        self._plain = True
        """Each request is a transaction of its own: none is open, and none begins by itself."""
        self._last_index = 0
        self._last_age_ms = -1
        self._is_parents = False
        forks.watch(self)

    # ---- statements

    def cursor(self) -> Cursor:
        """A new cursor. Cursors of one connection don't disturb each other."""
        self._check_open()
        return Cursor(self)

    def execute(self, sql: str, parameters: Any = (), /, **options: Any) -> Cursor:
        """`cursor().execute(…)`."""
        return self.cursor().execute(sql, parameters, **options)

    def executemany(self, sql: str, parameter_sets: Iterable[Any], /, **options: Any) -> Cursor:
        """`cursor().executemany(…)`: one request, all or nothing."""
        return self.cursor().executemany(sql, parameter_sets, **options)

    def executescript(self, script: str, /, **options: Any) -> Cursor:
        """`cursor().executescript(…)`: one request, all or nothing."""
        return self.cursor().executescript(script, **options)

    def batch(
        self,
        statements: Iterable[BatchItem],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        horizon: int | None = None,
        durability: str | None = None,
    ) -> list[ResultSet]:
        """Run statements as one request, all or nothing; the result of each.

        An item is SQL, or (SQL, parameters), or a raftdb.Statement with many parameter sets.
        Parameters may refer to earlier results: raftdb.lastrowid(0), raftdb.returned(0, "id"). If
        all are reads, they see one snapshot.
        """
        self._check_open()
        items = batch_items(statements)
        if not items:
            return []
        reads = all(classify(item.sql).kind == READ for item in items)
        key = None if idempotency_key is None else key_of(idempotency_key, horizon)
        return result_sets(items, self._request(items, reads, None, timeout, key, durability))

    # ---- several writes at once

    def pipeline(self) -> Pipeline:
        """`with connection.pipeline() as p: p.execute(…)`: writes whose answers nobody waits for
        one by one. They are applied in order, each exactly once; leaving the block waits for all
        and raises the first error."""
        self._check_open()
        return Pipeline(self)

    # ---- after an unknown outcome

    @property
    def unsettled(self) -> bool:
        """Whether the last write ended with outcome `unknown`, and may still be resumed."""
        return self._core.unsettled

    def resume(self, *, timeout: float | None = None) -> list[ResultSet]:
        """Bring the write whose outcome is unknown to its end: it is sent again, applied if it was
        not, and never twice. Its results, or the error that it ended with."""
        self._check_open()
        timeout_s = with_timeout(self.options, timeout)
        writes = self._core.unsettled_writes
        if ended_in_flight(self._core):
            outcome = self._run(resume_all(self._core, timeout_s))
        else:
            outcome = self._run(self._core.resume(timeout_s=timeout_s))
        self._last_index = outcome.index
        statements = [statement for write in writes for statement in write.statements]
        return result_sets(statements, outcome.results)

    # ---- the cluster

    @property
    def last_index(self) -> int:
        """Log index of the last write, or applied index that the last read saw; 0 before."""
        return self._last_index

    @property
    def token(self) -> str:
        """What this connection has seen, for reads of level `session` by others: letters, digits,
        `.`, `-` and `_`, fit for a cookie or a URL. `` before the first answer. Raises
        InterfaceError once when the cluster was restored meanwhile."""
        return self._core.token()

    def see(self, token: str) -> None:
        """Have reads of level `session` reflect what another connection's `token` stands for, too.
        Raises InterfaceError for what is none, or of another history than one seen before."""
        self._core.see(token)

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What the preferred (else the first given and reachable) node says of itself and the
        cluster."""
        return self._run(self._core.status(timeout_s=with_timeout(self.options, timeout)))

    def ping(self, *, timeout: float | None = None) -> str:
        """The id of the node that answered."""
        return self._run(self._core.ping(timeout_s=with_timeout(self.options, timeout)))

    def content_hash(
        self, index: int | None = None, *, timeout: float | None = None, exact: bool = False
    ) -> dict[str, Any]:
        """The content hash of the preferred (else the first given) node, once `index` is applied
        there. Equal content, equal hash: on whatever node. `exact`: of the first index from that
        one on at which all nodes can tell it, however much is written; such hashes are only
        compared with each other."""
        timeout_s = with_timeout(self.options, timeout)
        return self._run(self._core.content_hash(index, timeout_s=timeout_s, exact=exact))

    def ask(
        self,
        what: str,
        /,
        *,
        timeout: float | None = None,
        anywhere: bool = False,
        **arguments: Any,
    ) -> dict[str, Any]:
        """A question or an order about the cluster by its name in docs/protocol.md, to the leader
        (`anywhere`: to the preferred node, about itself); what it answers."""
        timeout_s = with_timeout(self.options, timeout)
        steps = self._core.ask(what, arguments, timeout_s=timeout_s, anywhere=anywhere)
        return self._run(steps)

    def await_durable(
        self,
        error: errors.Error | None = None,
        *,
        durability: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """After an error of code `durability_pending`: wait until that write is as durable as it
        was to be. Without an error: until all that this connection has seen is (`durability`, or
        the connection's own). Gives the log index. Raises the error anew when it is not by then."""
        timeout_s = with_timeout(self.options, timeout)
        level = level_of(durability)
        return self._run(self._core.await_durable(error, level, timeout_s=timeout_s))

    def transfer_leadership(
        self, target: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Have the leader hand over to the node `target`, or to the most advanced one."""
        timeout_s = with_timeout(self.options, timeout)
        self._run(self._core.transfer_leadership(target, timeout_s=timeout_s))

    def cancel(self) -> None:
        """End the call that another thread is waiting in: it raises OperationalError with code
        `cancelled`. A read is stopped at the node. A write that was sent is not taken back: its
        outcome is `unknown`, as after Ctrl-C. Harmless when nothing is under way."""
        self._driver.cancel()

    # ---- closing

    def close(self) -> None:
        """Close; using the connection afterwards is an error. Closing twice is none."""
        if self._closed:
            return
        # First what is refused while another thread waits in a call: its transaction goes on then.
        self._run(self._core.close(), self._pipeline)
        self._pipeline = None
        self._work.forget()
        self._closed = True
        if self._link is not None:
            self._link.close()

    def __enter__(self) -> Connection:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        hosts = ",".join(str(address) for address in self.options.addresses)
        return f"<raftdb.Connection to {hosts}{', closed' if self._closed else ''}>"

    # ---- inside

    def _request(
        self,
        statements: tuple[Statement, ...],
        reads: bool,
        level: str | None,
        timeout: float | None,
        key: Key | None = None,
        durability: str | None = None,
    ) -> Results:
        timeout_s = with_timeout(self.options, timeout)
        if not self._plain or (not reads and self._work.is_step(statements)):
            if durability is not None:
                raise InterfaceError(
                    "a transaction is durable as a whole", hint="give `durability` to commit()"
                )
            return self._transact(statements, level, timeout_s, key)
        level, max_age_ms = parse_level(self.options.read if level is None else level)
        if not reads or key is not None:
            steps = self._core.execute(
                statements,
                foreign_keys=self.foreign_keys,
                timeout_s=timeout_s,
                key=key,
                durability=durability if durability is None else level_of(durability),
            )
        else:
            if level == LOCAL and self._link is not None:
                results = self._read_here(self._link, statements, timeout_s)
                if results is not None:
                    return results
            steps = self._core.query(
                statements,
                level=level,
                max_age_ms=max_age_ms,
                timeout_s=timeout_s,
                foreign_keys=self.foreign_keys,
            )
        outcome = self._run(steps)
        self._last_index, self._last_age_ms = outcome.index, outcome.age_ms
        return outcome.results

    def _transact(
        self,
        statements: tuple[Statement, ...],
        level: str | None,
        timeout_s: float,
        key: Key | None,
    ) -> Results:
        """Within a transaction, or at its beginning or end."""
        if key is not None:
            raise InterfaceError(
                "an idempotency key names a whole transaction", hint="give it to commit()"
            )
        if level is not None:
            raise InterfaceError(
                "a transaction reads its own snapshot", hint="leave `read` out until it has ended"
            )
        results = self._do_work(self._work.execute(statements, self.foreign_keys, timeout_s))
        self._last_index = max(self._last_index, self._work.index)
        return results

    def _stream(self, statement: Statement, level: str | None, timeout: float | None) -> Stream:
        name, max_age_ms = parse_level(self.options.read if level is None else level)
        steps = open_stream(
            self._core,
            statement,
            level=name,
            max_age_ms=max_age_ms,
            timeout_s=with_timeout(self.options, timeout),
        )
        stream = self._run(steps)
        self._last_index, self._last_age_ms = stream.index, stream.age_ms
        return stream

    def _read_here(
        self, link: InProcessLink, statements: tuple[Statement, ...], timeout_s: float
    ) -> Results | None:
        """Have the node in this process answer in this thread. None: ask it as any other."""
        try:
            results, self._last_index = link.local_query(statements, timeout_s)
            self._last_age_ms = -1
            self._core.note_shown(link.history, self._last_index)
            return results
        except errors.Error as error:
            if error.code in NOT_READS:
                return None
            raise

    def _run(self, steps: Steps[_Value], pipeline: Pipeline | None = None) -> _Value:
        self._check_open()
        if self._pipeline is not pipeline:
            raise pipeline_is_open()
        if self._busy:
            raise InterfaceError(
                "the connection is in use by another thread",
                hint="give each thread a connection of its own",
            )
        self._busy = True
        self._core.courier.latest = None
        try:
            return self._driver.run(steps)
        except Cancelled:
            raise errors.OperationalError(
                "cancelled",
                code="cancelled",
                outcome=errors.UNKNOWN if self._core.in_doubt else errors.NOT_APPLIED,
                hint="what was sent may take effect: see resume() for a write; an order about the"
                " cluster may be given again",
            ) from None
        finally:
            self._busy = False

    def forked(self) -> None:
        """This process is a child of the one that made it: nothing of it is used here."""
        self._closed = self._is_parents = True
        self._core.courier.abandon()

    def _check_open(self) -> None:
        if self._is_parents:
            raise forks.of_the_parent()
        if self._closed:
            raise InterfaceError("the connection is closed", hint="connect again")


def complete_options(options: Options, link: InProcessLink | None) -> Options:
    """Fill in what follows from the rest."""
    from dataclasses import replace

    addresses: tuple[Address, ...] = options.addresses
    if link is not None:
        addresses = (IN_PROCESS, *addresses)
        options = replace(options, addresses=addresses)
    if not addresses:
        raise ConfigError(
            "connect to where?", hint='such as raftdb.connect("raftdb://host:7001/?ca=…")'
        )
    return replace(options, cluster=own_cluster(options) or options.cluster)
