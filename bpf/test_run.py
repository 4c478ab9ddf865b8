"""Runs a loaded program once, with BPF_PROG_TEST_RUN.

This needs the descriptor of the program but no privilege (kernel: bpf_prog_test_run_raw_tp, since 5.10). A run takes
11 to 22 µs.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from headrace.bpf.syscall import PROG_TEST_RUN, call

BPF_F_TEST_RUN_ON_CPU = 1
ATTR = struct.Struct("<IIIIQQIIIIQQIIII")
"""union bpf_attr.test: prog_fd, retval, sizes and pointers, repeat, duration, ctx, flags, cpu, batch."""
MAX_ARGUMENTS = 12
"""MAX_BPF_FUNC_ARGS of include/linux/bpf.h."""


class TestRun:
    """One raw tracepoint program that this process can run."""

    def __init__(self, program_fd: int) -> None:
        self._fd = program_fd

    def __call__(self, arguments: Sequence[int] = (), cpu: int | None = None) -> bool:
        """Run with these arguments (u64), on `cpu` or the current CPU. False if the kernel refuses (CPU offline)."""
        context = struct.pack(f"<{len(arguments)}Q", *arguments)
        buffer = ctypes.create_string_buffer(context, len(context)) if context else None
        address = ctypes.addressof(buffer) if buffer else 0
        where = (0, 0) if cpu is None else (BPF_F_TEST_RUN_ON_CPU, cpu)
        attr = ATTR.pack(self._fd, 0, 0, 0, 0, 0, 0, 0, len(context), 0, address, 0, *where, 0, 0)
        try:
            return call(PROG_TEST_RUN, attr) == 0
        except OSError:
            return False
