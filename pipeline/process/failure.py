"""What is said to people, and how a command fails: a message, and an exit status."""

from __future__ import annotations

import signal
from typing import Any

import click

from headrace.config.printable import escaped

EX_USAGE, EX_DATAERR, EX_IOERR = 2, 65, 74
SIGINT_STATUS, SIGPIPE_STATUS = 128 + signal.SIGINT, 128 + signal.SIGPIPE


def say(*lines: str, err: bool = False) -> None:
    """Lines for people: each stays one, whatever was quoted in it (config/printable.py)."""
    click.echo("\n".join(map(escaped, lines)), err=err)


class Failure(click.ClickException):
    """A message and an exit status; `more`: lines below it."""

    def __init__(self, message: str, status: int, *more: str) -> None:
        super().__init__(message)
        self.status, self.more = status, more

    def show(self, file: Any = None) -> None:
        say(f"headrace: {self.message}", *self.more, err=True)

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has it as a class variable
        return self.status
