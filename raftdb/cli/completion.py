"""`raftdb completion`: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="""\b
Example:
  raftdb completion bash >> ~/.bashrc
  raftdb completion zsh >> ~/.zshrc
  raftdb completion fish > ~/.config/fish/completions/raftdb.fish"""
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from raftdb.cli.app import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "raftdb", "_RAFTDB_COMPLETE").source())
