"""The ledger of a running headrace: the supervisor serves it on a socket, and `headrace stat` requests it.

    DIRECTORY/PID.sock   a connection receives one ledger as JSON and is closed

Only the owner can access the sockets and write to the directory. A ledger that is taken while events are in flight is
not balanced; `in_flight` is their number.
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

from headrace.pipeline.process.books import Ledger
from headrace.pipeline.process.failure import say

TIMEOUT_S = 0.2
"""Time that a run waits for a slow client."""
PATIENCE_S = 10.0
"""Time that a client waits for the answer. The supervisor answers between two checks of the pipeline."""
MAX_LEDGER_BYTES = 16 << 20
SHOWN = ("produced", "delivered", "filtered", "lost", "dropped", "rejected")
HEADER_EVERY = 20


class NoRun(Exception):
    """There is no run to query, or more than one."""


def directory() -> Path:
    """The directory of this user's sockets. HEADRACE_RUNTIME_DIR overrides it."""
    if chosen := os.environ.get("HEADRACE_RUNTIME_DIR"):
        return Path(chosen)
    if os.getuid() == 0:
        return Path("/run/headrace")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "headrace") if runtime else Path(tempfile.gettempdir(), f"headrace-{os.getuid()}")


def _is_own(folder: Path) -> bool:
    """Whether the folder belongs to this user and no other user can write to it."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


class Server:
    """The supervisor's end. If no socket can be created, the run continues without one."""

    def __init__(self) -> None:
        self.path = directory() / f"{os.getpid()}.sock"
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen, if possible."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            if _is_own(self.path.parent):
                self._clear()
                self._listen()

    def _clear(self) -> None:
        """Remove sockets that killed runs have left behind."""
        for path in self.path.parent.glob("*.sock"):
            if path == self.path or not Path("/proc", path.stem).exists():
                path.unlink(missing_ok=True)

    def _listen(self) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(self.path))
            listening.listen(8)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
        finally:
            os.umask(before)
        self._socket = listening

    def fds(self) -> list[int]:
        """Descriptors that become readable when a client connects."""
        return [self._socket.fileno()] if self._socket else []

    def serve(self, ledger: Callable[[], Ledger]) -> None:
        """Answer all clients that have connected."""
        with contextlib.suppress(OSError):
            while self._socket:
                asking, _ = self._socket.accept()
                with asking, contextlib.suppress(OSError):
                    asking.settimeout(TIMEOUT_S)
                    asking.sendall(msgspec.json.encode(ledger()))

    def close(self) -> None:
        """Close and remove the socket."""
        if self._socket:
            self._socket.close()
            with contextlib.suppress(OSError):
                self.path.unlink()


def ask(path: Path) -> Ledger | None:
    """Request the ledger of a run; None if it has ended, does not answer in PATIENCE_S, or the answer is invalid."""
    data, until = b"", time.monotonic() + PATIENCE_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, contextlib.suppress(OSError):
        asking.settimeout(PATIENCE_S)
        asking.connect(str(path))
        while len(data) < MAX_LEDGER_BYTES and time.monotonic() < until and (piece := asking.recv(1 << 16)):
            data += piece
    with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.json.decode(data, type=Ledger)
    return None


def find(pid: int | None) -> tuple[Path, Ledger]:
    """The socket and the ledger of a run. Raises NoRun if no run answers, or if several do and `pid` is None."""
    folder = directory()
    trusted = folder.is_dir() and _is_own(folder)
    paths = [folder / f"{pid}.sock"] if pid is not None else sorted(folder.glob("*.sock")) if trusted else []
    asked = [(path, ask(path)) for path in paths if trusted and path.stem.isdecimal()]
    found = [(path, ledger) for path, ledger in asked if ledger is not None]
    if not found:
        raise NoRun(f"no headrace run with process id {pid} answers" if pid is not None else "no headrace is running")
    if len(found) > 1:
        raise NoRun(f"more than one headrace is running, say which: {' '.join(path.stem for path, _ in found)}")
    return found[0]


def watch(pid: int | None, interval_s: float, count: int, json: bool) -> None:
    """Print one line per interval until the run has ended or `count` lines are printed (0: no limit)."""
    path, before = find(pid)
    asked, lines = time.monotonic(), 0
    while not count or lines < count:
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
                say(header())
            say(row(before, ledger, now - asked))
        before, asked, lines = ledger, now, lines + 1


def rules(ledger: Ledger) -> list[str]:
    """Table of the cost of signatures so far, the most expensive first."""
    lines = [f"{'SIGNATURE':<36} {'evaluated':>12} {'matched':>10} {'undecided':>10} {'ms':>10} {'ns each':>8}"]
    for name, counts in sorted(ledger.by_rule.items(), key=lambda item: -item[1]["time_ns"]):
        each = counts["time_ns"] / counts["evaluated"]
        row = f"{counts['evaluated']:>12} {counts['matched']:>10} {counts['undecided']:>10}"
        row += f" {counts['time_ns'] / 1e6:>10.1f} {each:>8.0f}"
        lines.append(f"{name:<36} {row}")
    return lines


def header() -> str:
    """Column names: events per second, events in flight, and CPU usage of each part in percent of one CPU."""
    rates = " ".join(f"{name + '/s':>12}" for name in SHOWN)
    return f"{rates} {'in_flight':>10} {'late':>8} {'reader%':>8} {'workers%':>8} {'publish%':>8}"


def row(before: Ledger, after: Ledger, took_s: float) -> str:
    """One line: the difference between two ledgers."""
    rates = " ".join(f"{(getattr(after, name) - getattr(before, name)) / took_s:>12.0f}" for name in SHOWN)
    shares = " ".join(
        f"{100 * (_cpu_seconds(after, part) - _cpu_seconds(before, part)) / took_s:>8.1f}"
        for part in ("reader", "worker", "publisher")
    )
    return f"{rates} {after.in_flight:>10} {after.late:>8} {shares}"


def _cpu_seconds(ledger: Ledger, part: str) -> float:
    """CPU time of a stage, or of all workers together."""
    return sum(seconds for name, seconds in ledger.cpu_seconds.items() if name.startswith(part))
