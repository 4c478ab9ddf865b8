"""Enters running processes and their descendants in the map `groups` at the start. Runs in the supervisor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from headrace.bpf.load.loader import Programs


def seed_tree(programs: Programs, roots: Sequence[int], flags: int, proc: Path = Path("/proc")) -> int:
    """Enter `roots` and their running descendants, in passes until nothing is new. Returns how many were entered.

    Call this after attaching: programs then enter new children themselves, so a pass that finds nothing new is
    complete.
    """
    known: set[int] = set()
    seeded = 0
    while True:
        parents = _parents(proc)
        members = {pid for pid in parents if _descends(pid, parents, frozenset(roots))} - known
        if not members:
            return seeded
        present = programs.groups()
        for pid in members - present.keys():
            programs.set_group(pid, flags)
            if (proc / str(pid)).exists():
                seeded += 1
            else:
                programs.forget_group(pid)
        known |= members


def _parents(proc: Path) -> dict[int, int]:
    found = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                stat = (proc / entry / "stat").read_bytes()
            except OSError:
                continue
            found[int(entry)] = int(stat[stat.rindex(b")") + 2 :].split()[1])
    return found


def _descends(pid: int, parents: dict[int, int], roots: frozenset[int]) -> bool:
    seen = set()
    while pid in parents and pid not in seen:
        if pid in roots:
            return True
        seen.add(pid)
        pid = parents[pid]
    return False
