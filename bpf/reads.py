"""What is read behind the pointers of a call's arguments, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from bpf import layout

STRING, VECTOR, SOCKADDR, INT_PAIR = "const char*", "const char*const*", "struct sockaddr*", "int[2]"
TIMESPEC, TIMESPEC_OUT = "const struct timespec*", "struct timespec*"
PATH, NAME, ROOT, KERNEL, OBJECT = "path name root kernel object".split()
UNREAD, NAMED, HASH, ASIDE = "unread named hash aside".split()
"""Forms of an argument, see bpf/events.py."""


@dataclass(frozen=True)
class Argument:
    """One argument of an event: its name and its C type; `form` as the marks of bpf/events.py."""

    name: str
    type: str
    form: str = ""
    width: str = ""
    """As the kernel uses it (bpf/widths.py)."""

    @property
    def in_record(self) -> bool:
        """Whether the record has a cell for it: what is made from others has none."""
        return self.form not in (ROOT, HASH, ASIDE)


@dataclass(frozen=True)
class Blob:
    """What the kernel side reads behind an argument (layout.h, `struct blob_spec`)."""

    arg: int
    kind: int
    bytes: int
    sized: int = 0
    on_success: bool = False

    @property
    def room(self) -> int:
        """Bytes of a frame that the programs ask for before they read this (bpf/c/arguments.h)."""
        vector = layout.VECTOR_BYTES + layout.VECTOR_STRING
        return layout.BLOB.itemsize + 8 + (vector if self.kind == layout.KIND_VECTOR else layout.STRING_BYTES)


"""Buffers whose first bytes are read on request (`capture_bytes`): event -> (argument, length argument)."""
BUFFERS = {
    "write": (1, 2),
    "pwrite64": (1, 2),
    "sendto": (1, 2),
    "read": (1, layout.SIZED_BY_RESULT),
    "pread64": (1, layout.SIZED_BY_RESULT),
    "recvfrom": (1, layout.SIZED_BY_RESULT),
}
"""Calls whose result is a string of the result's length."""
RESULT_STRINGS = {"readlink": 1, "readlinkat": 2, "getcwd": 0}
"""Calls with an address that the kernel writes, or that stands in a msghdr: (argument, bpf/c/addresses.h)."""
ADDRESSES = {
    "getsockname": (1, layout.ADDRESS_OWN),
    "getpeername": (1, layout.ADDRESS_PEER),
    "accept": (1, layout.ADDRESS_ACCEPTED),
    "accept4": (1, layout.ADDRESS_ACCEPTED),
    "recvfrom": (4, layout.ADDRESS_RECEIVED),
    "recvmsg": (3, layout.ADDRESS_MSG_RECEIVED),
    "sendmsg": (3, layout.ADDRESS_MSG_SENT),
    "sendmmsg": (4, layout.ADDRESS_MMSG_SENT),
}
SOCKADDR_IN, SOCKADDR_BYTES = {"bind": (1, 2), "connect": (1, 2), "sendto": (4, 5)}, 128
"""Structs read whole: type -> (bytes at most, argument with its size)."""
SIZED_STRUCTS = {("clone3", "struct clone_args*"): (88, 1), ("openat2", "struct open_how*"): (64, 3)}


def blobs_of(name: str, arguments: tuple[Argument, ...], compat: bool) -> tuple[Blob, ...]:
    """What to read behind the pointers of one call. 32-bit structs that differ stay raw."""
    found: list[Blob] = []
    for i, argument in enumerate(arguments):
        sized = SIZED_STRUCTS.get((name, argument.type))
        if argument.type == STRING:
            found.append(Blob(i, layout.KIND_STRING, layout.STRING_BYTES))
        elif argument.type == VECTOR:
            found.append(Blob(i, layout.KIND_VECTOR, 8192))
        elif argument.type == INT_PAIR:
            found.append(Blob(i, layout.KIND_FIXED, 8, on_success=True))
        elif name in SOCKADDR_IN and SOCKADDR_IN[name][0] == i:
            found.append(Blob(i, layout.KIND_SIZED, SOCKADDR_BYTES, SOCKADDR_IN[name][1]))
        elif RESULT_STRINGS.get(name) == i:
            found.append(Blob(i, layout.KIND_SIZED, layout.STRING_BYTES, layout.SIZED_BY_RESULT, on_success=True))
        elif sized and not compat:
            found.append(Blob(i, layout.KIND_SIZED, sized[0], sized[1]))
        elif argument.type in (TIMESPEC, TIMESPEC_OUT) and (not compat or "64" in name):
            found.append(Blob(i, layout.KIND_FIXED, 16, on_success=argument.type == TIMESPEC_OUT))
    if name in ADDRESSES:
        found.append(Blob(ADDRESSES[name][0], layout.KIND_ADDRESS, SOCKADDR_BYTES, ADDRESSES[name][1]))
    return tuple(found[:5])
