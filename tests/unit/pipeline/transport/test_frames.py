"""Frame headers as the reader sees them, and the frame that announces a loss."""

from __future__ import annotations

import struct

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.transport.frames import HEADER, Loss, loss_frame, read_header
from tests.unit import frames


def test_a_header_reads_as_it_was_packed() -> None:
    data = frames.frame(
        [frames.Record(time_ns=5), frames.Record(time_ns=9)], cpu=3, shard=2, shards=4, stream=1, sequence=77
    )
    header = read_header(data)
    assert header.size == len(data) - 4
    assert (header.cpu, header.sequence, header.first_ns, header.last_ns) == (3, 77, 5, 9)
    assert (header.shard, header.stream, header.version, header.shards) == (2, 1, frames.VERSION, 4)
    assert (header.heads, header.used) == (2, len(data) - frames.HEADER.size)


def test_the_header_needs_no_more_than_its_own_bytes() -> None:
    data = frames.frame([frames.Record()])
    assert read_header(data[: HEADER.size]) == read_header(data)
    with pytest.raises(struct.error):
        read_header(data[: HEADER.size - 1])


def test_an_announced_loss_is_a_frame_with_one_event() -> None:
    data = loss_frame(Loss(cpu=3, shard=0xFFFF, count=12, first_ns=100, last_ns=200), 1000, 50, b"host")
    header = frames.HEADER.unpack_from(data)
    cpu, first, last, version, heads, used, bitmap = (header[i] for i in (1, 3, 4, 7, 8, 10, 12))
    assert (cpu, first, last, version, heads) == (3, 1000, 1000, frames.VERSION, 1)
    assert used == len(data) - frames.HEADER.size
    assert int.from_bytes(bitmap, "little") == 1 << 7
    context = frames.CONTEXT.unpack_from(data, frames.HEADER.size)
    assert context[7] == 0, "owned by thread group 0, which is worker 0's"
    assert (context[-2].rstrip(b"\0"), context[-1].rstrip(b"\0")) == (b"headrace", b"host")
    head = frames.HEAD.unpack_from(data, frames.HEADER.size + frames.CONTEXT_BYTES)
    assert head == (1000, 0, catalogue().by_name["loss"].id, 0, 2, 0, 0, 3)
    # first and last in the epoch
    assert struct.unpack_from("<4Q", data, frames.HEADER.size + frames.CONTEXT_BYTES + 32) == (0xFFFF, 12, 150, 250)


def test_losses_arguments_are_in_the_catalogues_order() -> None:
    names = [a.name for a in catalogue().by_name["loss"].arguments]
    assert names == ["cpu", "shard", "count", "first_time", "last_time"]
