"""Reading a message of columns: the inverse of workers/views/columns.py (docs/wire.md)."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from bpf.layout import CONTEXT

Array = np.ndarray[Any, Any]


class WireError(Exception):
    """A message that is not what docs/wire.md describes."""


def read_header(payload: bytes | memoryview) -> tuple[dict[str, Any], int]:
    """The payload's own header and where its sections begin."""
    if len(payload) < 8:
        raise WireError("a payload of less than 8 bytes")
    size = int.from_bytes(payload[:4], "little")
    if 8 + size > len(payload):
        raise WireError("the header is longer than the payload")
    try:
        header = msgspec.json.decode(bytes(payload[8 : 8 + size]))
    except msgspec.DecodeError as error:
        raise WireError(f"the header is not JSON: {error}") from error
    return header, (8 + size + 7) & ~7


def read_columns(payload: bytes | memoryview) -> dict[str, Array]:
    """The sections by name, as views of `payload`."""
    header, base = read_header(payload)
    found = {}
    for section in header["sections"]:
        dtype = CONTEXT if section["dtype"] == "context" else np.dtype(section["dtype"])
        found[section["name"]] = np.frombuffer(payload, dtype, section["count"], base + section["offset"])
    return found
