"""Two releases in one cluster, under load: rolled forth, back and forth again, and judged.

python -m tests.mixed                          the release before this one, out of the history
python -m tests.mixed --json --dir work        leave logs and data in `work`
python -m tests.mixed --previous ../raftdb-0.1 another one, by its sources

Exit code 0: every promise was kept; 4: one was broken; 2: there is no release before this one here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from raftdb.base.errors import ConfigError, Error
from raftdb.drill.previous import find_previous, present
from raftdb.runtime.clock import RealClock
from tests.mixed.story import Report, Story
from tests.workloads import Violation

BROKEN, USAGE = 4, 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m tests.mixed",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    found.add_argument(
        "--seed", default="1", help="decides the order of nodes, and what clients do"
    )
    found.add_argument("--previous", type=Path, help="sources of another release")
    found.add_argument("--dir", type=Path, help="work there, and leave everything behind")
    found.add_argument("--json", action="store_true", help="print one JSON document")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    options = parser().parse_args(arguments)
    target = sys.stderr if options.json else sys.stdout

    def say(text: str) -> None:
        print(text, file=target, flush=True)

    try:
        previous = find_previous(options.previous)
        if previous.sources is None:
            raise ConfigError("an installation has no workloads", hint="name a tree of sources")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    say(f"{previous} and {present()}, seed {options.seed}")
    if previous.note:
        say(f"note: {previous.note}")
    home = options.dir or Path(tempfile.mkdtemp(prefix="raftdb-mixed-"))
    home.mkdir(parents=True, exist_ok=True)
    story = Story(previous, present(), home.absolute(), options.seed, say)
    try:
        report = _told(story, say)
    finally:
        story.close()
        if options.dir is None:
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)
    return BROKEN if report.broken else 0


def _told(story: Story, say: Callable[[str], None]) -> Report:
    clock = RealClock()
    begin_s = clock.monotonic_s()
    report = story.report
    try:
        story.run()
        story.judge()
    except Violation as error:
        report.broken.append(str(error))
    except (Error, AssertionError, TimeoutError) as error:
        report.broken.append(f"it did not come to its end: {type(error).__name__}: {error}")
        report.broken += [text for text in story.watch.broken if text not in report.broken]
    report.seconds = clock.monotonic_s() - begin_s
    if report.broken:
        say(story.cluster.logs())
    return report


def _show(report: Report) -> None:
    facts = report.as_dict()
    for name in (
        *("operations", "keyed_writes", "idempotency_keys", "leaders", "disturbed_by_kills"),
        *("transactions_to_begin_anew", "undecided", "seconds"),
    ):
        print(f"{name.replace('_', ' ')}: {facts[name]}")
    for text in report.broken:
        print(f"BROKEN {text}")
    print(f"{report.previous} and {report.this}: every promise is {facts['verdict']}")


if __name__ == "__main__":
    sys.exit(main())
