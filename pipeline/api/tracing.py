"""`headrace.trace`: a run from a program or a notebook. It is the command `headrace run`, in a process of its own, and
its events come through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import msgspec

from headrace.pipeline.api.columns import data_frame
from headrace.pipeline.api.errors import Error

Form = Literal["dicts", "arrow", "polars"]
FORMS = {"dicts": "json", "arrow": "arrow", "polars": "arrow"}
KEPT_LINES = 20
PATIENCE_S = 1.0
"""For the last words on standard error, after the run has ended."""
STOP_S = 30.0
"""Until a run that was asked to stop is killed: it drains, and closes its ledger, in some seconds."""


class Run:
    """A run that is going on. `headrace.trace()` starts it; see there.

    `ledger` and `status` are None until the run has ended. `ledger` is that of `headrace run --ledger`
    (docs/reference/ledger.md): `lost` and `dropped` count the events that did not arrive, and `balanced` says whether
    every event is accounted for. `status` is the exit status of `headrace run`: the command's, if one was traced.
    """

    def __init__(self, line: Callable[[int], list[str]], form: Form, quiet: bool = False) -> None:
        """`line` makes the options of `headrace run` for events that are written to a descriptor. `quiet`: do not pass
        on what the run and the command write.
        """
        self._is_quiet = quiet
        self.ledger: dict[str, Any] | None = None
        self.status: int | None = None
        self._form = form
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-")
        self._ledger_file = Path(self._folder.name, "ledger")
        events, out = os.pipe()
        ready, to_ready = os.pipe()
        options = ["-q", "--ledger", str(self._ledger_file), "--ready-fd", str(to_ready)]
        whole = [sys.executable, "-P", "-m", "headrace", "run", *options, *line(out)]
        try:
            self._process = subprocess.Popen(
                whole,
                pass_fds=(out, to_ready),
                stdout=subprocess.DEVNULL if quiet else None,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
            )
        except BaseException:
            os.close(events)
            os.close(ready)
            self._folder.cleanup()
            raise
        finally:
            os.close(out)
            os.close(to_ready)
        self._events = os.fdopen(events, "rb")
        self._errors = threading.Thread(target=self._pass_on, daemon=True)
        self._errors.start()
        with os.fdopen(ready, "rb") as file:
            began = file.read(1)
        if not began:
            self._end()
            raise Error("\n".join(self._said) or f"headrace run ended with status {self.status}")

    def _pass_on(self) -> None:
        """What the run and the command say on standard error, to that of this program, where notebooks show it."""
        assert self._process.stderr is not None
        with self._process.stderr as said:
            for line in said:
                self._said.append(line.rstrip("\n").removeprefix("headrace: "))
                with contextlib.suppress(ValueError, OSError):
                    sys.stderr.write("" if self._is_quiet else line)

    def __iter__(self) -> Iterator[Any]:
        yield from self._batches() if self._form != "dicts" else self._dicts()
        self._end()

    @property
    def pid(self) -> int:
        """Process id of the run, which `headrace stat` takes."""
        return self._process.pid

    def lines(self) -> Iterator[bytes]:
        """The events as JSON lines that are not decoded, with the form `dicts`."""
        yield from self._events
        self._end()

    def _dicts(self) -> Iterator[dict[str, Any]]:
        for line in self._events:
            yield msgspec.json.decode(line, type=dict[str, Any])

    def _batches(self) -> Iterator[Any]:
        import pyarrow as pa

        try:
            stream = pa.ipc.open_stream(self._events)
        except pa.ArrowInvalid:  # it ended before its schema was written
            return
        for batch in stream:
            table = pa.Table.from_batches([batch])
            yield table if self._form == "arrow" else data_frame(table)

    def stop(self) -> None:
        """Ask the run to end, as Ctrl-C does. What was traced until then still comes."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Stop the run, drop what was not read, and read the ledger."""
        if self.status is not None:
            return
        self.stop()
        killer = threading.Timer(STOP_S, self._process.kill)
        killer.start()
        try:
            _drain(self._events)
            self._end()
        finally:
            killer.cancel()

    def _end(self) -> None:
        """The process has closed its output, or never opened it."""
        if self.status is not None:
            return
        status = self._process.wait()
        # what the command has started may go on, with this pipe
        self._errors.join(PATIENCE_S)
        self._events.close()
        with contextlib.suppress(OSError):
            self.ledger = json.loads(self._ledger_file.read_text())
        self._folder.cleanup()
        self.status = status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def trace(
    command: Sequence[str] = (),
    events: str = "",
    *,
    scope: Sequence[str] = (),
    findings: bool = False,
    form: Form = "dicts",
    workers: int = 1,
    options: Sequence[str] = (),
    quiet: bool = False,
) -> Run:
    """Trace a command and all that it starts, or what is running.

        with headrace.trace(["ls", "/"], events="openat,execve") as run:
            for event in run:
                print(event["eventName"], event["returnValue"])
        print(run.ledger["lost"])

    `events`: as `--events` takes them; by default the default set. `scope`: expressions of `--scope`; without a command
    and a scope the whole host is traced. `findings`: what signatures find instead of events. `form`: what iterating
    yields: a dictionary for each event (`dicts`), or batches as a pyarrow.Table (`arrow`) or a polars.DataFrame
    (`polars`), with the columns that docs/reference/wire.md describes. `options`: any others of `headrace run`.
    `quiet`: what the run and the command write does not appear.

    It returns when tracing is active. Iterating ends when the command's last process has; `run.stop()` ends it before.
    A command writes to this program's standard output. What it and the run write to standard error appears in
    `sys.stderr`. The rights that are needed are those of `headrace run`.

    Raises `headrace.Error` if the run cannot begin, with what `headrace run` says.
    """
    if form not in FORMS or (findings and form != "dicts"):
        raise Error(f"form: {' '.join(FORMS)}, and dicts for findings; not {form}")

    def line(out: int) -> list[str]:
        target = f"/dev/fd/{out}"
        found = [f"--findings=json:{target}"] if findings else [f"--output={FORMS[form]}:{target}"]
        if events or not findings:
            found.append(f"--events={events or 'default'}")
        found += [f"--workers={workers}", *(f"--scope={each}" for each in scope), *options]
        return [*found, "--", *command] if command else found

    return Run(line, form, quiet)


def _drain(file: IO[bytes]) -> None:
    while file.read(1 << 16):
        pass
