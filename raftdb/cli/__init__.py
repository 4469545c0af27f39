"""The commands: the composition root of everything that a user starts.

Owns: options, help, exit codes, what is printed, and which real parts are put together.
Promises: each command has help with an example, `--json`, and the exit codes of
`raftdb.base.exits`; data goes to the standard output and all else to the standard error; a
subcommand imports only what it needs.
May import: everything below it; click.
Never: a rule of the database; raftdb's own logic that another program could want.
"""

if not __debug__:
    raise RuntimeError(
        "raftdb relies on its assertions and does not run under python -O or PYTHONOPTIMIZE"
    )


def main() -> None:
    """The entry point of the installed command."""
    from raftdb.cli import early

    early.guard()
    import sys

    if sys.argv[1:2] != ["start"]:
        from raftdb.cli.app import main as run

        run()
        return
    from raftdb.runtime.signals import Signals

    # First of all: whoever starts a node may stop it at any time after that.
    early.release()
    Signals()
    from raftdb.cli.app import run_and_leave

    run_and_leave()


__all__ = ["main"]
