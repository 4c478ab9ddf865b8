"""Pieces: blob bytes that did not fit in a record. They arrive in frames of their own and are joined before rows are
built.

    frame of a piece  header | struct piece | bytes       (bpf/c/pieces.h; no records, not counted in the ledger)
    frame             header | context | record of an exec ... cut blob ... | other records

These become two frames: one holds the context and the completed record, as long as necessary, and the other holds the
remaining records. Code that reads records therefore sees a complete one. A blob longer than its header can state has
`bytes` = LONG_BLOB and its length in `whole`.

Piece contents are untrusted: a piece is joined only if it continues a cut blob of the same thread at that offset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headrace.bpf.layout import (
    BLOB,
    BLOB_CUT,
    BLOB_OK,
    BLOB_STATUS,
    CELL_BYTES,
    CONTEXT,
    EVENTS,
    FRAME,
    FRAME_CELLS,
    HEAD,
    LONG_BLOB,
    PIECE,
    STREAM_BULK,
)

Array = np.ndarray[Any, Any]
MAX_BYTES = 1 << 17
"""Maximum bytes of a blob that the BPF programs send in pieces (PIECES_MOST)."""
_PIECE_AT, _HEADS_AT = (FRAME.fields[name][1] if FRAME.fields else 0 for name in ("piece", "heads"))
Key = tuple[int, int, int, int]
"""(CPU, stream, shard, sequence number) of a frame. The shard is 0 except in the bulk stream."""


def is_piece(frame: Array) -> bool:
    """Whether a frame holds a piece. Such a frame claims no records, so losing it loses no events."""
    return len(frame) > _PIECE_AT and bool(frame[_PIECE_AT]) and not frame[_HEADS_AT : _HEADS_AT + 2].any()


def _key(header: Array, stream: int, sequence: int) -> Key:
    return int(header["cpu"]), stream, int(header["shard"]) if stream == STREAM_BULK else 0, sequence


class Pieces:
    """Pieces that wait for their records. Records follow at once, so pieces are kept for this turn and the next."""

    def __init__(self, cells: Callable[[int], int]) -> None:
        """`cells` returns the number of cells before the blobs of a record, by event id."""
        self._cells = cells
        self._waiting: dict[Key, list[Array]] = {}
        self._before: dict[Key, list[Array]] = {}

    def add(self, frame: Array) -> None:
        """Copy the piece out of a frame. A piece with inconsistent lengths is ignored."""
        begin = FRAME.itemsize + PIECE.itemsize
        if len(frame) < begin:
            return
        header = frame[: FRAME.itemsize].view(FRAME)[0]
        piece = frame[FRAME.itemsize : begin].view(PIECE)[0]
        if begin + int(piece["bytes"]) > len(frame) or int(piece["offset"]) + int(piece["bytes"]) > MAX_BYTES:
            return
        key = _key(header, int(piece["stream"]), int(piece["sequence"]))
        self._waiting.setdefault(key, []).append(frame[FRAME.itemsize : begin + int(piece["bytes"])].copy())

    def turn(self) -> None:
        """End a turn: discard the pieces that have waited for a whole turn."""
        self._before, self._waiting = self._waiting, {}

    def joined(self, frames: list[Array]) -> list[Array]:
        """The frames, with pieces joined to their records."""
        if not self._waiting and not self._before:
            return frames
        found: list[Array] = []
        for frame in frames:
            found += self._join(frame) or [frame]
        return found

    def _join(self, frame: Array) -> list[Array] | None:
        if len(frame) < FRAME.itemsize:
            return None
        header = frame[: FRAME.itemsize].view(FRAME)[0]
        key = _key(header, int(header["stream"]), int(header["sequence"]))
        pieces = self._before.pop(key, []) + self._waiting.pop(key, [])
        return _split(frame, pieces, self._cells) if pieces else None


def _split(frame: Array, pieces: list[Array], argument_cells: Callable[[int], int]) -> list[Array] | None:
    """A frame of the first record with its pieces and, if there are more, a frame of the other records. None if the
    frame is invalid.
    """
    header, cells = frame[: FRAME.itemsize].copy().view(FRAME), frame[FRAME.itemsize :]
    bits = np.unpackbits(header["bitmap"].view(np.uint8), bitorder="little")[:FRAME_CELLS]
    heads = np.flatnonzero(bits)
    if not len(heads) or int(header["heads"][0]) != len(heads):
        return None
    at = int(heads[0]) * CELL_BYTES
    if at + HEAD.itemsize > len(cells):
        return None
    head = cells[at : at + HEAD.itemsize].view(HEAD)[0]
    end = at + int(head["cells"]) * CELL_BYTES
    who = int(head["context"]) * CELL_BYTES
    if end <= at or end > len(cells) or who + CONTEXT.itemsize > at or int(head["event"]) >= EVENTS:
        return None
    context = cells[who : who + CONTEXT.itemsize].view(CONTEXT)[0]
    mine = [p for p in pieces if _of_thread(p, int(context["tgid"]), int(context["tid"]))]
    record = _whole_record(cells[at:end], mine, argument_cells(int(head["event"])) * CELL_BYTES)
    first = np.concatenate([cells[:at], record])
    alone = header.copy()
    alone["heads"], alone["used"], alone["bitmap"] = 1, len(first), 0
    alone["bitmap"][0, at // CELL_BYTES // 64] = np.uint64(1) << np.uint64(at // CELL_BYTES % 64)
    if len(heads) == 1:
        return [np.concatenate([alone.view(np.uint8), first])]
    header["heads"] -= 1
    header["bitmap"] &= ~alone["bitmap"]
    return [np.concatenate([alone.view(np.uint8), first]), np.concatenate([header.view(np.uint8), cells])]


def _of_thread(piece: Array, tgid: int, tid: int) -> bool:
    of = piece[: PIECE.itemsize].view(PIECE)[0]
    return (int(of["tgid"]), int(of["tid"])) == (tgid, tid)


def _whole_record(record: Array, pieces: list[Array], at: int) -> Array:
    """A copy of `record` whose cut blobs are continued by their pieces; `record` itself if it is invalid."""
    head = record[: HEAD.itemsize].view(HEAD)[0]
    parts = [record[:at].copy()]
    for _ in range(int(head["blobs"])):
        if at + BLOB.itemsize > len(record):
            return record
        blob = record[at : at + BLOB.itemsize].view(BLOB)[0]
        begin = at + BLOB.itemsize
        at = begin + (int(blob["bytes"]) + 7 & ~7)
        if at > len(record):
            return record
        parts.append(_whole_blob(blob, record[begin : begin + int(blob["bytes"])], pieces))
    parts.append(np.zeros(-sum(map(len, parts)) % CELL_BYTES, np.uint8))
    found = np.concatenate(parts)
    found[: HEAD.itemsize].view(HEAD)["cells"] = len(found) // CELL_BYTES
    return found


def _whole_blob(blob: Array, data: Array, pieces: list[Array]) -> Array:
    """The header and the bytes of a blob with its pieces, padded to 8 bytes."""
    status, length = int(blob["status"]), len(data)
    texts = [data]
    if status & BLOB_STATUS == BLOB_CUT:
        for piece in sorted(pieces, key=lambda each: int(each[: PIECE.itemsize].view(PIECE)["offset"][0])):
            of = piece[: PIECE.itemsize].view(PIECE)[0]
            if (int(of["arg"]), int(of["offset"]), int(of["whole"])) == (int(blob["arg"]), length, int(blob["whole"])):
                texts.append(piece[PIECE.itemsize :])
                length += int(of["bytes"])
        if length == int(blob["whole"]):
            status = status & ~BLOB_STATUS | BLOB_OK
    header = np.zeros(1, BLOB)
    header["arg"], header["status"], header["whole"] = blob["arg"], status, blob["whole"]
    header["bytes"] = min(length, LONG_BLOB)
    if length >= LONG_BLOB:
        header["whole"] = length
    return np.concatenate([header.view(np.uint8), *texts, np.zeros(-length % 8, np.uint8)])
