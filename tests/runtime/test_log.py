"""StreamLog: form, secrets, strangers' text, repetition, and a stream that does not take it."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftdb.base.errors import ConfigError
from raftdb.runtime.log import (
    BURST_MAX,
    QUEUE_LINES_MAX,
    REDACTED,
    VALUE_CHARACTERS_MAX,
    WINDOW_S,
    StreamLog,
    json_line,
    text_line,
)


class SetClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 1_767_225_600_123


def written(call: Any, **options: Any) -> str:
    stream = io.StringIO()
    log = StreamLog(stream, clock=SetClock(), **options)
    call(log)
    log.close()
    return stream.getvalue()


def test_text_lines() -> None:
    text = written(
        lambda log: log.info("started", port=7001, name="n1", note="two words", ok=True, x=None),
        common={"node": "n1"},
    )
    assert text == (
        "2026-01-01T00:00:00.123Z INFO started node=n1 port=7001 name=n1 "
        'note="two words" ok=True x=None\n'
    )


def test_json_lines() -> None:
    text = written(lambda log: log.warning("odd", time="x", n=1.5), line_format="json")
    assert json.loads(text) == {
        "time": "2026-01-01T00:00:00.123Z",
        "level": "warning",
        "event": "odd",
        "time_": "x",
        "n": 1.5,
    }


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_levels(level: str, count: int) -> None:
    def call(log: StreamLog) -> None:
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")

    assert len(written(call, level=level).splitlines()) == count


def test_unknown_levels_and_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match="loud"):
        StreamLog(io.StringIO(), level="loud")
    with pytest.raises(ConfigError, match="xml"):
        StreamLog(io.StringIO(), line_format="xml")


PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END"


@pytest.mark.parametrize("line", [text_line, json_line])
@pytest.mark.parametrize(
    "fields",
    [
        {"password": "hush-hush"},
        {"session_token": "hush-hush"},
        {"key": "hush-hush"},
        {"private_key": b"hush-hush"},
        {"client_secret": "hush-hush"},
        {"reason": f"cannot use {PEM.replace('MIGH', 'hush-hush')}"},
        {"data": b"hush-hush"},
        {"data": bytearray(b"hush-hush")},
    ],
)
def test_no_secret_gets_into_a_line(line: Any, fields: dict[str, Any]) -> None:
    text = line(0, "info", "x", fields)
    assert "hush-hush" not in text
    assert REDACTED in text or "<9 bytes>" in text


def test_the_path_of_a_key_is_no_secret() -> None:
    assert "/etc/raftdb/node.key" in text_line(0, "info", "x", {"path": "/etc/raftdb/node.key"})


@given(
    st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), st.text())
)
def test_a_strangers_text_stays_on_one_line_without_control_characters(
    fields: dict[str, str],
) -> None:
    for line in (text_line, json_line):
        text = line(0, "info", "x", fields)
        assert text.endswith("\n")
        assert text[:-1].isprintable()
        text.encode()


def test_long_values_are_cut() -> None:
    text = text_line(0, "info", "x", {"reason": "y" * 1_000_000})
    assert len(text) < VALUE_CHARACTERS_MAX + 100
    assert "1000000 characters" in text


def test_repeated_events_are_bounded_and_counted() -> None:
    stream, clock = io.StringIO(), SetClock()
    log = StreamLog(stream, clock=clock)
    for number in range(1000):
        log.warning("connection_refused", number=number)
    log.warning("other")
    clock.now_s += WINDOW_S
    log.warning("connection_refused", number=1000)
    log.close()
    lines = stream.getvalue().splitlines()
    assert len([line for line in lines if "connection_refused number=" in line]) == BURST_MAX + 1
    assert any(line.endswith("other") for line in lines)
    assert f"repeated_events of=connection_refused left_out={1000 - BURST_MAX}" in stream.getvalue()


class Stuck(io.StringIO):
    """A pipe whose reader sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.release = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.release.wait(30)
        return super().write(text)


def test_a_stuck_stream_holds_nobody_up() -> None:
    stream = Stuck()
    log = StreamLog(stream, clock=SetClock())
    log.info("first")
    assert stream.entered.wait(10)
    for number in range(QUEUE_LINES_MAX + 500):
        log.info(f"event-{number}")
    assert not log.flush(0.01)
    stream.release.set()
    log.close(20)
    text = stream.getvalue()
    assert "log_dropped lines=500" in text
    assert len(text.splitlines()) == QUEUE_LINES_MAX + 2


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError("nobody reads")


def test_a_stream_that_is_gone_raises_nothing() -> None:
    log = StreamLog(Gone(), clock=SetClock())
    log.error("lost")
    log.close()
    log.error("after close")


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    log = StreamLog(stream, clock=SetClock())

    def call(name: str) -> None:
        for number in range(15):
            log.info(f"from-{name}", number=number)

    threads = [threading.Thread(target=call, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 120
    assert all(line.startswith("2026-") and " INFO from-" in line for line in lines)
