"""Mounted file systems by the device number of their superblock: major << 20 | minor.

stat(2) may report a different number for a file (btrfs, overlayfs over several file systems). The number of the
superblock is in /proc/PID/mountinfo, which can be read without accessing the file system.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MINOR_BITS = 20
REMOTE = frozenset(
    """9p afs beegfs ceph cifs coda gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb3 smbfs
    virtiofs""".split()
)
"""File systems that another host serves. Those that user space serves are named fuse, fuseblk or fuse.NAME."""


_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo."""

    number: int
    device: int
    point: bytes
    kind: str

    @property
    def is_served(self) -> bool:
        """Whether file accesses depend on user space or another host, which may never answer."""
        return self.kind.split(".")[0] in ("fuse", "fuseblk") or self.kind in REMOTE

    def is_above(self, path: bytes) -> bool:
        """Whether a path is the mount point or below it."""
        return path == self.point or path.startswith(self.point.rstrip(b"/") + b"/")


def mounts(pid: int | str = "self") -> Iterator[Mount]:
    """The mounts that a process sees; none if the process does not exist."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_bytes().split(b"\n"):
            fields = line.split()
            with contextlib.suppress(ValueError, IndexError):
                major, _, minor = fields[2].partition(b":")
                point = _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), fields[4])
                # optional fields end with a lone dash
                kind = fields[fields.index(b"-", 6) + 1].decode(errors="replace")
                yield Mount(int(fields[0]), int(major) << MINOR_BITS | int(minor), point, kind)


def mount_of(fd: int, pid: int | str = "self") -> Mount | None:
    """The mount of an open file, if that process or this one sees it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        number = int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("mnt_id:")[1].split()[0])
        return next((m for each in (pid, "self") for m in mounts(each) if m.number == number), None)
    return None


def file_device(path: str | int) -> int:
    """The device number of a file's superblock. Raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC) if isinstance(path, str) else path
    try:
        found = mount_of(fd)
        return found.device if found else kernel_device(os.fstat(fd).st_dev)
    finally:
        if fd is not path:
            os.close(fd)


def kernel_device(device: int) -> int:
    """Converts a device number of stat(2) to the kernel's encoding."""
    return os.major(device) << MINOR_BITS | os.minor(device)


_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 2, 4, 8


def open_beneath(root: int, path: bytes) -> int:
    """Opens a file with O_PATH, without following links and without leaving `root`. Raises OSError."""
    how = struct.pack("<QQQ", os.O_PATH | os.O_CLOEXEC, 0, _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_OPENAT2, root, ctypes.c_char_p(path.lstrip(b"/")), how, len(how)))
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return fd
