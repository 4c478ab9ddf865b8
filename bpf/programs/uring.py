"""What io_uring can do without a system call that is seen: operations of enum io_uring_op
(include/uapi/linux/io_uring.h, up to 6.15), by the calls that they do the work of.

Events from the kernel's objects are looked for when a call ends (bpf/c/objects.h), so they are evaded with it.
`io_uring_submit` is the event that sees what is submitted.
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
    """Whether an event can be missed since io_uring did it."""
    if event.is_syscall:
        return event.name in CALLS
    return any(look.program in event.programs and look.call in CALLS for look in LOOKS)
