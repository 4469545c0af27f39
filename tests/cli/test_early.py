"""Ctrl-C while a command's modules are imported."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INTERRUPTED_AT = """
import os, signal, sys, weakref

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            if {callback}:
                # As importlib's own locks: what is raised there is swallowed.
                held = type("Held", (), {{}})()
                reference = weakref.ref(held, interrupt)
                del held
            else:
                interrupt(None)

def interrupt(_reference):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

sys.meta_path.insert(0, Finder())
sys.argv = ["raftdb", *{arguments}]
from raftdb.cli import main
main()
"""


def run(
    module: str, *arguments: str, callback: bool = False, ignores: bool = False
) -> subprocess.CompletedProcess[str]:
    """A command that is interrupted when it begins to import `module`. Whoever runs the tests may
    ignore interrupts himself, as a job in a shell's background does."""
    handler = signal.SIG_IGN if ignores else signal.SIG_DFL
    code = INTERRUPTED_AT.format(module=module, arguments=list(arguments), callback=callback)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.mark.parametrize(
    ("module", "callback"),
    [
        ("raftdb.cli.app", False),
        ("click", False),
        ("raftdb.cli.status", False),
        ("raftdb.cli.status", True),
        # The command has begun, and imports what it needs.
        ("raftdb.client", False),
    ],
)
def test_an_interrupt_during_imports_ends_with_130_and_no_traceback(
    module: str, callback: bool
) -> None:
    done = run(module, "status", "raftdb://127.0.0.1:1", callback=callback)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


def test_so_does_a_node_that_has_not_begun() -> None:
    done = run("raftdb.runtime.signals", "start", "nowhere")
    assert (done.returncode, done.stderr) == (130, "")


def test_whoever_ignores_interrupts_is_not_interrupted() -> None:
    done = run("click", "--version", ignores=True)
    assert done.returncode == 0
    assert done.stdout.startswith("raftdb, version")
