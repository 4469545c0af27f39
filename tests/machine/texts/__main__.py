"""Write what a feature level changes: `python -m tests.machine.texts LEVEL`.

For the newest level only, and only for what is gated by it: texts of the levels below are what
nodes of older releases say too.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.machine.texts import PLACE, all_texts, golden_replies, golden_texts, replies


def main() -> None:
    """See above."""
    level = int(sys.argv[1])
    path = PLACE / f"level-{level}.json"
    path.unlink(missing_ok=True)
    before = golden_replies(level)
    with tempfile.TemporaryDirectory() as directory:
        now = replies(Path(directory), level)
    known = golden_texts()
    value = {
        "replies": {name: one for name, one in now.items() if before.get(name) != one},
        "texts": sorted(all_texts() - known),
    }
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{path.name}: {len(value['replies'])} replies, {len(value['texts'])} texts")


if __name__ == "__main__":
    main()
