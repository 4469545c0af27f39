"""The history of a run: one record per operation, as a file one JSON line each.

docs/testing.md describes the fields for whoever writes a checker of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.workloads.base import OK, REFUSED, UNKNOWN, Operation, Outcome

LINE_BYTES_MAX = 1 << 20


@dataclass(slots=True)
class Record:
    """One operation of one client. Times are nanoseconds on one clock for all clients."""

    client: int
    workload: str
    operation: str
    arguments: dict[str, Any]
    invoke_ns: int
    return_ns: int | None = None
    """None: it never returned, or its outcome is unknown: it may take effect at any later time."""
    outcome: str = UNKNOWN
    result: Any = None
    error: str = ""
    index: int = 0
    age_s: float = 0.0
    process: int = 1
    """Of that client: when one is killed, the next goes on and knows nothing of what it saw."""
    round: int = 1
    """Of several that stand in one file: each begins with empty tables, and is judged by itself."""

    @property
    def is_ok(self) -> bool:
        return self.outcome == OK

    @property
    def is_unknown(self) -> bool:
        return self.outcome == UNKNOWN

    @property
    def succeeded(self) -> bool:
        """It took place and was no committed failure."""
        return self.outcome == OK and not self.error

    def __str__(self) -> str:
        end = "never" if self.return_ns is None else f"{self.return_ns / 1e9:.4f}"
        got = self.error or (self.result if self.is_ok else self.outcome)
        return (
            f"client {self.client} {self.operation} {self.arguments} "
            f"[{self.invoke_ns / 1e9:.4f}, {end}]: {got}"
        )


class History:
    """Takes what clients do, in the order of invocation. Bounded by `records_max`."""

    def __init__(self, records_max: int = 1_000_000) -> None:
        self.records: list[Record] = []
        self._records_max = records_max

    def invoke(self, client: int, operation: Operation, now_s: float, process: int = 1) -> Record:
        """A client begins an operation."""
        if len(self.records) >= self._records_max:
            raise OverflowError(f"a history holds at most {self._records_max} operations")
        record = Record(
            client,
            operation.workload,
            operation.name,
            operation.arguments,
            round(now_s * 1e9),
            process=process,
        )
        self.records.append(record)
        return record

    def end(self, record: Record, outcome: Outcome, now_s: float) -> None:
        """Its outcome is there. An unknown one has no end."""
        record.outcome, record.error = outcome.status, outcome.error
        record.index, record.age_s = outcome.index, outcome.age_s
        if outcome.status != UNKNOWN:
            record.result = outcome.value
            record.return_ns = round(now_s * 1e9)

    def of(self, workload: str) -> list[Record]:
        """What one workload did."""
        return [record for record in self.records if record.workload == workload]


def write_history(records: Iterable[Record], path: Path) -> None:
    """One JSON object per line, in the order of invocation."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(asdict(record), sort_keys=True, separators=(",", ":")) + "\n")


def read_history(path: Path) -> Iterator[Record]:
    """What `write_history` wrote. Raises ValueError with the line's number."""
    with path.open("r", encoding="utf-8") as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX):
            number += 1
            try:
                record = Record(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            if record.outcome not in (OK, REFUSED, UNKNOWN):
                raise ValueError(f"{path}:{number}: outcome {record.outcome!r}")
            yield record
