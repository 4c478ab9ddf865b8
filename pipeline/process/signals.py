"""Signal handling of a run, and the signal dispositions that the traced command inherits.

    SIGHUP                    reopen outputs and reload signatures; if the terminal is gone, end the run
    ENDING                    end the run in order: detach, drain, complete the ledger
    SIGPIPE, SIGXFSZ          ignored: the failing write returns an error
    SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGWINCH, SIGCHLD, SIGURG   default behaviour
    SIGSEGV, SIGBUS, SIGFPE, SIGILL   a fault, not handled

Stages ignore all signals that the supervisor handles, because terminals and service managers signal the whole group.
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
"""Signals that Python itself ignores. Only the launcher script can see their previous disposition
(headrace/bin/headrace)."""
KEPT = "HEADRACE_IGNORED"


def _ignored() -> int:
    noted = os.environ.pop(KEPT, "")
    with contextlib.suppress(ValueError):
        return int(noted, 16)
    numbers = (n for n in signal.valid_signals() if n not in OF_PYTHON and signal.getsignal(n) == signal.SIG_IGN)
    return sum(1 << (number - 1) for number in numbers)


IGNORED = _ignored()
"""Signals that were ignored when headrace was started, as a mask in the format of /proc/PID/status."""


def is_ignored(number: int) -> bool:
    """Whether signal `number` was ignored when headrace was started."""
    return bool(IGNORED >> (number - 1) & 1)


def ignore_all() -> None:
    """Ignore all HANDLED signals. For processes that the supervisor ends."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block HANDLED signals; they are delivered afterwards. Processes started meanwhile inherit the blocked mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stopper:
    """Makes signals waitable through a descriptor. A second ENDING signal has no effect, because the drain is bounded.

    If SIGHUP was ignored at startup (nohup), the run continues when the terminal goes away.
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
        """Whether a SIGHUP that does not end the run has arrived since the last call."""
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
        """Descriptor that becomes readable when a signal arrives."""
        return self._read

    def close(self) -> None:
        """Restore the previous handlers."""
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
