"""Messages to the user, and how a command fails: a message and an exit status."""

from __future__ import annotations

import signal
from typing import Any

import click

from headrace.config.printable import escaped

EX_USAGE, EX_DATAERR, EX_IOERR = 2, 65, 74
SIGINT_STATUS, SIGPIPE_STATUS = 128 + signal.SIGINT, 128 + signal.SIGPIPE


def say(*lines: str, err: bool = False) -> None:
    """Print lines for the user. Quoted text is escaped, so each stays one line (config/printable.py)."""
    click.echo("\n".join(map(escaped, lines)), err=err)


class Failure(click.ClickException):
    """A message and an exit status. `more` are further lines, printed below the message."""

    def __init__(self, message: str, status: int, *more: str) -> None:
        super().__init__(message)
        self.status, self.more = status, more

    def show(self, file: Any = None) -> None:
        say(f"headrace: {self.message}", *self.more, err=True)

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has it as a class variable
        return self.status
