"""House rules as tests: sizes, and what no line of code may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.meta.source import ROOT, Module, functions, modules, used

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
CODE = tuple(name for name in ("raftdb", "tests", "bench", "chaos") if (ROOT / name).is_dir())


@dataclass(frozen=True, slots=True)
class Ban:
    """A name that must not be used, where it may be all the same, and what to do instead."""

    pattern: str
    folders: tuple[str, ...]
    allowed: tuple[str, ...]
    instead: str

    def violations(self, found: tuple[Module, ...]) -> list[str]:
        """`file:line name` of each use outside of what is allowed."""
        banned = re.compile(self.pattern)
        return [
            f"{module.name}:{line} uses {name}: {self.instead}"
            for module in found
            if not module.name.startswith(self.allowed)
            for line, name in used(module)
            if banned.fullmatch(name)
        ]


BANS = [
    Ban(r"time\.sleep", ("raftdb", "tests"), (), "wait for an event with a deadline"),
    Ban(
        r"(pickle|marshal|shelve|cPickle|dill)(\..*)?",
        ("raftdb",),
        # The wall replaces the `loads` that the library would call by one that raises.
        ("raftdb/consensus/wall.py", "raftdb/consensus/seams.py"),
        "encode with msgpack, bounded",
    ),
    Ban(
        r"print",
        ("raftdb",),
        ("raftdb/cli/", "raftdb/demo/"),
        "log by the Log port, or print in cli",
    ),
    Ban(
        r"random\.(?!Random$|SystemRandom$)\w+",
        ("raftdb", "tests"),
        (),
        "take the Random port, or a seeded random.Random",
    ),
    Ban(
        r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|clock_gettime)",
        ("raftdb",),
        # The demo is a load generator around real nodes, not a part of one.
        ("raftdb/runtime/", "raftdb/demo/"),
        "take the Clock port",
    ),
    Ban(
        r"(threading|concurrent\.futures|_thread|multiprocessing)(\..*)?",
        ("raftdb",),
        # The machine starts no thread; its locks keep lanes and users' threads apart.
        (
            "raftdb/runtime/",
            "raftdb/client/",
            "raftdb/demo/",
            # Load around real nodes, as the demo's: blocking clients, one thread each.
            "raftdb/drill/",
            "raftdb/embedded/",
            "raftdb/machine/",
            # Something kept for each thread that calls; it starts none.
            "raftdb/base/packing.py",
            # Asking all nodes at once: blocking connections, one thread each.
            "raftdb/ops/status.py",
            "raftdb/ops/check.py",
            "raftdb/ops/upgrade_check.py",
            "raftdb/ops/wan.py",
            # A pause between two looks at a lock, or at a node; they start none.
            "raftdb/ops/leave.py",
            "raftdb/ops/upgrade.py",
            # Fetching many objects at once, for commands.
            "raftdb/archive/parallel.py",
        ),
        "give work to an Executor's lane",
    ),
    Ban(
        r"(socket|ssl|selectors|select)(\..*)?",
        ("raftdb",),
        ("raftdb/runtime/", "raftdb/client/", "raftdb/demo/processes.py", "raftdb/ops/ports.py"),
        "take the Network port",
    ),
    Ban(
        r"(asyncio|uvloop)(\..*)?",
        ("raftdb",),
        ("raftdb/runtime/", "raftdb/client/", "raftdb/embedded/"),
        "stay callback-driven, by the ports",
    ),
    Ban(
        r"(datetime\.)?datetime\.(now|utcnow)",
        ("raftdb",),
        ("raftdb/security/",),
        "take the Clock port",
    ),
    Ban(
        r"(eval|exec|os\.system|os\.popen)",
        ("raftdb",),
        # Runs the pinned library's own source with its outside world replaced.
        ("raftdb/consensus/seams.py",),
        "there is a safer way",
    ),
]


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: ban.pattern[:24])
def test_nothing_banned_is_used(ban: Ban) -> None:
    assert ban.violations(modules(*ban.folders)) == []


def test_a_ban_finds_what_it_bans() -> None:
    """The check itself: on a sample that breaks every rule."""
    sample = (
        "import pickle, threading, socket, asyncio\nimport time, random\nfrom time import sleep\n"
        "time.sleep(1)\nprint(1)\nrandom.choice([1])\ntime.monotonic()\n"
        "from datetime import datetime\ndatetime.now()\neval('1')\n"
    )
    module = Module(ROOT / "raftdb" / "node" / "sample.py", sample, ast.parse(sample))
    for ban in BANS:
        assert ban.violations((module,)), ban.pattern
    aliased = Module(module.path, *_parsed("import time as t\nt.sleep(1)"))
    assert BANS[0].violations((aliased,))
    port = Module(module.path, *_parsed("def f(random): return random.choice([1])"))
    assert not any(ban.violations((port,)) for ban in BANS)


def _parsed(text: str) -> tuple[str, ast.Module]:
    return text, ast.parse(text)


def test_modules_are_not_too_long() -> None:
    long = [f"{one.name}: {one.lines}" for one in modules(*CODE) if one.lines > MODULE_LINES_MAX]
    assert long == []


def test_functions_are_not_too_long() -> None:
    long = []
    for module in modules(*CODE):
        for function in functions(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{module.name}:{function.lineno} {function.name}: {lines} lines")
    assert long == []


@pytest.mark.parametrize("room", ["raftdb.cli", "raftdb.embedded"])
def test_refuses_to_run_without_assertions(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", f"import {room}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "assertions" in done.stderr


def test_no_path_of_one_machine_is_written_down() -> None:
    words = re.compile(r"/work/|/root/|/home/\w+/|\.\./shared")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    found = []
    for name in listed:
        path = ROOT / name
        # .ci/run may bring docker up by what lies beside the checkout; what users run may not.
        if not name or name.startswith(("tests/meta/", ".ci/")) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
            if words.search(line):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert found == []
