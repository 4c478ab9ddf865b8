"""Batches as columns: the binary layout that subscribers read in place with numpy (docs/reference/wire.md).

A message is a JSON header and a payload of 8-aligned sections at the offsets in the header. Rows are never folded:
every event has its own row and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.bpf.layout import CONTEXT
from headrace.bpf.tables.catalogue import Catalogue
from headrace.config.policies.claims import Claim
from headrace.workers.decode.flags import parser_of
from headrace.workers.decode.numbers import Parser
from headrace.workers.records.blobs import argument, argument_counts, blobs
from headrace.workers.records.rows import Contexts, Rows
from headrace.workers.views.style import HostFacts

Array = np.ndarray[Any, Any]
DISTINCT = 4096


class ColumnsView:
    """Rows as sections. One per worker."""

    def __init__(
        self, catalogue: Catalogue, facts: HostFacts, parse: bool = True, claims: Sequence[Claim] = ()
    ) -> None:
        self._policies = [claim.policy for claim in claims]
        self._counts = argument_counts(catalogue).astype(np.int64)
        self._facts = facts
        self._parsers: dict[int, list[tuple[int, str, Parser]]] = {}
        for event in catalogue.by_id.values() if parse else ():
            found = [(i, a.name, parser_of(event.name, a.name, a.type)) for i, a in enumerate(event.arguments)]
            with_parser = [(i, name, parser) for i, name, parser in found if parser is not None]
            if with_parser:
                self._parsers[event.id] = with_parser
        self._names = {event.id: event.name for event in catalogue.by_id.values()}

    def sections(self, rows: Rows, contexts: Contexts) -> dict[str, Array]:
        """The columns by name. `contexts` contains only contexts of this batch; `context` indexes it."""
        counts = self._counts[rows.event]
        used = np.zeros(len(contexts.table), bool)
        used[rows.who] = True
        local = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
        found = {
            "timestamp": self._facts.shown_ns(rows.time_ns),
            "event": rows.event,
            "context": local[rows.who],
            "cpu": rows.cpu,
            "retval": rows.retval,
            "flags": rows.flags | (rows.late.astype(np.uint16) << 8),
            "contexts": contexts.table[used],
        }
        if self._policies:
            found["policies"] = rows.policies
        found["args_end"], found["args"] = self._arguments(rows, counts)
        text = blobs(rows, self._counts)
        if len(text):
            found["blob_row"] = text.row.astype(np.uint32)
            found["blob_arg"] = text.arg
            found["blob_status"] = text.status
            found["blob_start"] = text.start.astype(np.uint32)
            found["blob_bytes"] = text.bytes.astype(np.uint32)
            found["arena"] = rows.data
        return found

    def _arguments(self, rows: Rows, counts: Array) -> tuple[Array, Array]:
        ends = np.cumsum(counts)
        flat = np.empty(int(ends[-1]) if len(ends) else 0, np.uint64)
        first = ends - counts
        for i in range(int(counts.max()) if len(counts) else 0):
            having = np.flatnonzero(counts > i)
            flat[first[having] + i] = argument(rows, i, having)
        return ends.astype(np.uint32), flat

    def words(self, rows: Rows) -> dict[str, dict[str, str]]:
        """Words of parsed arguments: "event.argument" -> raw value -> words, for at most DISTINCT values of this
        batch.
        """
        found: dict[str, dict[str, str]] = {}
        for event in np.flatnonzero(np.bincount(rows.event)).tolist():
            parsers = self._parsers.get(event, ())
            chosen = np.flatnonzero(rows.event == event)
            for i, name, parser in parsers:
                raw = argument(rows, i, chosen)
                # most batches have a single value, and this check is much faster than sorting
                distinct = raw[:1] if (raw == raw[0]).all() else np.unique(raw)[:DISTINCT]
                found[f"{self._names[event]}.{name}"] = {str(v): parser(v) for v in distinct.tolist()}
        return found

    def render(self, rows: Rows, contexts: Contexts) -> list[bytes | memoryview]:
        """The parts of a message in order: header length (u32), header, padding to 8 bytes, sections."""
        sections = self.sections(rows, contexts)
        at, layout = 0, []
        parts: list[bytes | memoryview] = []
        for name, column in sections.items():
            data = np.ascontiguousarray(column)
            kind = "context" if data.dtype == CONTEXT else data.dtype.str
            layout.append({"name": name, "dtype": kind, "offset": at, "count": len(data)})
            pad = -data.nbytes % 8
            parts.append(data.view(np.uint8).reshape(-1).data)
            if pad:
                parts.append(bytes(pad))
            at += data.nbytes + pad
        told = {"count": len(rows), "sections": layout, "words": self.words(rows)}
        if self._policies:
            told["policies"] = self._policies
        header = msgspec.json.encode(told)
        lead = len(header).to_bytes(4, "little") + b"\0\0\0\0" + header
        return [lead, bytes(-len(lead) % 8), *parts]
