"""`headrace analyze`: runs signatures over recorded events."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from headrace.bpf.tables.catalogue import catalogue
from headrace.config import filters, layers, outputs, settings
from headrace.config.settings import SettingsError
from headrace.config.tuning import TuningError
from headrace.pipeline.command.options import signature_options
from headrace.pipeline.process import logs
from headrace.pipeline.process.failure import EX_DATAERR, EX_USAGE, Failure, say
from headrace.pipeline.run.replay import replay
from headrace.pipeline.run.request import Request
from headrace.pipeline.signatures import detection
from headrace.pipeline.stages.recording import MAGIC, RecordingError
from headrace.workers.detect.offline.analysis import MAX_LINE_BYTES, Analysis, Indexed, LineError, TooLong

EX_REJECTED = 3
SIGNATURE_S = 5.0
"""Time limit of a Python signature for the events of a batch, as in a worker."""
PIECE_BYTES = 1 << 16
"""Maximum number of bytes to read at once."""
BATCH = 1024
"""Number of events that are evaluated together."""


@click.command()
@signature_options
@click.option("--workers", type=int, metavar="N", help="Number of worker processes (recordings only).")
@click.argument("source", metavar="FILE|-")
def analyze(source: str, **flags: Any) -> None:
    """Run signatures over a recording or JSON lines.

    JSON lines are headrace's own, or flat events of Tracee. Findings are printed as JSON lines; with JSON lines as
    input, each has the index of the line that completed it. Repeats are not folded. The exit status is 3 if lines
    were rejected.

    \b
    Examples:
      headrace analyze web.hrc
      headrace analyze --sigma ./sigma/rules/linux - < events.json
    """
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in flags.items()}
    try:
        named = {key: value for key, value in given.items() if value}
        resolved = layers.resolve(None, named | {"fold_s": 0}).settings
        ruleset = detection.ruleset(resolved)
    except (SettingsError, TuningError) as error:
        raise Failure(str(error), EX_USAGE) from error
    logs.configure(resolved.log_level)
    try:
        with _opened(source) as file:
            start = file.peek(len(MAGIC))[: len(MAGIC)]  # type: ignore[attr-defined]  # BufferedReader
            if start == MAGIC:
                if source == "-":
                    raise Failure("standard input is a recording: give its path", EX_USAGE)
                raise SystemExit(_recording(Path(source), resolved, ruleset))
            raise SystemExit(_lines(source, file, Analysis(ruleset.rules, catalogue(), _report, _bounded)))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"{source}: {error.strerror}", EX_USAGE) from error


@contextmanager
def _bounded() -> Iterator[None]:
    running = True

    def too_long(*_: object) -> None:
        if running:
            raise TooLong

    before = signal.signal(signal.SIGALRM, too_long)
    # repeat the timer: the code of a signature may catch the exception
    timer = signal.setitimer(signal.ITIMER_REAL, SIGNATURE_S, SIGNATURE_S / 10)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _report(text: str) -> None:
    say(f"headrace: {text}", err=True)


def _opened(source: str) -> BinaryIO:
    return os.fdopen(os.dup(0), "rb") if source == "-" else open(source, "rb")


def _recording(path: Path, resolved: settings.Settings, ruleset: Any) -> int:
    sinks = outputs.parse_findings(["json:-"])
    request = Request(resolved, filters.Selection(), outputs.Outputs(()), ruleset, sinks)
    try:
        outcome = replay(request, path)
    except RecordingError as error:
        raise Failure(str(error), EX_DATAERR) from error
    say(*outcome.ledger.text(), err=True)
    return outcome.status


def _lines(source: str, file: BinaryIO, analysis: Analysis) -> int:
    rejected = 0
    batch: list[Indexed] = []
    encoder = msgspec.json.Encoder()

    def flush(last: bool = False) -> None:
        sys.stdout.buffer.writelines(encoder.encode(finding) + b"\n" for finding in analysis.findings(batch, last))
        sys.stdout.buffer.flush()
        batch.clear()

    index = -1
    for line in _lines_of(file):
        if line is None:
            if batch:
                flush()
            continue
        index += 1
        try:
            event = analysis.read(index, line)
        except LineError as error:
            rejected += 1
            say(f"headrace: {source}:{index + 1}: {error}", err=True)
            continue
        if event is not None:
            batch.append(event)
        if len(batch) >= BATCH:
            flush()
    flush(last=True)
    say(f"analyzed: lines {index + 1}  rejected {rejected}", *analysis.remarks(), err=True)
    return EX_REJECTED if rejected else 0


def _lines_of(file: BinaryIO) -> Iterator[bytes | None]:
    """Yield lines, and None before waiting for input, so that the caller can flush its findings."""
    rest = bytearray()
    while True:
        if not select.select([file], [], [], 0)[0]:
            yield None
        data = file.read1(PIECE_BYTES)  # type: ignore[attr-defined]  # BufferedReader
        if not data:
            break
        first, newline, others = data.partition(b"\n")
        rest += first
        if newline:
            *whole, last = others.split(b"\n")
            yield bytes(rest)
            yield from whole
            rest[:] = last
        # keep one byte more than allowed, so that the line is still rejected as too long
        del rest[MAX_LINE_BYTES + 1 :]
    if rest:
        yield bytes(rest)
