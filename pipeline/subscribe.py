"""A subscriber that prints and counts gaps: what `headrace subscribe` runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import msgspec
import zmq

from pipeline.groups import say

EX_UNAVAILABLE, EX_PROTOCOL = 69, 76
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stop(Exception):
    """A signal ended the subscription."""


class _Ending:
    """Raises Stop at the first signal, and at no other."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self.over:
            self.over = True
            raise Stop


def _columns_text(payload: bytes) -> str:
    from pipeline.wire import read_columns

    columns = read_columns(payload)
    names = [name for name in ("timestamp", "event", "context", "cpu", "retval", "flags") if name in columns]
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return "".join(msgspec.json.encode(dict(zip(names, row, strict=True))).decode() + "\n" for row in rows)


def _arrow_text(payload: bytes) -> str:
    import pyarrow as pa

    found = pa.ipc.open_stream(payload).read_all()
    # nanoseconds as a number, as in the JSON lines: Python's own times end at microseconds
    found = found.set_column(0, "timestamp", found.column("timestamp").cast(pa.int64()))
    return "".join(msgspec.json.encode(row).decode() + "\n" for row in found.to_pylist())


def _text(kind: str, payload: bytes) -> str:
    """Lines for people. ValueError if there is no such format."""
    if kind == "json":
        return payload.decode()
    if kind not in ("columns", "arrow"):
        raise ValueError(f"payload of the format {kind}")
    return _columns_text(payload) if kind == "columns" else _arrow_text(payload)


class Header(msgspec.Struct):
    """The second part of a message (docs/wire.md)."""

    publisher: str
    sequence: int
    count: int
    format: str


def run(endpoint: str, topics: Sequence[str], count: int) -> int:
    """Print until a signal or `count` events; returns the exit status."""
    context: Any = zmq.Context()
    socket = context.socket(zmq.SUB)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        say(f"headrace: {endpoint}: {error.strerror}", err=True)
        context.destroy(linger=0)
        return 2
    for topic in topics:
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
    expected: dict[tuple[str, bytes], int] = {}
    events = gaps = status = 0
    ending = _Ending()
    try:
        for number in ENDING:
            signal.signal(number, ending)
        while not count or events < count:
            parts = socket.recv_multipart()
            if len(parts) != 3:
                status = EX_PROTOCOL
                say(f"headrace: a message of {len(parts)} parts, expected 3", err=True)
                break
            topic_part, header_part, payload = parts
            try:
                header = msgspec.json.decode(header_part, type=Header)
                text = _text(header.format, payload)
            except ImportError:
                status = EX_UNAVAILABLE
                say("headrace: the payload is Arrow: pip install 'headrace[arrow]'", err=True)
                break
            except (msgspec.DecodeError, ValueError, KeyError, TypeError, OSError) as error:
                status = EX_PROTOCOL
                say(f"headrace: {endpoint}: not a publisher of headrace: {error}", err=True)
                break
            key = (header.publisher, topic_part)
            gaps += header.sequence - expected.get(key, header.sequence)
            expected[key] = header.sequence + 1
            events += header.count
            sys.stdout.write(text)
            sys.stdout.flush()
    except Stop:
        pass
    finally:
        ending.over = True
        context.destroy(linger=0)
        say(f"subscribed: events {events}  messages missed {gaps}", err=True)
    return status
