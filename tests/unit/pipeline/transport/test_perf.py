"""Perf rings from hand-packed records (include/uapi/linux/perf_event.h), in a file instead of the kernel's pages."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.transport import perf
from headrace.pipeline.transport.perf import PerfRing

PAGE = mmap.PAGESIZE
PAGES = 2
SIZE = PAGES * PAGE
LOST, THROTTLE, SAMPLE = 2, 5, 9
DATA_HEAD, DATA_TAIL = 1024, 1032


class Fake:
    """The kernel's end: writes records, moves data_head."""

    def __init__(self, start: int = 0) -> None:
        self.fd = os.memfd_create("perf")
        os.ftruncate(self.fd, PAGE + SIZE)
        self.map = mmap.mmap(self.fd, PAGE + SIZE)
        self.at = start
        self._store(DATA_HEAD, start)
        self._store(DATA_TAIL, start)
        self.ring = PerfRing(self.fd, PAGES)

    def _store(self, offset: int, value: int) -> None:
        self.map[offset : offset + 8] = struct.pack("<Q", value)

    def tail(self) -> int:
        return int(struct.unpack("<Q", self.map[DATA_TAIL : DATA_TAIL + 8])[0])

    def record(self, kind: int, body: bytes, size: int | None = None) -> None:
        data = struct.pack("<IHH", kind, 0, 8 + len(body) if size is None else size) + body
        for i, byte in enumerate(data):
            self.map[PAGE + (self.at + i) % SIZE] = byte
        self.at += len(data)
        self._store(DATA_HEAD, self.at)

    def sample(self, raw: bytes) -> bytes:
        """A sample as perf writes it: raw size, bytes, padded so that the record is 8-aligned."""
        padded = raw + bytes(-(4 + len(raw)) % 8)
        body = struct.pack("<I", len(padded)) + padded
        self.record(SAMPLE, body)
        return body

    def lost(self, count: int) -> None:
        self.record(LOST, struct.pack("<QQ", 99, count))

    def close(self) -> None:
        self.ring.close()
        self.map.close()
        os.close(self.fd)


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


def bodies(ring: PerfRing, start: int) -> list[bytes]:
    found = []
    for sample in ring.samples(start, ring.head):
        into = np.zeros(sample.bytes, "u1")
        ring.copy(sample, into)
        found.append(into.tobytes())
    return found


def test_head_and_tail_are_the_control_pages_words(fake: Fake) -> None:
    class ControlPage(ctypes.Structure):
        # struct perf_event_mmap_page: capabilities and times, reserved up to 1k, then these
        _fields_ = (("before", ctypes.c_char * 1024), ("data_head", ctypes.c_uint64), ("data_tail", ctypes.c_uint64))

    assert (ControlPage.data_head.offset, ControlPage.data_tail.offset) == (DATA_HEAD, DATA_TAIL)
    fake.sample(b"x")
    assert fake.ring.head == 16
    fake.ring.release(16)
    assert (fake.ring.tail, fake.tail()) == (16, 16)


def test_samples_come_in_order_with_their_raw_size(fake: Fake) -> None:
    written = [fake.sample(bytes([i]) * (i * 5)) for i in range(1, 20)]
    assert bodies(fake.ring, 0) == written


@pytest.mark.parametrize("raw_bytes", [4, 36, 180, PAGE])
def test_a_sample_is_whole_from_every_offset(raw_bytes: int) -> None:
    raw = bytes(i * 11 & 0xFF for i in range(raw_bytes))
    step = 8 if raw_bytes < PAGE else 64
    fake = Fake()
    for start in range(0, SIZE, step):
        at = start + 5 * SIZE
        fake.at = at
        body = fake.sample(raw)
        found = list(fake.ring.samples(at, fake.ring.head))
        assert [(s.position, s.bytes) for s in found] == [(at + 8, len(body))]
        into = np.zeros(len(body), "u1")
        fake.ring.copy(found[0], into)
        assert into.tobytes() == body
        assert fake.ring.header(found[0], min(52, len(body))) == body[:52]
    fake.close()


def test_lost_records_are_counted_and_yield_nothing(fake: Fake) -> None:
    fake.lost(3)
    body = fake.sample(b"between")
    fake.lost(1 << 40)
    assert bodies(fake.ring, 0) == [body]
    assert fake.ring.lost == (1 << 40) + 3


def test_a_lost_record_that_wraps_is_counted() -> None:
    for distance in (8, 16):
        fake = Fake(SIZE - distance)
        fake.lost(12345)
        assert bodies(fake.ring, SIZE - distance) == []
        assert fake.ring.lost == 12345
        fake.close()


def test_other_records_are_passed_over(fake: Fake) -> None:
    fake.record(THROTTLE, bytes(24))
    body = fake.sample(b"x")
    assert bodies(fake.ring, 0) == [body]
    assert fake.ring.lost == 0


def test_a_record_of_size_zero_ends_the_reader_instead_of_turning_for_ever(fake: Fake) -> None:
    fake.sample(b"x")
    at = fake.at
    fake.record(SAMPLE, b"", size=0)
    with pytest.raises(ValueError, match=f"size 0 at {at}"):
        bodies(fake.ring, 0)


def test_nothing_is_given_back_before_release(fake: Fake) -> None:
    fake.sample(b"x")
    bodies(fake.ring, 0)
    assert fake.tail() == 0


def test_a_closed_ring_leaves_its_descriptor_open(fake: Fake) -> None:
    second = PerfRing(fake.fd, PAGES)
    second.close()
    os.fstat(fake.fd)


@given(st.lists(st.binary(max_size=300) | st.integers(1, 1000), max_size=15), st.integers(0, SIZE // 8 - 1))
def test_any_run_of_records_reads_back(records: list[bytes | int], start: int) -> None:
    fake = Fake(start * 8)
    written, lost = [], 0
    for record in records:
        if isinstance(record, int):
            fake.lost(record)
            lost += record
        else:
            written.append(fake.sample(record))
    assert bodies(fake.ring, start * 8) == written
    assert fake.ring.lost == lost
    fake.close()


def test_the_attribute_is_of_a_size_that_the_abi_knows() -> None:
    # PERF_ATTR_SIZE_VER0 to VER7
    assert ctypes.sizeof(perf._Attr) in (64, 72, 80, 96, 104, 112, 120, 128)
    assert (perf._Attr.sample_type.offset, perf._Attr.wakeup_watermark.offset) == (24, 48)
