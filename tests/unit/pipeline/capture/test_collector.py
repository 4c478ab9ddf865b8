"""The collector: each request has one outcome, files are held, lies are not believed."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.bpf.host.mounts import file_device
from headrace.config.capture import EXEC, MEM, MODULE, WRITE, Capture
from headrace.pipeline.capture import collector
from headrace.pipeline.capture.collector import Collector
from headrace.pipeline.capture.requests import OUTCOMES, ArtifactCounters, ArtifactRequest, CaptureClient, requests
from headrace.pipeline.capture.store import ArtifactStore, open_directory
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Segment, stat_fields
from tests.live import wait_for

HERE = os.getpid()


@pytest.fixture
def counters() -> Iterator[ArtifactCounters]:
    segment = Segment(ArtifactCounters.size(1))
    made = ArtifactCounters(segment, 1)
    yield made
    del made.of_collector, made.dropped
    segment.close()


@pytest.fixture
def kept(tmp_path: Path, counters: ArtifactCounters) -> Collector:
    store = ArtifactStore(open_directory(str(tmp_path / "kept"), None), 1 << 20)
    return Collector(store, counters, Capture(frozenset({WRITE, EXEC, MEM, MODULE})))


def request(kind: str, path: Path, **other: int) -> ArtifactRequest:
    found = path.stat()
    given = {"device": file_device(str(path)), "inode": found.st_ino, "time_ns": time.time_ns()} | other
    return ArtifactRequest(kind, HERE, path=os.fsencode(path), **given)


def settle(kept: Collector, ending: bool = False) -> dict[str, int]:
    """Outcomes, once everything has one."""

    def is_over() -> bool:
        kept.attend(0.01, ending)
        return kept.is_idle and not (ending and kept.held)

    wait_for(is_over, "an idle collector")
    found = kept.counters.shown()
    assert found["waiting"] == sum(not held.versions for held in kept.held.values())
    return {name: found[name] for name in OUTCOMES if found[name]}


def test_an_executable_is_believed_only_with_its_ctime(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"content")
    kept.ask(request(EXEC, path, place=path.stat().st_ctime_ns))
    assert settle(kept) == {"stored": 1}
    kept.ask(request(EXEC, path, place=1))
    kept.ask(request(EXEC, path, place=path.stat().st_ctime_ns, device=1))
    assert settle(kept) == {"stored": 1, "gone": 2}
    lines = (tmp_path / "kept" / "index.jsonl").read_text().splitlines()
    assert [json.loads(line).get("reason") for line in lines] == [None, "gone", "gone"]


def test_a_program_that_runs_again_is_not_read_again(
    kept: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program"
    path.write_bytes(b"content")
    kept.ask(request(EXEC, path, place=path.stat().st_ctime_ns))
    assert settle(kept) == {"stored": 1}
    monkeypatch.setattr(collector.sources, "contents", None)
    for _ in range(9):
        kept.ask(request(EXEC, path, place=path.stat().st_ctime_ns))
    assert settle(kept) == {"stored": 1, "known": 9}


def test_a_deleted_file_is_stored_with_what_was_written_later(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as file:
        kept.ask(request(WRITE, path))
        assert settle(kept) == {}
        path.unlink()
        file.write(b"late")
    assert settle(kept, ending=True) == {"stored": 1}
    (name,) = os.listdir(tmp_path / "kept" / "write")
    assert (tmp_path / "kept" / "write" / name).read_bytes() == b"late"


def test_a_file_that_was_deleted_at_once_is_found_by_its_descriptor(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"content")
        asked = request(WRITE, path)
        path.unlink()
        kept.ask(asked)
        assert settle(kept, ending=True) == {"stored": 1}


def test_a_file_that_nobody_writes_is_untouched(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    kept.ask(request(WRITE, path, time_ns=time.time_ns() + 10**10))
    kept.ask(request(WRITE, path))
    assert settle(kept) == {"known": 1}
    assert settle(kept, ending=True) == {"untouched": 1, "known": 1}


def test_versions_are_stored_as_the_file_changes(
    kept: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "SETTLE_S", 0.0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    kept.ask(request(WRITE, path))
    wait_for(lambda: settle(kept) == {"stored": 1}, "the first version")
    path.write_bytes(b"three")
    wait_for(lambda: settle(kept) == {"stored": 2}, "the second version")
    settle(kept, ending=True)
    assert kept.counters.shown()["versions"] == 1


def test_filters_look_at_path_and_content(kept: Collector, tmp_path: Path) -> None:
    kept.capture = Capture(frozenset({WRITE}), (f"{tmp_path}/*.so",), ("elf",))
    for name, content in (("a.so", b"\x7fELF"), ("b.so", b"text"), ("c", b"\x7fELF")):
        (tmp_path / name).write_bytes(content)
        kept.ask(request(WRITE, tmp_path / name))
    assert settle(kept, ending=True) == {"stored": 1, "unwanted": 2}


def test_memory_of_another_process_with_the_same_number_is_not_read(kept: Collector) -> None:
    kept.ask(ArtifactRequest(MEM, HERE, start_ns=1, place=id(kept), extent=16))
    assert settle(kept) == {"gone": 1}


def test_a_module_is_read_by_its_path_or_from_memory(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "module.ko"
    path.write_bytes(b"module")
    kept.ask(request(MODULE, path, place=path.stat().st_ctime_ns))
    assert settle(kept) == {"stored": 1}
    start_ns = int(stat_fields(HERE)[19]) * 10**9 // os.sysconf("SC_CLK_TCK")
    data = ctypes.create_string_buffer(b"in memory", 9)
    kept.ask(ArtifactRequest(MODULE, HERE, start_ns, place=ctypes.addressof(data), extent=9))
    kept.ask(ArtifactRequest(MEM, HERE, start_ns, place=ctypes.addressof(data), extent=9))
    assert settle(kept) == {"stored": 3}
    digest = hashlib.sha256(b"in memory").hexdigest()
    assert (tmp_path / "kept" / "module" / digest).read_bytes() == b"in memory"


def test_a_fifo_is_not_opened(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    kept.ask(request(WRITE, path))
    assert settle(kept) == {"gone": 1}


def test_more_requests_than_can_wait_are_counted(
    kept: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "MAX_WAITING", 1)
    path = tmp_path / "program"
    path.write_bytes(b"content")
    for _ in range(3):
        kept.ask(request(EXEC, path, place=path.stat().st_ctime_ns))
    assert settle(kept) == {"stored": 1, "overrun": 2}


def test_a_full_quota_is_an_outcome(kept: Collector, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (2 << 20))
    kept.ask(request(EXEC, path, place=path.stat().st_ctime_ns))
    assert settle(kept) == {"no_room": 1}


def test_requests_go_through_the_pipe_and_a_full_pipe_is_counted(counters: ArtifactCounters) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    client = CaptureClient(InheritedFd(writing), counters, 0)
    asked = ArtifactRequest(WRITE, 7, 1, 2, 3, 4, 5, -1, b"/tmp/\xff" + b"x" * 9000)
    client.ask(asked)
    (found,) = requests(reading)
    assert found._replace(path=b"") == asked._replace(path=b"")
    assert asked.path.startswith(found.path)
    for _ in range(64):
        client.ask(asked)
    assert counters.shown()["dropped"] > 0
    os.close(reading)
    client.ask(asked)
    os.close(writing)
