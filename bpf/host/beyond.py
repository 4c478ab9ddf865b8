"""System calls of the running kernel that the table lacks, found by the names of its functions (/proc/kallsyms).

Every system call is a function `__x64_sys_NAME` (SYSCALL_DEFINE in the kernel's sources). Most NAMEs are in the table.
The others are calls under other names, calls of 32-bit tables, and calls of other machines, which return ENOSYS here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

SYMBOLS = Path("/proc/kallsyms")
FUNCTION = re.compile(r" __(?:x64|arm64)_sys_(\w+)$")
HALVES = re.compile(r"\w*time32|\w+16|(old|ia32_)\w+")
OTHERS = frozenset(
    """gethostname llseek mmap_pgoff newfstat newfstatat newlstat
    newstat newuname ni_syscall pciconfig_iobase pciconfig_read pciconfig_write recv rtas s390_ipc s390_pci_mmio_read
    s390_pci_mmio_write send sigaction sigsuspend spu_create spu_run subpage_prot sync_file_range2 clone2
    arm_fadvise64_64 s390_guarded_storage s390_runtime_instr s390_sthyi swapcontext switch_endian debug_setcontext
    sigreturn""".split()
)
"""Calls whose function name differs from the table, and calls of other machines."""


def unnamed(names: Collection[str], symbols: Iterable[str]) -> list[str]:
    """Calls of a kernel with these symbols (lines of kallsyms) that are missing in a table with these names."""
    found = {match[1] for line in symbols if (match := FUNCTION.search(line.rstrip()))}
    return sorted(name for name in found - set(names) - OTHERS if not HALVES.fullmatch(name))
