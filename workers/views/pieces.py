"""Rows to text, piece by piece: what JSON lines and the table have in common.

A line is a join of pieces: time | who | event and result | an argument each. All but the time
repeat, so each distinct piece is rendered once and is a number from then on (views/store.py); a batch
is then a few passes of numpy and dictionary look-ups in C, and one join. What a piece looks like is a
Style's business (views/json_lines.py, views/table.py); the last of a line has the line's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from bpf.catalogue import BUFFERS, UNREAD, WALKED, Argument, Catalogue, Event
from bpf.layout import (
    BLOB_CUT,
    BLOB_FAULT,
    BLOB_NULL,
    BLOB_OK,
    EVENTS,
    HEAD_COMPAT,
    HEAD_EXEC_IMAGE,
)
from workers.blobs import Blobs, argument, blobs
from workers.decode.flags import Parser, parser_of, pointer
from workers.decode.structs import STRUCTS
from workers.decode.values import byte_strings, is_pointer, number, walked_path
from workers.rows import Contexts, Rows
from workers.views.store import Cache, Store

Array = np.ndarray[Any, Any]
REASONS = {BLOB_FAULT: "fault", BLOB_NULL: "null", None: "not read"}
TEXT_TYPES = frozenset({"const char*", "char*"})
VECTOR_TYPE = "const char*const*"


@dataclass(frozen=True)
class Facts:
    """What the views must know of the traced host; a recording carries it."""

    boot_epoch_ns: int
    """CLOCK_REALTIME minus CLOCK_BOOTTIME."""


@dataclass(frozen=True)
class Value:
    """One argument's value: `shown` for people and JSON, `raw` the number if `shown` is words."""

    shown: object
    raw: int | None = None
    reason: str = ""
    cut: bool = False


class Style(Protocol):
    """How the pieces of a line look."""

    end: str

    def time(self, time_ns: Array, flags: Array) -> Array:
        """First piece of every row, from CLOCK_BOOTTIME, as an array of bytes (dtype S)."""

    def who(self, context: Any, cpu: int) -> str:
        """Piece of one process context (a CONTEXT scalar)."""

    def event(self, event: Event, flags: int, late: bool, retval: int) -> str:
        """Piece of an event and its result."""

    def argument(self, argument: Argument, index: int, value: Value) -> str:
        """Piece of one argument; `index` tells the first from the others."""


def text(data: bytes) -> str:
    """Bytes of a string as text; what is not UTF-8 shows as the replacement character."""
    return data.decode("utf-8", "replace")


class ArgumentPieces:
    """Pieces of one argument of one event, for one set of head flags."""

    def __init__(
        self, event: Event, index: int, flags: int, style: Style, parse: bool, syscalls: dict[int, str], store: Store
    ) -> None:
        self.argument = event.arguments[index]
        self.index = index
        self._style, self._parse = style, parse
        self._end = style.end if index == len(event.arguments) - 1 else ""
        self._compat = bool(flags & HEAD_COMPAT)
        self._parser = self._choose_parser(event, syscalls) if parse else None
        kind = self.argument.type
        self.is_blob = any(b.arg == index for b in event.blobs) or (
            not event.is_syscall and (kind in TEXT_TYPES or kind == VECTOR_TYPE)
        )
        self.is_text = kind in TEXT_TYPES
        self._walked = (event.name, self.argument.name) in WALKED
        self._unread = (event.name, self.argument.name) in UNREAD
        # the first bytes of a buffer are there only if they were asked for
        self._is_buffer = BUFFERS.get(event.name, (None,))[0] == index
        self._image = bool(flags & HEAD_EXEC_IMAGE)
        self.numbers = Cache(store, self._number_piece)
        self.texts = Cache(store, self._text_piece)
        self._others = Cache(store, self._other_piece)

    def _choose_parser(self, event: Event, syscalls: dict[int, str]) -> Parser | None:
        if self.argument.name == "syscall":
            return lambda raw: syscalls.get(raw & 0xFFFFFFFF, str(number(raw, "int", False)))
        return parser_of(event.name, self.argument.name, self.argument.type)

    def _piece(self, value: Value) -> str:
        return self._style.argument(self.argument, self.index, value) + self._end

    def _number_piece(self, raw: int) -> str:
        kind = self.argument.type
        value = number(raw, kind, self._compat)
        if self._parser is not None:
            return self._piece(Value(self._parser(raw), value))
        if is_pointer(kind):
            return self._piece(Value(pointer(raw)) if self._parse else Value(raw))
        return self._piece(Value(bool(value) if kind == "bool" else value))

    def _text_piece(self, data: bytes) -> str:
        return self._piece(Value(data))

    def _other_piece(self, key: tuple[int | None, int, bytes]) -> str:
        status, raw, data = key
        if status not in (BLOB_OK, BLOB_CUT):
            reason = REASONS.get(status, "not read")
            if self._image and status is None:
                reason = "exec"
            return self._piece(Value(None, raw or None, reason))
        return self._piece(self._blob_value(data, raw, status == BLOB_CUT))

    def _blob_value(self, data: bytes, raw: int, cut: bool) -> Value:
        kind = self.argument.type
        if self.is_text:
            return Value(data, cut=cut)
        if kind == VECTOR_TYPE:
            return Value(data.removesuffix(b"\0").split(b"\0") if data else [], cut=cut)
        decoder, least = STRUCTS.get(kind, (None, 0))
        if decoder is None:
            return Value(data, cut=cut)
        if len(data) < least:
            return Value(None, raw, "short")
        return Value(decoder(data), cut=cut)

    def render(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        """The number of a piece for each chosen row."""
        if self._unread:
            return np.full(len(chosen), self._others[None, 0, b""])
        if self._walked:
            return self._slow(rows, chosen, found)
        if self._is_buffer and (found.arg == self.index).any():
            return self._slow(rows, chosen, found)
        if not self.is_blob:
            return self.numbers.numbers(argument(rows, self.index, chosen))
        entry = self._entries(rows, chosen, found)
        if self.is_text and (entry >= 0).all() and (found.status[entry] == BLOB_OK).all():
            return self.texts.numbers_of(byte_strings(rows.data, found.start[entry], found.bytes[entry]))
        return self._slow(rows, chosen, found)

    def _entries(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        """Position of each chosen row's blob in `found`, -1 if it has none."""
        of_row = np.full(len(rows), -1, np.int64)
        mine = np.flatnonzero(found.arg == self.index)
        of_row[found.row[mine]] = mine
        return of_row[chosen]

    def _slow(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        raws = argument(rows, self.index, chosen).tolist()
        pieces: list[int] = []
        for raw, at in zip(raws, self._entries(rows, chosen, found).tolist(), strict=True):
            if at < 0:
                pieces.append(self.numbers[raw] if self._is_buffer else self._others[None, raw, b""])
                continue
            start, status = int(found.start[at]), int(found.status[at])
            data = rows.data[start : start + int(found.bytes[at])].tobytes()
            if self._walked:
                data = walked_path(data)
            elif self.is_text:
                data = data.rstrip(b"\0")  # as byte_strings() does: some results count their NUL
            pieces.append(self._others[status, raw, data])
        return np.array(pieces, np.int64)


@dataclass
class Group:
    """Rows of one event with the same flags."""

    event: Event
    results: Cache
    arguments: list[ArgumentPieces]


class Text(NamedTuple):
    """Rendered rows: all lines, UTF-8, and where each ends (i64, one a row)."""

    data: bytes
    ends: Array


class Lines:
    """Renders rows as lines of text. One per worker and output format."""

    def __init__(self, catalogue: Catalogue, style: Style, parse: bool = True) -> None:
        self._catalogue, self._style, self._parse = catalogue, style, parse
        self._contexts: Contexts | None = None
        self._generation = 0
        self._native = {c.number: c.event.name for c in catalogue.calls if not c.compat}
        self._compat = {c.number: c.event.name for c in catalogue.calls if c.compat}
        self.counts = argument_counts(catalogue)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._store = Store()
        self._groups: dict[int, Group] = {}
        self._who = Cache(self._store, self._who_piece)

    def _who_piece(self, key: int) -> str:
        assert self._contexts is not None
        return self._style.who(self._contexts.table[key >> 16], key & 0xFFFF)

    def _group(self, key: int) -> Group:
        group = self._groups.get(key)
        if group is None:
            event = self._catalogue.by_id[key & 0xFFFF]
            flags, late = (key >> 16) & 0xFF, bool(key >> 24)
            style, syscalls = self._style, self._compat if flags & HEAD_COMPAT else self._native
            end = "" if event.arguments else style.end

            def result(retval: int) -> str:
                return style.event(event, flags, late, retval) + end

            pieces: list[ArgumentPieces] = []
            for i in range(len(event.arguments)):
                pieces.append(ArgumentPieces(event, i, flags, style, self._parse, syscalls, self._store))
            group = self._groups[key] = Group(event, Cache(self._store, result), pieces)
        return group

    def render(self, rows: Rows, contexts: Contexts) -> Text:
        """All rows, a line each."""
        if not len(rows):
            return Text(b"", np.zeros(0, np.int64))
        if self._store.full:
            self._begin_anew()
        if self._contexts is not contexts or self._generation != contexts.generation:
            self._contexts, self._generation = contexts, contexts.generation
            self._who.clear()
        keys = rows.event.astype(np.uint32) | rows.flags.astype(np.uint32) << 16 | rows.late.astype(np.uint32) << 24
        distinct, inverse = np.unique(keys, return_inverse=True)
        groups = [self._group(int(key)) for key in distinct]
        pieces_of = np.array([3 + len(g.arguments) for g in groups], np.int64)[inverse]
        ends = np.cumsum(pieces_of)
        first = ends - pieces_of
        numbers = np.zeros(int(ends[-1]), np.int64)
        numbers[first + 1] = self._who.numbers(rows.who.astype(np.int64) << 16 | rows.cpu.astype(np.int64))
        found = blobs(rows, self.counts)
        for i, group in enumerate(groups):
            chosen = np.flatnonzero(inverse == i)
            at = first[chosen] + 2
            numbers[at] = group.results.numbers(rows.retval[chosen])
            for pieces in group.arguments:
                at += 1
                numbers[at] = pieces.render(rows, chosen, found)
        times = self._style.time(rows.time_ns, rows.flags)
        parts, lengths = self._store.pieces(numbers), self._store.lengths(numbers)
        parts[first], lengths[first] = times, np.strings.str_len(times)
        return Text(b"".join(parts.tolist()), np.cumsum(lengths)[ends - 1])


def argument_counts(catalogue: Catalogue) -> Array:
    """Arguments per event id, u8[EVENTS]."""
    counts = np.zeros(EVENTS, np.uint8)
    for event in catalogue.by_id.values():
        counts[event.id] = len(event.arguments)
    return counts
