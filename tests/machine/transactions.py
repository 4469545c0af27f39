"""Interactive transactions without a cluster: statements in a workspace, then the COMMIT as an
entry."""

from __future__ import annotations

from typing import Any

from raftdb.base.errors import Error
from raftdb.command import (
    Commit,
    Failed,
    Recorded,
    Reply,
    Results,
    StatementResult,
    decode_reply,
)
from tests.machine.support import SQL, Database, stamp, statement

_seeds = iter(range(1_000, 1 << 40))


class Transaction:
    """One open transaction on a database of its own process."""

    def __init__(self, database: Database, *, foreign_keys: bool = True) -> None:
        self.database = database
        self.stamp = stamp(next(_seeds))
        self.foreign_keys = foreign_keys
        self.recorded: list[Recorded] = []
        self.wrote = False
        self.ended = False
        self.workspace = database.machine.begin_transaction(self.stamp.seed, foreign_keys)

    def step(self, sql: SQL) -> Reply:
        """Execute one statement; its reply."""
        one = statement(sql)
        executed = self.workspace.execute(one, self.stamp.time_ms)
        step = executed.step
        self.recorded.append(Recorded(executed.time_ms, one, step.digest))
        self.wrote = self.wrote or not step.is_read
        self.ended = self.ended or step.ended
        return decode_reply(step.reply)

    def run(self, sql: SQL) -> StatementResult:
        """Execute one statement that must succeed."""
        reply = self.step(sql)
        assert isinstance(reply, Results), reply
        return reply.statements[0] if reply.statements else StatementResult((), (), 0, 0)

    def rows(self, sql: SQL) -> list[tuple[Any, ...]]:
        """What it reads."""
        return list(self.run(sql).rows)

    def fail(self, sql: SQL) -> Error:
        """Execute one statement that must fail; its error."""
        reply = self.step(sql)
        assert isinstance(reply, Failed), reply
        return reply.error

    def request(self, **changes: Any) -> Commit:
        """The entry's request."""
        self.end()
        database = self.database
        database.sequence += 1
        values: dict[str, Any] = {
            "stamp": self.stamp,
            "session": database.session,
            "sequence": database.sequence,
            "floor": database.sequence - 1,
            "statements": tuple(self.recorded),
            "foreign_keys": self.foreign_keys,
            **changes,
        }
        return Commit(**values)

    def commit(self, **changes: Any) -> Reply:
        """Apply the COMMIT."""
        return self.database.apply(self.request(**changes))

    def end(self) -> None:
        """Let the workspace go."""
        self.database.machine.end_transaction(self.workspace)


def committed(reply: Reply) -> bool:
    """Whether it took effect; else it must be a conflict."""
    if isinstance(reply, Results):
        return True
    assert isinstance(reply, Failed), reply
    assert reply.error.code == "transaction_conflict", reply.error
    assert (reply.error.outcome, reply.error.retryable) == ("not_applied", True)
    return False
