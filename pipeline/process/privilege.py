"""Dropping privileges. Every process except the supervisor does so before it reads any traced data.

stages   a dedicated unprivileged user and group, only the capabilities listed in SECURITY.md, no supplementary groups,
         no_new_privs, no core dumps; then a system call filter (confine.py)
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
"""Capabilities that the supervisor keeps once all programs are loaded: it reopens outputs, and starts and ends stages
with the capabilities that each stage keeps."""
NEEDED = 1 << CAP_CHOWN | 1 << CAP_SETUID | 1 << CAP_SETGID
USER, FIXED_ID = "headrace", 64723
"""Stages run as this system user, or with this user and group id if the user does not exist."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def stage_ids() -> tuple[int, int] | None:
    """(uid, gid) of the stages. None if this process may not change ids; stages then keep those of this process."""
    if os.geteuid() or permitted() & NEEDED != NEEDED:
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        # do not use NSS: it may query a service that hangs
        for line in Path("/etc/passwd").read_text(errors="replace").split("\n"):
            fields = line.split(":")
            if fields[0] == USER and int(fields[2]):
                return int(fields[2]), int(fields[3])
    return FIXED_ID, FIXED_ID


def close_all_but(*kept: int) -> None:
    """Close every descriptor except 0 to 2 and `kept`.

    An inherited write end would keep other processes from seeing the end of a pipe.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def drop(*kept: int) -> None:
    """Irreversibly become an unprivileged user that keeps only the capabilities `kept`, if this process has them.

    Open descriptors and mappings stay usable. Raises OSError if no_new_privs or the capabilities cannot be set.
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
    """Keep only these capabilities, if this process has them. Raises OSError if capset() fails."""
    libc = _libc()
    header = _Header(CAPABILITY_VERSION_3, 0)
    kept = sum(1 << capability for capability in capabilities) & permitted()
    # effective, permitted, inheritable of capabilities 0 to 31; then of capabilities 32 to 63
    low, high = kept & 0xFFFFFFFF, kept >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")


def descriptors_need_right(lookup: Callable[[], object]) -> bool:
    """Whether operations on an already open map or program need CAP_BPF.

    They do before Linux 5.19 if unprivileged BPF is disabled. A child without capabilities calls `lookup`, which reads
    from a map.
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
    """Effective capabilities of this process as a bit mask."""
    return _capabilities("CapEff:")


def permitted() -> int:
    """Permitted capabilities of this process as a bit mask."""
    return _capabilities("CapPrm:")


def _capabilities(which: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(which):
                return int(line.split()[1], 16)
    return 0


def die_with_parent() -> None:
    """Have the kernel kill this process when the supervisor ends for any reason.

    Changing the user id clears this setting: call it again afterwards.
    """
    parent = os.getppid()
    _libc().prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
