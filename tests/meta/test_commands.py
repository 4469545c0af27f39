"""Every `raftdb …` that a document, a hint or a docstring names is a command that there is."""

from __future__ import annotations

import re
from pathlib import Path

import click

from raftdb.cli.app import cli

ROOT = Path(__file__).parents[2]
_SPAN = re.compile(r"`(?:\$ )?raftdb ((?:[^`\n]|\n(?!\n))+)`")
_LINE = re.compile(r"^\s*(?:\$ )?raftdb (\S.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_END = re.compile(r"\s(?:\||;|&&|#|>|2>)\s?")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_NAME = re.compile(r"[a-z][a-z-]*")


def commands() -> list[tuple[str, str]]:
    """Where, and the words behind `raftdb`: of blocks and examples, and of what is quoted."""
    found = []
    documents = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    sources = [one for one in sorted(ROOT.glob("raftdb/**/*")) if one.suffix in (".py", ".md")]
    for path in [*documents, *sources]:
        # Lines of the shell, and of a text in Python, are put together.
        text = re.sub(r"\\+\n\s*", " ", path.read_text("utf-8"))
        text = re.sub(r'"\s*\n\s*f?"', "", text)
        blocks = _FENCED.findall(text) if path.suffix == ".md" else [text]
        said = [one for block in blocks for one in _LINE.findall(block)]
        said += _SPAN.findall(text)
        found += [(str(path.relative_to(ROOT)), " ".join(one.split())) for one in said]
    return found


def problem_of(text: str) -> str:
    """What is wrong with the words behind `raftdb`; `` when nothing is."""
    words = _END.split(text)[0].split()
    if words[:1] == ["…"]:
        return ""
    command: click.Command = cli
    context = click.Context(cli)
    known = {"--help", "--version", "-h"}
    while isinstance(command, click.Group) and words and _NAME.fullmatch(words[0]):
        inner = command.get_command(context, words[0])
        if inner is None:
            return f"there is no command {words[0]}"
        command, words = inner, words[1:]
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    strange = [one for one in _OPTION.findall(" ".join(words)) if one not in known]
    return f"{command.name} has no option {strange[0]}" if strange else ""


def test_every_command_that_is_named_is_there() -> None:
    found = commands()
    wrong = [
        f"{name}: raftdb {said[:80]}: {what}" for name, said in found if (what := problem_of(said))
    ]
    assert wrong == []
    assert len(found) > 300


def test_how_commands_are_looked_at() -> None:
    assert problem_of("restore --from file:///x --to y | head --lines 1") == ""
    assert problem_of("restore --out FILE") == "restore has no option --out"
    assert problem_of("member befriend n1") == "there is no command befriend"
