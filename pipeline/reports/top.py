"""`headrace top`: what happens on this host, as it happens: rates, losses, the latest findings. Needs textual."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.pipeline.api.errors import Error
from headrace.pipeline.api.tracing import STOP_S, trace
from headrace.pipeline.process.failure import EX_USAGE, Failure
from headrace.pipeline.reports.feed import Feed
from headrace.pipeline.run import live
from headrace.pipeline.shell import complete

if TYPE_CHECKING:
    from textual.app import App


def screen(feed: Feed, pid: int) -> App[None]:
    """The Textual application."""
    from headrace.pipeline.reports.top_screen import TopScreen  # needs an optional dependency

    return TopScreen(feed, live.directory() / f"{pid}.sock")


def _listen(path: Path, feed: Feed) -> None:
    with path.open("rb") as lines:
        for line in lines:
            feed.found(line)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-e", "--events", default="default", show_default=True, metavar="LIST", shell_complete=complete.events)
@click.option("-s", "--scope", multiple=True, metavar="EXPR", shell_complete=complete.scopes, help="Which processes.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
def top(events: str, scope: Sequence[str], command: Sequence[str]) -> None:
    """Show events, processes and containers by rate, and the latest findings, on a full screen.

    It starts a run of its own: of the whole host, or of what a scope or a COMMAND says. Keys: e, p, c choose what a
    line is about; t sorts by total instead of rate; / filters; q ends it.

    \b
    Examples:
      headrace top
      headrace top -e 'set=fs' -s container
      headrace top -- make -j4
    """
    if find_spec("textual") is None:
        raise Failure("needs textual, which is not installed: pip install 'headrace[top]'", EX_USAGE)
    if not os.isatty(1):
        raise Failure("standard output is no terminal; `headrace summary` and `headrace stat` print lines", EX_USAGE)
    feed = Feed()
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        fifo = Path(folder, "findings")
        os.mkfifo(fifo)
        threading.Thread(target=_listen, args=(fifo, feed), daemon=True).start()
        try:
            with trace(command, events, scope=scope, options=[f"--findings=json:{fifo}"], quiet=True) as run:
                reader = threading.Thread(target=feed.read, args=(run,), daemon=True)
                reader.start()
                try:
                    screen(feed, run.pid).run()
                finally:
                    run.stop()
                    # one thread at a time reads a run: what ends it would take lines from the other
                    reader.join(STOP_S)
        except Error as error:
            raise Failure(str(error), EX_USAGE) from error
