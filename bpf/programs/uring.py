"""Calls whose work io_uring can do without a visible system call: operations of enum io_uring_op
(include/uapi/linux/io_uring.h, up to 6.15), by the names of the equivalent calls.

Programs read kernel objects when a call ends (bpf/c/objects.h), so io_uring evades these events, too. The event
`io_uring_submit` reports submitted operations.
"""

from __future__ import annotations

from headrace.bpf.programs.looks import LOOKS
from headrace.bpf.tables.catalogue import Event

CALLS = frozenset(
    "read pread64 readv preadv preadv2 write pwrite64 writev pwritev pwritev2 fsync fdatasync sync_file_range fallocate"
    " ftruncate open openat openat2 creat close statx fadvise64 madvise splice tee rename renameat renameat2 unlink"
    " unlinkat rmdir mkdir mkdirat symlink symlinkat link linkat setxattr fsetxattr getxattr fgetxattr socket bind"
    " listen accept accept4 connect shutdown sendto sendmsg recvfrom recvmsg setsockopt getsockopt epoll_ctl"
    " epoll_wait poll waitid futex pipe pipe2".split()
)


def evades(event: Event) -> bool:
    """Whether io_uring can do the work of an event without triggering it."""
    if event.is_syscall:
        return event.name in CALLS
    return any(look.program in event.programs and look.call in CALLS for look in LOOKS)
