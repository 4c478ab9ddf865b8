"""What a kernel has beyond the table of system calls."""

from __future__ import annotations

from headrace.bpf.host.beyond import unnamed
from headrace.bpf.tables.catalogue import catalogue

NAMES = {event.name for event in catalogue().by_id.values()}


def test_a_call_without_a_name_is_told() -> None:
    lines = [
        "ffffffff81 T __x64_sys_openat\n",
        "0000 T __x64_sys_newcall\n",
        "0 t __ia32_sys_other\n",
        "0 T __x64_sys_a1b2",
    ]
    assert unnamed(NAMES, lines) == ["a1b2", "newcall"]


def test_calls_by_other_names_and_of_other_machines_are_none() -> None:
    names = "newstat chown16 clock_adjtime32 ia32_pread64 spu_run oldumount old_readdir time32 ni_syscall utimes_time32"
    assert unnamed(NAMES, [f"0 T __x64_sys_{name}" for name in names.split()]) == []
