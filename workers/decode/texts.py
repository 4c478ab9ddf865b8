"""Texts of one argument per row: data that pointers pointed to, and resolved paths.

Views and conditions both read texts here and therefore see the same path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.layout import (
    BLOB_BASE,
    BLOB_CUT,
    BLOB_FAULT,
    BLOB_OK,
    BLOB_STATUS,
    SOURCE_KERNEL,
    SOURCE_USER_ENTRY,
    SOURCE_USER_EXIT,
)
from headrace.bpf.tables import shown
from headrace.bpf.tables.catalogue import LEXICAL, Event
from headrace.bpf.tables.reads import NAME, PATH, ROOT, Argument
from headrace.workers.decode import paths
from headrace.workers.records import blocks
from headrace.workers.records.blobs import Blobs, bytes_of
from headrace.workers.records.rows import Rows

Array = np.ndarray[Any, Any]
SOURCES = {SOURCE_USER_EXIT: "user-exit", SOURCE_KERNEL: "kernel", SOURCE_USER_ENTRY: "user-entry"}
TEXT_TYPES = frozenset({"const char*", "char*"})
NAMES_OUT = ("readlink", "readlinkat", "getcwd")
PASSED = frozenset({"syscall_pathname", "target"})
"""Text arguments of events other than calls that come from the caller's memory."""
OUTSIDE = 16
"""A status that no record has: the file is outside the process's own root."""


class DecodedText(NamedTuple):
    """A text, or the reason why it is missing. `status` is None if nothing was read."""

    status: int | None
    source: str = ""
    data: bytes = b""

    @property
    def known(self) -> bytes | None:
        """The complete text; None if it is missing or truncated."""
        return self.data if self.status == BLOB_OK else None


ABSENT = DecodedText(None)


def is_buffer(event: Event, argument: Argument) -> bool:
    """Whether the argument has a length, which makes NUL an ordinary byte. Names written by the kernel do not count."""
    how = shown.of(event.name, argument.name, argument.type) if event.is_syscall else None
    return how is not None and how.text and bool(how.count) and event.name not in NAMES_OUT


class Texts:
    """Reader for the texts of one argument of one event."""

    def __init__(self, event: Event, index: int) -> None:
        argument = event.arguments[index]
        self._own = argument.form == ROOT
        self.index = index
        if self._own:
            of = event.index(argument.name.removeprefix("root_"))
            assert of is not None
            self.index = of
        self._form = event.arguments[self.index].form
        self._is_text = argument.type in TEXT_TYPES and not is_buffer(event, argument)
        self._usual = SOURCE_USER_EXIT if event.is_syscall or argument.name in PASSED else SOURCE_KERNEL

    def simple(self, rows: Rows, chosen: Array, found: Blobs) -> Array | None:
        """Positions in `found` of the chosen rows' blobs, if each text depends only on the bytes of its blob; else
        None. shown() converts these bytes.
        """
        if not self._is_text or self._own or self._form == NAME:
            return None
        entries = found.entries(self.index, len(rows), chosen)
        if (entries < 0).any() or (found.status[entries] != (BLOB_OK | self._usual)).any():
            return None
        return None if (found.arg == BLOB_BASE | self.index).any() else entries

    def shown(self, data: bytes) -> DecodedText:
        """The text of a blob for which simple() holds."""
        return DecodedText(BLOB_OK, SOURCES[self._usual], paths.walked(data) if self._form == PATH else data)

    def known(self, rows: Rows, chosen: Array, found: Blobs) -> list[bytes | None]:
        """The complete text of each chosen row, None if unknown. Converts all texts at once unless bases must be
        joined.
        """
        if self._own or (found.arg == BLOB_BASE | self.index).any():
            return [text.known for text in self.read(rows, chosen, found)]
        entries = found.entries(self.index, len(rows), chosen)
        whole = found.statuses(entries) == BLOB_OK
        block = found.texts(rows.data, entries[whole])
        block = blocks.walked(block) if self._form == PATH else block.stripped if self._is_text else block
        texts: list[bytes | None] = list(block.texts())
        if whole.all():
            return texts
        each = iter(texts)
        return [next(each) if has else None for has in whole.tolist()]

    def read(self, rows: Rows, chosen: Array, found: Blobs) -> list[DecodedText]:
        """The text of each chosen row."""
        entries = found.entries(self.index, len(rows), chosen).tolist()
        if self._form not in (PATH, NAME) or not (found.arg == BLOB_BASE | self.index).any():
            return [self._blob(rows, found, entry) for entry in entries]
        bases = found.entries(BLOB_BASE | self.index, len(rows), chosen).tolist()
        return [
            self._joined(rows, found, entry, base) if base >= 0 else self._blob(rows, found, entry)
            for entry, base in zip(entries, bases, strict=True)
        ]

    def _blob(self, rows: Rows, found: Blobs, entry: int) -> DecodedText:
        if entry < 0:
            return ABSENT
        packed = int(found.status[entry])
        status, source = packed & BLOB_STATUS, SOURCES.get(packed & ~BLOB_STATUS, "")
        data = bytes_of(rows, found, entry)
        if status not in (BLOB_OK, BLOB_CUT) and not (status == BLOB_FAULT and data):
            return DecodedText(status, source)
        if self._own:
            return self._of_own_root(data, int(found.whole[entry]), status, source)
        if self._form == PATH:
            data = paths.walked(data)
        elif self._is_text:
            data = data.rstrip(b"\0")  # like byte_strings(): some results count their NUL
        return DecodedText(status, source, data)

    @staticmethod
    def _of_own_root(data: bytes, whole: int, status: int, source: str) -> DecodedText:
        own = paths.own_root(data, whole) if whole else paths.walked(data)
        return DecodedText(OUTSIDE, source) if own is None else DecodedText(status, source, own)

    def _joined(self, rows: Rows, found: Blobs, entry: int, base: int) -> DecodedText:
        for part in (entry, base):
            if part < 0:
                return ABSENT
            status = int(found.status[part]) & BLOB_STATUS
            if status != BLOB_OK:
                return DecodedText(status, LEXICAL)
        name, left = bytes_of(rows, found, entry), int(found.whole[entry])
        if left:  # the kernel has resolved the name up to here, to the base directory
            name = name[left - 1 :]
        source = SOURCES[SOURCE_KERNEL] if left else LEXICAL
        path, own = paths.joined(bytes_of(rows, found, base), int(found.whole[base]), name)
        if not self._own:
            return DecodedText(BLOB_OK, source, path)
        return DecodedText(OUTSIDE, source) if own is None else DecodedText(BLOB_OK, source, own)
