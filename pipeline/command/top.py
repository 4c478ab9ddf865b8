"""`headrace top`: what happens on this host, as it happens: rates, losses, the latest findings. Needs textual."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.config.printable import escaped
from headrace.pipeline.api.errors import Error
from headrace.pipeline.api.tracing import Run, trace
from headrace.pipeline.command import complete
from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.failure import EX_USAGE, Failure
from headrace.pipeline.run import live

if TYPE_CHECKING:
    from textual.app import App

VIEWS = ("event", "process", "container")
HOST = "(host)"
MAX_FINDINGS, MAX_ROWS, MAX_KEYS = 50, 500, 20_000
INTERVAL_S = 1.0


class _Seen(msgspec.Struct, rename="camel"):
    """What the screen needs of a JSON line."""

    event_name: str
    host_process_id: int
    process_name: str
    container_id: str
    container_name: str


class _FindingSeen(msgspec.Struct, rename="camel"):
    title: str
    severity: str
    signature_i_d: str = msgspec.field(name="signatureID", default="")
    process: dict[str, Any] = msgspec.field(default_factory=dict)


@dataclass
class Feed:
    """Counts of the events of a run. A thread counts, and the screen reads."""

    total: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in VIEWS})
    findings: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_FINDINGS))
    ended: bool = False

    def add(self, line: bytes) -> None:
        """Count the JSON line of an event."""
        seen = msgspec.json.decode(line, type=_Seen)
        keys = {
            "event": seen.event_name,
            "process": f"{seen.process_name}[{seen.host_process_id}]",
            "container": seen.container_name or seen.container_id[:12] or HOST,
        }
        for view, key in keys.items():
            counts = self.total[view]
            counts[key if key in counts or len(counts) < MAX_KEYS else "(others)"] += 1

    def found(self, line: bytes) -> None:
        """Take the JSON line of a finding."""
        seen = msgspec.json.decode(line, type=_FindingSeen)
        who = f"{seen.process.get('name', '')}[{seen.process.get('pid', '')}]"
        self.findings.appendleft(escaped(f"{seen.severity:<8} {seen.signature_i_d} {seen.title}  {who}"))

    def read(self, run: Run) -> None:
        """Count until the run has ended."""
        for line in run.lines():
            self.add(line)
        self.ended = True


class Rates:
    """Rates of a view since the last look."""

    def __init__(self) -> None:
        self._before: dict[str, Counter[str]] = {name: Counter() for name in VIEWS}

    def rows(self, feed: Feed, view: str, by_total: bool, pattern: str, took_s: float) -> list[tuple[str, float, int]]:
        """(name, events per second, events) of all that match, the largest first."""
        counts = feed.total[view].copy()
        before, self._before[view] = self._before[view], counts
        found = [
            (name, (count - before[name]) / took_s, count)
            for name, count in counts.items()
            if pattern.lower() in name.lower()
        ]
        return sorted(found, key=lambda row: (-row[2] if by_total else -row[1], -row[2], row[0]))[:MAX_ROWS]


def status(ledger: Ledger | None, before: Ledger | None, took_s: float) -> str:
    """The line above the table: rates, losses, how full the rings are."""
    if ledger is None:
        return "waiting for the run"
    rate = (ledger.produced - (before.produced if before else 0)) / took_s
    gone = ledger.lost + ledger.dropped
    fill = max(ledger.fill.values(), default=0.0)
    cpu = sum(ledger.cpu_seconds.values()) - (sum(before.cpu_seconds.values()) if before else 0)
    return (
        f"{rate:,.0f} events/s  lost {gone:,}  fullest ring {fill:.0%}  CPU {100 * cpu / took_s:.0f} %  "
        f"findings {ledger.findings.get('published', 0):,}"
    )


def screen(feed: Feed, pid: int) -> App[None]:
    """The Textual application."""
    from headrace.pipeline.command.top_screen import TopScreen  # needs an optional dependency

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
                threading.Thread(target=feed.read, args=(run,), daemon=True).start()
                screen(feed, run.pid).run()
                run.stop()
        except Error as error:
            raise Failure(str(error), EX_USAGE) from error
