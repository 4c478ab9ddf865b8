"""The ledger while a run goes on: the supervisor hands it out on a socket, `headrace stat` asks for it.

    DIRECTORY/PID.sock   a connection gets one ledger as JSON, and is closed

The directory and the sockets are their owner's alone. A ledger that is taken while events are under way is not
balanced: `in_flight` says how many there are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from pipeline.books import Ledger

TIMEOUT_S = 0.2
"""How long a run waits for who asks, and then goes on without."""
PATIENCE_S = 10.0
"""How long an answer may take: it comes between two looks at the pipeline."""
SHOWN = ("produced", "delivered", "filtered", "lost", "dropped", "rejected")
HEADER_EVERY = 20


class NoRun(Exception):
    """There is no run to ask, or more than one."""


def directory() -> Path:
    """Where this user's sockets are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime, "headrace")
    return Path("/run/headrace") if os.getuid() == 0 else Path(tempfile.gettempdir(), f"headrace-{os.getuid()}")


def _is_own(folder: Path) -> bool:
    """Whether nobody else can have put anything there."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


class Server:
    """The supervisor's end. Where no socket can be made, nobody can ask, and the run goes on."""

    def __init__(self) -> None:
        self.path = directory() / f"{os.getpid()}.sock"
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            if _is_own(self.path.parent):
                self.path.unlink(missing_ok=True)
                self._listen()

    def _listen(self) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(self.path))
            listening.listen(8)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
        self._socket = listening

    def fds(self) -> list[int]:
        """Readable when somebody asks."""
        return [self._socket.fileno()] if self._socket else []

    def serve(self, ledger: Callable[[], Ledger]) -> None:
        """Answer who has asked."""
        with contextlib.suppress(OSError):
            while self._socket:
                asking, _ = self._socket.accept()
                with asking, contextlib.suppress(OSError):
                    asking.settimeout(TIMEOUT_S)
                    asking.sendall(msgspec.json.encode(ledger()))

    def close(self) -> None:
        """Leave no socket behind."""
        if self._socket:
            self._socket.close()
            self.path.unlink(missing_ok=True)


def ask(path: Path) -> Ledger | None:
    """A run's ledger; None if it has ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(PATIENCE_S)
        try:
            asking.connect(str(path))
            data = b"".join(iter(lambda: asking.recv(1 << 16), b""))
        except OSError:
            return None
    return msgspec.json.decode(data, type=Ledger) if data else None


def find(pid: int | None) -> Path:
    """The socket of a run; NoRun if there is none, or more than one to choose from."""
    paths = [directory() / f"{pid}.sock"] if pid is not None else sorted(directory().glob("*.sock"))
    found = [path for path in paths if ask(path) is not None]
    if not found:
        raise NoRun(f"no headrace run with process id {pid} answers" if pid is not None else "no headrace is running")
    if len(found) > 1:
        raise NoRun(f"more than one headrace is running, say which: {' '.join(path.stem for path in found)}")
    return found[0]


def watch(pid: int | None, interval_s: float, count: int, json: bool) -> None:
    """Print a line for each interval, until the run has ended or `count` lines are out."""
    path = find(pid)
    before, lines = ask(path), 0
    asked = time.monotonic()
    while before is not None and (not count or lines < count):
        if json and not lines:
            ledger: Ledger | None = before
        else:
            time.sleep(max(0.0, asked + interval_s - time.monotonic()))
            ledger = ask(path)
        now = time.monotonic()
        if ledger is None:
            return
        if json:
            click.echo(msgspec.json.encode(ledger))
        else:
            if lines % HEADER_EVERY == 0:
                click.echo(header())
            click.echo(row(before, ledger, now - asked))
        before, asked, lines = ledger, now, lines + 1


def header() -> str:
    """Names of the columns: events a second, those under way, and the CPU of each part in percent of one."""
    rates = " ".join(f"{name + '/s':>12}" for name in SHOWN)
    return f"{rates} {'in_flight':>10} {'late':>8} {'reader%':>8} {'workers%':>8} {'publish%':>8}"


def row(before: Ledger, after: Ledger, took_s: float) -> str:
    """One line: what happened between two ledgers."""
    rates = " ".join(f"{(getattr(after, name) - getattr(before, name)) / took_s:>12.0f}" for name in SHOWN)
    cpu = {"reader": 0.0, "worker": 0.0, "publisher": 0.0}
    for name, seconds in after.cpu_seconds.items():
        cpu[name.partition("-")[0]] += 100 * (seconds - before.cpu_seconds.get(name, 0.0)) / took_s
    shares = " ".join(f"{share:>8.1f}" for share in cpu.values())
    return f"{rates} {after.in_flight:>10} {after.late:>8} {shares}"
