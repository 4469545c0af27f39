"""The history of drills: one JSON line each, so that a trend is seen and the last one is known."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raftdb.base.errors import ConfigError
from raftdb.drill.result import Result

VARIABLE = "RAFTDB_DRILLS"
LINE_BYTES_MAX = 1 << 16
LINES_MAX = 10_000
"""The newest ones that are read."""
_KEPT = (
    "scenario",
    "started",
    "verdict",
    "missed",
    "broken",
    "nodes",
    "acknowledged",
    "failed_tries",
    "rpo_writes",
    "rpo_s",
    "rto_s",
    "full_s",
    "silence_s",
)


def default_path(environ: Mapping[str, str]) -> Path:
    """Of this user: RAFTDB_DRILLS, or raftdb/drills.jsonl below the directory for state (XDG)."""
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    state = environ.get("XDG_STATE_HOME")
    home = Path(state) if state else Path(environ.get("HOME", os.curdir)) / ".local" / "state"
    return home / "raftdb" / "drills.jsonl"


class History:
    """One file of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, results: Sequence[Result]) -> None:
        """Append. Raises ConfigError when the file cannot be written."""
        lines = []
        for result in results:
            if result.not_run:
                continue
            facts = result.as_dict(timeline=False)
            lines.append(json.dumps({key: facts[key] for key in _KEPT}) + "\n")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"cannot write the history {self.path}: {error.strerror}",
                hint=f"give --history FILE, or set {VARIABLE}",
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """The newest ones, oldest first; lines that are not whole are left out."""
        try:
            with self.path.open("rb") as file:
                lines = file.readlines()[-LINES_MAX:]
        except OSError:
            return []
        found = []
        for line in lines:
            if len(line) > LINE_BYTES_MAX:
                continue
            try:
                facts = json.loads(line)
            except ValueError:
                continue
            if isinstance(facts, dict) and all(key in facts for key in _KEPT):
                found.append(facts)
        return found


def last_drills(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """The last drill of each scenario that was run from here, newest first."""
    last: dict[str, dict[str, Any]] = {}
    for facts in History(default_path(environ)).read():
        last[str(facts["scenario"])] = facts
    return sorted(last.values(), key=lambda facts: str(facts["started"]), reverse=True)
