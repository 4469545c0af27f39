"""Drills by themselves: a systemd timer, or a line for cron."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from raftdb.base.errors import ConfigError

EVERY = {"daily": "*-*-*", "weekly": "Mon *-*-*", "monthly": "*-*-01"}
_CRON = {"daily": "* * *", "weekly": "* * 1", "monthly": "1 * *"}


def schedule(
    command: Sequence[str], every: str, at: str, environ: Sequence[tuple[str, str]] = ()
) -> dict[str, str]:
    """The texts of a service, a timer and a cron line. `at`: HH:MM. Raises ConfigError."""
    hour, colon, minute = at.partition(":")
    if not (colon and hour.isdigit() and minute.isdigit() and int(hour) < 24 and int(minute) < 60):
        raise ConfigError(f"{at!r} is no time of day", hint="such as 03:30")
    line = shlex.join(command)
    variables = "".join(f"Environment={_unit(f'{name}={value}')}\n" for name, value in environ)
    service = (
        "[Unit]\n"
        "Description=Recovery drills of raftdb\n"
        "[Service]\n"
        "Type=oneshot\n"
        f"{variables}"
        f"ExecStart={' '.join(_unit(word).replace('$', '$$') for word in command)}\n"
    )
    timer = (
        "[Unit]\n"
        "Description=Recovery drills of raftdb\n"
        "[Timer]\n"
        f"OnCalendar={EVERY[every]} {int(hour):02}:{int(minute):02}:00\n"
        "RandomizedDelaySec=10min\n"
        "Persistent=true\n"
        "[Install]\n"
        "WantedBy=timers.target\n"
    )
    day, month, weekday = _CRON[every].split()
    before = "".join(f"{name}={shlex.quote(value)} " for name, value in environ)
    # A percent sign ends a command of cron, unless it is escaped.
    what = f"{before}{line}".replace("%", "\\%")
    cron = f"{int(minute)} {int(hour)} {day} {month} {weekday} {what}\n"
    return {"service": service, "timer": timer, "cron": cron}


def _unit(word: str) -> str:
    """A word as a unit of systemd has it: quoted where a blank or a quote stands in it, and without
    specifiers (https://www.freedesktop.org/software/systemd/man/latest/systemd.syntax.html)."""
    plain = word.replace("\\", "\\\\").replace("%", "%%")
    if any(one in word for one in " \t'\""):
        return '"' + plain.replace('"', '\\"') + '"'
    return plain
