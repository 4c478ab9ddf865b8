"""Listening sockets of ZeroMQ outputs. The supervisor creates them, because stages may not bind sockets.

The publisher receives the descriptor. A restarted publisher listens on the same socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from pathlib import Path

from headrace.pipeline.publish.sinks import SinkError
from headrace.pipeline.transport.doorbell import InheritedFd

BACKLOG = 128
SIOCGIFADDR = 0x8915


class Listening:
    """One endpoint. `target` is its socket; None for inproc. Raises SinkError if it cannot listen there."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._path: Path | None = None
        self._identity: tuple[int, int] | None = None
        scheme, _, address = endpoint.partition("://")
        self.target: InheritedFd | None = None
        try:
            if scheme == "ipc":
                self.target = InheritedFd(self._unix(address))
            elif scheme == "tcp":
                self.target = InheritedFd(_tcp(address))
            elif scheme != "inproc":
                raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        except (OSError, ValueError) as error:
            raise SinkError(f"output zmq:{endpoint}: {getattr(error, 'strerror', None) or error}") from error

    def _unix(self, address: str) -> int:
        """A listening unix socket that only its owner can use. Takes over a path at which no process listens."""
        path = Path(address)
        if not address.startswith("@"):
            if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
                raise ValueError("exists and is not a socket")
            if _listened(address):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE).lower())
            path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
            before = os.umask(0o177)
            try:
                made.bind("\0" + address[1:] if address.startswith("@") else address)
            finally:
                os.umask(before)
            made.listen(BACKLOG)
            if not address.startswith("@"):
                self._path, self._identity = path.absolute(), _identity(path)
            return made.detach()

    def close(self) -> None:
        """Close the socket. Removes the file of a unix socket if it still belongs to this socket."""
        if self.target is not None:
            self.target.close()
        with contextlib.suppress(OSError):
            if self._path is not None and _identity(self._path) == self._identity:
                self._path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_ctime_ns


def _tcp(address: str) -> int:
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isdecimal() or port == "*"):
        raise ValueError("a TCP endpoint is tcp://ADDRESS:PORT")
    host, number = host.strip("[]"), 0 if port == "*" else int(port)
    if number > 65535:
        raise ValueError(f"there is no port {port}")
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_numeric(host, made), number))
        made.listen(BACKLOG)
        return made.detach()


def _numeric(host: str, made: socket.socket) -> str:
    """The address to bind: `*` means every address; the name of an interface means its IPv4 address."""
    if host == "*":
        return ""
    if host in {name for _, name in socket.if_nameindex()}:
        told = fcntl.ioctl(made.fileno(), SIOCGIFADDR, struct.pack("256s", host.encode()))
        return socket.inet_ntoa(told[20:24])
    return host


def _listened(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
