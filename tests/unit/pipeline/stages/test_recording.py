"""Recordings: whole, cut off at every byte, and with every byte flipped."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.stages.recording import (
    MAX_BLOCK_BYTES,
    VERSION,
    RecordingError,
    RecordingFacts,
    block,
    blocks,
    lead,
    open_recording,
    read_facts,
    turn_bytes,
)
from headrace.pipeline.transport.frames import HEADER, FrameHeader
from headrace.pipeline.transport.ring import END, FRAME, WATERMARK

NAME = "some.hrc"
FACTS = RecordingFacts(
    boot_epoch_ns=123, nodename="host", cpus=2, shards=3, machine="x86_64", made_by="headrace 0", started_ns=7
)
BLOCKS = [(FRAME, b"a frame of bytes"), (WATERMARK, struct.pack("<Q", 77)), (FRAME, b"odd"), (END, bytes(8))]


def made(parts: list[tuple[int, bytes]] = BLOCKS) -> bytes:
    return lead(FACTS) + b"".join(block(kind, payload) for kind, payload in parts)


def everything(data: bytes) -> tuple[RecordingFacts, list[tuple[int, bytes]]]:
    facts, at = read_facts(memoryview(data), NAME)
    return facts, [(b.kind, bytes(b.payload)) for b in blocks(memoryview(data), at, NAME)]


def test_a_recording_reads_back() -> None:
    assert everything(made()) == (FACTS, BLOCKS)


def test_the_file_begins_as_its_drawing_says() -> None:
    data = made()
    magic, version, size = struct.unpack_from("<8sII", data)
    assert (magic, version) == (b"HEADRACE", 5)
    assert (24 + size) % 8 == 0
    assert struct.unpack_from("<II", data, 16) == (zlib.crc32(data[24 : 24 + size]), 0)
    payload_bytes, checksum, kind, zero = struct.unpack_from("<IIII", data, 24 + size)
    assert (payload_bytes, kind, zero) == (len(BLOCKS[0][1]), FRAME, 0)
    assert data[24 + size + 16 :][:payload_bytes] == BLOCKS[0][1]
    assert isinstance(checksum, int)


@given(st.lists(st.tuples(st.sampled_from([FRAME]), st.binary(max_size=200)), max_size=8))
def test_any_blocks_read_back_in_order(parts: list[tuple[int, bytes]]) -> None:
    whole = [*parts, (END, b"")]
    assert everything(made(whole))[1] == whole


def test_a_file_cut_off_at_any_byte_says_so() -> None:
    data = made()
    for n in range(len(data)):
        with pytest.raises(RecordingError, match=NAME):
            everything(data[:n])


def test_a_file_cut_between_blocks_says_that_the_end_is_missing() -> None:
    data = made(BLOCKS[:-1])
    with pytest.raises(RecordingError, match=f"cut off at byte {len(data)}: the end is missing"):
        everything(data)


def test_blocks_before_the_cut_are_handed_out() -> None:
    data = made()[:-20]
    _, at = read_facts(memoryview(data), NAME)
    found = blocks(memoryview(data), at, NAME)
    assert [(b.kind, bytes(b.payload)) for b in itertools.islice(found, 3)] == BLOCKS[:-1]
    with pytest.raises(RecordingError):
        next(found)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_is_refused_or_changes_nothing(flip: int) -> None:
    data = made()
    changed = []
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= flip
        with contextlib.suppress(RecordingError):
            if everything(bytes(bad)) != (FACTS, BLOCKS):
                changed.append(at)
    assert changed == [], "bytes whose change went unnoticed"


def test_damage_is_told_with_its_place() -> None:
    data = bytearray(made())
    at = len(lead(FACTS))
    data[at + 16] ^= 1
    with pytest.raises(RecordingError, match=f"^{NAME}: corrupted at byte {at}: the checksum does not fit$"):
        everything(bytes(data))


def test_a_block_of_a_size_that_cannot_be_is_corruption() -> None:
    data = lead(FACTS) + struct.pack("<IIII", MAX_BLOCK_BYTES + 1, 0, FRAME, 0) + bytes(64)
    with pytest.raises(RecordingError, match=f"a block of {MAX_BLOCK_BYTES + 1} bytes"):
        everything(data)


@pytest.mark.parametrize("version", [0, 1, 9])
def test_another_version_is_told_with_both(version: int) -> None:
    data = bytearray(made())
    data[8:12] = struct.pack("<I", version)
    with pytest.raises(RecordingError, match=rf"version {version}\b.*versions 4 to 5\b"):
        everything(bytes(data))


@pytest.mark.parametrize("data", [b"", b"HEADRAC", b"\x7fELF" + bytes(100), b"headrace" + bytes(100)])
def test_another_file_is_no_recording(data: bytes) -> None:
    with pytest.raises(RecordingError, match="not a headrace recording"):
        read_facts(memoryview(data), NAME)


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b'{"cpus": 1}', b'\xff\xfe{"cpus": 1}', b'{"nodename":"\xff"}', b"null"]
)
def test_a_header_that_makes_no_sense_is_refused(header: bytes) -> None:
    data = struct.pack("<8sIIII", b"HEADRACE", VERSION, len(header), zlib.crc32(header), 0) + header
    with pytest.raises(RecordingError, match="header is corrupted"):
        read_facts(memoryview(data), NAME)


@pytest.mark.parametrize("field", ["cpus", "shards"])
@pytest.mark.parametrize("value", [-1, 1 << 40, 10**30, 1.5, None, "1", True])
def test_facts_that_no_host_has_are_refused(field: str, value: int) -> None:
    # sizes of shared memory are worked out from these
    header = msgspec.json.encode(msgspec.to_builtins(FACTS) | {field: value})
    data = struct.pack("<8sIIII", b"HEADRACE", VERSION, len(header), zlib.crc32(header), 0) + header
    with pytest.raises(RecordingError, match=NAME):
        read_facts(memoryview(data), NAME)


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name in ("boot_epoch_ns", "started_ns") for value in (-1, 1 << 63, 10**30, 1e300, None, "1")]
    + [("nodename", "x" * 300), ("nodename", 7), ("machine", 7), ("made_by", []), ("hidden", "abc"), ("hidden", [1])],
)
def test_no_fact_is_taken_as_it_comes(field: str, value: object) -> None:
    header = json.dumps(json.loads(msgspec.json.encode(FACTS)) | {field: value}).encode()
    data = struct.pack("<8sIIII", b"HEADRACE", VERSION, len(header), zlib.crc32(header), 0) + header
    with pytest.raises(RecordingError, match=rf"header is corrupted.*{field}"):
        read_facts(memoryview(data), NAME)


def test_a_header_that_is_nested_deeply_is_refused() -> None:
    header = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    data = struct.pack("<8sIIII", b"HEADRACE", VERSION, len(header), zlib.crc32(header), 0) + header
    with pytest.raises(RecordingError, match="header is corrupted"):
        read_facts(memoryview(data), NAME)


@pytest.mark.parametrize("watermark_ns", [2**63 + 1, 2**64 - 1])
def test_a_watermark_beyond_all_times_is_refused(watermark_ns: int) -> None:
    with pytest.raises(RecordingError, match=f"{NAME}: corrupted at byte .*watermark"):
        everything(made([(WATERMARK, struct.pack("<Q", watermark_ns)), (END, bytes(8))]))


def test_a_watermark_that_is_no_time_is_refused() -> None:
    # a worker that unpacks it would end, again and again
    with pytest.raises(RecordingError, match=NAME):
        everything(made([(WATERMARK, b"abc"), (END, bytes(8))]))


def test_a_block_is_padded_to_eight() -> None:
    assert [len(block(FRAME, bytes(n))) for n in (0, 1, 8, 9)] == [16, 24, 24, 32]


def test_a_file_that_cannot_be_read_is_told_by_path(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"missing\.hrc: No such file"):
        open_recording(tmp_path / "missing.hrc")
    with pytest.raises(RecordingError, match="Is a directory"):
        open_recording(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordingError, match="not a regular file"):
        open_recording(tmp_path / "pipe")
    empty = tmp_path / "empty.hrc"
    empty.touch()
    with pytest.raises(RecordingError, match=r"empty.hrc.*empty"):
        open_recording(empty)


def test_an_open_recording_is_the_files_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.hrc"
    path.write_bytes(made())
    with open_recording(path) as data:
        assert bytes(data) == made()


def turn(parts: list[tuple[int, bytes]]) -> int:
    data = memoryview(made(parts))
    return turn_bytes(data, read_facts(data, NAME)[1])


def test_the_room_of_a_turn_is_that_of_frames_up_to_a_watermark_that_is_passed_on() -> None:
    def of(last_ns: int) -> bytes:
        fields = [last_ns if name == "last_ns" else 0 for name in FrameHeader._fields]
        return HEADER.pack(*fields).ljust(1 << 15, b"\0")

    early, late, passed = of(5), of(2**62), (WATERMARK, struct.pack("<Q", 9))
    one = turn([(FRAME, early)])
    many = [(FRAME, early)] * 40
    assert turn(many) == 40 * one
    assert turn([*many, passed, *many, passed]) == 40 * one
    # a worker releases frames in order: one that has later rows holds up those behind it
    assert turn([(FRAME, late), *many, passed, *many, passed]) == 81 * one


def test_the_room_of_a_turn_is_looked_for_as_far_as_blocks_are_sound() -> None:
    whole = made([(FRAME, bytes(64)), (FRAME, bytes(64))])
    _, at = read_facts(memoryview(whole), NAME)
    broken = bytearray(whole)
    broken[at + 16 + 64 : at + 16 + 68] = struct.pack("<I", 1 << 28)
    assert turn_bytes(memoryview(bytes(broken)), at) == turn_bytes(memoryview(whole[: at + 80]), at) > 0
