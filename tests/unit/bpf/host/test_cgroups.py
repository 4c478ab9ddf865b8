"""Which hierarchy of control groups tells containers apart, and the walk over those that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bpf.host import cgroups

V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
UNIFIED = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
MEMORY = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
CPU = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
SYSTEMD = "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
NUMBERS = "9:name=systemd:/\n4:memory:/a:b\n1:cpu,cpuacct:/\n0::/\n"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (V2, (Path("/sys/fs/cgroup"), None, 0)),
        # systemd's own hierarchy has no controller: it tells nothing of containers
        (SYSTEMD + UNIFIED, (Path("/sys/fs/cgroup/unified"), None, 0)),
        (CPU + MEMORY + UNIFIED, (Path("/sys/fs/cgroup/memory"), "memory", 4)),
        (CPU + SYSTEMD, (Path("/sys/fs/cgroup/cpu,cpuacct"), "cpu", 1)),
        ("cgroup /mnt/my\\040groups cgroup rw,memory 0 0\n", (Path("/mnt/my groups"), "memory", 4)),
    ],
)
def test_the_hierarchy_is_version_2_or_that_of_one_controller(
    mounts: str, expected: tuple[Path, str | None, int], tmp_path: Path
) -> None:
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n" + mounts)
    (tmp_path / "cgroup").write_text(NUMBERS)
    found = cgroups.hierarchy(tmp_path / "mounts", tmp_path / "cgroup")
    assert found is not None
    assert (found.path, found.controller, found.id) == expected


def test_a_host_without_control_groups_has_none(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    (tmp_path / "cgroup").write_text("")
    assert cgroups.hierarchy(tmp_path / "mounts", tmp_path / "cgroup") is None


def test_blkio_is_called_io_in_the_kernels_enum() -> None:
    assert cgroups.Hierarchy(Path("/x"), "blkio", 7).enumerator == "io_cgrp_id"
    assert cgroups.Hierarchy(Path("/x"), "memory", 7).enumerator == "memory_cgrp_id"


def test_groups_are_walked_from_the_root_down(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    (tmp_path / "cgroup.procs").touch()
    found = list(cgroups.walk(tmp_path))
    assert {path: (number, above) for path, number, above in found} == {
        path: (path.stat().st_ino, path.parent.stat().st_ino)
        for path in (tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c", tmp_path / "d")
    }
    order = [path for path, _, _ in found]
    assert order.index(tmp_path / "a") < order.index(tmp_path / "a/b") < order.index(tmp_path / "a/b/c")


def test_a_group_that_went_away_meanwhile_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "stays").mkdir()
    (tmp_path / "goes").mkdir()
    gone = (tmp_path / "goes").stat().st_ino
    forgotten: list[int] = []

    def enter(arguments: tuple[int, ...]) -> None:
        if arguments[0] == gone:
            (tmp_path / "goes").rmdir()

    assert cgroups.enter_existing(tmp_path, enter, forgotten.append) == 1
    assert forgotten == [gone]
