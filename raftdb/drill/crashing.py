"""A release that is bad on purpose: it runs `raftdb`, and the process is gone after a while.

    DRILL_CRASH_AFTER_S=1.5 python -m raftdb.drill.crashing start --config …

0 seconds: before anything is run, as of a package that cannot be imported.
"""

from __future__ import annotations

import os
import runpy
import threading

VARIABLE = "DRILL_CRASH_AFTER_S"
EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""

if __name__ == "__main__":
    after_s = float(os.environ[VARIABLE])
    if after_s <= 0:
        os._exit(EXIT_CODE)
    timer = threading.Timer(after_s, os._exit, (EXIT_CODE,))
    timer.daemon = True
    timer.start()
    runpy.run_module("raftdb.cli", run_name="__main__")
