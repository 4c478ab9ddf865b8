"""Parses a columns message: the inverse of workers/views/columns.py (docs/reference/wire.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from headrace.bpf.layout import CONTEXT

Array = np.ndarray[Any, Any]


class Section(msgspec.Struct, frozen=True):
    """The position of one column, relative to the end of the header."""

    name: str
    dtype: Literal["<u8", "<i8", "<u4", "<u2", "|u1", "context"]
    offset: Annotated[int, msgspec.Meta(ge=0)]
    count: Annotated[int, msgspec.Meta(ge=0)]


class ColumnsHeader(msgspec.Struct, frozen=True):
    """The header of a columns payload."""

    sections: list[Section]
    count: int = 0
    words: dict[str, dict[str, str]] = {}


class WireError(Exception):
    """The message does not conform to docs/reference/wire.md."""


def read_header(payload: bytes | memoryview) -> tuple[ColumnsHeader, int]:
    """The header of a payload and the byte offset of its sections. Raises WireError if the header is invalid."""
    if len(payload) < 8:
        raise WireError("a payload of less than 8 bytes")
    size = int.from_bytes(payload[:4], "little")
    if 8 + size > len(payload):
        raise WireError("the header is longer than the payload")
    try:
        header = msgspec.json.decode(bytes(payload[8 : 8 + size]), type=ColumnsHeader)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"the header is not JSON of this layout: {error}") from error
    return header, (8 + size + 7) & ~7


def read_columns(payload: bytes | memoryview) -> dict[str, Array]:
    """The sections by name, as views of `payload`. Raises WireError if a section exceeds the payload."""
    header, base = read_header(payload)
    view, found = memoryview(payload), {}
    for section in header.sections:
        dtype = CONTEXT if section.dtype == "context" else np.dtype(section.dtype)
        at = base + section.offset
        if at + section.count * dtype.itemsize > len(payload):
            raise WireError(f"section {section.name} reaches beyond the payload")
        found[section.name] = np.frombuffer(view[at : at + section.count * dtype.itemsize], dtype, section.count)
    return found
