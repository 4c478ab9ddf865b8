"""Pieces of memory written as they lie, in portions of any size."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.pipeline.transport.gather import Gather


def gather(*pieces: bytes) -> Gather:
    return Gather.of(*(np.frombuffer(piece, "u1") for piece in pieces))


def test_empty_pieces_are_left_out() -> None:
    assert len(gather(b"", b"a", b"")) == 1
    assert gather().joined() == gather(b"").joined() == b""


def test_one_piece_is_not_copied() -> None:
    data = np.frombuffer(bytearray(b"abc"), "u1")
    view = Gather.of(data).joined()
    data[0] = ord("x")
    assert bytes(view) == b"xbc"


@given(st.lists(st.binary(max_size=9), max_size=40))
def test_joined_is_every_piece_in_order(pieces: list[bytes]) -> None:
    assert bytes(gather(*pieces).joined()) == b"".join(pieces)


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("sizes", [[1 << 20], [3] * 5000, [70_000, 1, 200_001, 5] * 3])
def test_a_pipe_gets_all_whatever_it_takes_at_once(sizes: list[int], blocking: bool) -> None:
    pieces = [os.urandom(size) for size in sizes]
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)
    found = bytearray()

    def read() -> None:
        while piece := os.read(read_end, 8191):
            found.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    assert sum(gather(*pieces).write(write_end)) == sum(sizes)
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert found == b"".join(pieces)


def test_a_gather_is_written_again_whole(tmp_path: Path) -> None:
    pieces = gather(b"one ", b"two")
    with (tmp_path / "out").open("wb") as file:
        assert [list(pieces.write(file.fileno())) for _ in range(2)] == [[7], [7]]
    assert (tmp_path / "out").read_bytes() == b"one twoone two"


def test_an_error_has_its_number() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left") as raised:
        list(gather(b"x").write(full.fileno()))
    assert raised.value.errno == errno.ENOSPC
