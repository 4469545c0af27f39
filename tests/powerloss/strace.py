"""Debian's strace: what a process asked the system for, and answers put into its mouth.

Without it nothing here can run. `require` says so loudly: on the terminal, past pytest's capture,
and as the reason of the skip.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

WITHOUT = (
    "NOT CHECKED: strace is missing or may not trace here. The record of file operations is not"
    " compared with the system calls, and no system call is made to fail. apt-get install strace"
)
FILE_CALLS = (
    "openat,pwrite64,write,lseek,ftruncate,fdatasync,fsync,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
)

_LINE = re.compile(r"^(?P<pid>\d+)\s+(?:(?P<time>\d+\.\d+)\s+)?(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+=\s+(?P<result>-?\d+)(?P<tail>.*)$")
_FD = re.compile(r"^(\d+)<(.*?)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


def available() -> bool:
    """Whether strace is there and may trace."""
    program = shutil.which("strace")
    if program is None:
        return False
    return os.spawnv(os.P_WAIT, program, ["strace", "-o", os.devnull, "true"]) == 0


def require() -> None:
    """Skip the test, loudly, where there is no strace."""
    if not available():
        print(f"\n{WITHOUT}", file=sys.__stderr__, flush=True)
        pytest.skip(WITHOUT)


def command(output: Path, options: Sequence[str], program: Sequence[str]) -> list[str]:
    """The program under strace, its threads and children too."""
    return ["strace", "-f", "-y", "-ttt", "-s", "0", "-o", str(output), *options, *program]


@dataclass(frozen=True)
class Call:
    """One system call that ended."""

    pid: int
    time_s: float
    name: str
    arguments: str
    result: int
    tail: str
    """Behind the result: the error's name, `(INJECTED)`, or the file that was opened."""

    @property
    def path(self) -> str:
        """Of the descriptor that it was made on; `` without one."""
        found = _FD.match(self.arguments)
        return found.group(2) if found else ""

    @property
    def texts(self) -> list[str]:
        """The strings among its arguments."""
        return _TEXT.findall(self.arguments)

    @property
    def injected(self) -> bool:
        """Whether strace made it fail."""
        return "INJECTED" in self.tail


def read_calls(output: Path) -> Iterator[Call]:
    """In the order in which they ended; calls that were interrupted by others are joined."""
    begun: dict[str, str] = {}
    for line in output.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        pid, rest = found["pid"], found["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest[: -len("<unfinished ...>")].rstrip()
            continue
        resumed = re.match(r"^<\.\.\. \w+ resumed>(.*)$", rest)
        if resumed:
            rest = begun.pop(pid, "") + resumed.group(1)
        call = _CALL.match(rest)
        if call:
            yield Call(
                int(pid),
                float(found["time"] or 0),
                call["name"],
                call["arguments"],
                int(call["result"]),
                call["tail"],
            )


FileOperation = tuple[str | int, ...]


def file_operations(calls: Iterator[Call], root: str) -> list[FileOperation]:
    """Changes and syncs below `root`, as `recorded_operations` writes them."""
    found: list[FileOperation] = []
    known: set[str] = set()
    positions: dict[str, int] = {}
    for call in calls:
        if call.result < 0:
            continue
        below = [_below(text, root) for text in call.texts]
        on = _below(call.path, root)
        if call.name == "openat":
            path = _below(call.tail.strip()[1:-1], root)
            if path and "O_CREAT" in call.arguments and path not in known:
                known.add(path)
                found.append(("create", path))
        elif call.name == "lseek":
            positions[call.arguments.split(",")[0]] = call.result
        elif call.name in ("write", "pwrite64") and on:
            numbers = [int(one) for one in re.findall(r"\b\d+\b", call.arguments.split(",", 2)[2])]
            offset = numbers[1] if call.name == "pwrite64" else None
            if offset is None:
                descriptor = call.arguments.split(",")[0]
                offset = positions[descriptor]
                positions[descriptor] += call.result
            found.append(("write", on, offset, call.result))
        elif call.name == "ftruncate" and on:
            found.append(("truncate", on, int(call.arguments.rsplit(",", 1)[1])))
        elif call.name in ("fdatasync", "fsync") and on:
            found.append(("sync", on))
        elif call.name.startswith("rename") and below[0]:
            known.discard(below[0])
            known.add(below[1])
            found.append(("rename", *below))
        elif call.name.startswith("unlink") and below[0]:
            known.discard(below[0])
            found.append(("remove", below[0]))
        elif call.name.startswith("mkdir") and below[0]:
            found.append(("directory", below[0]))
    return [one for one in found if not str(one[1]).endswith("-shm")]


def recorded_operations(events: Sequence[tuple[object, ...]], root: str) -> list[FileOperation]:
    """The same, of a record."""
    found: list[FileOperation] = []
    paths: dict[object, str] = {}
    syncs: dict[object, str] = {}
    for event in events:
        kind = event[0]
        if kind == "open":
            paths[event[1]] = _below(str(event[2]), root)
            if event[3]:
                found.append(("create", paths[event[1]]))
        elif kind == "write":
            data = event[3]
            assert isinstance(data, bytes)
            assert isinstance(event[2], int)
            found.append(("write", paths[event[1]], event[2], len(data)))
        elif kind == "truncate":
            found.append(("truncate", paths[event[1]], int(str(event[2]))))
        elif kind in ("rename", "remove", "directory"):
            found.append((str(kind), *(_below(str(one), root) for one in event[1:])))
        elif kind == "sync_begin":
            syncs[event[1]] = paths[event[2]]
        elif kind == "names_begin":
            syncs[event[1]] = _below(str(event[2]), root)
        elif kind in ("sync_end", "names_end"):
            found.append(("sync", syncs[event[1]]))
    return [one for one in found if one[1] and not str(one[1]).endswith("-shm")]


def _below(path: str, root: str) -> str:
    """Relative to the root (`.` for itself); `` for what is not below it."""
    if path == root:
        return "."
    return path[len(root) + 1 :] if path.startswith(root + "/") else ""
