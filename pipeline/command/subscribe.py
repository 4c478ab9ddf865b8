"""A subscriber that prints and counts gaps: what `headrace subscribe` runs."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from headrace.pipeline.process.failure import say
from headrace.pipeline.publish.curve import ClientKeys
from headrace.pipeline.transport.wire import WireError, read_columns

EX_UNAVAILABLE, EX_PROTOCOL, EX_NOPERM = 69, 76, 77
MONITOR = "inproc://monitor"
PLAIN = "the publisher wants keys: --server-key and --key"
FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
DOUBT = "is it a publisher of headrace, and --server-key its key?"
KEYED = "the publisher has no keys, or this client's key is not on its list"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stop(Exception):
    """A signal ended the subscription."""


class _Refused(Exception):
    """The handshake failed: it would fail again."""


class _Ending:
    """Raises Stop at the first signal, and at no other."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self.over:
            self.over = True
            raise Stop


def _columns_text(payload: bytes) -> str:
    columns = read_columns(payload)
    names = [name for name in ("timestamp", "event", "context", "cpu", "retval", "flags") if name in columns]
    if len({len(columns[name]) for name in names}) > 1:
        raise WireError("columns of different lengths")
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return "".join(msgspec.json.encode(dict(zip(names, row, strict=True))).decode() + "\n" for row in rows)


def _arrow_text(payload: bytes) -> str:
    import pyarrow as pa

    from headrace.workers.views.arrow import schema

    try:
        stream = pa.ipc.open_stream(payload)
        if stream.schema not in (schema(False), schema(True)):
            raise WireError("an Arrow stream with other columns than events have")
        found = stream.read_all()
        # offsets that lead out of their buffers are believed otherwise: reading such a table ends the process
        found.validate(full=True)
        # nanoseconds as a number, as in the JSON lines: Python's own times end at microseconds
        found = found.set_column(0, "timestamp", found.column("timestamp").cast(pa.int64()))
        return "".join(msgspec.json.encode(row).decode() + "\n" for row in found.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise WireError(f"not an Arrow stream: {error}") from error


def _json_text(payload: bytes) -> str:
    for line in payload.splitlines():
        msgspec.json.decode(line, type=msgspec.Raw)
    return payload.decode()


TEXTS = {"json": _json_text, "columns": _columns_text, "arrow": _arrow_text}


class Header(msgspec.Struct):
    """The second part of a message (docs/wire.md)."""

    publisher: str
    sequence: int
    count: int
    format: str


def read_message(header_part: bytes, payload: bytes) -> tuple[Header, str]:
    """The header and the payload as lines. WireError if no publisher of headrace sends such a thing; ImportError."""
    try:
        header = msgspec.json.decode(header_part, type=Header)
        if header.format not in TEXTS:
            raise WireError(f"payload of the format {header.format}")
        return header, TEXTS[header.format](payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise WireError(str(error)) from error


def _secure(socket: Any, keys: ClientKeys) -> None:
    """Encrypt, and take nobody for the publisher but who has its key."""
    socket.set(zmq.CURVE_SERVERKEY, keys.server)
    socket.set(zmq.CURVE_PUBLICKEY, keys.own.public)
    socket.set(zmq.CURVE_SECRETKEY, keys.own.secret)


def _watch(context: Any, socket: Any) -> Any:
    """A socket that has a message when a handshake has failed."""
    socket.monitor(MONITOR, FAILED)
    monitor = context.socket(zmq.PAIR)
    monitor.connect(MONITOR)
    return monitor


def _receive(socket: Any, monitor: Any, failed: Callable[[], None]) -> list[bytes]:
    """The next message; _Refused if the publisher will not have this subscriber, `failed` if that may be so."""
    while not socket.poll(0):
        ready = dict(zmq.zmq_poll([(socket, zmq.POLLIN), (monitor, zmq.POLLIN)], -1))
        if monitor in ready:
            event = parse_monitor_message(monitor.recv_multipart())
            mismatch = event["value"] == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
            if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH or mismatch:
                raise _Refused
            # it may have been the publisher's end: ZeroMQ tries again
            failed()
    return list(socket.recv_multipart())


def run(endpoint: str, topics: Sequence[str], count: int, keys: ClientKeys | None = None) -> int:
    """Print until a signal or `count` events; returns the exit status."""
    context: Any = zmq.Context()
    socket = context.socket(zmq.SUB)
    monitor = _watch(context, socket)
    if keys:
        _secure(socket, keys)
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
    failed = functools.cache(lambda: say(f"headrace: {endpoint}: handshake failed, trying again: {DOUBT}", err=True))
    try:
        for number in ENDING:
            signal.signal(number, ending)
        while not count or events < count:
            parts = _receive(socket, monitor, failed)
            if len(parts) != 3:
                status = EX_PROTOCOL
                say(f"headrace: a message of {len(parts)} parts, expected 3", err=True)
                break
            topic_part, header_part, payload = parts
            try:
                header, text = read_message(header_part, payload)
            except ImportError:
                status = EX_UNAVAILABLE
                say("headrace: the payload is Arrow: pip install 'headrace[arrow]'", err=True)
                break
            except WireError as error:
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
    except _Refused:
        status = EX_NOPERM
        say(f"headrace: {endpoint}: refused: {KEYED if keys else PLAIN}", err=True)
    finally:
        ending.over = True
        context.destroy(linger=0)
        say(f"subscribed: events {events}  messages missed {gaps}", err=True)
    return status
