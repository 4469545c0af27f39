"""One scripted workload, recorded into a file; run under strace by test_record.

python -m tests.powerloss.traced SHAPE SEED ROOT RECORD
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.powerloss.record import FileSink
from tests.powerloss.script import SHAPES, Script


def main() -> None:
    """Exit code 0 when the workload came to its end."""
    shape, seed, root, record = sys.argv[1:]
    sink = FileSink(record)
    for event in Script(Path(root), SHAPES[shape], int(seed)).run():
        sink.append(event)


if __name__ == "__main__":
    main()
