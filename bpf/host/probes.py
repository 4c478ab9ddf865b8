"""What this host has for programs, found out by looking or by trying."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

from headrace.bpf.host.beyond import SYMBOLS
from headrace.bpf.host.btf import Btf, UnknownMember

FIELD = re.compile(r"\tfield:[^;]*?(\w+)(?:\[\d*\])?;\toffset:(\d+);")
TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


def possible_cpus() -> int:
    """CPUs that this host can ever have; ids are below it."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.split(",")[-1].split("-")[-1]) + 1


FORMER = {"io_uring_submit_req": ("io_uring_submit_sqe", 3)}
"""What a tracepoint was before it was renamed, and how many parameters its handler had when its arguments were those
that programs take: 6.0 to 6.2 have `struct io_kiocb *` as the first one.
"""


def raw_tracepoint(btf: Btf, name: str) -> str:
    """The name by which this kernel has the tracepoint (its BTF names the handler's type); "" if it has not."""
    if btf.has_typedef(f"btf_trace_{name}"):
        return name
    former, parameters = FORMER.get(name, ("", 0))
    try:
        there = bool(former) and btf.parameters(f"__traceiter_{former}") == parameters
    except UnknownMember:
        return ""
    return former if there else ""


def has_raw_tracepoint(btf: Btf, name: str) -> bool:
    """Whether this kernel has the tracepoint, by whatever name."""
    return bool(raw_tracepoint(btf, name))


def tracefs() -> Path | None:
    """Where tracefs is mounted, or None. Others than root may not look into it: then what is mounted there tells."""
    for path in TRACEFS:
        try:
            if (path / "events").is_dir():
                return path
        except PermissionError:
            return path
    return None


def record_fields(tracepoint: Path) -> dict[str, int]:
    """Where each field stands in the record of a tracepoint, by its folder in tracefs."""
    text = (tracepoint / "format").read_text()
    return {found[1]: int(found[2]) for found in FIELD.finditer(text)}


def can_be_preempted(btf: Btf) -> bool:
    """Whether raw tracepoints run where another thread of the CPU can come between: tracepoints are guarded by SRCU
    then, and the kernel is one that preempts itself. Kernels before 6.13 have such an SRCU for idle CPUs alone; they
    lack what it is made of since 6.15.
    """
    guarded = btf.has_name("tracepoint_srcu_srcu_data") and btf.has_name("srcu_ctr")
    return guarded and "PREEMPT" in os.uname().version


def functions_named(names: Iterable[str], symbols: Path = SYMBOLS) -> dict[str, list[str | int]]:
    """Where functions of the kernel begin: their names, and the addresses of each if several have the name, as a static
    function has that is compiled for two kinds of programs.
    """
    found: dict[str, list[str | int]] = {name: [] for name in names}
    with contextlib.suppress(OSError), symbols.open() as lines:
        for line in lines:
            address, kind, name = line.split(maxsplit=3)[:3]
            if name in found and kind in "tT":
                found[name].append(int(address, 16))
    return {name: where if len(where) > 1 and all(where) else [name] for name, where in found.items()}


def lift_memory_limit() -> None:
    """Kernels before 5.11 count maps and programs as locked memory, of which a process may have 64 KiB."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
