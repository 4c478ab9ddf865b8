"""`headrace summary`: calls by name, process or container, with counts, errors and time, as `strace -c` shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec

from headrace.config.printable import escaped
from headrace.pipeline.api.errors import Error
from headrace.pipeline.api.tracing import Run, trace
from headrace.pipeline.process.failure import EX_USAGE, Failure, say
from headrace.pipeline.shell import complete

ENTRY = "sys_enter"
BY = ("call", "process", "container")
HOST = "(host)"
MAX_OPEN = 1 << 16
"""Calls that have begun and not ended, of which the time is kept."""
SECOND_NS = 10**9


class _Call(msgspec.Struct, rename="camel"):
    """What a summary needs of a JSON line."""

    timestamp: int
    event_name: str
    host_thread_id: int
    host_process_id: int
    process_name: str
    container_id: str
    return_value: int | None
    source: str


class CallCounts(msgspec.Struct):
    """One line of a summary. Times are in nanoseconds; `timed` is the number of calls whose time is known."""

    calls: int = 0
    errors: int = 0
    time_ns: int = 0
    timed: int = 0


@dataclass
class Summary:
    """Calls as they are counted."""

    by: dict[str, dict[str, CallCounts]] = field(default_factory=lambda: {name: defaultdict(CallCounts) for name in BY})
    began: dict[int, int] = field(default_factory=dict)
    """When the call that a thread is in has begun, by thread."""

    def add(self, lines: Iterable[bytes]) -> None:
        """Count JSON lines of events."""
        decode = msgspec.json.Decoder(_Call).decode
        for line in lines:
            call = decode(line)
            if call.event_name == ENTRY:
                if len(self.began) >= MAX_OPEN:
                    self.began.clear()
                self.began[call.host_thread_id] = call.timestamp
            else:
                self._count(call)

    def _count(self, call: _Call) -> None:
        began = self.began.pop(call.host_thread_id, None)
        is_error = call.return_value is not None and -4096 < call.return_value < 0
        where = {
            "call": call.event_name,
            "process": f"{call.process_name}[{call.host_process_id}]",
            "container": call.container_id[:12] or HOST,
        }
        for name, key in where.items():
            row = self.by[name][key]
            row.calls += 1
            row.errors += is_error
            if began is not None and call.source == "syscall_exit":
                row.time_ns += max(0, call.timestamp - began)
                row.timed += 1

    def table(self, by: str, sort: str) -> list[str]:
        """Lines for people: the order and the columns of `strace -c`."""
        rows = sorted(self.by[by].items(), key=lambda item: -getattr(item[1], sort))
        total = sum(row.time_ns for _, row in rows)
        found = [f"{'% time':>6} {'seconds':>11} {'usecs/call':>11} {'calls':>9} {'errors':>9} {by}"]
        found.append(" ".join("-" * width for width in (6, 11, 11, 9, 9, 16)))
        for name, row in rows:
            found.append(_line(row, total, escaped(name)))
        whole = CallCounts(*(sum(getattr(row, f) for _, row in rows) for f in CallCounts.__struct_fields__))
        return [*found, found[1], _line(whole, total, "total")]


def _line(row: CallCounts, total_ns: int, name: str) -> str:
    share = 100 * row.time_ns / total_ns if total_ns else 0.0
    each = row.time_ns / row.timed / 1000 if row.timed else 0
    errors = row.errors or ""
    return f"{share:>6.2f} {row.time_ns / SECOND_NS:>11.6f} {each:>11.0f} {row.calls:>9} {errors:>9} {name}"


def summarized(run: Run) -> Summary:
    """The summary of a run, which is read to its end. Ctrl-C ends the run, and what came until then counts."""
    found = Summary()
    lines = run.lines()
    while True:
        try:
            found.add(lines)
            return found
        except KeyboardInterrupt:
            run.stop()


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-e",
    "--events",
    default="set=syscalls",
    show_default=True,
    metavar="LIST",
    shell_complete=complete.events,
    help="Calls to count.",
)
@click.option(
    "-s", "--scope", multiple=True, metavar="EXPR", shell_complete=complete.scopes, help="Count only what matches."
)
@click.option("--by", type=click.Choice(BY), default="call", show_default=True, help="What a line is about.")
@click.option(
    "--sort", type=click.Choice(("time", "calls", "errors")), default="time", show_default=True, help="Largest first."
)
@click.option("-o", "--output", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]")
def summary(events: str, scope: Sequence[str], by: str, sort: str, form: str, command: Sequence[str]) -> None:
    """Count the system calls of a command, or of running processes, and show where the time goes.

    With COMMAND, the summary is on standard error, and comes when the last process has ended. Without, Ctrl-C ends it.
    Time is from a call's entry to its exit, with all waiting. The exit status is the command's.

    \b
    Examples:
      headrace summary -- ls /tmp
      headrace summary --by process -- make -j4
      headrace summary -s pid=4711 --sort calls
      headrace summary -o json -- true 2>calls.json
    """
    if not command and not scope:
        raise Failure("what is to be counted? Give a COMMAND, or a scope such as -s pid=4711", EX_USAGE)
    try:
        with trace(command, f"{ENTRY},{events}", scope=scope) as run:
            found = summarized(run)
    except Error as error:
        raise Failure(str(error), EX_USAGE) from error
    if form == "json":
        shown: dict[str, Any] = dict(found.by)
        say(msgspec.json.encode(shown | {"lost": _lost(run)}).decode(), err=bool(command))
    else:
        say(*found.table(by, {"time": "time_ns"}.get(sort, sort)), err=bool(command))
        if lost := _lost(run):
            say(f"headrace: {lost} events were lost: the counts are too low", err=True)
    raise SystemExit(run.status or 0)


def _lost(run: Run) -> int:
    books = run.ledger or {}
    return int(books.get("lost", 0)) + int(books.get("dropped", 0)) + int(books.get("missed_runs", 0))
