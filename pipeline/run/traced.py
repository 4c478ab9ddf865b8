"""The traced command: armed before it runs, waited for, its status passed on."""

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
    """One command, started as a launcher that waits for go()."""

    def __init__(self, argv: Sequence[str]) -> None:
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
        self._process = subprocess.Popen(launcher, pass_fds=(says_ready, waits))
        os.close(waits)
        os.close(says_ready)
        # its own exec is over when this comes, and cannot be taken for the command's
        began = select.select([ready], [], [], START_S)[0]
        os.close(ready)
        if not began:
            self._process.kill()
            os.close(self._go)
            raise PipelineFailed("launcher", EX_SOFTWARE)
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def go(self) -> None:
        """Let it exec, if it is still there."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"x")
        os.close(self._go)
        self._go = -1

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    @property
    def status(self) -> int:
        """Its exit status as a shell gives it: 128 + signal if one ended it."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """Forget it; a launcher that never got its go ends."""
        if self._go >= 0:
            os.close(self._go)
            try:
                self._process.wait(KILL_S)
            except subprocess.TimeoutExpired:  # somebody has stopped it
                self._process.kill()
        os.close(self.pidfd)
