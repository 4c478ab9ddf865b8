"""Opens output files. Runs in the supervisor, because stages may not open files for writing.

A path is resolved one component at a time, each relative to the descriptor of its parent directory. No other user can
replace a component between check and use. In a directory that other users can write, a symbolic link or existing file
is accepted only if it belongs to root or to the user who runs headrace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

MODE = 0o640
PIPE_BYTES, DEFAULT_PIPE_BYTES = 1 << 20, 1 << 16
"""The maximum pipe size for an unprivileged user unless the host is configured otherwise, and the default pipe size."""
MAX_LINKS = 40
"""Maximum number of symbolic links in a path; the same as the kernel's limit."""
WRITE = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Planted(OSError):
    """A component of a path that another user may have placed there."""


def open_file(path: str, truncate: bool = False) -> int:
    """Open `path` for appending and create it if it is missing. Raises OSError; never blocks.

    `truncate` empties a regular file after all checks have passed.
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
    """Resolve a symbolic link to the directory and components to continue with. Reads the link that was checked."""
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
    """Open the final component: create it, or open an existing file that passes _trust()."""
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
    """Raise Planted if other users can write directory `at` and the file `found` in it belongs to another user."""
    shared = os.fstat(at).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if shared and found.st_uid not in (0, os.geteuid()):
        text = f"{what} of uid {found.st_uid} in a directory that others can write: remove it, or choose another place"
        raise Planted(errno.EPERM, text)


def make_room(fd: int) -> None:
    """Enlarge a pipe if permitted. A non-blocking writer is then woken less often."""
    with contextlib.suppress(OSError):
        if pipe_bytes(fd) == DEFAULT_PIPE_BYTES:  # any other size was set deliberately
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def pipe_bytes(fd: int) -> int:
    """Capacity of a pipe in bytes; 0 if `fd` is not a pipe."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    return 0


def own_standard(number: int) -> int:
    """Duplicate standard output (1) or error (2). A pipe is reopened: O_NONBLOCK must not affect other processes that
    share it.
    """
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(number)
