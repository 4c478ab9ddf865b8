"""Members of structures as columns (workers/detect/rules/members.py).

Rows are grouped by structure and read group by group. A call whose structure lacks the member has no value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.bpf.layout import HEAD_COMPAT
from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.structs import Member
from headrace.bpf.tables.widths import number
from headrace.workers.decode.meaning import decides
from headrace.workers.decode.values import grouped
from headrace.workers.detect.columns.view import Array, Keys, ValueColumn, View
from headrace.workers.detect.rules.members import ADDRESSES, MemberLocation, kind_of, place_of, width_of
from headrace.workers.detect.rules.values import TEXT, TextValue, Value
from headrace.workers.records.blobs import used
from headrace.workers.records.blocks import Block


class MemberColumn(ValueColumn):
    """A member of the structure behind a pointer. The key of a number is its bits, the key of a text its bytes."""

    def __init__(self, event: Event, index: int, path: str, element: int, member: Member) -> None:
        self._event, self._index, self._path, self._element = event, index, path, element
        self._of, self._mask, self._known = decides(event, event.arguments[index])
        self._kind, self._type, self._width = kind_of(member), member.type, width_of(member)

    def keys(self, view: View, chosen: Array) -> Keys:
        block, unread, _, _ = view.read(self._index, chosen)
        keys: list[Any] = [None] * len(chosen)
        compat = (view.rows.flags[chosen] & HEAD_COMPAT).astype(np.uint64)
        group = compat << np.uint64(33)
        if self._of >= 0:
            commands = used(view.rows, self._event, self._of, chosen) & np.uint64(self._mask)
            group = group | commands | np.uint64(1 << 32)
        for key, at in zip(*grouped(group), strict=True):
            command = int(key) & 0xFFFFFFFF if int(key) >> 32 & 1 else None
            command = command if command in self._known else None
            place = place_of(self._event, self._index, self._path, bool(int(key) >> 33), command)
            if place is not None:
                self._take(keys, block, unread, at, place)
        return keys

    def _take(self, keys: list[Any], block: Block, unread: Array, at: Array, place: MemberLocation) -> None:
        """Set the keys of some rows that all have the same structure."""
        if self._element and not place.step:
            return
        offset = place.offset + self._element * place.step
        at = at[(block.size[at] >= offset + place.size) & ~unread[at]]
        begin = block.begin[at] + offset
        if self._kind == TEXT:
            for row, start in zip(at.tolist(), begin.tolist(), strict=True):
                keys[row] = block.data[start : start + place.size].tobytes()
            return
        order = range(place.size) if not self._type.startswith("be") else reversed(range(place.size))
        numbers = np.zeros(len(at), np.uint64)
        for shift, byte in enumerate(order):
            numbers |= block.data[begin + byte].astype(np.uint64) << np.uint64(8 * shift)
        if place.size == 4 and self._type == "long":  # of a 32-bit call
            numbers = numbers.astype(np.uint32).view(np.int32).astype(np.int64).view(np.uint64)
        for row, bits in zip(at.tolist(), numbers.tolist(), strict=True):
            keys[row] = bits

    def value(self, key: Any) -> Value:
        if key is None:
            return None
        if isinstance(key, bytes):
            shown = ADDRESSES[self._type](key).encode() if self._type in ADDRESSES else key.split(b"\0", 1)[0]
            return TextValue((shown,))
        return number(int(key), self._width)
