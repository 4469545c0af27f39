"""Examples in the documents: how they are found, and how they are run.

In README.md and docs/*.md every fenced block of `console` or `python` is run, top to bottom, in a
directory that belongs to the document, beside a running cluster:

    cluster/     what `raftdb init cluster --local 3` makes, started (ca, n1, n2, n3, client)
    client/      a copy of cluster/client

console: lines that begin with `$ ` are commands (a line ending in \\ goes on); the lines below are
    what they print. `...` stands for anything, also for any number of lines. A command must end
    with exit code 0, unless `# exit N` ends its line.
python: all blocks of a document share their names. A comment `#> text` below or behind a print is
    what it prints.

Addresses of the documentation (h1:7002,h2:7002,h3:7002) become those of the running cluster.

A block that cannot be run has a comment right above it: <!-- docs: skip (the reason) -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.meta.source import ROOT

_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```\s*$", re.M | re.S)
_SKIP = re.compile(r"<!-- docs: skip \((?P<reason>[^)]+)\) -->\s*\Z")
RUNNABLE = ("console", "python")
HOSTS = "h1:7002,h2:7002,h3:7002"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a document."""

    path: Path
    line: int
    language: str
    body: str
    skip: str
    """Why it is not run; `` when it is."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block."""

    text: str
    expected: str
    exit_code: int


def documents() -> list[Path]:
    """README.md and docs/*.md."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path) -> list[Block]:
    """All fenced blocks with a language that can be run."""
    text = path.read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if match["language"] not in RUNNABLE:
            continue
        before = text[: match.start()]
        skip = _SKIP.search(before)
        found.append(
            Block(
                path,
                before.count("\n") + 2,
                match["language"],
                match["body"],
                skip["reason"] if skip else "",
            )
        )
    return found


def commands(body: str) -> list[Command]:
    """The commands of a console block, with what they should print."""
    found: list[Command] = []
    text: str | None = None
    expected: list[str] = []

    def finish() -> None:
        if text is None:
            return
        code = re.search(r"\s+# exit (\d+)\s*$", text)
        bare = text[: code.start()] if code else text
        found.append(Command(bare, "\n".join(expected), int(code[1]) if code else 0))

    goes_on = False
    for line in body.splitlines():
        if goes_on and text is not None:
            text += "\n" + line
        elif line.startswith("$ "):
            finish()
            text, expected = line[2:], []
        elif text is None:
            raise AssertionError(f"output without a command: {line!r}")
        else:
            expected.append(line)
            continue
        goes_on = text.endswith("\\")
    finish()
    return found


def matches(expected: str, printed: str) -> bool:
    """Whether the output is as the document has it: `...` stands for anything, lines included, and
    alone on its line for any number of whole lines, also none."""
    pattern = ""
    for line in _even(expected).splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("...")) + r"\n"
    text = _even(printed)
    return re.fullmatch(pattern, text + "\n" if text else "", re.S) is not None


def _even(text: str) -> str:
    """Without what nobody sees: spaces at line ends, empty lines at both ends."""
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def expected_prints(body: str) -> str:
    """All `#> …` comments of a python block, in order."""
    return "\n".join(match[1] for match in re.finditer(r"# ?> ?(.*)$", body, re.M))
