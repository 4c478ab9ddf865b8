"""How programs find the objects of calls, and the programs that are reached by tail calls."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.bpf import layout
from headrace.bpf.tables.events import CALLS


@dataclass(frozen=True)
class Look:
    """How a program of bpf/c/objects.h finds the objects of one call: argument numbers, or ARG_RESULT."""

    program: str
    call: str
    variant: str = ""
    fd: int = layout.ARG_NONE
    path: int = layout.ARG_NONE
    dir: int = layout.ARG_NONE
    path2: int = layout.ARG_NONE
    dir2: int = layout.ARG_NONE
    flags: int = layout.ARG_NONE


def _looks() -> tuple[Look, ...]:
    found = []
    for line in CALLS.split("\n"):
        if line:
            program, call, *rest = line.split()
            words = dict(word.split("=") for word in rest)
            variant = words.pop("variant", "")
            numbers = {k: layout.ARG_RESULT if v == "result" else int(v) for k, v in words.items()}
            found.append(Look(program, call, variant, **numbers))
    return tuple(found)


LOOKS = _looks()
STEPS = {
    "write": ("write_event",),
    "mmap": ("mmap_alert", "mmap_shared", "mmap_file", "mmap_object"),
    "mprotect": ("mprotect_file",),
    "inode_rename": ("rename_back",),
    "bprm_refused": ("execute_failed",),
}
"""Programs that continue another one. Each emits at most one event."""
WALK, RESOLVE, MULTIPLEXED = "walk", "resolve", "multiplexed"
ALWAYS = ("pieces", "exec", "tell", "sys_exit", "exec_call", "detailed_call")
"""Programs that every run has."""
PROGRAMS = (
    WALK,
    *dict.fromkeys(look.program for look in LOOKS),
    *(s for steps in STEPS.values() for s in steps),
    RESOLVE,
    *ALWAYS,
)
"""Programs that are reached by tail calls, by number. In a call's row, 0 (the walk) means that there is none."""
VARIANTS = ("", "creat", "openat2", "pair", "fcntl", "vector", "move_mount", "pages")
"""Indexed by `enum variant` of bpf/c/layout.h."""
