"""Interface of a style of lines, which formats their pieces (views/json_lines.py, views/table.py)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.reads import Argument

Array = np.ndarray[Any, Any]


class Steps:
    """Changes of the wall clock during the run, and the offset from each on (pipeline/transport/offsets.py)."""

    def __init__(self) -> None:
        self.since_ns: Array = np.zeros(0, np.uint64)
        self.offset_ns: Array = np.zeros(0, np.int64)

    def know(self, steps: Array) -> None:
        """Set the changes, in order of time."""
        self.since_ns, self.offset_ns = steps["since_ns"].copy(), steps["offset_ns"].copy()


@dataclass(frozen=True)
class HostFacts:
    """Data on the traced host that views need. A recording contains it."""

    boot_epoch_ns: int
    """CLOCK_REALTIME minus CLOCK_BOOTTIME, before the first of the `steps`."""
    relative_to_ns: int | None = None
    """CLOCK_BOOTTIME to which shown times are relative; None: shown times are since the epoch."""

    steps: Steps = field(default_factory=Steps)

    def shown_ns(self, time_ns: Array) -> Array:
        """Converts CLOCK_BOOTTIME times to shown times, u64, each with the offset that was valid then."""
        if self.relative_to_ns is not None:
            return time_ns - np.uint64(self.relative_to_ns)
        base = np.int64(self.boot_epoch_ns)
        if not len(self.steps.since_ns):
            return time_ns + base.view(np.uint64)
        offsets = np.r_[base, self.steps.offset_ns]
        at = np.searchsorted(self.steps.since_ns, time_ns, "right")
        shown: Array = time_ns + offsets[at].view(np.uint64)
        return shown


class Value(NamedTuple):
    """Value of an argument: `shown` for people and JSON; `raw` is the number if `shown` is words."""

    shown: object
    raw: int | None = None
    reason: str = ""
    cut: bool = False
    source: str = ""
    exact: bytes | None = None
    """The bytes, if other bytes would result in the same `shown`."""


class RowMarks(NamedTuple):
    """Attributes of a row in addition to its flags."""

    late: bool = False
    container_started: bool = False
    policies: int = 0
    """Mask of the policies that it belongs to."""


class Style(Protocol):
    """Formats the pieces of a line."""

    end: str
    stacks: bool
    """Whether a line ends with the stack."""

    def time(self, time_ns: Array, flags: Array) -> Array:
        """First piece of every row, from CLOCK_BOOTTIME, as an array of bytes (dtype S)."""

    def who(self, context: Any, cpu: int) -> str:
        """Piece of one process context (a CONTEXT scalar)."""

    def forget_who(self) -> None:
        """Discard cached data of who() after more has become known."""

    def event(self, event: Event, flags: int, marks: RowMarks, retval: int, arguments: int) -> str:
        """Piece of an event and its result; `arguments` is the number of arguments that follow."""

    def order(self, event: Event) -> Sequence[int]:
        """The arguments to show, by index, in the order in which they are shown."""

    def argument(self, event: Event, argument: Argument, position: int, value: Value) -> str:
        """Piece of one argument of an event; `position` is its place in the line, 0 for the first."""

    def stack(self, addresses: bytes) -> str:
        """Piece of a stack of addresses, u64 each; b"" if there is none."""


def said(name: str, data: bytes) -> dict[str, str]:
    """A text under its name and, if it is not UTF-8, its exact bytes in base64."""
    shown = text(data)
    return {name: shown} if "\ufffd" not in shown else {name: shown, f"{name}Base64": base64.b64encode(data).decode()}


def exact(name: str, encoded: object) -> bytes:
    """Decodes the exact bytes of a text. Raises ValueError if they are not base64."""
    try:
        return base64.b64decode(encoded, validate=True)  # type: ignore[arg-type]
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"{name}: not base64") from error


def said_user(name: str | None) -> dict[str, str]:
    """The user's name under `user`, if it is known."""
    return {} if name is None else said("user", name.encode("utf-8", "surrogateescape"))


def text(data: bytes) -> str:
    """Bytes as text. Invalid UTF-8 becomes the replacement character."""
    return data.decode("utf-8", "replace")
