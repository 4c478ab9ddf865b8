"""Seccomp filters: the system calls that each kind of stage may make. All others fail with EPERM.

Everything that a stage needs is open before the filter is installed: segments, rings, files, listening sockets. A stage
cannot execute a program, inspect another process, open a file for writing, or change a file by name. Only the collector
can create and rename files and take descriptors of other processes, for the artifacts that it keeps. Only the enricher
can create sockets (AF_UNIX, to reach runtimes on this host). The nursery and the tracker, which are not stages, may
make a few more calls.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import Any

from headrace.pipeline.process.logs import logger

ANY_STAGE = """
read write readv writev pread64 pwrite64 lseek close close_range fstat newfstatat stat lstat statx fcntl dup dup2 dup3
poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 pipe2 pipe
futex futex_waitv membarrier sched_yield sched_getaffinity sched_getparam sched_getscheduler getcpu
mmap mprotect munmap mremap madvise brk mincore
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack restart_syscall
getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getsid capget getpriority
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage getrandom
exit exit_group set_robust_list get_robust_list set_tid_address rseq arch_prctl uname sysinfo
getcwd readlink readlinkat access faccessat faccessat2 getdents64 statfs fstatfs getrlimit
""".split()
SOCKETS = "getsockname getpeername getsockopt setsockopt recvfrom recvmsg sendto sendmsg shutdown".split()
OF_KIND = {
    "reader": (),
    "worker": (),
    "recorder": ("fsync", "fdatasync"),
    "publisher": (*SOCKETS, "accept4", "accept", "ftruncate", "fsync"),
    "hasher": ("openat2",),
    "collector": ("openat2", "renameat", "rename", "renameat2", "unlinkat", "pidfd_open", "pidfd_getfd"),
    "enricher": (*SOCKETS, "connect", "sendmmsg"),
    "nursery": (*SOCKETS, "accept4", "accept", "wait4", "waitid", "ftruncate", "fsync", "chdir"),
    "tracker": ("unlink",),
}
"""Calls allowed per kind, in addition to ANY_STAGE and to the argument-dependent rules of _conditional()."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
CLONE_THREAD = 0x10000
PRCTLS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: they name threads and mappings."""
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. None of them can inject input into a terminal."""
BPF_PROG_TEST_RUN, BPF_OBJ_GET_INFO_BY_FD = 10, 15


@cache
def library() -> Any:
    """The libseccomp bindings, or None if libseccomp is missing.

    The first call must happen before privileges are dropped: a stage may not be able to read the folder of the module.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError):
        return None
    return pyseccomp


def confine(kind: str) -> None:
    """Restrict this process and all its threads to the system calls of that kind of stage. This is irreversible.

    If libseccomp is missing, logs an error and returns.
    """
    if (seccomp := library()) is None:
        logger(kind).error("process.not_confined", reason="libseccomp is missing")
        return
    found = seccomp.SyscallFilter(defaction=seccomp.ERRNO(errno.EPERM))
    found.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    for name in (*ANY_STAGE, *OF_KIND[kind]):
        found.add_rule(seccomp.ALLOW, name)
    for name, *conditions in _conditional(kind, seccomp):
        found.add_rule(seccomp.ALLOW, name, *conditions)
    # on ENOSYS, libraries fall back to clone(), whose flags the filter can check
    found.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    found.load()


def _conditional(kind: str, seccomp: Any) -> list[tuple[Any, ...]]:
    def has(number: int, value: int) -> Any:
        return seccomp.Arg(number, seccomp.EQ, value)

    def masked(number: int, mask: int, value: int) -> Any:
        return seccomp.Arg(number, seccomp.MASKED_EQ, mask, value)

    found: list[tuple[Any, ...]] = [
        ("open", masked(1, WRITES, 0)),
        ("openat", masked(2, WRITES, 0)),
        ("tgkill", has(0, os.getpid())),
        ("prlimit64", has(2, 0)),
        *(("prctl", has(0, option)) for option in PRCTLS),
        *(("ioctl", has(1, request)) for request in IOCTLS),
    ]
    if kind == "nursery":
        found += [("clone",), ("prctl",), ("capset",), ("seccomp",), ("setresuid",), ("setresgid",), ("setgroups",)]
        found += [
            ("openat",),
            ("open",),
            ("bpf", has(0, BPF_PROG_TEST_RUN)),
            ("tgkill",),
            ("prlimit64",),
            ("setpriority",),
        ]
    else:
        found.append(("clone", masked(0, CLONE_THREAD, CLONE_THREAD)))
    if kind in ("publisher", "nursery"):
        # ZeroMQ sets the policy that its threads already have
        found.append(("sched_setscheduler", has(1, os.SCHED_OTHER)))
    if kind == "collector":
        # it writes to its directory, and asks about BPF programs that it was given
        found += [("openat",), ("bpf", has(0, BPF_OBJ_GET_INFO_BY_FD))]
    if kind == "reader":
        found.append(("bpf", has(0, BPF_PROG_TEST_RUN)))
    if kind == "enricher":
        found += [(name, has(0, 1)) for name in ("socket", "socketpair")]
    return found
