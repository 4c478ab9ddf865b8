"""Fields of records as columns: a key for each row, and the value of a key (workers/detect/columns/view.py)."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from headrace.bpf.layout import (
    BLOB_BASE,
    BLOB_CUT,
    BLOB_FAULT,
    BLOB_OK,
    BLOB_RACED,
    HEAD_ENTRY,
    HEAD_NO_OBJECT,
    HEAD_NOT_RUN,
    HEAD_OWN_ROOT,
    HEAD_OWN_TARGET,
    ROOT_NOT_MET,
)
from headrace.bpf.tables.catalogue import LEXICAL, Event
from headrace.bpf.tables.reads import NAME, NAMED, OBJECT, PATH, ROOT, UNREAD
from headrace.bpf.tables.widths import number
from headrace.workers.decode import paths, texts
from headrace.workers.decode.ignored import Ignored
from headrace.workers.decode.meaning import Commanded, decides, pointing
from headrace.workers.decode.sockaddr import decode as decode_sockaddr
from headrace.workers.decode.texts import Texts
from headrace.workers.detect.columns.view import Array, Bulk, Keys, ValueColumn, View, Walked, elements, listed
from headrace.workers.detect.rules.fields import FAMILIES, SOCKADDR_TYPE, Field
from headrace.workers.detect.rules.values import BYTES, TextValue, Value, text
from headrace.workers.records import blocks
from headrace.workers.records.blobs import argument, used
from headrace.workers.records.blocks import Block, byte_strings
from headrace.workers.views.pieces import VECTOR_TYPE

LOW = np.uint64(0xFFFFFFFF)
NONE = np.zeros(0, bool)
MAX_ADDRESS = 32
"""Bytes of an address that matter for family and port. Longer sizes are treated as this one."""
UNKNOWN_ADDRESS = 1 << 63


def used_keys(ignored: Ignored, view: View, chosen: Array, keys: Keys) -> Keys:
    """The keys, with None for rows whose call did not use the argument."""
    if not ignored or not (mask := ignored.of(view.rows, chosen)).any():
        return keys
    return [None if unused else key for unused, key in zip(mask.tolist(), listed(keys), strict=True)]


class NumberColumn(ValueColumn):
    """An argument that is a number."""

    def __init__(self, field: Field) -> None:
        argument = field.event.arguments[field.argument]
        self._event, self._index, self._width = field.event, field.argument, argument.width
        self._never, self._object = argument.form in (UNREAD, NAMED), argument.form == OBJECT
        self._ignored = Ignored(field.event, field.argument)
        self._of, self._mask, _ = decides(field.event, argument)
        self._pointing = pointing(field.event, argument)

    def keys(self, view: View, chosen: Array) -> Keys:
        if self._never:
            return [None] * len(chosen)
        raw = used(view.rows, self._event, self._index, chosen)
        flags = view.rows.flags[chosen]
        if self._object and (flags & HEAD_NO_OBJECT).any():
            lacking = (flags & HEAD_NO_OBJECT).astype(bool).tolist()
            return [None if lacks else key for lacks, key in zip(lacking, raw.tolist(), strict=True)]
        keys = used_keys(self._ignored, view, chosen, raw)
        return keys if self._of < 0 else self._commanded(view, chosen, keys)

    def _commanded(self, view: View, chosen: Array, keys: Keys) -> Keys:
        commands = used(view.rows, self._event, self._of, chosen) & np.uint64(self._mask)
        return [
            None if key is None or command in self._pointing else (key, command)
            for key, command in zip(listed(keys), commands.tolist(), strict=True)
        ]

    def value(self, key: Any) -> Value:
        if isinstance(key, tuple):
            return Commanded.of(number(key[0], self._width), key[1])
        return None if key is None else number(key, self._width)


class ResultColumn(ValueColumn):
    """The result of a call."""

    def keys(self, view: View, chosen: Array) -> Keys:
        found, flags = view.rows.retval[chosen], view.rows.flags[chosen]
        none = (flags & (HEAD_ENTRY | HEAD_NOT_RUN)).astype(bool)
        if not none.any():
            return found
        return [None if no else key for no, key in zip(none.tolist(), found.tolist(), strict=True)]

    def value(self, key: Any) -> Value:
        return None if key is None else int(key)


class TextColumn(ValueColumn):
    """A text. The key is the bytes of a blob, or a TextValue if the bytes alone do not determine the value."""

    def __init__(self, event: Event, index: int) -> None:
        self._event, self._index = event, index
        self._texts, self._ignored = Texts(event, index), Ignored(event, index)
        argument = event.arguments[index]
        self._form = argument.form
        own = event.index(f"root_{argument.name}")
        self._own = Texts(event, own) if own is not None and argument.form in (PATH, NAME) else None

    def keys(self, view: View, chosen: Array) -> Keys:
        return used_keys(self._ignored, view, chosen, self._keys(view, chosen))

    def _keys(self, view: View, chosen: Array) -> Keys:
        rows, found = view.rows, view.found
        rooted = (rows.flags[chosen] & HEAD_OWN_ROOT).astype(bool) if self._own else np.zeros(0, bool)
        simple = None if rooted.any() else self._texts.simple(rows, chosen, found)
        if simple is not None:
            return byte_strings(rows.data, found.start[simple], found.bytes[simple])
        read = [self._text(t) for t in self._texts.read(rows, chosen, found)]
        if self._own is None or not rooted.any():
            return read
        own = [t.known for t in self._own.read(rows, chosen, found)]
        return [
            first._replace(parts=(*first.parts, below)) if first and root and below is not None else first
            for first, below, root in zip(read, own, rooted.tolist(), strict=True)
        ]

    @staticmethod
    def _text(read: texts.DecodedText) -> TextValue | None:
        if read.status == BLOB_RACED:
            return TextValue((), True)
        in_part = read.status == BLOB_FAULT and bool(read.data)
        if read.status not in (BLOB_OK, BLOB_CUT) and not in_part:
            return None
        return TextValue((read.data,), in_part or read.status == BLOB_CUT, read.source == LEXICAL)

    def value(self, key: Any) -> Value:
        return TextValue((self._texts.shown(key).data,)) if isinstance(key, bytes) else key

    def walked(self, view: View, chosen: Array) -> Walked | None:
        if self._form != PATH or (view.found.arg == BLOB_BASE | self._index).any():
            return None
        block, unread, cut, _ = view.read(self._index, chosen)
        return Walked(block, unread, cut | (view.rows.flags[chosen] & HEAD_OWN_ROOT).astype(bool))

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        if self._form == ROOT:
            return None  # its value is in the text of another argument
        rows, found = view.rows, view.found
        block, unread, cut, entry = view.read(self._index, chosen)
        if self._ignored:
            unread = unread | self._ignored.of(rows, chosen)
            cut = cut & ~unread
        if self._form in (PATH, NAME) and (found.arg == BLOB_BASE | self._index).any():
            based = found.entries(BLOB_BASE | self._index, len(rows), chosen) >= 0
            unread, cut = unread & ~based, cut | based
        below = (rows.flags[chosen] & HEAD_OWN_ROOT).astype(bool) & ~unread if self._own else NONE
        if self._form == PATH:
            texts = [blocks.walked(block)]
            if below.any():
                own, odd = self._below(block, below, found.wholes(entry))
                texts, cut = [*texts, own], cut | odd
            return Bulk(texts, unread, cut)
        return Bulk([block], unread, cut | below if below.any() else cut)

    @staticmethod
    def _below(block: Block, below: Array, whole: Array) -> tuple[Block, Array]:
        """Paths as seen from the process's own root, and a mask of those that are the root itself or malformed."""
        size = whole - 1
        has = below & (size >= 0) & (whole != ROOT_NOT_MET)
        good = has & (size > 0) & (size <= block.size)
        size = np.where(good, size, 0)
        good &= block.data[block.begin + size - 1] == blocks.NUL
        # Other rows get an empty text, at the NUL before all texts.
        own = Block(block.data, np.where(good, block.begin, 1), np.where(good, size, 0))
        return blocks.walked(own, good), has & ~good


class BlobColumn(ValueColumn):
    """All bytes behind a pointer. The key is (bytes, whether they were truncated)."""

    def __init__(self, field: Field) -> None:
        self._field, self._index = field, field.argument
        self._ignored = Ignored(field.event, field.argument)

    def keys(self, view: View, chosen: Array) -> Keys:
        return used_keys(self._ignored, view, chosen, self._keys(view, chosen))

    def _keys(self, view: View, chosen: Array) -> Keys:
        keys = view.wholes(self._index, chosen)
        if self._field.element is None:
            return keys
        # Cache the element, because whole vectors seldom recur.
        element, parts = self._field.element, view.parts(self._index, chosen)
        return [
            None if split is None or element >= len(split) else (split[element], key[1] and element == len(split) - 1)
            for key, split in zip(keys, parts, strict=True)
        ]

    def value(self, key: Any) -> Value:
        if key is None:
            return None
        data, cut = key
        field = self._field
        if field.kind == BYTES:
            return bytes(data)
        if field.type == SOCKADDR_TYPE:
            return address_part(decode_sockaddr(data), field.column)
        if field.element is not None:
            return TextValue((data,), cut)
        return TextValue(tuple(elements(data)), cut)

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        field = self._field
        if field.type != VECTOR_TYPE:
            return None
        block, unread, cut, _ = view.read(self._index, chosen)
        if field.element is None:
            return Bulk([block], unread, cut)
        found, has = blocks.element(block, field.element)
        return Bulk([found], ~has & ~cut, cut)


class AddressNumberColumn(ValueColumn):
    """Family or port of an address. The key holds what determines it: the first four bytes, and the size in bytes."""

    def __init__(self, field: Field) -> None:
        self._index, self._part = field.argument, field.column

    def keys(self, view: View, chosen: Array) -> Keys:
        block, unread, _, _ = view.read(self._index, chosen)
        words = block.data.view(np.uint64)[block.begin // blocks.WORD]
        keys = words & LOW | np.minimum(block.size, MAX_ADDRESS).astype(np.uint64) << 32
        return np.where(unread, np.uint64(UNKNOWN_ADDRESS), keys)

    def value(self, key: Any) -> Value:
        if key == UNKNOWN_ADDRESS:
            return None
        data = (int(key) & 0xFFFFFFFF).to_bytes(4, "little") + bytes(MAX_ADDRESS)
        return address_part(decode_sockaddr(data[: int(key) >> 32]), self._part)


def address_part(address: dict[str, str], part: str) -> Value:
    """A part of a socket address; None if its family has no such part. A mapped IPv4 address has two readings."""
    family = FAMILIES.get(address.get("sa_family", ""))
    if part == "family":
        return family
    if part == "path":
        found = address.get("sun_path")
        return None if found is None else text(found)
    if part == "port":
        port = address.get("sin_port", address.get("sin6_port"))
        return int(port) if port is not None and port.isdecimal() else None
    shown = address.get("sin_addr", address.get("sin6_addr"))
    if shown is None:
        return None
    try:
        mapped = getattr(ipaddress.ip_address(shown), "ipv4_mapped", None)
    except ValueError:
        return text(shown)
    return TextValue((shown.encode(), str(mapped).encode())) if mapped else text(shown)


class TargetColumn(ValueColumn):
    """Whether a call on a process targets the caller. The key is (pid, own ns_tgid, own ns_tid, the kernel's flag)."""

    def __init__(self, field: Field) -> None:
        self._index = field.argument

    def keys(self, view: View, chosen: Array) -> Keys:
        rows = view.rows
        pids = (argument(rows, self._index, chosen) & LOW).tolist()
        table = view.contexts.table[rows.who[chosen]]
        told = (rows.flags[chosen] & HEAD_OWN_TARGET).astype(bool).tolist()
        return list(zip(pids, table["ns_tgid"].tolist(), table["ns_tid"].tolist(), told, strict=True))

    def value(self, key: Any) -> Value:
        pid, group, thread, told = key
        return int(told or pid in (group, thread))


class DescriptorColumn(ValueColumn):
    """The file of a call's descriptor."""

    def __init__(self, field: Field) -> None:
        self._index = field.argument
        self._blob = BlobColumn(Field(field.name, BYTES, "argument", field.event, field.argument))
        self._ignored = Ignored(field.event, field.argument)

    def keys(self, view: View, chosen: Array) -> Keys:
        return self._blob.keys(view, chosen)

    def value(self, key: Any) -> Value:
        return None if key is None else TextValue((paths.walked(key[0]),), key[1])

    def bulk(self, view: View, chosen: Array) -> Bulk | None:
        block, unread, cut, _ = view.read(self._index, chosen)
        unread = unread | self._ignored.of(view.rows, chosen)
        return Bulk([blocks.walked(block)], unread, cut & ~unread)
