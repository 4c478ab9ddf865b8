"""Enters running processes and their descendants in the maps of groups at the start. Runs in the supervisor."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from headrace.bpf.load.loader import Programs
from headrace.bpf.programs.scope import Scope, policy_trees

PROC = Path("/proc")


def seed_tree(programs: Programs, roots: Sequence[int], flags: int, proc: Path = PROC) -> int:
    """Enter `roots` and their running descendants in `groups`. Returns how many were entered."""
    return _seed(
        lambda parents: {pid for pid in parents if _descends(pid, parents, frozenset(roots))},
        programs.groups,
        lambda pid: programs.set_group(pid, flags),
        programs.forget_group,
        proc,
    )


def seed_policies(programs: Programs, span: Scope, proc: Path = PROC) -> None:
    """Enter the trees that the scopes of policies name, and their running descendants, in `policy_groups`."""
    named = list(policy_trees(span))
    masks: dict[int, tuple[int, int]] = {}

    def members(parents: dict[int, int]) -> set[int]:
        for pid in parents:
            found = [0, 0]
            for root, bit, excluded in named:
                if _descends(pid, parents, frozenset((root,))):
                    found[excluded] |= 1 << bit
            masks[pid] = found[0], found[1]
        return {pid for pid, found in masks.items() if any(found)}

    if named:
        _seed(
            members,
            programs.policies.groups,
            lambda pid: programs.policies.enter(pid, *masks[pid]),
            programs.policies.forget,
            proc,
        )


def _seed(
    members: Callable[[dict[int, int]], set[int]],
    present: Callable[[], Collection[int]],
    enter: Callable[[int], None],
    forget: Callable[[int], None],
    proc: Path,
) -> int:
    """Enter what `members` finds in the table of parents, in passes until nothing is new. Returns how many.

    Call this after attaching: programs then enter new children themselves, so a pass that finds nothing new is
    complete.
    """
    known: set[int] = set()
    seeded = 0
    while True:
        new = members(_parents(proc)) - known
        if not new:
            return seeded
        for pid in new - set(present()):
            enter(pid)
            if (proc / str(pid)).exists():
                seeded += 1
            else:
                forget(pid)
        known |= new


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
