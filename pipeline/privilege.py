"""Giving up privilege. Every process but the supervisor does it before it looks at a traced byte."""

from __future__ import annotations

import ctypes
import os

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE = 2, 19


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    """Give up all capabilities for good. Descriptors and mappings that are open stay usable."""
    keep()


def keep(*capabilities: int) -> None:
    """Give up all capabilities but these, as far as this process has them, for good."""
    libc = _libc()
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    header = _Header(CAPABILITY_VERSION_3, 0)
    kept = sum(1 << capability for capability in capabilities) & effective()
    # effective, permitted, inheritable; then the same of capabilities from 32 on
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    if libc.capset(ctypes.byref(header), sets):
        raise OSError(ctypes.get_errno(), "capset")


def effective() -> int:
    """Effective capabilities of this process, as a bit mask."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def die_with_parent() -> None:
    """Be killed when the supervisor ends, whatever way it ends."""
    parent = os.getppid()
    _libc().prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
