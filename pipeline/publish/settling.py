"""The outputs' lines of the ledger when a run was given up: the publisher has been killed, whatever it was doing.

What was offered is what workers had handed over; what was written is what `progress` (pipeline/process/progress.py)
and the files themselves say, not what the publisher last committed.
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
    """Put the lines right. `rows`: events that workers handed over; `progress`: PROGRESS, of each sink; `goes_on`: the
    publisher could not be ended, and may still write.
    """
    for line, sink, target, row in zip(ledger.sinks, sinks, targets, progress, strict=False):
        fd = target.fd if target and sink.format != "zmq" else -1
        _settle_line(line, settled(row, fd, sink.render != "arrow"), 0 if sink.of_findings else rows)
        if goes_on:
            line.uncertain += max(0, line.rest)


def _settle_line(line: Line, found: Settled, rows: int) -> None:
    line.written, line.uncertain, line.filtered, line.bytes = found
    line.dropped = 0
    # a row that was offered again, to a second publisher, counts twice
    line.offered = max(line.offered, rows, line.written + line.uncertain + line.filtered)
