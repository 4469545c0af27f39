"""The real Log: structured lines to a stream, written by a thread of its own.

A terminal that is paused, or a journal daemon that hangs, must not hold up the loop: lines wait in
a bounded queue and are dropped (and counted) when it is full. Repeated events are bounded too, so
that a flood of refused connections cannot fill a disk.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from raftdb.base.errors import ConfigError
from raftdb.base.ports import Clock
from raftdb.runtime.clock import RealClock

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
VALUE_CHARACTERS_MAX = 2_000
QUEUE_LINES_MAX = 2_000
BURST_MAX = 20
"""Lines of one (level, event) within one window; the rest are counted and summed up in one line."""
WINDOW_S = 10.0
EVENTS_TRACKED_MAX = 1_000

_SECRET_NAME = re.compile(r"password|passphrase|secret|token|private|credential|(^|_)key$", re.I)
_SECRET_VALUE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,\[\]-]+")
REDACTED = "[redacted]"


def check_level(text: str) -> str:
    """One of LEVELS. Raises ConfigError."""
    if text not in LEVELS:
        raise ConfigError(f"{text!r} is not a log level", hint=f"use one of {', '.join(LEVELS)}")
    return text


def clean_value(name: str, value: Any) -> str | int | float | bool | None:
    """A field's value as it may be written: no secret, no bytes, no control character, bounded."""
    if _SECRET_NAME.search(name):
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = _SECRET_VALUE.sub(REDACTED, str(value))
    if len(text) > VALUE_CHARACTERS_MAX:
        text = f"{text[:VALUE_CHARACTERS_MAX]}… ({len(text)} characters)"
    return text


def _time_text(wall_ms: int) -> str:
    moment = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{wall_ms % 1000:03d}Z"


def text_line(wall_ms: int, level: str, event: str, fields: Mapping[str, Any]) -> str:
    """`2026-01-31T12:00:00.000Z INFO event name=value name="quoted value"`."""
    parts = [_time_text(wall_ms), level.upper(), event]
    for name, value in fields.items():
        clean = clean_value(name, value)
        if isinstance(clean, str) and not _PLAIN.fullmatch(clean):
            # JSON's escapes keep a value from a stranger on one line and its control characters
            # away from the terminal.
            clean = json.dumps(clean)
        parts.append(f"{name}={clean}")
    return " ".join(parts) + "\n"


def json_line(wall_ms: int, level: str, event: str, fields: Mapping[str, Any]) -> str:
    """One JSON object: time, level, event, then the fields."""
    value: dict[str, Any] = {"time": _time_text(wall_ms), "level": level, "event": event}
    for name, field in fields.items():
        value[name if name not in value else f"{name}_"] = clean_value(name, field)
    return json.dumps(value) + "\n"


class _Rate:
    """Which events may still be written in this window."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def admit(self, level: str, event: str, now_s: float) -> tuple[bool, int]:
        """(write it?, how many of its kind were left out in the window that just ended)."""
        start, count = self._windows.get((level, event), (now_s, 0))
        left_out = 0
        if now_s - start >= WINDOW_S:
            left_out = max(0, count - BURST_MAX)
            start, count = now_s, 0
        if len(self._windows) >= EVENTS_TRACKED_MAX:
            self._windows.clear()
        self._windows[(level, event)] = (start, count + 1)
        return count < BURST_MAX, left_out


class StreamLog:
    """The Log port. Usable from any thread; never blocks for the stream, never raises."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        level: str = "info",
        line_format: str = "text",
        clock: Clock | None = None,
        common: Mapping[str, Any] | None = None,
    ) -> None:
        """`common` fields (such as the node's id) go into every line."""
        if line_format not in FORMATS:
            raise ConfigError(
                f"{line_format!r} is not a log format", hint=f"use one of {', '.join(FORMATS)}"
            )
        self._stream = sys.stderr if stream is None else stream
        self._level = LEVELS.index(check_level(level))
        self._line: Callable[[int, str, str, Mapping[str, Any]], str] = (
            json_line if line_format == "json" else text_line
        )
        self._clock = clock or RealClock()
        self._common = dict(common or {})
        self._rate = _Rate()
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._writing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever mends raftdb itself."""
        self._add("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What an operator may want to know."""
        self._add("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What an operator should look at."""
        self._add("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What an operator must look at."""
        self._add("error", event, fields)

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until all lines are written; False when the stream did not take them in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Flush and end the thread."""
        self.flush(timeout_s)
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout_s)

    def _add(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if LEVELS.index(level) < self._level:
            return
        with self._changed:
            admitted, left_out = self._rate.admit(level, event, self._clock.monotonic_s())
            if left_out:
                self._append("warning", "repeated_events", {"of": event, "left_out": left_out})
            if admitted:
                self._append(level, event, fields)

    def _append(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if self._closed or len(self._lines) >= QUEUE_LINES_MAX:
            self._dropped += 1
            return
        merged = {**self._common, **fields}
        self._lines.append(self._line(self._clock.wall_ms(), level, event, merged))
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="raftdb-log", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._lines) or self._closed)
                if not self._lines:
                    return
                text = "".join(self._lines)
                self._lines.clear()
                if self._dropped:
                    fields = {**self._common, "lines": self._dropped}
                    text += self._line(self._clock.wall_ms(), "warning", "log_dropped", fields)
                    self._dropped = 0
                self._writing = True
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody to tell: the stream for telling is what broke.
                pass
