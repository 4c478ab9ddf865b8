"""Reopening outputs during a run: the supervisor opens the file and passes the descriptor to the publisher.

    supervisor   path names another file, or SIGHUP -> open_file() -> (number of the sink, descriptor) -> socket
    publisher    socket -> the sink's queue; batches already in the queue still go to the old file

A restarted publisher starts with the current descriptors, and may receive one of them again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from headrace.config.outputs import STANDARD, Output
from headrace.pipeline.process.logs import logger
from headrace.pipeline.publish.sinks import SinkError
from headrace.pipeline.transport.doorbell import InheritedFd

NUMBER = struct.Struct("<I")
LOOK_S = 0.5
"""Seconds between two checks of the paths."""
MISSED = 2
"""A missing file is recreated only after this many checks, because log rotation may be about to create it."""


class Files:
    """The supervisor's end. `targets` holds the descriptor of each sink, None if the sink does not write a file."""

    def __init__(
        self,
        sinks: Sequence[Output],
        targets: list[InheritedFd | None],
        open_again: Callable[[Output], InheritedFd],
    ) -> None:
        self._sinks, self._targets, self._open = sinks, targets, open_again
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        its.setblocking(False)
        self._socket = mine
        self.end = InheritedFd(its.detach())
        """The publisher's end of the socket."""
        self._missing = [0] * len(sinks)
        self._looked = 0.0

    def look(self) -> None:
        """Reopen outputs whose path names another file or has been missing for MISSED checks."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for number, target in self._files():
            there = _identity(self._sinks[number].target)
            self._missing[number] = 0 if there else self._missing[number] + 1
            if self._missing[number] >= MISSED or (there and there != _identity(target.fd)):
                self._reopen(number, target)

    def reopen(self) -> None:
        """Reopen all outputs whose path does not name the current file."""
        for number, target in self._files():
            if _identity(self._sinks[number].target) != _identity(target.fd):
                self._reopen(number, target)

    def _files(self) -> Iterator[tuple[int, InheritedFd]]:
        for number, (sink, target) in enumerate(zip(self._sinks, self._targets, strict=True)):
            if (
                target is not None
                and sink.format != "zmq"
                and sink.target not in STANDARD
                and stat.S_ISREG(os.fstat(target.fd).st_mode)
            ):
                yield number, target

    def _reopen(self, number: int, old: InheritedFd) -> None:
        self._missing[number] = 0
        name = self._sinks[number].name
        try:
            new = self._open(self._sinks[number])
        except SinkError as error:  # the run continues with the old file
            logger("supervisor").error("supervisor.output_not_reopened", output=name, reason=str(error))
            return
        try:
            socket.send_fds(self._socket, [NUMBER.pack(number)], [new.fd])
        except OSError as error:
            # the publisher does not read its socket; the next check tries again
            new.close()
            logger("supervisor").error("supervisor.output_not_reopened", output=name, reason=error.strerror)
            return
        self._targets[number] = new
        old.close()
        logger("supervisor").info("supervisor.output_reopened", output=name)

    def close(self) -> None:
        """Close everything."""
        self._socket.close()
        self.end.close()
        for sink, target in zip(self._sinks, self._targets, strict=True):
            if target is not None and sink.format != "zmq":
                target.close()


def _identity(path: str | int) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


class Reopened:
    """The publisher's end."""

    def __init__(self, end: InheritedFd) -> None:
        self._socket = socket.socket(fileno=end.fd)

    @property
    def fd(self) -> int:
        """Descriptor that becomes readable when a file was reopened."""
        return self._socket.fileno()

    def take(self) -> Iterator[tuple[int, int]]:
        """Yield (number of the sink, descriptor) of each reopened file."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, NUMBER.size, 1)
            except BlockingIOError:
                return
            if len(data) < NUMBER.size or not fds:
                return
            yield NUMBER.unpack(data)[0], fds[0]
