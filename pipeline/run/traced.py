"""The traced command: started, released once tracing is armed, and waited for."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.pipeline.process import signals
from headrace.pipeline.run.stage import EX_SOFTWARE, KILL_S, START_S, PipelineFailed

LAUNCH = Path(__file__).with_name("launch.py")


class Command:
    """One command, started as a launcher that waits for go(). Raises PipelineFailed if the launcher does not start."""

    def __init__(self, argv: Sequence[str], to_stderr: bool = False) -> None:
        """`to_stderr`: its standard output is headrace's standard error."""
        path = shutil.which(argv[0]) or argv[0]
        ready, says_ready = os.pipe()
        waits, self._go = os.pipe()
        launcher = [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCH),
            str(says_ready),
            str(waits),
            f"{signals.IGNORED:x}",
            path,
            *argv,
        ]
        self._process = subprocess.Popen(launcher, pass_fds=(says_ready, waits), stdout=2 if to_stderr else None)
        os.close(waits)
        os.close(says_ready)
        # the launcher's own exec is complete then and cannot be mistaken for the command's
        began = select.select([ready], [], [], START_S)[0]
        os.close(ready)
        if not began:
            self._process.kill()
            os.close(self._go)
            raise PipelineFailed("launcher", EX_SOFTWARE)
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def go(self) -> None:
        """Let the launcher execute the command, if it is still running."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"x")
        os.close(self._go)
        self._go = -1

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send a signal to the command."""
        self._process.send_signal(number)

    @property
    def status(self) -> int:
        """Wait for the command and return its exit status as a shell reports it: 128 + N if signal N ended it."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """Release the descriptors. A launcher that was never released with go() exits."""
        if self._go >= 0:
            os.close(self._go)
            try:
                self._process.wait(KILL_S)
            except subprocess.TimeoutExpired:  # it was stopped by a signal
                self._process.kill()
        os.close(self.pidfd)
