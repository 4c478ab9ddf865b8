"""Features of this host that programs need, detected by inspection or by trial."""

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
    """Number of CPUs that this host can ever have. CPU ids are below it."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.split(",")[-1].split("-")[-1]) + 1


FORMER = {"io_uring_submit_req": ("io_uring_submit_sqe", 3)}
"""Former name of a renamed tracepoint, and the number of its handler's parameters for which the arguments are those
that programs expect: 6.0 to 6.2 have `struct io_kiocb *` as the first one.
"""


def raw_tracepoint(btf: Btf, name: str) -> str:
    """The name of the tracepoint in this kernel (its BTF has a type for the handler); "" if it does not exist."""
    if btf.has_typedef(f"btf_trace_{name}"):
        return name
    former, parameters = FORMER.get(name, ("", 0))
    try:
        there = bool(former) and btf.parameters(f"__traceiter_{former}") == parameters
    except UnknownMember:
        return ""
    return former if there else ""


def has_raw_tracepoint(btf: Btf, name: str) -> bool:
    """Whether this kernel has the tracepoint, under either name."""
    return bool(raw_tracepoint(btf, name))


def tracefs() -> Path | None:
    """Mount point of tracefs, or None. Only root may read it; a folder that denies access counts as mounted."""
    for path in TRACEFS:
        try:
            if (path / "events").is_dir():
                return path
        except PermissionError:
            return path
    return None


def record_fields(tracepoint: Path) -> dict[str, int]:
    """Offset of each field in the record of a tracepoint, which is given by its folder in tracefs."""
    text = (tracepoint / "format").read_text()
    return {found[1]: int(found[2]) for found in FIELD.finditer(text)}


def can_be_preempted(btf: Btf) -> bool:
    """Whether programs at raw tracepoints can be preempted: tracepoints are guarded by SRCU and the kernel is
    preemptible. Kernels before 6.13 use this SRCU only for idle CPUs. They are recognized by the lack of `srcu_ctr`,
    which exists since 6.15.
    """
    guarded = btf.has_name("tracepoint_srcu_srcu_data") and btf.has_name("srcu_ctr")
    return guarded and "PREEMPT" in os.uname().version


def functions_named(names: Iterable[str], symbols: Path = SYMBOLS) -> dict[str, list[str | int]]:
    """Locations of kernel functions: their name, or all addresses if several functions have it (a static function that
    is compiled for two kinds of programs).
    """
    found: dict[str, list[str | int]] = {name: [] for name in names}
    with contextlib.suppress(OSError), symbols.open() as lines:
        for line in lines:
            address, kind, name = line.split(maxsplit=3)[:3]
            if name in found and kind in "tT":
                found[name].append(int(address, 16))
    return {name: where if len(where) > 1 and all(where) else [name] for name, where in found.items()}


def lift_memory_limit() -> None:
    """Remove the limit of locked memory (default 64 KiB): kernels before 5.11 count maps and programs."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
