"""What a node tells of its content, as plain values; hashes are hexadecimal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftdb.base.errors import Error, OperationalError
from raftdb.base.ports import Executor
from raftdb.consensus.port import EnginePort, NotApplied
from raftdb.machine import MARK_EVERY, ContentHash, Machine, Sample
from raftdb.node.calls import Answer, Done, UnderWay, answer_of, read_deadline
from raftdb.node.reading import RETRY_AFTER_MS, busy_error

ASKED_MAX = 256
"""Questions under way. Each may wait for an index that does not come, among the reads: a few
clients must not take all the room that these have."""


def hash_facts(content: ContentHash) -> dict[str, Any]:
    """The content hash as of the last commit; `mark`: the last index where all replicas commit."""
    return {
        "index": int(content.index),
        "position": content.position,
        "total": content.total.hex(),
        "schema": content.schema.hex(),
        "sequences": content.sequences.hex(),
        "results": content.results.hex(),
        "mark": int(content.index) // MARK_EVERY * MARK_EVERY,
        "tables": {name: value.hex() for name, value in content.tables.items()},
    }


def sample_facts(sample: Sample) -> dict[str, Any]:
    """The digest at an index at which all replicas commit. Its `total` is no content hash; `tables`
    is empty where nobody asked before the index was reached."""
    return {
        "index": int(sample.index),
        "position": 0,
        "total": sample.content.hex(),
        "results": sample.results.hex(),
        "tables": {name: value.hex() for name, value in (sample.tables or {}).items()},
    }


class Hashes:
    """Answers for the content hash, once an index is applied here. On the loop."""

    def __init__(
        self,
        machine: Machine,
        engine: EnginePort,
        executor: Executor,
        node_id: str,
        call: Callable[[float, Done, Callable[[float], Error]], UnderWay],
        not_applied: Callable[[NotApplied], Error],
    ) -> None:
        """`call` begins one; `not_applied` says why an index is not waited for."""
        self._machine = machine
        self._engine = engine
        self._executor = executor
        self._node_id = node_id
        self._call = call
        self._not_applied = not_applied
        self._under_way = 0
        self._asking: list[UnderWay] = []
        """Those whose index is applied, and that wait for the lane."""
        self._looking = False

    def ask(self, index: int | None, timeout_s: float, done: Done, exact: bool) -> None:
        """The answer's body is a dict. `exact`: of the first index from that one on at which every
        replica can tell it."""
        if self._under_way >= ASKED_MAX:
            busy = busy_error(RETRY_AFTER_MS, "questions for the content hash")
            self._executor.call_soon(done, None, busy)
            return
        self._under_way += 1

        def over(answer: Answer | None, error: Error | None) -> None:
            self._under_way -= 1
            done(answer, error)

        call = self._call(timeout_s, over, read_deadline)
        if exact:
            mark = self._machine.want_sample(index or 0)
            call.wait = self._engine.when_applied(mark, lambda why: self._sample(why, call, mark))
        else:
            call.wait = self._engine.when_applied(index or 0, lambda why: self._content(why, call))

    def _content(self, reason: str, call: UnderWay) -> None:
        if reason:
            call.end(None, self._not_applied(NotApplied(reason)))
        if not call.ended:
            self._asking.append(call)
            self._look()

    def _look(self) -> None:
        """On the lane of the writer, so that index and hash belong together. Once for all who wait:
        writes wait meanwhile."""
        calls, self._asking = self._asking, []
        if self._looking or not calls:
            self._asking = calls
            return
        self._looking = True

        def told(result: Any, error: BaseException | None) -> None:
            self._looking = False
            for call in calls:
                call.end(*answer_of(result, error, 0))
            self._look()

        self._executor.submit("apply", lambda: hash_facts(self._machine.content_hash()), told)

    def _sample(self, reason: str, call: UnderWay, index: int) -> None:
        sample = self._machine.sample_at(index)
        if reason:
            call.end(None, self._not_applied(NotApplied(reason)))
        elif sample is None:
            gone = f"{self._node_id} has forgotten what it held at index {index}"
            call.end(None, OperationalError(gone, code="sample_gone", retryable=True))
        else:
            call.end(Answer(sample_facts(sample), index), None)


__all__ = ["Hashes", "hash_facts", "sample_facts"]
