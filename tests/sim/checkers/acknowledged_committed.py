"""What a client is told of was committed then; and sessions of clients that go on do not end by
themselves (rules S1 and S2): nobody is idle for as long as that takes."""

from __future__ import annotations

from typing import Any

from tests.sim.checkers.base import Broken, Checker

NEVER = ("sequence_gap", "session_unknown", "session_forged", "reply_forgotten", "key_too_old")
"""Codes that a client whose requests come one after the other, and which settles what it gave up,
never sees."""


class AcknowledgedCommitted(Checker):
    def __init__(self) -> None:
        self._committed = 0

    def after_event(self, node: Any) -> None:
        self._committed = max(self._committed, node.commit_index)

    def on_return(self, record: Any) -> None:
        codes = [record.error]
        if record.workload == "pipeline" and record.operation == "fly" and record.is_ok:
            codes += [value for status, value in record.result if status != "ok"]
        if any(code in NEVER for code in codes):
            raise Broken("sessions go on", f"{record}: something of this session is gone")
        if record.is_ok and record.index > self._committed:
            raise Broken(
                "acknowledged is committed",
                f"{record} is of index {record.index}, {self._committed} was committed by then",
            )
