"""Giving up privilege. Every process but the supervisor does it before it looks at a traced byte.

stages   an unprivileged user and group of their own, no capability in any set but what the table in SECURITY.md
         says, no supplementary groups, no_new_privs, no core dumps; then a filter of system calls (confine.py)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 8, 23, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 0, 1, 2, 5, 6, 7, 8
CAP_SYS_PTRACE, CAP_SYS_NICE, CAP_BPF = 19, 23, 39
SUPERVISOR = (
    *(CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP),
    *(CAP_SYS_PTRACE, CAP_SYS_NICE),
)
"""What it may still do once all is loaded: open outputs again, and start and end stages, each with what it keeps."""
NEEDED = 1 << CAP_CHOWN | 1 << CAP_SETUID | 1 << CAP_SETGID
USER, FIXED_ID = "headrace", 64723
"""Stages run as this system user, or with this number where there is none of that name."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def stage_ids() -> tuple[int, int] | None:
    """(user, group) of stages; None where this process may not make them so, and they stay what it is."""
    if os.geteuid() or permitted() & NEEDED != NEEDED:
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        # not by NSS, which may ask a service that hangs
        for line in Path("/etc/passwd").read_text(errors="replace").split("\n"):
            fields = line.split(":")
            if fields[0] == USER and int(fields[2]):
                return int(fields[2]), int(fields[3])
    return FIXED_ID, FIXED_ID


def close_all_but(*kept: int) -> None:
    """Close every descriptor but the standard ones and these: what others wait for the end of is not held open."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def drop(*kept: int) -> None:
    """Become an unprivileged user with these capabilities alone, as far as this process has them, for good. Descriptors
    and mappings that are open stay usable.
    """
    libc, had, ids = _libc(), effective(), stage_ids()
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    capability = 0
    while had >> CAP_SETPCAP & 1 and libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1
    if ids is not None:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(ids[1], ids[1], ids[1])
        os.setresuid(ids[0], ids[0], ids[0])
        libc.prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    keep(*kept)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep(*capabilities: int) -> None:
    """Have these capabilities alone, as far as this process has them."""
    libc = _libc()
    header = _Header(CAPABILITY_VERSION_3, 0)
    kept = sum(1 << capability for capability in capabilities) & permitted()
    # effective, permitted, inheritable; then the same of capabilities from 32 on
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")


def descriptors_need_right(lookup: Callable[[], object]) -> bool:
    """Whether even what is done with an open map or program needs CAP_BPF: so it is before 5.19, where the use without
    privilege is switched off. `lookup` looks into a map: it is tried by a child without capabilities.
    """
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            keep()
            lookup()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] != 0


def effective() -> int:
    """Effective capabilities of this process, as a bit mask."""
    return _capabilities("CapEff:")


def permitted() -> int:
    """The same of those that it may make effective."""
    return _capabilities("CapPrm:")


def _capabilities(which: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(which):
                return int(line.split()[1], 16)
    return 0


def die_with_parent() -> None:
    """Be killed when the supervisor ends, whatever way it ends. Who becomes another user has to say so again."""
    parent = os.getppid()
    _libc().prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
