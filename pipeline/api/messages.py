"""Messages of a publisher, read and checked: who sends them may be anybody (docs/reference/wire.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from headrace.pipeline.api.columns import structured
from headrace.pipeline.api.errors import ProtocolError
from headrace.pipeline.transport.wire import WireError, read_columns

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
PARTS = 3
FORMATS = ("json", "columns", "arrow")


class MessageHeader(msgspec.Struct):
    """The second part of a message."""

    publisher: str
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    count: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    format: str
    repeated: bool = False


@dataclass(frozen=True)
class Gap:
    """Messages of a topic that this subscriber did not get: the publisher or ZeroMQ dropped them."""

    topic: str
    publisher: str
    """Id of the publishing process."""
    missed: int
    """How many messages."""


@dataclass(frozen=True)
class Message:
    """One message: a batch of events or findings under one topic."""

    topic: str
    header: MessageHeader
    payload: bytes

    def __len__(self) -> int:
        return self.header.count

    @property
    def format(self) -> str:
        """What the publisher sends: `json`, `columns` or `arrow`."""
        return self.header.format

    @property
    def data(self) -> list[dict[str, Any]] | Array | pa.Table:
        """The batch in the publisher's format: a list of dictionaries for `json`, a structured array for `columns`
        (docs/reference/python.md), a pyarrow.Table for `arrow`. ProtocolError; ImportError without pyarrow.
        """
        try:
            if self.format == "columns":
                return structured(read_columns(self.payload))
            if self.format == "arrow":
                return read_arrow(self.payload)
        except WireError as error:
            raise ProtocolError(error) from error
        return self.rows()

    def rows(self) -> list[dict[str, Any]]:
        """The batch as dictionaries, whatever the format is; from `columns`, numbers as they are. ProtocolError."""
        try:
            if self.format == "columns":
                return _rows_of_columns(self.payload)
            if self.format == "arrow":
                found = read_arrow(self.payload)
                import pyarrow as pa

                # nanoseconds as a number, as in the JSON lines: Python's own times end at microseconds
                time = found.column("timestamp").cast(pa.int64())
                rows: list[dict[str, Any]] = found.set_column(0, "timestamp", time).to_pylist()
                return rows
            return [msgspec.json.decode(line, type=dict[str, Any]) for line in self.payload.splitlines()]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, WireError) as error:
            raise ProtocolError(error) from error

    def lines(self) -> str:
        """The batch as JSON lines. ProtocolError."""
        try:
            if self.format == "json":
                for line in self.payload.splitlines():
                    msgspec.json.decode(line, type=msgspec.Raw)
                return self.payload.decode()
            return "".join(msgspec.json.encode(row).decode() + "\n" for row in self.rows())
        except (UnicodeError, ValueError, TypeError, RecursionError) as error:
            raise ProtocolError(error) from error


def read_message(parts: list[bytes]) -> Message:
    """A message of its parts. ProtocolError if no publisher of headrace sends such a thing."""
    if len(parts) != PARTS:
        raise ProtocolError(f"a message of {len(parts)} parts, expected {PARTS}")
    topic, header_part, payload = parts
    try:
        header = msgspec.json.decode(header_part, type=MessageHeader)
        found = Message(topic.decode(), header, payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(error) from error
    if header.format not in FORMATS:
        raise ProtocolError(f"payload of the format {header.format}")
    return found


MAX_SEQUENCES = 1 << 16


class Sequences:
    """What number the next message of each publisher and topic has, for the last MAX_SEQUENCES of these."""

    def __init__(self) -> None:
        self._expected: dict[tuple[str, str], int] = {}

    def gap(self, message: Message) -> Gap | None:
        """What is missing before this message."""
        key = message.header.publisher, message.topic
        expected = self._expected.pop(key, message.header.sequence)
        self._expected[key] = message.header.sequence + 1
        if len(self._expected) > MAX_SEQUENCES:
            del self._expected[next(iter(self._expected))]
        missed = message.header.sequence - expected
        return Gap(message.topic, message.header.publisher, missed) if missed > 0 else None

    def with_gap(self, message: Message) -> list[Message | Gap]:
        """The message, after what is missing before it."""
        gap = self.gap(message)
        return [gap, message] if gap else [message]


def _rows_of_columns(payload: bytes) -> list[dict[str, Any]]:
    columns = read_columns(payload)
    names = [name for name in ("timestamp", "event", "context", "cpu", "retval", "flags") if name in columns]
    if len({len(columns[name]) for name in names}) > 1:
        raise WireError("columns of different lengths")
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def read_arrow(payload: bytes) -> pa.Table:
    """The table of a whole Arrow stream. WireError if it is none, or has other columns than events have."""
    import pyarrow as pa

    from headrace.workers.views.arrow import schema

    try:
        stream = pa.ipc.open_stream(payload)
        if stream.schema not in (schema(False), schema(True)):
            raise WireError("an Arrow stream with other columns than events have")
        found = stream.read_all()
        # offsets that lead out of their buffers are believed otherwise: reading such a table ends the process
        found.validate(full=True)
        return found
    except (pa.ArrowException, OSError, ValueError) as error:
        raise WireError(f"not an Arrow stream: {error}") from error
