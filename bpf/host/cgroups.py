"""Control groups: the hierarchy that identifies containers on this host, and the groups that exist at the start.

Runs in the supervisor. Only BPF programs interpret the names of groups (bpf/c/containers.h). Each existing group is
passed to the program `enter_cgroup`, from the root down.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "pids", "devices", "cpu", "freezer", "blkio", "cpuset")
"""Controllers of version 1 in order of preference. Runtimes create a container's group in each mounted one."""
SUBSYSTEMS = {"blkio": "io"}
"""Controllers with a different name in `enum cgroup_subsys_id`."""


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy. `controller` is None for version 2; `id` is the kernel's hierarchy number."""

    path: Path
    controller: str | None
    id: int

    @property
    def text(self) -> str:
        """Description for `headrace check`."""
        return f"version 2 at {self.path}" if self.controller is None else f"{self.controller} at {self.path}"

    @property
    def enumerator(self) -> str:
        """Name of the controller in `enum cgroup_subsys_id`."""
        assert self.controller is not None
        return f"{SUBSYSTEMS.get(self.controller, self.controller)}_cgrp_id"


def hierarchy(mounts: Path = Path("/proc/self/mounts"), numbers: Path = Path("/proc/self/cgroup")) -> Hierarchy | None:
    """The hierarchy that identifies containers; None if no control group file system is mounted."""
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
    """The control group of this process."""
    for line in numbers.read_text().splitlines():
        number, _, path = line.split(":", 2)
        if int(number) == found.id:
            return found.path / path.lstrip("/")
    return found.path


def walk(root: Path) -> Iterator[tuple[Path, int, int]]:
    """(path, id, id of the parent group) of every group below `root`, parents first.

    Groups that are removed during the walk are omitted.
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
    """Pass every group to the program that `enter` runs with arguments. Returns how many groups there were.

    A group that no longer exists afterwards may have been entered after its removal was seen, so it is forgotten.
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
