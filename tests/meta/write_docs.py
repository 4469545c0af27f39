"""docs/cli.md, from the commands' own help: `python -m tests.meta.write_docs`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from raftdb.base import exits
from raftdb.cli.app import cli
from raftdb.shell import COMMANDS
from tests.meta.source import ROOT

PATH = ROOT / "docs" / "cli.md"
WIDTH = 92

INTRO = """# The `raftdb` command

<!-- Written by `python -m tests.meta.write_docs` from the commands' own help: don't edit. -->

Data goes to the standard output; messages and errors go to the standard error. With `--json` a
command prints one JSON document, and an error is one JSON line on the standard error:
`{"error": {"code", "message", "hint", "outcome", "retryable", "exit_code"}}`.

## Which cluster

Commands that talk to a cluster take a URL (`raftdb://h1:7002,h2:7002,h3:7002/?ca=...&cert=...&key=...`)
or `--dir DIR`, the directory that `raftdb init` made (or a copy of its `client` directory). Without
either they look at the variables `RAFTDB_URL` and `RAFTDB_DIR`.

## Exit codes

Every command, `raftdb start` included, ends with one of these.

"""


def exit_table() -> str:
    """The table of exit codes, from the module that defines them."""
    lines = ["| code | meaning |", "|---|---|"]
    for line in (inspect.getdoc(exits) or "").splitlines():
        code, _, meaning = line.strip().partition("  ")
        if code.isdigit():
            lines.append(f"| {code} | {meaning.strip()} |")
    assert len(lines) == 2 + len(exits.ExitCode)
    return "\n".join(lines)


def walk(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """A command and all below it, with the name that a user types."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield context.command_path, command, context
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            yield from walk(child, child_name, context)


def render() -> str:
    """The whole document."""
    parts = [INTRO + exit_table()]
    for path, command, context in walk(cli, "raftdb"):
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {path}\n\n```text\n{text}\n```")
    lines = [f"{one.usage:<24} {one.help}" for _name, one in sorted(COMMANDS.items())]
    parts.append(
        "## Commands within the shell\n\nWithin `raftdb sql` (see [shell.md](shell.md)):\n\n"
        "```text\n" + "\n".join(lines) + "\n```"
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the file."""
    PATH.write_text(render(), "utf-8")
    sys.stdout.write(f"{PATH}\n")


if __name__ == "__main__":
    main()
