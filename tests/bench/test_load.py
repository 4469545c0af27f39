"""The harness's end of a load process, with processes that behave and that don't."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.load import Specification, run
from bench.processes import Service, Supervisor

LOAD = """
import array, json, sys
s = json.load(sys.stdin)
def say(event, **f):
    print(json.dumps({"event": event, **f}), flush=True)
say("ready"); say("begin"); say("end")
with open(s["samples_path"], "wb") as file:
    array.array("I", [1000, 2000, 3000, 4000]).tofile(file)
"""


def specification(place: Path) -> Specification:
    return Specification(
        addresses=[], connections=2, seconds=2.0, prefix="p", samples_path=str(place / "samples")
    )


def measure(place: Path, end: str) -> object:
    with Supervisor(place) as supervisor:
        node = supervisor.start("node", [sys.executable, "-c", "import time; time.sleep(60)"])
        command = [sys.executable, "-c", LOAD + end]
        return run(command, specification(place), [node], supervisor)


def test_a_good_run_is_summed_up(tmp_path: Path) -> None:
    found = measure(tmp_path, 'say("done", acknowledged=6, found=6, retries=1, cpu_s=0.5)')
    assert found.commits_per_s == 2.0  # type: ignore[attr-defined]
    assert found.latency.p50_ms == 2.0  # type: ignore[attr-defined]
    assert found.latency.max_ms == 4.0  # type: ignore[attr-defined]
    assert found.load_cpu_s == 0.5  # type: ignore[attr-defined]
    assert len(found.node_rss_mb) == 1  # type: ignore[attr-defined]
    assert found.node_rss_mb[0] > 1  # type: ignore[attr-defined]


def test_a_lost_write_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="6 writes were acknowledged and 5 are there"):
        measure(tmp_path, 'say("done", acknowledged=6, found=5, retries=0, cpu_s=0.5)')


def test_a_load_process_may_say_why_it_failed(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no leader"):
        measure(tmp_path, 'say("failed", message="no leader")')


def test_a_load_process_that_ends_early(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="ended before 'done', code 7"):
        measure(tmp_path, "sys.exit(7)")


def test_a_node_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        node = supervisor.start("n1", [sys.executable, "-c", "print('disk full'); exit(3)"])
        with pytest.raises(BenchError, match=r"(?s)n1 ended with 3.*disk full"):
            node.wait_for_log("ready", 10)


def test_everything_is_stopped_even_what_ignores_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.processes.STOP_S", 0.2)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(60)"
    )
    services: list[Service] = []

    def interrupted() -> None:
        with Supervisor(tmp_path) as supervisor:
            for i in range(2):
                services.append(supervisor.start(f"n{i}", [sys.executable, "-c", stubborn]))
                services[i].wait_for_log("up", 10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [service.process.returncode for service in services] == [-signal.SIGKILL] * 2


def test_the_specification_is_what_the_go_clients_read() -> None:
    source = (Path(__file__).parents[2] / "bench/peers/loadkit/loadkit.go").read_text()
    fields = json.loads(json.dumps(specification(Path("/tmp")).__dict__))
    for name in fields:
        if name != "extra":
            assert f'json:"{name}"' in source, name
