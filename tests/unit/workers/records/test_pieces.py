"""Pieces: back in their record, and of no use where they do not fit."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.layout import CELL_BYTES, FRAME, HEAD
from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.core import Core
from headrace.workers.records.blobs import argument_cells, argument_counts, blobs, bytes_of
from headrace.workers.records.pieces import Pieces, is_piece
from headrace.workers.records.rows import Contexts, Rows, concatenate, read_frames
from tests.unit.frames import CUT, EXECVE, GETPPID, HEADER, OK, Blob, Record, Who, frame, view

COUNTS = argument_counts(catalogue())
PIECE = struct.Struct("<QIIIIIBBH")
WHO = Who(tgid=7, tid=8)
SEQUENCE = 5


def piece(data: bytes, offset: int, whole: int, **changed: Any) -> bytes:
    """A frame of a piece, for the first record of bulk frame SEQUENCE."""
    of = {"sequence": SEQUENCE, "tgid": 7, "tid": 8, "stream": 0, "arg": 1} | changed
    packed = PIECE.pack(of["sequence"], of["tgid"], of["tid"], offset, len(data), whole, of["stream"], of["arg"], 0)
    cells = packed + data + bytes(-len(data) % 32)
    head = bytearray(frame([], used=len(cells), size=HEADER.size - 4 + len(cells)))
    head[HEADER.size - 8 : HEADER.size] = struct.pack("<Q", 1)
    return bytes(head) + cells


def execs(held: bytes, whole: int, *others: Record) -> bytes:
    """The frame that they are for: an exec whose arguments are cut, and other records."""
    record = Record(EXECVE, 50, (1, 2, 3), blobs=(Blob(0, b"/bin/x"), Blob(1, held, CUT, whole)), who=WHO)
    return frame([record, *others], sequence=SEQUENCE)


def joined(payload: bytes, *pieces: bytes) -> Rows:
    waiting = Pieces(lambda event: int(argument_cells(int(COUNTS[event]))))
    for each in pieces:
        assert is_piece(view(each))
        waiting.add(view(each))
    decoded = read_frames(waiting.joined([view(payload)]), Contexts())
    assert not decoded.rejected, decoded.reasons
    return decoded.rows


def arguments(rows: Rows, row: int = 0) -> tuple[bytes, int]:
    """What stands behind argument 1, and how."""
    found = blobs(rows, COUNTS)
    entry = int(found.entries(1, len(rows), np.array([row]))[0])
    return bytes_of(rows, found, entry), int(found.status[entry])


@pytest.mark.parametrize("length", [10, 1000, 0xFFFE, 0xFFFF, 0x10000, 100_000])
def test_a_blob_goes_on_with_its_pieces_in_whatever_order_they_come(length: int) -> None:
    data = bytes(i % 251 for i in range(length))
    parts = [(at, data[at : at + 30_000]) for at in range(3, length, 30_000)]
    later = Record(GETPPID, 51, who=WHO), Record(GETPPID, 52, who=Who(tgid=9))
    rows = joined(execs(data[:3], length, *later), *(piece(p, at, length) for at, p in reversed(parts)))
    assert rows.time_ns.tolist() == [50, 51, 52]
    assert arguments(rows) == (data, OK)
    assert [arguments(each)[0] for each in (rows.compact(), rows.trim(), concatenate([rows, rows]))] == [data] * 3


@pytest.mark.parametrize(
    "wrong",
    [{"tid": 9}, {"tgid": 8}, {"arg": 2}, {"sequence": 6}, {"stream": 1}, {"offset": 4}, {"whole": 21}],
    ids=str,
)
def test_what_does_not_fit_is_left_out(wrong: dict[str, int]) -> None:
    at, whole = wrong.pop("offset", 3), wrong.pop("whole", 20)
    assert arguments(joined(execs(b"abc", 20), piece(b"x" * 17, at, whole, **wrong))) == (b"abc", CUT)


def test_a_piece_that_is_missing_leaves_it_cut() -> None:
    assert arguments(joined(execs(b"abc", 20), piece(b"defg", 3, 20))) == (b"abcdefg", CUT)
    assert arguments(joined(execs(b"abc", 20), piece(b"xx", 18, 20))) == (b"abc", CUT)


def test_a_core_joins_them_and_forgets_those_that_nobody_asks_for() -> None:
    core = Core(catalogue(), 0, 1)
    core.feed(view(piece(b"defg", 3, 7)))
    assert not len(core.advance(10).rows)
    core.feed(view(execs(b"abc", 7)))
    assert arguments(core.advance(60).rows) == (b"abcdefg", OK)
    core.feed(view(piece(b"defg", 3, 7)))
    core.advance(61)
    core.advance(62)
    core.feed(view(execs(b"abc", 7)))
    rows = core.advance(63).rows
    assert arguments(rows) == (b"abc", CUT)


@given(st.binary(max_size=80), st.binary(max_size=120), st.integers(0, 400))
def test_no_bytes_of_either_end_a_worker(head: bytes, tail: bytes, at: int) -> None:
    core = Core(catalogue(), 0, 1)
    for sound in (piece(b"defg", 3, 7), execs(b"abc", 7)):
        core.feed(view(sound[: HEADER.size] + head + sound[HEADER.size + len(head) :]))
        core.feed(view(sound[:at] + tail + sound[at + len(tail) :]))
        core.feed(view(sound))
    core.advance(1 << 62)


@pytest.mark.parametrize(("field", "value"), [("heads", 0), ("heads", 5), ("cells", 0)])
def test_what_a_frame_claims_is_shown_or_rejected_though_pieces_are_there_for_it(field: str, value: int) -> None:
    """As a recording may have it: no piece changes how many events a frame stands for."""
    payload = np.frombuffer(execs(b"abc", 20, Record(GETPPID, 51, who=WHO)), "u1").copy()
    header, cells = payload[: FRAME.itemsize].view(FRAME), payload[FRAME.itemsize :]
    if field == "heads":
        header["heads"] = value
    else:
        bits = np.unpackbits(header["bitmap"].view(np.uint8), bitorder="little")
        at = int(np.flatnonzero(bits)[0]) * CELL_BYTES
        cells[at : at + HEAD.itemsize].view(HEAD)["cells"] = value
    waiting = Pieces(lambda event: int(argument_cells(int(COUNTS[event]))))
    waiting.add(view(piece(b"defg", 3, 20)))
    decoded = read_frames(waiting.joined([payload]), Contexts())
    assert len(decoded.rows) + decoded.rejected == header["heads"][0]
