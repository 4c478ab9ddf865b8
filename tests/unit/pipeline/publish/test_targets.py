"""Files of outputs: earlier lines stay, nobody else decides where they go, and opening never waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.pipeline.publish.targets import Planted, open_file

SOMEBODY = 12345


def put(path: str, text: bytes, truncate: bool = False) -> None:
    fd = open_file(path, truncate)
    os.write(fd, text)
    os.close(fd)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that everybody can write."""
    tmp_path.chmod(0o1777)
    return tmp_path


def test_a_file_is_appended_to_unless_truncate_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "out"
    put(str(path), b"1\n")
    put(str(path), b"2\n")
    assert path.read_bytes() == b"1\n2\n"
    assert path.stat().st_mode & 0o777 == 0o640
    put(str(path), b"3\n", truncate=True)
    assert path.read_bytes() == b"3\n"


def test_writing_goes_on_at_the_start_after_somebody_truncated(tmp_path: Path) -> None:
    path = tmp_path / "out"
    fd = open_file(str(path))
    os.write(fd, b"before\n")
    os.truncate(path, 0)
    os.write(fd, b"after\n")
    os.close(fd)
    assert path.read_bytes() == b"after\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
@pytest.mark.parametrize("place", ["link", "file", "dir/out"])
def test_what_somebody_planted_in_a_shared_directory_is_refused(shared: Path, place: str) -> None:
    kept = shared / "kept"
    kept.mkdir()
    (kept / "out").write_text("kept")
    (shared / "link").symlink_to(kept / "out")
    (shared / "dir").symlink_to(kept)
    (shared / "file").write_text("")
    for name in ("link", "dir", "file"):
        os.chown(shared / name, SOMEBODY, SOMEBODY, follow_symlinks=False)
    with pytest.raises(Planted, match="uid 12345"):
        put(str(shared / place), b"x", truncate=True)
    assert (kept / "out").read_text() == "kept"


def test_links_of_ones_own_are_followed(shared: Path) -> None:
    (shared / "real").mkdir()
    (shared / "dir").symlink_to("real")
    (shared / "real" / "out").symlink_to("../file")
    put(str(shared / "dir" / "out"), b"x")
    assert (shared / "file").read_bytes() == b"x"


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        open_file(str(tmp_path / "a"))


def test_a_descriptor_of_ones_own_is_written_by_its_path() -> None:
    read, write = os.pipe()
    put(f"/dev/fd/{write}", b"x")
    assert os.read(read, 9) == b"x"
    os.close(read)
    os.close(write)


def test_a_fifo_that_nobody_reads_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="nobody reads this FIFO"):
        open_file(str(tmp_path / "fifo"))
