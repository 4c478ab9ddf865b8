"""The ledger lines of the outputs after an aborted run, in which the publisher was killed at an arbitrary moment.

`offered` comes from the rows that workers handed over. `written` comes from `progress` (pipeline/process/progress.py)
and from the files themselves, not from the last commit of the publisher.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.config.outputs import Output
from headrace.pipeline.process.books import Ledger, Line
from headrace.pipeline.process.progress import Settled, settled
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Array


def settle(
    ledger: Ledger,
    sinks: Sequence[Output],
    targets: Sequence[InheritedFd | None],
    progress: Array,
    rows: int,
    goes_on: bool = False,
) -> None:
    """Correct the lines of all sinks in `ledger`.

    `rows` is the number of events that workers handed over. `progress` is PROGRESS[sinks]. `goes_on`: the publisher
    could not be killed and may still write, so undecided rows count as uncertain.
    """
    for line, sink, target, row in zip(ledger.sinks, sinks, targets, progress, strict=False):
        fd = target.fd if target and sink.format != "zmq" else -1
        _settle_line(line, settled(row, fd, sink.render != "arrow"), 0 if sink.of_findings else rows)
        if goes_on:
            line.uncertain += max(0, line.rest)


def _settle_line(line: Line, found: Settled, rows: int) -> None:
    line.written, line.uncertain, line.filtered, line.bytes = found
    line.dropped = 0
    # a row that was offered again to a second publisher counts twice
    line.offered = max(line.offered, rows, line.written + line.uncertain + line.filtered)
