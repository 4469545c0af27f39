"""Ctrl-C while modules are still imported: the process ends with 130, and without a traceback.

A KeyboardInterrupt of that time would be raised wherever the import machinery happens to be: above
everything that catches it, or in a callback of a weak reference, which swallows it. Nothing was
begun by then that would have to be ended, so the process just leaves.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
"""As ExitCode.INTERRUPTED, which would have to be imported."""


def guard() -> None:
    """From now on Ctrl-C leaves. Whoever started this process with SIGINT ignored keeps that."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def release() -> None:
    """The command is there, and begins: Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)
