"""Seeds of records: for every event what its arguments usually hold, as bytes of `worker.records`."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from headrace.bpf.layout import BLOB, BLOB_BASE, BLOB_CUT, BLOB_FAULT, CELL_BYTES, SOURCE_KERNEL
from headrace.bpf.tables.catalogue import Event, catalogue
from headrace.bpf.tables.reads import PATH
from tests.fuzz.worker import WHO, event_ids

ADDRESSES = (
    struct.pack("!H", 2)[::-1] + struct.pack("!H4s8x", 443, bytes((192, 0, 2, 1))),
    struct.pack("<H", 10) + struct.pack("!HI16sI", 53, 7, bytes(10) + b"\xff\xff\x7f\0\0\1", 0),
    struct.pack("<H", 1) + b"/run/some.sock\0",
    struct.pack("<H", 1) + b"\0abstract",
    struct.pack("<HHII", 16, 0, 77, 3),
    struct.pack("<H", 17) + struct.pack("!H", 0x800) + struct.pack("<iHBB8s", 2, 1, 0, 6, b"\2\0\0\0\0\1"),
    struct.pack("<H", 40) + bytes(14),
)
STRUCTS = {
    "const struct timespec*": struct.pack("<qq", 1, 500),
    "struct timespec*": struct.pack("<qq", 1, 500),
    "int[2]": struct.pack("<ii", 3, 4),
    "struct clone_args*": struct.pack("<8Q", 0x11200, 0, 0, 0, 17, 0, 0, 0),
    "struct open_how*": struct.pack("<QQQ", 0o102, 0o644, 8),
    "slim_cred_t": struct.pack("<10I5Q", *range(10), *range(5)),
    "const char*const*": b"sh\0-c\0echo a, b\0",
    "bytes": b"\x7fELF\2\1\1",
}
WALKED, STRING = b"shadow\0etc\0/\0", b"/etc/shadow"


def blob(arg: int, data: bytes, status: int = 0, whole: int = 0) -> bytes:
    """One blob as it stands in a record."""
    head = struct.pack("<HBBI", len(data), arg, status, whole)
    assert len(head) == BLOB.itemsize
    return head + data + bytes(-len(data) % 8)


def record(event: Event, blobs: list[bytes], flags: int = 0, retval: int = 3, args: tuple[int, ...] = ()) -> bytes:
    """Context, head, arguments, blobs."""
    values = [*args, *range(3, 3 + event.cells)][: event.cells] or [0]
    number = event_ids().tolist().index(event.id)
    rest = struct.pack(f"<{len(values) - 1}Q", *values[1:])
    head = struct.pack("<HBBqQ", number, flags, len(blobs), retval, values[0])
    return WHO + head + rest + bytes(-len(rest) % CELL_BYTES) + b"".join(blobs)


def _data(event: Event, index: int) -> list[bytes]:
    argument = event.arguments[index]
    if argument.type == "struct sockaddr*":
        return list(ADDRESSES)
    return [STRUCTS.get(argument.type, WALKED if argument.form == PATH else STRING)]


def seeds() -> Iterator[bytes]:
    """A record or more of each event whose arguments point to something, and a few of others."""
    for event in catalogue().by_id.values():
        texts = {"const char*", "char*", *STRUCTS, "struct sockaddr*"}
        pointing = [i for i, a in enumerate(event.arguments) if a.type in texts and a.in_record]
        if not pointing:
            if event.id % 16 == 0:
                yield record(event, [], retval=-2)
            continue
        status = 0 if event.is_syscall else SOURCE_KERNEL
        for turn in range(max(len(_data(event, i)) for i in pointing)):
            blobs = [blob(i, (some := _data(event, i))[turn % len(some)], status) for i in pointing]
            yield record(event, blobs)
        if event.id % 4 == 0:
            bases = [blob(BLOB_BASE | i, WALKED, status, 5) for i in pointing[:2]]
            cut = [blob(i, b"../\xff\xe2\x80\xa8x, y", status | BLOB_CUT) for i in pointing]
            yield record(event, [*cut, *bases, blob(pointing[0], b"", BLOB_FAULT)], flags=event.id & 0xFF)
