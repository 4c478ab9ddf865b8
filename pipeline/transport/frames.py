"""Frames as the pipeline sees them: a header for routing, and bytes to copy. This module does not parse records.

It also builds the only frame that the pipeline itself creates, which reports a loss.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headrace.bpf.layout import CELL_BYTES, CONTEXT, FRAME, FRAME_VERSION, HEAD
from headrace.bpf.tables.catalogue import LOSS, catalogue

HEADER = struct.Struct("<IIQQQHBBHHII")
"""The fields of bpf.layout.FRAME up to and including `shards`."""
assert HEADER.size == FRAME.fields["bitmap"][1]  # type: ignore[index]


class FrameHeader(NamedTuple):
    """The fields of struct frame from `size` to `shards` (bpf/c/layout.h)."""

    size: int
    cpu: int
    sequence: int
    first_ns: int
    last_ns: int
    shard: int
    stream: int
    version: int
    heads: int
    context: int
    used: int
    shards: int


def read_header(data: bytes) -> FrameHeader:
    """Header of a frame, not validated."""
    return FrameHeader._make(HEADER.unpack_from(data))


@dataclass(frozen=True)
class Loss:
    """Lost events to report on every output. Times are CLOCK_BOOTTIME."""

    cpu: int
    shard: int
    count: int
    first_ns: int
    last_ns: int


def loss_frame(loss: Loss, now_ns: int, boot_epoch_ns: int, nodename: bytes) -> bytes:
    """A frame with one `loss` event, attributed to thread group 0."""
    event = catalogue().by_name[LOSS]
    cells = 1 + (len(event.arguments) + 2) // 4
    context_cells = CONTEXT.itemsize // CELL_BYTES
    context = np.zeros(1, CONTEXT)
    context["comm"], context["nodename"] = b"headrace", nodename
    head = np.zeros(1, HEAD)
    head["time_ns"], head["event"], head["cells"], head["arg0"] = now_ns, event.id, cells, loss.cpu
    rest = np.zeros((cells - 1) * CELL_BYTES // 8, np.uint64)
    rest[:4] = loss.shard, loss.count, loss.first_ns + boot_epoch_ns, loss.last_ns + boot_epoch_ns
    body = context.tobytes() + head.tobytes() + rest.tobytes()
    header = np.zeros(1, FRAME)
    header["cpu"], header["first_ns"], header["last_ns"] = loss.cpu, now_ns, now_ns
    header["version"], header["heads"], header["used"], header["shards"] = FRAME_VERSION, 1, len(body), 1
    header["bitmap"][0, 0] = 1 << context_cells
    return header.tobytes() + body
