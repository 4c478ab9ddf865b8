"""Arguments that the kernel ignores in a call because of the value of another argument.

    (event, argument): the argument that decides, and a test of its value

An ignored register can hold anything, including a value that a condition matches. Ignored arguments are therefore
null in outputs, with the reason `ignored`, and match no condition. An argument that the kernel requires to be 0 is
not ignored. Sources: the code of the calls in Linux 5.10 to 6.18, which agrees on all of these.

If a call names a file by a directory and an absolute path, it ignores the directory. That argument is still shown,
because it says where the call would have begun. `bpf/programs/early.py` may let a record pass because of an ignored
register; the worker's predicate then removes it. It never discards a record that would match.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.layout import HEAD_COMPAT
from headrace.bpf.tables.catalogue import Event
from headrace.workers.records.blobs import argument
from headrace.workers.records.rows import Rows

Array = np.ndarray[Any, Any]
Mask = Callable[[Array], Array]
REASON = "ignored"
LOW = np.uint64(0xFFFFFFFF)


class IgnoredRule(NamedTuple):
    """`of`: the argument that decides; `test`: applied to its u64 values, masked to 32 bits in 32-bit calls."""

    of: str
    test: Mask
    native: bool = False
    """Only for 64-bit calls. 32-bit calls have these arguments elsewhere."""


def one_of(text: str) -> Mask:
    """The value is one of these."""
    wanted = np.array([int(word, 0) for word in text.split()], np.uint64)
    return lambda values: np.isin(values & LOW, wanted)


def without(bits: int) -> Mask:
    """None of these bits is set."""
    return lambda values: (values & np.uint64(bits)) == 0


def with_any(bits: int, and_without: int = 0) -> Mask:
    """At least one of `bits` is set, and none of `and_without`."""
    return lambda values: ((values & np.uint64(bits)) != 0) & ((values & np.uint64(and_without)) == 0)


def command(text: str, drop: int = 0, shift: int = 0) -> Mask:
    """Like one_of(), after the bits `drop` are cleared and the value is shifted right."""
    test = one_of(text)
    return lambda values: test((values & LOW & ~np.uint64(drop)) >> np.uint64(shift))


def is_zero(values: Array) -> Array:
    """The value is 0, for example a null pointer."""
    found: Array = values == 0
    return found


def is_zero_32(values: Array) -> Array:
    """The low 32 bits are 0."""
    return is_zero(values & LOW)


def always(values: Array) -> Array:
    """True for every value."""
    return np.ones(len(values), bool)


CREATES, TEMPORARY, PATH_ONLY = 0o100, 0o20000000, 0o10000000
"""O_CREAT, __O_TMPFILE, and O_PATH, which disables the other two."""


def makes_nothing(flags: Array) -> Array:
    """These flags of open create no file."""
    return without(CREATES | TEMPORARY)(flags) | with_any(PATH_ONLY)(flags)


REMOUNT, BIND, MOVE, PROPAGATION = 32, 4096, 8192, 0b1111 << 17
MAGIC, MAGIC_BITS = np.uint64(0xC0ED0000), np.uint64(0xFFFF0000)


def mount_flags(test: Mask) -> Mask:
    """Applies a test to flags of mount without the magic number that old programs put in the upper half."""
    return lambda flags: test(np.where((flags & MAGIC_BITS) == MAGIC, flags & ~MAGIC_BITS, flags))


def _either(*tests: Mask) -> Mask:
    def either(values: Array) -> Array:
        found: Array = np.logical_or.reduce([test(values) for test in tests])
        return found

    return either


def _counted(of: str, first: int, names: str, table: str) -> dict[str, IgnoredRule]:
    """Rules for a call with a command and numbered arguments. `table`: number of arguments that each command uses."""
    commands: dict[int, list[str]] = {}
    for word in table.split():
        number, _, count = word.partition(":")
        commands.setdefault(int(count), []).append(number)
    found = {}
    for place, name in enumerate(names.split(), first):
        fewer = " ".join(number for count, numbers in commands.items() if count < place for number in numbers)
        found[name] = IgnoredRule(of, one_of(fewer))
    return found


PRCTL = """1:1 2:1 3:0 4:1 13:0 14:1 15:1 16:1 21:0 22:2 23:1 24:1 25:1 26:1 27:0 28:1 29:1 30:0 31:0 32:0 36:1 37:1
    40:1 0x59616d61:1"""
"""Options that do not require unused arguments to be 0, with the number of arguments that they use after the option.
"""
KEYCTL = """0:2 1:1 2:3 3:1 4:3 5:2 6:3 7:1 8:2 9:2 10:4 11:3 12:4 13:3 14:1 15:2 16:1 17:3 18:0 19:4 20:4 21:1 22:2
    23:4 29:3 30:4 31:2 32:3"""
GETS = "1 3 9 11 1025 1028 1032 1034"
"""F_GETFD F_GETFL F_GETOWN F_GETSIG F_GETLEASE F_CREATED_QUERY F_GETPIPE_SZ F_GET_SEALS"""
PLAIN_IOCTLS = """0x5450 0x5451 0x540c 0x540d 0x541d 0x5422 0x5427 0x5428 0x5437 0xc0045877 0xc0045878 0x4c01 0x1261
    0x125f"""
"""FIONCLEX FIOCLEX TIOCEXCL TIOCNXCL TIOCCONS TIOCNOTTY TIOCSBRK TIOCCBRK TIOCVHANGUP FIFREEZE FITHAW LOOP_CLR_FD
BLKFLSBUF BLKRRPART"""
FUTEX = {
    "val": command("6 7 8 13", 0x180),
    "utime": command("1 7 8 10", 0x180),
    "uaddr2": command("0 1 6 7 8 9 10 13", 0x180),
    "val3": command("0 1 3 6 7 8 11 13", 0x180),
}
"""Tests of the operation, without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME."""
PTRACE_ADDR = "0 7 8 9 12 13 14 15 16 17 18 19 24 31 32 33 0x4200 0x4201 0x4202 0x4203 0x4207 0x4208"
PTRACE_DATA = "0 8 16 0x4207 0x4208"
ANONYMOUS, GETEVENTS = 0x20, 1
THREAD_PARENT_TID, THREAD_CHILD_TID, THREAD_TLS = 0x101000, 0x1200000, 0x80000

_OF_MANY: tuple[tuple[str, dict[str, IgnoredRule]], ...] = (
    ("fcntl fcntl64", {"arg": IgnoredRule("cmd", one_of(GETS))}),
    ("prctl", _counted("option", 1, "arg2 arg3 arg4 arg5", PRCTL)),
    ("keyctl", _counted("option", 1, "arg2 arg3 arg4 arg5", KEYCTL)),
    ("ioctl", {"arg": IgnoredRule("request", one_of(PLAIN_IOCTLS))}),
    ("open openat", {"mode": IgnoredRule("flags", makes_nothing)}),
    ("mq_open", {"mode": IgnoredRule("oflag", without(CREATES))}),
    ("mmap mmap2", {name: IgnoredRule("flags", with_any(ANONYMOUS)) for name in ("fd", "off")}),
    ("mremap", {"new_addr": IgnoredRule("flags", without(2 | 4))}),
    ("futex", {name: IgnoredRule("op", test) for name, test in FUTEX.items()}),
    ("sendto", {"addrlen": IgnoredRule("dest_addr", is_zero)}),
    ("recvfrom", {"addrlen": IgnoredRule("src_addr", is_zero)}),
    ("accept accept4", {"addrlen": IgnoredRule("addr", is_zero)}),
    (
        "semctl",
        {
            "arg": IgnoredRule("cmd", command("0 11 12 14 15", 0x100)),
            "semnum": IgnoredRule("cmd", command("0 1 2 3 13 17 18 19", 0x100)),
        },
    ),
    ("shmctl", {"buf": IgnoredRule("cmd", command("0 11 12", 0x100))}),
    ("msgctl", {"buf": IgnoredRule("cmd", command("0", 0x100))}),
    (
        "ptrace",
        {
            "pid": IgnoredRule("request", one_of("0")),
            "addr": IgnoredRule("request", one_of(PTRACE_ADDR)),
            "data": IgnoredRule("request", one_of(PTRACE_DATA)),
        },
    ),
    (
        "clone",
        {
            "parent_tid": IgnoredRule("flags", without(THREAD_PARENT_TID), native=True),
            "child_tid": IgnoredRule("flags", without(THREAD_CHILD_TID), native=True),
            "tls": IgnoredRule("flags", without(THREAD_TLS), native=True),
        },
    ),
    ("waitid", {"upid": IgnoredRule("which", one_of("0"))}),
    ("epoll_ctl", {"event": IgnoredRule("op", one_of("2"))}),
    (
        "mount",
        {
            "source": IgnoredRule("mountflags", mount_flags(_either(with_any(REMOUNT), with_any(PROPAGATION, BIND)))),
            "filesystemtype": IgnoredRule("mountflags", mount_flags(with_any(REMOUNT | BIND | MOVE | PROPAGATION))),
            "data": IgnoredRule(
                "mountflags", mount_flags(_either(with_any(BIND), with_any(PROPAGATION | MOVE, REMOUNT)))
            ),
        },
    ),
    (
        "quotactl",
        {
            "id": IgnoredRule("cmd", command("0x800001 0x800003 0x800004 0x800005 0x800006", shift=8)),
            "addr": IgnoredRule("cmd", command("0x800001 0x800003", shift=8)),
        },
    ),
    ("reboot", {"arg": IgnoredRule("cmd", lambda values: (values & LOW) != 0xA1B2C3D4)}),
    ("clock_nanosleep", {"rmtp": IgnoredRule("flags", with_any(1))}),
    ("io_uring_enter", {name: IgnoredRule("flags", without(GETEVENTS)) for name in ("min_complete", "argp", "argsz")}),
    ("arch_prctl", {"arg2": IgnoredRule("option", one_of("0x1011"))}),
    ("membarrier", {"cpu_id": IgnoredRule("flags", without(1))}),
    ("sysfs", {"arg1": IgnoredRule("option", one_of("3")), "arg2": IgnoredRule("option", one_of("1 3"))}),
    (
        "syslog",
        {"buf": IgnoredRule("type", one_of("0 1 5 6 7 8 9 10")), "len": IgnoredRule("type", one_of("0 1 5 6 7 9 10"))},
    ),
    ("fanotify_mark", {name: IgnoredRule("flags", with_any(0x80)) for name in ("dirfd", "pathname")}),
    ("getcpu", {"unused": IgnoredRule("unused", always)}),
    ("getgroups setgroups", {"grouplist": IgnoredRule("gidsetsize", is_zero_32)}),
    ("poll ppoll", {"ufds": IgnoredRule("nfds", is_zero_32)}),
    ("ppoll epoll_pwait epoll_pwait2", {"sigsetsize": IgnoredRule("sigmask", is_zero)}),
    ("rt_sigprocmask", {"how": IgnoredRule("nset", is_zero)}),
    ("preadv pwritev preadv2 pwritev2", {"pos_h": IgnoredRule("pos_h", always, native=True)}),
    ("getxattr lgetxattr fgetxattr", {"value": IgnoredRule("size", is_zero)}),
    ("listxattr llistxattr flistxattr", {"list": IgnoredRule("size", is_zero)}),
    ("get_mempolicy", {"addr": IgnoredRule("flags", with_any(4))}),
)


@cache
def rules() -> dict[tuple[str, str], IgnoredRule]:
    """All rules by (event, argument)."""
    found: dict[tuple[str, str], IgnoredRule] = {}
    for names, of in _OF_MANY:
        for name in names.split():
            found |= {(name, argument): rule for argument, rule in of.items()}
    return found


class Ignored:
    """Finds the rows in which the kernel ignores one argument of an event."""

    def __init__(self, event: Event, index: int) -> None:
        self._rule = rules().get((event.name, event.arguments[index].name)) if event.is_syscall else None
        self._of = (event.index(self._rule.of) or 0) if self._rule else 0

    def __bool__(self) -> bool:
        """Whether the argument can be ignored at all."""
        return self._rule is not None

    def of(self, rows: Rows, chosen: Array) -> Array:
        """Mask of the chosen rows in which it is ignored."""
        if self._rule is None:
            return np.zeros(len(chosen), bool)
        values = argument(rows, self._of, chosen)
        compat = (rows.flags[chosen] & HEAD_COMPAT).astype(bool)
        found = self._rule.test(np.where(compat, values & LOW, values))
        return found & ~compat if self._rule.native else found
