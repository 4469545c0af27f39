"""What becomes of every fault of an archive, as a table: found and named, or an alarm in time.

The faults are those of the tests (tests/archive/faults.py), over a directory; the store's time is
the node's own clock, which is moved by hand, so nothing here waits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bench import command
from bench.lab import Say
from raftdb.archive import open_store
from tests.archive.faults import FAULTS, STORE_FAULTS, damaged, outage, two_uploaders

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


def objects(place: Path, say: Say) -> list[dict[str, Any]]:
    """One object of each kind, in each way."""
    (place / "store").mkdir(parents=True)
    tried: dict[str, list[tuple[str, bool]]] = {fault: [] for fault in FAULTS}
    for fault, name, said in damaged(open_store(f"file://{place}/store"), place):
        named = any(name in text for text in said)
        tried[fault].append((name.rpartition("/")[0], named))
        if not named:
            say(f"{fault}: {name} was not named: {said}")
    return [
        {
            "fault": fault,
            "tried": len(each),
            "kinds": len({kind for kind, _ in each}),
            "found": sum(named for _, named in each),
        }
        for fault, each in tried.items()
    ]


def run(place: Path, say: Say) -> dict[str, Any]:
    """All of them. AssertionError where something is not as it must be."""
    stores = []
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    try:
        for fault in STORE_FAULTS:
            stores.append({"fault": fault, "alarm_s": outage(fault, place / fault)})
            say(f"store: {stores[-1]}")
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    two_uploaders(place / "two")
    return {"objects": objects(place / "objects", say), "stores": stores, "two_uploaders": True}


@click.command("archive-faults")
@command.outputs("archive-faults")
def archive_faults(**outputs: Any) -> None:
    """Every fault of an archive, one by one: is it found and named, is there an alarm?

    \b
      python -m bench archive-faults
    """
    command.measure("archive-faults", {}, run, **outputs)
