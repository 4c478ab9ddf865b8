"""What signals ask of a run, and what the traced command must find as headrace found it.

    SIGHUP                    outputs are reopened, signatures read again; if the terminal has gone, the end
    ENDING                    the end, in order: detach, drain, close the books
    SIGPIPE, SIGXFSZ          ignored: the write that failed says so
    SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGWINCH, SIGCHLD, SIGURG   as everywhere
    SIGSEGV, SIGBUS, SIGFPE, SIGILL   a fault, of which nothing is handled

The stages ignore all that the supervisor handles, since a terminal or a service manager sends to the whole group.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

_NAMES = "INT TERM QUIT ABRT TRAP SYS USR1 USR2 ALRM VTALRM PROF XCPU IO PWR STKFLT".split()
ENDING = (
    *(getattr(signal, f"SIG{name}") for name in _NAMES if hasattr(signal, f"SIG{name}")),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
HANDLED = (*ENDING, signal.SIGHUP)
OF_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""Ignored by Python itself: whether they were before, only what ran before Python can tell (pipeline/headrace)."""
KEPT = "HEADRACE_IGNORED"


def _ignored() -> int:
    noted = os.environ.pop(KEPT, "")
    with contextlib.suppress(ValueError):
        return int(noted, 16)
    numbers = (n for n in signal.valid_signals() if n not in OF_PYTHON and signal.getsignal(n) == signal.SIG_IGN)
    return sum(1 << (number - 1) for number in numbers)


IGNORED = _ignored()
"""Signals that were ignored when headrace was started, as a mask like that of /proc/PID/status."""


def is_ignored(number: int) -> bool:
    """Whether it was ignored when headrace was started."""
    return bool(IGNORED >> (number - 1) & 1)


def ignore_all() -> None:
    """In a process whose end is the supervisor's business."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """They come afterwards; what is started meanwhile never sees them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stopper:
    """Signals as something to wait for. A second one that ends changes nothing: the drain is bounded.

    Who ignored SIGHUP before, as nohup has it, goes on without a terminal.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        self.signals: list[int] = []
        self._hung_up = False
        self._had_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and _has_terminal()
        self._before = {n: signal.signal(n, self._note) for n in HANDLED}

    def hung_up(self) -> bool:
        """Whether a SIGHUP has come since the last time that does not end the run."""
        asked, self._hung_up = self._hung_up, False
        if asked and not self.signals:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 1 << 16)
        return asked

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            self._hung_up = True
        else:
            self.signals.append(number)
        with contextlib.suppress(OSError):
            os.write(self._write, b"x")

    @property
    def fd(self) -> int:
        """Readable once a signal has come."""
        return self._read

    def close(self) -> None:
        """Put the handlers back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._read)
        os.close(self._write)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
