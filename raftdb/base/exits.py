"""Exit codes: what every raftdb command says to the script that called it.

  0  fine
  1  a statement, a row or a check failed; what failed changed nothing
  2  usage or configuration: arguments, a file, a certificate, a directory, a port in use
  3  the cluster cannot be reached, has no leader or no quorum, or is overloaded: try again
  4  a promise is broken: damage was found, copies differ, or a node had to stop
  5  the outcome is unknown: a write may have been applied or not
130  interrupted by Ctrl-C (128 + SIGINT, as shells have it)
"""

from __future__ import annotations

from enum import IntEnum

from raftdb.base.errors import (
    APPLIED,
    UNKNOWN,
    AuthError,
    ConfigError,
    Error,
    FatalError,
    InterfaceError,
    InternalError,
    OperationalError,
)


class ExitCode(IntEnum):
    """The codes by name."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    BROKEN = 4
    OUTCOME_UNKNOWN = 5
    INTERRUPTED = 130


def exit_code(error: BaseException) -> ExitCode:
    """The code that stands for an error."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, OSError):
        return ExitCode.USAGE
    if not isinstance(error, Error):
        return ExitCode.BROKEN
    if isinstance(error, FatalError | InternalError):
        return ExitCode.BROKEN
    if error.outcome == UNKNOWN:
        return ExitCode.OUTCOME_UNKNOWN
    if isinstance(error, ConfigError | InterfaceError | AuthError):
        return ExitCode.USAGE
    if isinstance(error, OperationalError) and error.outcome != APPLIED:
        return ExitCode.UNREACHABLE
    return ExitCode.FAILED
