"""Renders rows as text from cached pieces. Shared by JSON lines and the table.

A line is a sequence of pieces: time | who | event and result | one per argument. All except the time repeat, so each
distinct piece is rendered once and then referred to by number (views/store.py). Rendering a batch takes a few numpy
passes, dictionary lookups in C, and one join. A Style formats the pieces (views/json_lines.py, views/table.py). The
last piece of a line includes the line end.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from headrace.bpf.layout import (
    BLOB_BYPASS,
    BLOB_CUT,
    BLOB_FAULT,
    BLOB_NULL,
    BLOB_OK,
    BLOB_RACED,
    BLOB_STACK,
    BLOB_STATUS,
    HEAD_COMPAT,
    HEAD_EXEC_IMAGE,
    HEAD_NO_OBJECT,
    HEAD_OWN_ROOT,
)
from headrace.bpf.tables.catalogue import Catalogue, Event
from headrace.bpf.tables.reads import BUFFERS, HASH, KERNEL, NAMED, OBJECT, ROOT, SOCKADDR, UNREAD, VECTOR
from headrace.bpf.tables.widths import number
from headrace.workers.decode import paths
from headrace.workers.decode.composed import decimal32, pointer
from headrace.workers.decode.flags import parser_by_command, parser_of
from headrace.workers.decode.ignored import REASON, Ignored
from headrace.workers.decode.meaning import BYTES_TYPE, by_variant, decides, is_read, shown_of
from headrace.workers.decode.numbers import Parser
from headrace.workers.decode.sockaddr import is_exact
from headrace.workers.decode.structs import Decoder, decoder_of, is_lossy, option_value, typed_decoder
from headrace.workers.decode.texts import ABSENT, OUTSIDE, DecodedText, Texts
from headrace.workers.decode.values import grouped, is_pointer
from headrace.workers.enrich.executables import Executables
from headrace.workers.records.blobs import Blobs, argument_counts, blobs, bytes_of, used
from headrace.workers.records.blocks import byte_strings
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.commanded import CommandedPieces, RenderedPieces
from headrace.workers.views.groups import GroupKeys
from headrace.workers.views.lineage import Lineages
from headrace.workers.views.named import Named, NamedPieces, unasked
from headrace.workers.views.store import Cache, Store
from headrace.workers.views.style import Style, Value

Array = np.ndarray[Any, Any]
REASONS = {
    BLOB_FAULT: "fault",
    BLOB_NULL: "null",
    BLOB_RACED: "raced",
    BLOB_BYPASS: "bypass",
    OUTSIDE: "outside",
    None: "not read",
}
VECTOR_TYPE, ADDRESS_TYPE = VECTOR, SOCKADDR
LOW = 0xFFFFFFFF
MAX_GROUPS = 4096
"""Maximum groups. The BPF programs produce some hundreds; a recording can contain any combination."""
SOME_NUMBER, SOME_ADDRESS = 7_777_777, "0x7777777"


class ArgumentPieces:
    """Pieces of one argument of one event, for one set of head flags."""

    def __init__(
        self,
        event: Event,
        index: int,
        flags: int,
        style: Style,
        parse: bool,
        syscalls: dict[int, str],
        store: Store,
        position: int,
        last: bool,
        executables: Executables | None = None,
        hidden: bool = False,
        command: int | None = None,
    ) -> None:
        """`position`: place of the argument in the line; `hidden`: do not show the
        argument, which is in the record only for signatures; `command`: the value of the
        argument that decides the meaning of this one, if there is such an argument.
        """
        self.argument = argument = event.arguments[index]
        self._event, self.index = event, index
        self._style, self._parse, self._position = style, parse, position
        self._end = style.end if last else ""
        self._compat = bool(flags & HEAD_COMPAT)
        self._command = command
        self._parser = self._choose_parser(event, syscalls) if parse else None
        kind = argument.type
        self._how = shown_of(event, argument, command)
        self.is_blob = is_read(event, index, self._how, command)
        variant = by_variant(self._how, command)
        self._decoder = typed_decoder(kind, self._compat) or (
            decoder_of(self._how, self._compat, variant) if self._how and self._how.struct else None
        )
        self._option = event.index("optname") if argument.name == "optval" else None
        # the first bytes of a buffer are in the record only if they were requested
        self._is_buffer = BUFFERS.get(event.name, (None,))[0] == index
        self._texts = Texts(event, index)
        self._source = KERNEL if argument.form in (KERNEL, OBJECT) else ""
        no_object = bool(flags & HEAD_NO_OBJECT)
        self._never = hidden or argument.form == UNREAD or (argument.form == OBJECT and no_object)
        self._missing = "no object" if no_object else "exec" if flags & HEAD_EXEC_IMAGE else "not read"
        self._is_address = parse and is_pointer(kind)
        # most numbers occur once, so the constant text around a number is computed in advance
        example = SOME_ADDRESS if self._is_address else SOME_NUMBER
        around = self._piece(Value(example, source=self._source)).split(str(example))
        self._lead, self._tail = around[0], around[-1]
        # a style may leave an argument out, or show its numbers as words
        self._has_number = len(around) == 2
        self.numbers = Cache(store, self._number_piece)
        self.simple = Cache(store, self._simple_piece)
        self._others = Cache(store, self._other_piece)
        self._ignored = Ignored(event, index)
        self._reasons = Cache(store, lambda reason: self._piece(Value(None, reason=reason)))
        self._executables = executables
        self._digests = Cache(store, self._digest_piece)
        self._is_descriptor = event.descriptor == index
        self._descriptors = Cache(store, self._descriptor_piece)

    def _choose_parser(self, event: Event, syscalls: dict[int, str]) -> Parser | None:
        if self.argument.name == "syscall":
            return lambda raw: syscalls.get(raw & 0xFFFFFFFF, str(number(raw, "s32")))
        if self._command is not None:
            return parser_by_command(event.name, self.argument.name, self._command)
        return parser_of(event.name, self.argument.name, self.argument.type)

    def _piece(self, value: Value) -> str:
        return self._style.argument(self._event, self.argument, self._position, value) + self._end

    def _number_piece(self, raw: int) -> str:
        kind = self.argument.type
        value = number(raw, self.argument.width)
        if self._parser is decimal32:
            return self._piece(Value(number(raw, "s32"), source=self._source))
        if self._parser is not None:
            return self._piece(Value(self._parser(raw), value, source=self._source))
        if kind == "bool":
            return self._piece(Value(bool(value), source=self._source))
        if not self._has_number:
            return self._piece(Value(value, source=self._source))
        shown = pointer(raw) if self._is_address else str(raw if is_pointer(kind) else value)
        return f"{self._lead}{shown}{self._tail}"

    def _digest_piece(self, known: tuple[bytes, str]) -> str:
        digest, reason = known
        return self._piece(Value(None if reason else digest.hex().encode(), reason=reason, source=HASH))

    def _descriptor_piece(self, key: tuple[int, bytes]) -> str:
        raw, path = key
        value = number(raw, self.argument.width)
        # only an unnamed pipe has a dentry without a name
        return self._piece(Value(b"%d=%s" % (value, paths.walked(path) or b"pipe"), value, source=KERNEL))

    def _simple_piece(self, data: bytes) -> str:
        return self._other_piece((self._texts.shown(data), 0))

    def _other_piece(self, key: tuple[DecodedText, int]) -> str:
        text, raw = key
        if text.status in (BLOB_OK, BLOB_CUT):
            return self._piece(self._value(text, raw))
        if text.status == BLOB_FAULT and text.data:
            return self._piece(self._value(text, raw)._replace(reason=REASONS[BLOB_FAULT]))
        reason = self._missing if text.status is None else REASONS.get(text.status, "not read")
        return self._piece(Value(None, raw or None, reason, source=text.source))

    def _value(self, text: DecodedText, raw: int) -> Value:
        kind, data, cut = self.argument.type, text.data, text.status == BLOB_CUT
        if kind == VECTOR_TYPE:
            return Value(data.removesuffix(b"\0").split(b"\0") if data else [], cut=cut, source=text.source)
        if kind == BYTES_TYPE:
            return Value(base64.b64encode(data).decode(), cut=cut, source=text.source)
        if self._option is not None:
            return Value(option_value(raw >> 32, raw & LOW, data, self._compat), cut=cut, source=text.source)
        decoder: Decoder | None = self._decoder
        if decoder is None:
            return Value(data, cut=cut, source=text.source)
        if len(data) < decoder.least:
            return Value(None, raw, "short", source=text.source)
        shown = decoder.read(data)
        lossy = not is_exact(data) if kind == ADDRESS_TYPE else decoder.has_texts and is_lossy(shown)
        return Value(shown, cut=cut, source=text.source, exact=data if lossy else None)

    def render(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        """The piece number for each chosen row."""
        if self._never:
            return np.full(len(chosen), self._others[ABSENT, 0])
        if self._ignored and (mask := self._ignored.of(rows, chosen)).any():
            numbers = np.full(len(chosen), self._reasons[REASON])
            numbers[~mask] = self._used(rows, chosen[~mask], found)
            return numbers
        return self._used(rows, chosen, found)

    def _used(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        if self._is_buffer and (found.arg == self.index).any():
            return self._slow(rows, chosen, found)
        if self._executables is not None:
            known = map(self._executables.shown, self._executables.keys(rows, chosen))
            return self._digests.numbers_of(list(known))
        if self._is_descriptor and (found.arg == self.index).any():
            return self._with_files(rows, chosen, found)
        if not self.is_blob:
            return self.numbers.numbers(self._raws(rows, chosen))
        simple = self._texts.simple(rows, chosen, found)
        if simple is not None:
            return self.simple.numbers_of(byte_strings(rows.data, found.start[simple], found.bytes[simple]))
        return self._slow(rows, chosen, found)

    def _raws(self, rows: Rows, chosen: Array) -> Array:
        return used(rows, self._event, self.index, chosen)

    def _with_files(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        raws = self._raws(rows, chosen).tolist()
        entries = found.entries(self.index, len(rows), chosen).tolist()
        known = [entry >= 0 and int(found.status[entry]) & BLOB_STATUS == BLOB_OK for entry in entries]
        pieces = [
            self._descriptors[raw, bytes_of(rows, found, entry)] if shown else self.numbers[raw]
            for raw, entry, shown in zip(raws, entries, known, strict=True)
        ]
        return np.array(pieces, np.int64)

    def _slow(self, rows: Rows, chosen: Array, found: Blobs) -> Array:
        # a path relative to the own root has no cell
        raws = self._raws(rows, chosen).tolist() if self.argument.in_record else [0] * len(chosen)
        if self._option is not None:
            level = used(rows, self._event, self._option - 1, chosen) << np.uint64(32)
            raws = (level | used(rows, self._event, self._option, chosen) & np.uint64(LOW)).tolist()
        pieces: list[int] = []
        for raw, text in zip(raws, self._texts.read(rows, chosen, found), strict=True):
            if text is ABSENT and self._is_buffer:
                pieces.append(self.numbers[raw])
            else:
                pieces.append(self._others[text, raw])
        return np.array(pieces, np.int64)


@dataclass
class Group:
    """Rows of one event with the same flags."""

    event: Event
    results: Cache
    arguments: list[RenderedPieces]


class RenderedLines(NamedTuple):
    """Rendered rows: all lines in UTF-8, and the end of each line (i64, one per row)."""

    data: bytes
    ends: Array


class Laid(NamedTuple):
    """Rows as piece numbers. Each row's pieces end at its value in `ends`: time (left 0), who, event and result, one
    per argument, and the stack if the style has stacks. `places`: the rows of each of `groups`.
    """

    numbers: Array
    ends: Array
    groups: list[Group]
    places: list[Array]


class Lines:
    """Renders rows as lines of text. One per worker and output format."""

    def __init__(
        self,
        catalogue: Catalogue,
        style: Style,
        parse: bool = True,
        executables: Executables | None = None,
        hidden: Sequence[str] = (),
        named: Named = unasked,
        lineages: Lineages | None = None,
    ) -> None:
        """`executables`: source of executable hashes, which are omitted if it is None; `hidden`: names of arguments to
        hide; `named`: source of container information; `lineages`: source of process information in lines.
        """
        self._lineages = lineages
        self._named = named
        self._hidden = frozenset(hidden)
        self._catalogue, self._style, self._parse, self._executables = catalogue, style, parse, executables
        self._contexts: Contexts | None = None
        self._generation = 0
        self._native = {c.number: c.event.name for c in catalogue.calls if not c.compat}
        self._compat = {c.number: c.event.name for c in catalogue.calls if c.compat}
        self.counts = argument_counts(catalogue)
        self.store = Store()
        self._groups: dict[int, Group] = {}
        self._keys = GroupKeys()
        self._who = Cache(self.store, self._who_piece)
        self._stacks = Cache(self.store, self._style.stack)

    def forget_who(self) -> None:
        """Discard cached `who` pieces after more information has become available."""
        self._style.forget_who()
        self._who.clear()

    def unsay(self) -> None:
        """Undo the last render: its lines are not written but rendered again."""
        if self._lineages:
            self._lineages.unsay()

    def _who_piece(self, key: int) -> str:
        assert self._contexts is not None
        return self._style.who(self._contexts.table[key >> 16], key & 0xFFFF)

    def _group(self, key: int) -> Group:
        group = self._groups.get(key)
        if group is None:
            number, flags, marks = self._keys.read(key)
            event = self._catalogue.by_id[number]
            style, syscalls = self._style, self._compat if flags & HEAD_COMPAT else self._native
            forms = {ROOT: flags & HEAD_OWN_ROOT, HASH: self._executables is not None}
            shown = [i for i in style.order(event) if forms.get(event.arguments[i].form, True)]
            end = "" if shown else style.end

            def result(retval: int) -> str:
                return style.event(event, flags, marks, retval, len(shown)) + end

            pieces: list[RenderedPieces] = []
            for position, i in enumerate(shown):
                last = i == shown[-1]
                if event.arguments[i].form == NAMED:
                    pieces.append(NamedPieces(event, i, style, self.store, position, last, self._named))
                    continue
                hashed = self._executables if event.arguments[i].form == HASH else None
                hidden = event.arguments[i].name in self._hidden
                about = event, i, flags, style, self._parse, syscalls, self.store, position, last, hashed, hidden
                decided = decides(event, event.arguments[i])[0] >= 0
                pieces.append(
                    CommandedPieces(event, i, partial(ArgumentPieces, *about)) if decided else ArgumentPieces(*about)
                )
            group = self._groups[key] = Group(event, Cache(self.store, result), pieces)
        return group

    def lay_out(self, rows: Rows, contexts: Contexts) -> Laid:
        """The pieces of rows, of which there must be at least one."""
        crowded = len(self._groups) > MAX_GROUPS
        changed = self._contexts is not contexts or self._generation != contexts.generation
        if changed or self.store.full or crowded:
            self._contexts, self._generation = contexts, contexts.generation
            self.store.clear()
            if crowded:
                self._groups.clear()
                self._keys.clear()
                self.store.caches[:] = [self._who, self._stacks]
        keys = self._keys.of(rows, contexts)
        distinct, places = grouped(keys)
        groups = list(map(self._group, distinct.tolist()))
        pieces_of = np.empty(len(keys), np.int64)
        for group, chosen in zip(groups, places, strict=True):
            pieces_of[chosen] = 3 + len(group.arguments) + self._style.stacks
        ends = np.cumsum(pieces_of)
        first = ends - pieces_of
        numbers = np.zeros(int(ends[-1]), np.int64)
        whos = rows.who.astype(np.int64) << 16 | rows.cpu.astype(np.int64)
        numbers[first + 1] = self._who.numbers(whos)
        for row, told in self._lineages.describe(rows, contexts) if self._lineages else ():
            numbers[first[row] + 1] = self.store.add(self._who_piece(int(whos[row])) + told)
        found = blobs(rows, self.counts)
        for group, chosen in zip(groups, places, strict=True):
            at = first[chosen] + 2
            numbers[at] = group.results.numbers(rows.retval[chosen])
            for pieces in group.arguments:
                at += 1
                numbers[at] = pieces.render(rows, chosen, found)
        if self._style.stacks:
            numbers[ends - 1] = self._stack_numbers(rows, found)
        return Laid(numbers, ends, groups, places)

    def render(self, rows: Rows, contexts: Contexts) -> RenderedLines:
        """All rows, one line each."""
        if not len(rows):
            return RenderedLines(b"", np.zeros(0, np.int64))
        numbers, ends, _, _ = self.lay_out(rows, contexts)
        first = np.concatenate([[0], ends[:-1]])
        times = self._style.time(rows.time_ns, rows.flags)
        parts, lengths = self.store.pieces(numbers), self.store.lengths(numbers)
        parts[first], lengths[first] = times, np.strings.str_len(times)
        return RenderedLines(b"".join(parts.tolist()), np.cumsum(lengths)[ends - 1])

    def _stack_numbers(self, rows: Rows, found: Blobs) -> Array:
        entries = found.entries(BLOB_STACK, len(rows), np.arange(len(rows))).tolist()
        return self._stacks.numbers_of([bytes_of(rows, found, entry) if entry >= 0 else b"" for entry in entries])
