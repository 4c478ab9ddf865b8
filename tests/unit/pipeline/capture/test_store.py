"""The directory of artifacts: contents once, a quota, names that nothing traced chooses."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from headrace.pipeline.capture.sources import pieces
from headrace.pipeline.capture.store import ArtifactStore, NoRoomError, StoreError, named, open_directory


def store(folder: Path, quota: int = 1 << 20) -> ArtifactStore:
    return ArtifactStore(open_directory(str(folder), None), quota)


def always() -> bool:
    return True


def test_a_content_is_stored_once_under_its_digest(tmp_path: Path) -> None:
    kept = store(tmp_path / "a")
    digest = hashlib.sha256(b"content").hexdigest()
    assert kept.keep("exec", pieces(b"content"), always) == (digest, 7, True)
    assert kept.keep("exec", pieces(b"content"), always) == (digest, 7, False)
    assert (tmp_path / "a" / "exec" / digest).read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path / "a")) == ["bpf", "exec", "index.jsonl", "mem", "module", "write"]
    assert kept.used_bytes == 7


def test_the_quota_covers_what_earlier_runs_left_and_the_index(tmp_path: Path) -> None:
    kept = store(tmp_path / "a", 100)
    kept.keep("exec", pieces(b"x" * 60), always)
    again = store(tmp_path / "a", 100)
    assert again.used_bytes == 60
    with pytest.raises(NoRoomError):
        again.keep("mem", pieces(b"y" * 41), always)
    assert os.listdir(tmp_path / "a" / "mem") == []
    assert again.keep("mem", pieces(b"y" * 40), always)[2]
    assert not again.note({"path": "x" * 100})
    assert (tmp_path / "a" / "index.jsonl").read_bytes() == b""


def test_a_file_that_changes_meanwhile_is_not_stored(tmp_path: Path) -> None:
    kept = store(tmp_path / "a")
    with pytest.raises(ValueError, match="changed"):
        kept.keep("exec", pieces(b"content"), lambda: False)
    assert kept.used_bytes == 0
    assert [name for name in os.listdir(tmp_path / "a") if name.startswith(".")] == []


def test_partial_files_of_a_run_that_died_are_removed(tmp_path: Path) -> None:
    store(tmp_path / "a")
    (tmp_path / "a" / ".partial-7").write_bytes(b"half")
    store(tmp_path / "a")
    assert not (tmp_path / "a" / ".partial-7").exists()


def test_the_index_has_a_line_for_each(tmp_path: Path) -> None:
    kept = store(tmp_path / "a")
    assert kept.note({"kind": "write", **named(b"/tmp/\xff\n")})
    (line,) = (tmp_path / "a" / "index.jsonl").read_bytes().splitlines()
    assert json.loads(line) == {"kind": "write", "path": "/tmp/\ufffd\n", "pathBase64": "L3RtcC//Cg=="}


def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StoreError, match="others can write to it"):
        store(folder)
    folder.chmod(0o700)
    (folder / "exec").symlink_to("/tmp")
    with pytest.raises(StoreError, match="capture directory"):
        store(folder)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreError, match="Not a directory"):
        store(tmp_path / "a")


def test_lines_about_what_is_not_stored_leave_room_for_the_others(tmp_path: Path) -> None:
    kept = store(tmp_path / "a", 16 * 100)
    while kept.note({"reason": "gone"}, is_stored=False):
        pass
    assert kept.note({"sha256": "x"})
