"""Results of several workers merged by time, against sorting the lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.merge import merge
from pipeline.results import RESULT, Result, key_bytes, read, try_write
from pipeline.ring import BATCH, Ring
from pipeline.shm import Segment

Line = tuple[int, int, bytes]
"""(time, CPU << 32 | thread group, text)"""


def result(lines: list[Line]) -> Result:
    payload = b"".join(text for _, _, text in lines)
    ends = np.cumsum([len(text) for _, _, text in lines])
    keys = key_bytes(np.array([t for t, _, _ in lines]), np.array([tie for _, tie, _ in lines]), ends)
    header = np.zeros(1, RESULT)
    header["rows"] = len(lines)
    return Result(header[0], np.frombuffer(keys, "u1"), np.frombuffer(payload, "u1"))


def joined(pieces: list[memoryview]) -> bytes:
    return b"".join(pieces)


def test_lines_are_ordered_by_time_then_cpu_then_thread_group() -> None:
    first = result([(5, 1 << 32 | 9, b"b\n"), (7, 3, b"d\n")])
    second = result([(5, 1 << 32 | 8, b"a\n"), (6, 9 << 32, b"c\n"), (8, 0, b"e\n")])
    assert joined(merge([first, second])) == b"a\nb\nc\nd\ne\n"


def test_times_beyond_a_doubles_precision_keep_their_order() -> None:
    late = 2**62
    first, second = result([(late + 1, 0, b"b\n")]), result([(late, 0, b"a\n"), (late + 2, 0, b"c\n")])
    assert joined(merge([first, second])) == b"a\nb\nc\n"


def test_one_workers_lines_stay_as_they_are() -> None:
    lines = [(9, 0, b"z\n"), (1, 0, b"a\n")]
    pieces = merge([result(lines)])
    assert joined(pieces) == b"z\na\n"
    assert len(pieces) == 1


def test_runs_of_one_worker_stay_in_one_piece() -> None:
    first = result([(t, 1, b"x\n") for t in range(100)])
    second = result([(t, 2, b"y\n") for t in range(100, 200)])
    assert len(merge([second, first])) == 2


LINES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=12)


@given(st.lists(LINES, min_size=1, max_size=5))
def test_the_merge_is_the_sorted_union_whatever_the_split(workers: list[list[tuple[int, int]]]) -> None:
    everything: list[Line] = []
    results = []
    for worker, keys in enumerate(workers):
        # ties belong to one worker: a thread group has one owner
        lines = [
            (time, cpu << 32 | worker, f"{time} {cpu} {worker} {i}\n".encode())
            for i, (time, cpu) in enumerate(sorted(keys))
        ]
        everything += lines
        results.append(result(lines))
    expected = b"".join(text for _, _, text in sorted(everything, key=lambda line: line[:2]))
    assert joined(merge(results)) == expected
    assert joined(merge(results[::-1])) == expected


def test_a_result_reads_back_from_its_ring() -> None:
    segment = Segment(Ring.bytes_for(4096))
    ring = Ring(segment)
    header: Any = np.zeros(1, RESULT)
    header["rows"], header["watermark_ns"], header["topic"] = 2, 77, 1152
    keys = key_bytes(np.array([1, 2]), np.array([3, 4]), np.array([5, 9]))
    assert len(keys) % 8 == 0
    assert try_write(ring, header, keys, b"line\nend\n")
    ring.publish()
    record = ring.read(0)
    assert record is not None
    assert record.kind == BATCH
    found = read(record.payload)
    assert (found.rows, int(found.header["watermark_ns"]), int(found.header["topic"])) == (2, 77, 1152)
    assert [column.tolist() for column in found.key_columns()] == [[1, 2], [3, 4], [5, 9]]
    assert found.payload.tobytes() == b"line\nend\n"


def test_a_result_that_finds_no_room_writes_nothing() -> None:
    segment = Segment(Ring.bytes_for(4096))
    ring = Ring(segment)
    assert not try_write(ring, np.zeros(1, RESULT), b"", bytes(5000))
    assert ring.write_position == 0
    ring.close()
    segment.close()
