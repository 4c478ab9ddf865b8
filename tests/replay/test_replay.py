"""Replays: the same bytes whatever the number of workers and whoever asks, and a precise word about damage."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replay.conftest import HEADRACE, RECORDING, WORKERS, Replayed, end, start

EX_DATAERR = 65
NOBODY = 65534
Replays = dict[tuple[int, str], Replayed]


@pytest.mark.parametrize("name", ["json", "table"])
@pytest.mark.parametrize("workers", WORKERS)
def test_the_output_does_not_depend_on_the_number_of_workers(replays: Replays, name: str, workers: int) -> None:
    found = replays[workers, name]
    assert found.status == 0, found.errors
    assert found.out == replays[1, name].out
    assert found.out.count(b"\n") > 10


def test_a_table_on_standard_output_is_the_tables_file_under_its_header(replays: Replays, shown: Replayed) -> None:
    assert shown.status == 0, shown.errors
    header, _, lines = shown.out.partition(b"\n")
    assert header.split() == b"TIME USER COMM PID TID EVENT RET ARGS".split()
    assert lines == replays[1, "table"].out


@pytest.mark.parametrize("workers", WORKERS)
def test_the_books_of_a_replay_balance(replays: Replays, workers: int) -> None:
    lines = replays[workers, "json"].out.count(b"\n")
    first = replays[workers, "json"].errors.splitlines()[0]
    assert first == (
        f"ledger: produced {lines}  delivered {lines}  filtered 0  throttled 0  lost 0  dropped 0  rejected 0  balanced"
    )


def test_every_line_is_an_event_in_the_order_of_time(replays: Replays) -> None:
    events = [json.loads(line) for line in replays[1, "json"].out.splitlines()]
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)
    assert {"sched_process_exec", "sched_process_exit"} <= {event["eventName"] for event in events}


def test_the_table_has_a_line_an_event(replays: Replays) -> None:
    table = replays[1, "table"].out.decode().splitlines()
    events = replays[1, "json"].out.decode().splitlines()
    assert [line.split()[3] for line in table] == [str(json.loads(e)["hostProcessId"]) for e in events]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def without_privilege(*args: str, folder: Path) -> Replayed:
    """A replay by nobody; where nobody may not run this interpreter, by a root without capabilities."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    if os.geteuid() != 0:
        return end(start(*args, env=environment, cwd=folder))
    found = end(start(*args, env=environment, cwd=folder, user=NOBODY, group=NOBODY, extra_groups=[]))
    if found.status != 126:  # the script's, which may not execute the interpreter
        return found
    drop = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return end(start(*args, env=environment, cwd=folder, before=drop))


def test_a_replay_needs_no_privilege(replays: Replays, open_folder: Path) -> None:
    recording = open_folder / "demo.hrc"
    recording.write_bytes(RECORDING.read_bytes())
    recording.chmod(0o644)
    found = without_privilege(str(recording), "--workers", "1", "-o", "json:-", folder=open_folder)
    assert found.status == 0, found.errors
    assert found.out == replays[1, "json"].out


def test_events_can_be_narrowed(replays: Replays) -> None:
    found = end(start(str(RECORDING), "--workers", "1", "-e", "sched_process_exec", "-o", "json:-"))
    whole = [line for line in replays[1, "json"].out.splitlines() if b'"eventName":"sched_process_exec"' in line]
    assert found.out.splitlines() == whole
    assert found.errors.splitlines()[0].endswith("  balanced")


def test_results_can_be_narrowed(replays: Replays) -> None:
    every = [json.loads(line) for line in replays[1, "json"].out.splitlines()]
    opened = [e["returnValue"] for e in every if e["eventName"] == "openat"]
    for condition in ("openat.retval>3", "openat.retval<=3", "openat.retval!=3"):
        found = end(start(str(RECORDING), "--workers", "1", "-e", condition, "-o", "json:-"))
        shown = [json.loads(line)["returnValue"] for line in found.out.splitlines()]
        holds = {">": lambda r: r > 3, "<=": lambda r: r <= 3, "!=": lambda r: r != 3}[condition[13:].rstrip("3")]
        assert shown == [retval for retval in opened if holds(retval)], condition


# -- damage


def cut(data: bytes) -> bytes:
    return data[:-30]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def newer(data: bytes) -> bytes:
    return data[:8] + struct.pack("<I", 99) + data[12:]


def headless(data: bytes) -> bytes:
    return data[:24] + b"\xff" + data[25:]


def first_block(data: bytes) -> int:
    return 24 + int(struct.unpack_from("<I", data, 12)[0])


def odd_watermark(data: bytes) -> bytes:
    """A recording that holds a watermark of three bytes, with the checksum that fits it."""
    payload = b"abc"
    kind = next(kind for kind, size in kinds(data) if size == 8)
    block = struct.pack("<IIII", len(payload), zlib.crc32(payload, kind), kind, 0) + payload.ljust(8, b"\0")
    at = first_block(data)
    return data[:at] + block + data[at:]


def kinds(data: bytes) -> Iterator[tuple[int, int]]:
    """(kind, bytes) of every block."""
    at = first_block(data)
    while at < len(data):
        size, _, kind, _ = struct.unpack_from("<IIII", data, at)
        yield kind, size
        at += 16 + -(-size // 8) * 8


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flipped, ["corrupted at byte", "checksum"]),
        (newer, ["version 99", "versions 4 to 5"]),
        (headless, ["the header is corrupted"]),
        (lambda data: b"\x7fELF" + data[4:], ["not a headrace recording"]),
        (lambda data: b"", ["not a headrace recording"]),
    ],
    ids=["flipped", "newer", "headless", "other", "empty"],
)
def test_a_damaged_recording_ends_with_65_and_a_precise_word(tmp_path: Path, damage, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "damaged.hrc"
    path.write_bytes(damage(RECORDING.read_bytes()))
    found = end(start(str(path), "--workers", "1", "-o", "json:-"))
    assert found.status == EX_DATAERR, found.errors
    assert str(path) in found.errors
    assert all(word in found.errors for word in words), found.errors
    assert "Traceback" not in found.errors


def test_a_block_that_makes_no_sense_ends_with_65_and_not_with_dying_workers(tmp_path: Path) -> None:
    path = tmp_path / "odd.hrc"
    path.write_bytes(odd_watermark(RECORDING.read_bytes()))
    found = end(start(str(path), "--workers", "1", "-o", "json:-"))
    assert found.status == EX_DATAERR, found.errors
    assert "a block of kind" in found.errors
    assert "Traceback" not in found.errors


def test_what_stands_before_a_cut_is_shown_and_the_cut_is_told(tmp_path: Path, replays: Replays) -> None:
    path = tmp_path / "cut.hrc"
    path.write_bytes(cut(RECORDING.read_bytes()))
    found = end(start(str(path), "--workers", "1", "-o", "json:-"))
    assert found.status == EX_DATAERR, found.errors
    assert re.search(rf"{re.escape(str(path))}: cut off at byte \d+: the end is missing", found.errors)
    assert found.out
    assert replays[1, "json"].out.startswith(found.out)


def test_a_recording_that_is_not_there_is_named() -> None:
    found = end(start("/nonexistent/x.hrc"))
    assert found.status == EX_DATAERR
    assert "/nonexistent/x.hrc: No such file or directory" in found.errors


# -- a reader that goes


@pytest.mark.parametrize("name", ["json", "table"])
def test_a_closed_pipe_ends_it_quietly(name: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start(str(RECORDING), "--workers", "1", "-o", f"{name}:-", stdout=write_end)
    os.close(write_end)
    found = end(process)
    assert "Traceback" not in found.errors
    assert "Broken pipe" not in found.errors
    # as a shell shows a process that SIGPIPE ended
    assert found.status == 128 + 13


def test_the_command_stands_beside_the_interpreter() -> None:
    assert Path(HEADRACE).parent == Path(sys.executable).parent
    assert os.access(HEADRACE, os.X_OK)
