"""Running the flush program on a chosen CPU, by BPF_PROG_TEST_RUN.

It needs the program's descriptor and no privilege (kernel: bpf_prog_test_run_raw_tp, since 5.10). 11 to
22 µs a call on the development machines.
"""

from __future__ import annotations

import ctypes
import os
import struct

BPF_PROG_TEST_RUN = 10
BPF_F_TEST_RUN_ON_CPU = 1
SYS_BPF = {"x86_64": 321, "aarch64": 280}
"""union bpf_attr.test: prog_fd, retval, sizes and pointers, repeat, duration, ctx, flags, cpu, batch."""
ATTR = struct.Struct("<IIIIQQIIIIQQIIII")


class Flusher:
    """Sends what waits in the frames of one CPU."""

    def __init__(self, program_fd: int) -> None:
        self._fd = program_fd
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = SYS_BPF[os.uname().machine]

    def flush(self, cpu: int) -> bool:
        """Run on `cpu`; False if the kernel refused (a CPU that is offline)."""
        attr = ATTR.pack(self._fd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, BPF_F_TEST_RUN_ON_CPU, cpu, 0, 0)
        return int(self._libc.syscall(self._number, BPF_PROG_TEST_RUN, attr, len(attr))) == 0
