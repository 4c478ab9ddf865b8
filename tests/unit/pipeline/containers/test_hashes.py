"""The table of digests, and what a file must be to be believed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.pipeline.containers import hashes
from headrace.pipeline.containers.hashes import (
    CHANGED,
    ENTRIES,
    GONE,
    KNOWN,
    MAX_PATH_BYTES,
    NONE,
    PROBES,
    TOO_SLOW,
    Hasher,
    HashRequest,
    HashTable,
    Key,
    digest_of,
)
from headrace.pipeline.containers.hashes import requests as read_requests
from headrace.pipeline.process.patient import MAX_STUCK
from headrace.pipeline.transport.shm import Segment


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(HashTable.size())
    yield made
    made.close()


def key_of(path: Path) -> Key:
    found = path.stat()
    return Key(os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino, found.st_ctime_ns)


def request(path: Path, key: Key | None = None) -> HashRequest:
    return HashRequest(key or key_of(path), 2**22 - 1, os.fsencode(path))


def test_what_is_put_is_found_by_its_whole_key(segment: Segment) -> None:
    table = HashTable(segment)
    table.put(Key(1, 2, 3), KNOWN, bytes(range(32)))
    assert table.get(Key(1, 2, 3)) == (KNOWN, bytes(range(32)))
    assert HashTable(segment).get(Key(1, 2, 3)) == (KNOWN, bytes(range(32)))
    for other in (Key(1, 2, 4), Key(1, 3, 3), Key(2, 2, 3)):
        assert table.get(other) == (NONE, b"")
    table.put(Key(1, 2, 3), GONE)
    assert table.get(Key(1, 2, 3))[0] == GONE


def test_a_full_table_forgets_and_never_mixes_up(segment: Segment) -> None:
    table = HashTable(segment)
    keys = [Key(8, inode, inode * 7) for inode in range(1, 2 * ENTRIES)]
    for key in keys:
        table.put(key, KNOWN, key.inode.to_bytes(32, "little"))
    found = [(key, table.get(key)) for key in keys]
    known = [(key, digest) for key, (state, digest) in found if state == KNOWN]
    assert all(digest == key.inode.to_bytes(32, "little") for key, digest in known)
    assert ENTRIES // 2 < len(known) <= ENTRIES
    assert table.get(keys[-1])[0] == KNOWN
    assert PROBES > 1


def test_a_file_is_believed_if_it_is_the_one_that_was_run(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    expected = (KNOWN, hashlib.sha256(b"content").digest())
    assert digest_of(request(path)) == expected
    key = key_of(path)
    assert digest_of(request(path, key._replace(ctime_ns=key.ctime_ns + 1)))[0] == GONE
    assert digest_of(request(path, key._replace(inode=key.inode + 1)))[0] == GONE
    other = tmp_path / "other"
    path.rename(other)
    path.write_bytes(b"another")
    assert digest_of(request(path, key))[0] == GONE


@pytest.mark.parametrize("make", [lambda p: os.mkfifo(p), lambda p: p.mkdir(), lambda p: p.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, make: object) -> None:
    path = tmp_path / "thing"
    make(path)  # type: ignore[operator]
    assert digest_of(request(path))[0] == GONE


def test_a_file_that_changes_meanwhile_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    wanted = request(path)

    def digest(file: object, name: str) -> object:
        path.write_bytes(b"other")
        return hashlib.sha256()

    monkeypatch.setattr("hashlib.file_digest", digest)
    assert digest_of(wanted)[0] == CHANGED


def test_a_file_of_another_file_system_is_not_believed(tmp_path: Path) -> None:
    """Whatever inode and times it claims: the device is the kernel's."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    key = key_of(path)
    assert digest_of(request(path, key._replace(device=key.device + 1)))[0] == GONE


def test_a_way_through_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    key = key_of(tmp_path / "real" / "file")
    assert digest_of(request(tmp_path / "real" / "file", key))[0] == KNOWN
    assert digest_of(request(tmp_path / "link" / "file", key))[0] == GONE


def settle(hasher: Hasher) -> None:
    while hasher.is_busy:
        hasher.attend(0.01)


def test_a_file_that_takes_too_long_holds_up_no_other(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "DEADLINE_S", 0.2)
    never, began = threading.Event(), []

    def read(wanted: HashRequest) -> tuple[int, bytes]:
        began.append(wanted.key.inode)
        if wanted.key.inode < 100:
            never.wait()
        return KNOWN, bytes(32)

    table = HashTable(segment)
    hasher = Hasher(table, read)
    for inode in (1, 200, *range(2, 20), 300):
        hasher.ask(HashRequest(Key(1, inode, 3), 4, b"/x"))
    hasher.attend()
    settle(hasher)
    assert table.get(Key(1, 1, 3))[0] == TOO_SLOW
    assert table.get(Key(1, 200, 3))[0] == KNOWN
    # so many threads stand that no other file is begun
    assert len(began) == MAX_STUCK + 1
    assert table.get(Key(1, 300, 3))[0] == TOO_SLOW
    never.set()


def test_requests_go_through_a_pipe_whole(tmp_path: Path) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    sent = [HashRequest(Key(1, n, 3), 4, b"/" + b"x" * n) for n in (0, 1, 900, MAX_PATH_BYTES - 1)]
    for one in sent:
        os.write(writing, one.packed())
    assert list(read_requests(reading)) == sent
    os.write(writing, HashRequest(Key(1, 2, 3), 4, b"/" * 5000).packed())
    assert [len(one.path) for one in read_requests(reading)] == [MAX_PATH_BYTES]
    os.close(writing)
    assert list(read_requests(reading)) == []
    os.close(reading)


def test_a_path_with_a_nul_is_no_path() -> None:
    assert digest_of(HashRequest(Key(1, 2, 3), 4, b"/a\0b"))[0] == GONE
