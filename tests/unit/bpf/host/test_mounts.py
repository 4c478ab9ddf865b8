"""Mounted file systems: read from mountinfo, and told by an open file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headrace.bpf.host.mounts import Mount, file_device, kernel_device, mount_of, mounts, open_beneath


def test_the_mounts_of_this_process_have_the_devices_of_their_files() -> None:
    found = {mount.point: mount for mount in mounts()}
    assert found[b"/proc"].kind == "proc"
    assert found[b"/proc"].device == kernel_device(os.stat("/proc").st_dev) == file_device("/proc/version")


def test_an_open_file_tells_its_mount() -> None:
    fd = os.open("/proc/version", os.O_PATH)
    try:
        mount = mount_of(fd)
        assert mount is not None
        assert mount.kind == "proc"
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "fuseblk", "nfs4", "9p", "cifs", "ceph"])
def test_file_systems_that_others_serve_are_known_by_their_types(kind: str) -> None:
    assert Mount(1, 2, b"/", kind).is_served
    assert not Mount(1, 2, b"/", "ext4").is_served
    assert not Mount(1, 2, b"/", "overlay").is_served


def test_a_mount_is_above_what_is_below_it() -> None:
    mount = Mount(1, 2, b"/a/b", "fuse")
    assert [mount.is_above(path) for path in (b"/a/b", b"/a/b/c", b"/a/bc", b"/a")] == [True, True, False, False]
    assert Mount(1, 2, b"/", "fuse").is_above(b"/x")


def test_nothing_is_opened_by_way_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    root = os.open(tmp_path, os.O_PATH)
    try:
        os.close(open_beneath(root, b"/real"))
        for name, error in ((b"link", errno.ELOOP), (b"../x", errno.EXDEV), (b"missing", errno.ENOENT)):
            with pytest.raises(OSError, match=os.strerror(error)):
                open_beneath(root, name)
    finally:
        os.close(root)
