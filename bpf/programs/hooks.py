"""Programs attached to kernel functions by kprobes (bpf/c/hooks.c, bpf/c/checks.c)."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.bpf.host.btf import Btf
from headrace.bpf.tables.catalogue import CHECKS_ALL, Event, catalogue


def check_defines(hooked: Iterable[str], checks: str) -> dict[str, int]:
    """Constants of bpf/c/checks.c: CHECK_x if the check of x is probed, BY_CHECK_x whether no call reports it too."""
    names = {program.removeprefix("hook_") for program in hooked}
    known = {event.name for event in catalogue().by_name.values() if event.is_check}
    found = {f"BY_CHECK_{name}": int(checks == CHECKS_ALL and name in names) for name in known}
    return found | {f"CHECK_{name}": 1 for name in known & names}


def hooked(events: Iterable[Event], btf: Btf) -> dict[str, tuple[str, int]]:
    """For each hook program: the first candidate function that exists in this kernel, and its index in the list."""
    found = {}
    for event in events:
        for number, function in enumerate(event.functions):
            if btf.has_name(function):
                found[f"hook_{event.name}"] = function, number
                break
    return found
