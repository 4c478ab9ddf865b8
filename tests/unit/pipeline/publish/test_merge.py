"""Results of several workers merged by time, against sorting the lines."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.publish.merge import Merger, Part, merge
from headrace.pipeline.transport.results import RESULT, Result, key_bytes, read, try_write
from headrace.pipeline.transport.ring import BATCH, Consumer, Producer, Ring
from headrace.pipeline.transport.shm import Segment

Line = tuple[int, int, bytes]
"""(time, CPU << 32 | thread group, text)"""


def result(lines: list[Line], watermark_ns: int = 0, final: bool = True) -> Result:
    payload = b"".join(text for _, _, text in lines)
    ends = np.cumsum([len(text) for _, _, text in lines])
    times = np.array([t for t, _, _ in lines], np.uint64)
    keys = key_bytes(times, np.array([tie for _, tie, _ in lines], np.uint64), ends)
    header = np.zeros(1, RESULT)
    header["rows"], header["watermark_ns"], header["final"] = len(lines), watermark_ns, final
    return Result(header[0], np.frombuffer(keys, "u1"), np.frombuffer(payload, "u1"))


def merged(*records: Result) -> bytes:
    return bytes(merge([Part(r, 0, r.rows, None, True) for r in records]).joined())


def test_lines_are_ordered_by_time_then_cpu_then_thread_group() -> None:
    first = result([(5, 1 << 32 | 9, b"b\n"), (7, 3, b"d\n")])
    second = result([(5, 1 << 32 | 8, b"a\n"), (6, 9 << 32, b"c\n"), (8, 0, b"e\n")])
    assert merged(first, second) == b"a\nb\nc\nd\ne\n"


def test_one_workers_lines_stay_as_they_are() -> None:
    one = result([(9, 0, b"z\n"), (1, 0, b"a\n")])
    gather = merge([Part(one, 0, 2, None, True)])
    assert (len(gather), bytes(gather.joined())) == (1, b"z\na\n")


def test_a_part_is_cut_at_its_lines() -> None:
    one = result([(1, 0, b"a\n"), (2, 0, b"bb\n"), (3, 0, b"ccc\n")])
    two = result([(2, 1, b"x\n"), (9, 1, b"y\n")])
    assert merge([Part(one, 1, 3, None, True)]).joined() == b"bb\nccc\n"
    assert merge([Part(one, 1, 3, None, True), Part(two, 0, 1, None, False)]).joined() == b"bb\nx\nccc\n"


def test_runs_of_one_worker_stay_in_one_piece() -> None:
    first = result([(t, 1, b"x\n") for t in range(100)])
    second = result([(t, 2, b"y\n") for t in range(100, 200)])
    assert len(merge([Part(second, 0, 100, None, True), Part(first, 0, 100, None, True)])) == 2


def test_a_turn_waits_for_every_worker() -> None:
    merger = Merger([0] * 2)
    assert merger.add(0, result([(1, 0, b"a\n")], 10), "token")
    assert list(merger.ripe()) == []
    assert not merger.add(1, result([], 10), "empty")
    assert [[p.token for p in parts] for parts in merger.ripe()] == [["token"]]


def test_what_an_unfinished_worker_has_shown_limits_the_turn() -> None:
    merger = Merger([0] * 2)
    merger.add(0, result([(t, 0, b"%d\n" % t) for t in range(10)], 10), 0)
    merger.add(1, result([(5, 1, b"five\n")], 10, final=False), 1)
    out = b"".join(merge(parts).joined() for parts in merger.ripe())
    assert out == b"0\n1\n2\n3\n4\n"
    merger.add(1, result([(7, 1, b"seven\n")], 10), 2)
    out = b"".join(merge(parts).joined() for parts in merger.ripe())
    assert out == b"5\nfive\n6\n7\nseven\n8\n9\n"


LINES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.booleans()), max_size=10)
"""(time, CPU, whether a record ends here)"""


@given(
    st.lists(st.lists(LINES, min_size=1, max_size=3), min_size=1, max_size=4),
    st.sampled_from([0, 2**62]),
    st.randoms(use_true_random=False),
)
def test_the_merge_is_the_sorted_union_whatever_the_split(
    turns: list[list[list[tuple[int, int, bool]]]], base: int, random: Any
) -> None:
    workers = max(len(turn) for turn in turns)
    streams: list[list[Result]] = [[] for _ in range(workers)]
    expected = b""
    for number, turn in enumerate(turns, start=1):
        union: list[Line] = []
        for worker in range(workers):
            # ties belong to one worker: a thread group has one owner
            keys = sorted(turn[worker], key=lambda k: k[:2]) if worker < len(turn) else []
            record: list[Line] = []
            for i, (time, cpu, ends) in enumerate(keys):
                line = (base + time, cpu << 32 | worker, f"{number} {time} {cpu} {worker} {i}\n".encode())
                union.append(line)
                record.append(line)
                if ends:
                    streams[worker].append(result(record, number, final=False))
                    record = []
            streams[worker].append(result(record, number))
        expected += b"".join(text for _, _, text in sorted(union, key=lambda line: line[:2]))

    merger, out, tokens, finished = Merger([0] * workers), b"", [], []
    arrivals = [worker for worker, stream in enumerate(streams) for _ in stream]
    random.shuffle(arrivals)
    for worker in arrivals:
        record_ = streams[worker].pop(0)
        token = (worker, len(streams[worker]))
        if merger.add(worker, record_, token):
            tokens.append(token)
        for parts in merger.ripe():
            out += merge(parts).joined()
            finished += [part.token for part in parts if part.whole]
    assert out == expected
    assert sorted(finished) == sorted(tokens), "every record is given back once"


def test_a_result_reads_back_from_its_ring() -> None:
    segment = Segment(Ring.bytes_for(4096))
    ring = Producer(segment)
    header: Any = np.zeros(1, RESULT)
    header["rows"], header["watermark_ns"], header["topic"] = 2, 77, 1152
    keys = key_bytes(np.array([1, 2]), np.array([3, 4]), np.array([5, 9]))
    assert len(keys) % 8 == 0
    assert try_write(ring, header, keys, [b"line\n", b"end\n"])
    ring.publish()
    record = Consumer(segment).read(0)
    assert record is not None
    assert record.kind == BATCH
    found = read(record.payload)
    assert (found.rows, int(found.header["watermark_ns"]), int(found.header["topic"])) == (2, 77, 1152)
    assert [column.tolist() for column in found.key_columns()] == [[1, 2], [3, 4], [5, 9]]
    assert found.payload.tobytes() == b"line\nend\n"


def test_a_result_that_finds_no_room_writes_nothing() -> None:
    segment = Segment(Ring.bytes_for(4096))
    ring = Producer(segment)
    assert not try_write(ring, np.zeros(1, RESULT), b"", [bytes(5000)])
    assert ring.write_position == 0
    ring.close()
    segment.close()


def test_a_worker_that_ended_before_a_restart_does_not_hold_the_others_up() -> None:
    # what a predecessor handed on of worker 1 is not seen again: it must be known to be complete
    merger = Merger([0, 20])
    merger.add(0, result([(1, 0, b"a\n")], 10), "token")
    assert [[p.token for p in parts] for parts in merger.ripe()] == [["token"]]


def test_rows_of_a_skipped_turn_are_merged_by_their_time() -> None:
    # worker 1's ring had no room for the watermark 10; its ring of results has room for one more record only
    merger = Merger([0] * 2)
    merger.add(0, result([(4, 0, b"four\n")], 10), 0)
    merger.add(0, result([(14, 0, b"fourteen\n")], 20), 1)
    merger.add(1, result([(1, 1, b"one\n"), (3, 1, b"three\n")], 20, final=False), 2)
    out = [bytes(merge(parts).joined()) for parts in merger.ripe()]
    assert out == [b"one\n"]
    merger.add(1, result([(5, 1, b"five\n"), (15, 1, b"fifteen\n")], 20), 3)
    assert b"".join(merge(parts).joined() for parts in merger.ripe()) == (b"three\nfour\nfive\nfourteen\nfifteen\n")


@given(
    st.lists(st.lists(LINES, min_size=3, max_size=3), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_watermarks_that_a_worker_missed_change_nothing(
    turns: list[list[list[tuple[int, int, bool]]]], missed: list[tuple[int, int]], random: Any
) -> None:
    streams: list[list[Result]] = [[], [], []]
    union: list[Line] = []
    for worker, stream in enumerate(streams):
        lines: list[Line] = []
        for number, turn in enumerate(turns):
            keys = sorted(turn[worker], key=lambda k: k[:2])
            mine = [
                (number * 10 + t, cpu << 32 | worker, f"{number} {t} {cpu} {worker} {i}\n".encode())
                for i, (t, cpu, _) in enumerate(keys)
            ]
            lines += mine
            union += mine
            if (worker, number) in missed and number < len(turns) - 1:
                continue
            for line in lines[:-1]:
                stream.append(result([line], number * 10 + 9, final=False))
            stream.append(result(lines[-1:], number * 10 + 9))
            lines = []
    merger, out = Merger([0] * 3), b""
    arrivals = [worker for worker, stream in enumerate(streams) for _ in stream]
    random.shuffle(arrivals)
    for worker in arrivals:
        merger.add(worker, streams[worker].pop(0), None)
        out += b"".join(merge(parts).joined() for parts in merger.ripe())
    assert out == b"".join(text for _, _, text in sorted(union, key=lambda line: line[:2]))
