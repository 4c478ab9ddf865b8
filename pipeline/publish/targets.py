"""Files that outputs write: opened by the supervisor, so that no stage needs the right to.

A path is walked one directory at a time, each from the descriptor of the one before, so that nobody can exchange
a component between the look at it and its use. In a directory that others can write, a symbolic link or an existing
file counts only if it belongs to root or to who runs headrace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

MODE = 0o640
PIPE_BYTES, DEFAULT_PIPE_BYTES = 1 << 20, 1 << 16
"""What an unprivileged user may have a pipe hold, unless the host says otherwise."""
MAX_LINKS = 40
"""As the kernel's own limit for a path."""
WRITE = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Planted(OSError):
    """A component of a path that somebody else may have put there."""


def open_file(path: str, truncate: bool = False) -> int:
    """Descriptor that appends to `path`, made if it is missing; OSError, never a wait.

    `truncate` empties a regular file, after it was found to be the right one.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    fd = _walk(path)
    if truncate and stat.S_ISREG(os.fstat(fd).st_mode):
        os.ftruncate(fd, 0)
    os.set_blocking(fd, True)
    return fd


def _walk(path: str) -> int:
    proc = os.stat("/proc").st_dev
    at = os.open("/" if path.startswith("/") else ".", PATH)
    rest, links = _parts(path), 0
    try:
        while rest:
            name = rest.pop(0)
            if os.fstat(at).st_dev == proc and not rest:
                return os.open(name, WRITE, dir_fd=at)  # the kernel's own links, such as /proc/self/fd/1
            try:
                link = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                link = None
            if link and stat.S_ISLNK(link.st_mode):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                at, rest = _follow(at, name, rest)
            elif rest:
                at = _moved(at, os.open(name, PATH | os.O_DIRECTORY, dir_fd=at))
            else:
                return _last(at, name)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        os.close(at)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return [*parts, "."] if path.endswith("/") else parts


def _moved(old: int, new: int) -> int:
    os.close(old)
    return new


def _follow(at: int, name: str, rest: list[str]) -> tuple[int, list[str]]:
    """Directory and components to go on with after a symbolic link, read from the link that was looked at."""
    link = os.open(name, PATH, dir_fd=at)
    try:
        _trust(at, os.fstat(link), "a symbolic link")
        target = os.readlink("", dir_fd=link)
    finally:
        os.close(link)
    if target.startswith("/"):
        at = _moved(at, os.open("/", PATH))
    return at, _parts(target) + rest


def _last(at: int, name: str) -> int:
    """The file itself: made by us, or one that is to be trusted here."""
    flags = WRITE | os.O_NOFOLLOW
    try:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, MODE, dir_fd=at)
    except FileExistsError:
        pass
    try:
        fd = os.open(name, flags, dir_fd=at)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads this FIFO: start its reader first") from error
        raise
    try:
        _trust(at, os.fstat(fd), "a file")
    except OSError:
        os.close(fd)
        raise
    return fd


def _trust(at: int, found: os.stat_result, what: str) -> None:
    """Planted if others can write directory `at` and what was found there is theirs."""
    shared = os.fstat(at).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if shared and found.st_uid not in (0, os.geteuid()):
        text = f"{what} of uid {found.st_uid} in a directory that others can write: remove it, or choose another place"
        raise Planted(errno.EPERM, text)


def make_room(fd: int) -> None:
    """Have a pipe hold more, if that is allowed: who writes without blocking is woken less often."""
    with contextlib.suppress(OSError):
        if pipe_bytes(fd) == DEFAULT_PIPE_BYTES:  # another size is somebody's choice
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def pipe_bytes(fd: int) -> int:
    """How much a pipe holds; 0 of what is none."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    return 0


def own_stdout() -> int:
    """Standard output; of a pipe an end of our own, which need not block because others want it to."""
    if stat.S_ISFIFO(os.fstat(1).st_mode):
        with contextlib.suppress(OSError):
            return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(1)
