"""Control groups: which hierarchy tells containers apart on this host, and the groups that exist at the start.

Runs in the supervisor. The names of groups are read by the programs alone (bpf/c/containers.h), the names of
those that are there before headrace as well: each is shown to the program `enter_cgroup`, from the root down.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids", "devices", "cpu", "freezer", "blkio", "cpuset")
"""Of version 1, in order of preference: runtimes make a group for a container in each that is mounted."""
SUBSYSTEMS = {"blkio": "io"}
"""Controllers whose name in `enum cgroup_subsys_id` is another."""


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy. `controller` is None for version 2; `id` is the number that the kernel gives it."""

    path: Path
    controller: str | None
    id: int

    @property
    def text(self) -> str:
        """For `headrace check`."""
        return f"version 2 at {self.path}" if self.controller is None else f"{self.controller} at {self.path}"

    @property
    def enumerator(self) -> str:
        """Name of the controller in `enum cgroup_subsys_id`."""
        assert self.controller is not None
        return f"{SUBSYSTEMS.get(self.controller, self.controller)}_cgrp_id"


def hierarchy(mounts: Path = Path("/proc/self/mounts"), numbers: Path = Path("/proc/self/cgroup")) -> Hierarchy | None:
    """The hierarchy by which containers are told apart; None if no control group file system is mounted."""
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    for line in mounts.read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        path = Path(where.encode().decode("unicode_escape"))
        if kind == "cgroup2" and unified is None:
            unified = path
        elif kind == "cgroup":
            for option in options.split(","):
                controllers.setdefault(option, path)
    ids: dict[str, int] = {}
    for line in numbers.read_text().splitlines():
        number, names, _ = line.split(":", 2)
        ids |= {name: int(number) for name in names.split(",")}
    for name in CONTROLLERS:
        if name in controllers and name in ids:
            return Hierarchy(controllers[name], name, ids[name])
    return None if unified is None else Hierarchy(unified, None, 0)


def own(found: Hierarchy, numbers: Path = Path("/proc/self/cgroup")) -> Path:
    """The group of this process."""
    for line in numbers.read_text().splitlines():
        number, _, path = line.split(":", 2)
        if int(number) == found.id:
            return found.path / path.lstrip("/")
    return found.path


def walk(root: Path) -> Iterator[tuple[Path, int, int]]:
    """(path, id, id of the group above) of every group below `root`, each after the one above it.

    Groups that go away meanwhile are left out.
    """
    pending = [(root, os.stat(root).st_ino)]
    while pending:
        above, above_id = pending.pop()
        try:
            with os.scandir(above) as entries:
                # the inode number of a group's directory is its id (kernfs_ino(), on 64-bit hosts)
                found = [
                    (above / entry.name, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            continue
        for path, number in found:
            yield path, number, above_id
            pending.append((path, number))


def enter_existing(root: Path, enter: Callable[[tuple[int, ...]], object], forget: Callable[[int], object]) -> int:
    """Show every group to the program that `enter` runs with arguments; how many there were.

    One that is gone by then may have been entered after its end was seen: it is forgotten again.
    """
    count = 0
    for path, number, above_id in walk(root):
        try:
            made_ns = path.stat().st_ctime_ns
        except OSError:
            continue
        # the program reads both names from this process's memory
        texts = [ctypes.create_string_buffer(os.fsencode(text)) for text in (path.name, path.parent.name)]
        enter((number, above_id, *(ctypes.addressof(text) for text in texts), made_ns))
        if path.exists():
            count += 1
        else:
            forget(number)
    return count
