"""Rows of the BPF table of calls (bpf/c/layout.h, `struct call`), which say what is read from each call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.bpf import layout
from headrace.bpf.programs.looks import LOOKS, MULTIPLEXED, PROGRAMS, VARIANTS, Look
from headrace.bpf.programs.source import WantedPrograms
from headrace.bpf.tables.catalogue import Call, descriptor_of
from headrace.bpf.tables.reads import MESSAGES, Blob, commanded
from headrace.bpf.tables.shown import commands_of
from headrace.bpf.tables.widths import mask_of

FRAME_ROOM = layout.FRAME_CELLS * layout.CELL_BYTES - layout.CONTEXT.itemsize - 6 * layout.CELL_BYTES
MESSAGE_ROOM = 2 * (layout.SMALL_BYTES + 16)
"""Maximum bytes of the data that a msghdr points to."""
IN_ORDER = (1, 2, 3, 4, 5, 6)
THROUGH = frozenset(look.call for look in LOOKS if look.program == MULTIPLEXED)
"""Multiplexing calls. The program for 32-bit calls looks up the calls that they stand for."""
ANY_RESULT = -(2**63), 2**63 - 1


def of_call(call: Call, wanted: WantedPrograms, bounds: tuple[int, int] = ANY_RESULT) -> np.ndarray[Any, Any]:
    """The row of a call, CALL[1]. `bounds`: minimum and maximum result for which the call is recorded."""
    row = np.zeros(1, layout.CALL)
    row["arguments"], row["event"] = len(call.arguments), call.event.id
    row["urgent"] = call.event.urgent
    row["retval_min"], row["retval_max"] = bounds
    blobs = call.blobs if call.compat else call.event.blobs_with(wanted.capture_bytes)
    plain = [blob for blob in blobs if blob.kind != layout.KIND_ADDRESS]
    row["address"] = next((blob.sized for blob in blobs if blob.kind == layout.KIND_ADDRESS), 0)
    for i, blob in enumerate(plain):
        row["blobs"][0, i] = blob.packed()
    commands, by_command = commands_of(call.event.name), _commanded(call)
    if commands and by_command:
        names = [argument.name for argument in call.arguments]
        row["command"], row["command_mask"] = names.index(commands.argument) + 1, commands.mask
    row["narrow"] = call.compat
    is_detailed = bool(by_command) or any(blob.is_detail for blob in blobs)
    row["program"] = PROGRAMS.index("detailed_call") if is_detailed else 0
    _values(row, call)
    room = sum(blob.room for blob in blobs)
    room += max((sum(blob.room for blob in each) for each in by_command.values()), default=0)
    room += MESSAGE_ROOM if row["address"] in MESSAGES else 0
    if call.event.name in ("execve", "execveat"):
        row["exec"], row["program"] = 1 + (call.event.name == "execveat"), PROGRAMS.index("exec_call")
        room = layout.STRING_BYTES + layout.ARGV_BYTES + layout.ENVP_BYTES + 64
    descriptor = descriptor_of(call.arguments) if wanted.fd_paths else None
    row["descriptor"] = layout.ARG_NONE if descriptor is None else descriptor
    room += layout.PATH_ROOM if descriptor is not None else 0
    row["room"] = min(room, FRAME_ROOM)
    return row


def _commanded(call: Call) -> dict[int, tuple[Blob, ...]]:
    # x32 calls use structs of both ABIs
    is_x32 = call.compat and call.slot < layout.CALL_SLOTS
    return {} if is_x32 else commanded(call.event.name, call.arguments, call.compat)


def commands(call: Call) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the map `commands` for a call."""
    for value, blobs in _commanded(call).items():
        key, row = np.zeros(1, layout.COMMAND_KEY), np.zeros(1, layout.COMMAND)
        key["slot"], key["value"] = call.slot, value
        for i, blob in enumerate(blobs):
            row["blobs"][0, i] = blob.packed()
        yield key.tobytes(), row.tobytes()


def _values(row: np.ndarray[Any, Any], call: Call) -> None:
    """Set the registers of the arguments, and the bits that the kernel uses. bpf/c/dispatch.h truncates 16-bit ids.

    32-bit calls use a program of their own that reads arguments as `registers` says, or the one for detailed calls.
    """
    registers = call.registers
    if not registers and layout.CALL_SLOTS <= call.slot < layout.MULTIPLEXED_SLOT:
        if call.event.name in THROUGH:
            row["program"] = PROGRAMS.index("detailed_call")
        else:
            registers = IN_ORDER
    if registers:
        row["program"] = PROGRAMS.index(MULTIPLEXED)
    row["registers"][0, : len(registers)] = registers
    row["masks"] = (1 << 64) - 1
    row["pages"] = 1 << 5 if call.event.name == "mmap2" else 0
    for i, argument in enumerate(call.arguments[:6]):
        bit, width = 1 << i, argument.width
        row["joined"] |= bit * (i in call.joined)
        row["ids"] |= bit * (width == "id16")
        row["extended"] |= bit * (call.compat and width == "s64" and i not in call.joined)
        row["masks"][0, i] = mask_of(width)


def add_look(row: np.ndarray[Any, Any], look: Look) -> None:
    """Set the program that reads the objects of the call."""
    row["object"], row["variant"] = PROGRAMS.index(look.program), VARIANTS.index(look.variant)
    for name in ("fd", "path", "dir", "path2", "dir2", "flags"):
        row[name] = getattr(look, name)
