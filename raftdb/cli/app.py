"""The `raftdb` command: finds the subcommand, and turns errors into exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click

from raftdb._version import __version__
from raftdb.base.errors import Error
from raftdb.base.exits import ExitCode, exit_code
from raftdb.cli import early
from raftdb.cli.output import show_error, wants_json

COMMANDS = {
    "init": ("raftdb.cli.init", "init"),
    "start": ("raftdb.cli.start", "start"),
    "status": ("raftdb.cli.status", "status"),
    "sql": ("raftdb.cli.sql", "sql"),
    "load": ("raftdb.cli.load", "load"),
    "check": ("raftdb.cli.check", "check"),
    "vacuum": ("raftdb.cli.vacuum", "vacuum"),
    "inspect": ("raftdb.cli.inspect", "inspect"),
    "archive": ("raftdb.cli.archive", "archive"),
    "restore": ("raftdb.cli.restore", "restore"),
    "recover": ("raftdb.cli.recover", "recover"),
    "rejoin": ("raftdb.cli.recover", "rejoin"),
    "undelete": ("raftdb.cli.restore", "undelete"),
    "topology": ("raftdb.cli.topology", "topology"),
    "cluster": ("raftdb.cli.cluster", "cluster"),
    "member": ("raftdb.cli.member", "member"),
    "join": ("raftdb.cli.join", "join"),
    "leave": ("raftdb.cli.leave", "leave"),
    "upgrade": ("raftdb.cli.upgrade", "upgrade"),
    "leader": ("raftdb.cli.leader", "leader"),
    "outcome": ("raftdb.cli.outcome", "outcome"),
    "cert": ("raftdb.cli.cert", "cert"),
    "drill": ("raftdb.cli.drill", "drill"),
    "demo": ("raftdb.cli.demo", "demo"),
    "chaos": ("raftdb.cli.chaos", "chaos"),
    "completion": ("raftdb.cli.completion", "completion"),
}
"""Name of a command to the module and function that hold it: imported when it is asked for, so
that a node does not carry the shell's libraries in memory."""


_HINTS = {
    errno.EACCES: "check owner and mode of it and of the directories above it; a node's files "
    "belong to the user that runs the node",
    errno.EPERM: "check owner and mode of it, and whether it is marked as immutable",
    errno.ENOSPC: "make room on that disk, and run the same command again",
    errno.EDQUOT: "make room within that quota, and run the same command again",
    errno.EROFS: "that file system is mounted read-only: see the system's log for why, and mount "
    "it for writing",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "symbolic links lead in a circle there",
    errno.EIO: "the disk does not read or write: see the system's log, and replace it",
    errno.EMFILE: "allow more open files: ulimit -n, LimitNOFILE= of the service",
}
"""What to do about errors of the system."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(importlib.import_module(place[0]), place[1])
        early.release()
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read has enough (`| head`): click would make a failure of it.
            _close_output()
            return int(ExitCode.OK)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 a statement or check failed, 2 usage or configuration, "
    "3 cluster unreachable, 4 a promise is broken, 5 outcome unknown, 130 interrupted.",
)
@click.version_option(__version__, prog_name="raftdb")
def cli() -> None:
    """A replicated SQL database: SQLite on three or more nodes, exactly once.

    \b
    Try it:      raftdb demo
    Set it up:   raftdb init DIR --local 3
    Use it:      raftdb sql --dir DIR
    """


def run(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code and never raises."""
    try:
        result: Any = cli.main(args=arguments, prog_name="raftdb", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(result) if isinstance(result, int) else int(ExitCode.OK)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        if wants_json():
            show_error(error.format_message(), "usage", int(ExitCode.USAGE))
        else:
            error.show()
        return int(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    except Error as error:
        code = exit_code(error)
        show_error(error.message, error.code, int(code), error.hint, error.outcome, error.retryable)
        return int(code)
    except BrokenPipeError:
        # Whoever read has enough (`| head`).
        _close_output()
        return int(ExitCode.OK)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = _HINTS.get(error.errno or 0, "")
        show_error(f"{where}{error.strerror or error}", "system", int(ExitCode.USAGE), hint)
        _drop_output(error)
        return int(ExitCode.USAGE)
    except Exception as error:
        traceback.print_exc()
        show_error(
            f"raftdb found itself in the wrong: {error!r}",
            "internal",
            int(ExitCode.BROKEN),
            "please report it with the lines above",
        )
        return int(ExitCode.BROKEN)


def _drop_output(error: OSError) -> None:
    """What is still to be written at exit would fail again, and be told a second time."""
    if error.filename is None:
        _close_output()


def _close_output() -> None:
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """What the entry point calls (raftdb.cli.main)."""
    sys.exit(run())


def run_and_leave() -> NoReturn:
    """For a node: without the interpreter's own end, which first gives signals their first meaning
    back (a SIGTERM then would hide the exit code), and waits for threads whose disk hangs."""
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
