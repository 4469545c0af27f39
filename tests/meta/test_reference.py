"""The reference cannot drift: commands, exit codes and configuration keys are all documented."""

from __future__ import annotations

import re

import click
import pytest

from raftdb.base.config import SETTINGS
from raftdb.base.limits import DEFAULT_LIMITS
from raftdb.cli.app import cli
from tests.meta.source import ROOT
from tests.meta.write_docs import PATH, render, walk

COMMANDS = [(path, command) for path, command, _context in walk(cli, "raftdb")]
LEAVES = [(path, one) for path, one in COMMANDS if not isinstance(one, click.Group)]


def test_cli_md_is_what_the_commands_say() -> None:
    assert PATH.read_text("utf-8") == render(), "run: python -m tests.meta.write_docs"


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[path for path, _ in LEAVES])
def test_every_command_has_help_with_an_example(path: str, command: click.Command) -> None:
    assert command.help, path
    epilog = command.epilog or ""
    assert "Example" in epilog, f"{path} has no example"
    assert path in epilog, f"the example of {path} does not show it"
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("help",):
            names = "/".join(parameter.opts)
            bare = parameter.help is None and not isinstance(parameter.type, click.Choice)
            assert not bare, f"{path} {names} has no help"


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=[path for path, _ in LEAVES])
def test_every_command_has_json(path: str, command: click.Command) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    if path != "raftdb completion":
        assert "--json" in options, path


def test_examples_of_commands_use_options_that_exist() -> None:
    for path, command in LEAVES:
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        for line in (command.epilog or "").splitlines():
            if path in line:
                used = re.findall(r"(?<=\s)--?[a-z][a-z-]*", line.split(path, 1)[1])
                assert set(used) <= known | {"-a"}, f"{path}: {line}"


def test_every_configuration_key_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    missing = [key for key in SETTINGS if f"`{key}`" not in text and f"`{key}" not in text]
    assert missing == []


def test_every_limit_has_a_sentence() -> None:
    from dataclasses import fields

    from raftdb.base.limits_docs import LIMIT_DOCS

    assert {one.name for one in fields(DEFAULT_LIMITS)} == set(LIMIT_DOCS)


def test_every_answer_to_a_question_has_a_test() -> None:
    text = (ROOT / "docs" / "faq.md").read_text("utf-8")
    answers = text.split("\n## ")[1:]
    assert len(answers) >= 15
    rows = [line for line in answers[-1].splitlines() if line.startswith("| ")][1:]
    for answer in [*answers[:-1], *rows]:
        named = re.findall(r"`(tests/\S+?)`", answer)
        assert named, answer
        for one in named:
            path, _, name = one.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text("utf-8"), one


def test_what_clients_can_make_grow_has_a_bound_and_a_test() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    table = text.partition("## What clients can make grow")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        path, _, name = re.findall(r"`(tests/[^`]+)`", row)[-1].partition("::")
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), row
        for limit in re.findall(r"`(\w+_max)`", row):
            assert hasattr(DEFAULT_LIMITS, limit), limit
