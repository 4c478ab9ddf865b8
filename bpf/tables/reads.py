"""Which data is read through the pointers in a call's arguments, and how much of it. The rules are in
`tables/arguments.txt` and in the tables below.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from headrace.bpf import layout
from headrace.bpf.tables import shown
from headrace.bpf.tables.shown import RESULT, Shown
from headrace.bpf.tables.structs import declared, layout_of

STRING, VECTOR, SOCKADDR = "const char*", "const char*const*", "struct sockaddr*"
IOVEC, CONTROL = "const struct iovec*", "struct cmsghdr*"
PATH, NAME, ROOT, KERNEL, OBJECT = "path name root kernel object".split()
UNREAD, NAMED, HASH, ASIDE = "unread named hash aside".split()
"""Forms of an argument, see bpf/tables/events.py."""


@dataclass(frozen=True)
class Argument:
    """One argument of an event: its name, its C type, and its form (marks of bpf/tables/events.py)."""

    name: str
    type: str
    form: str = ""
    width: str = ""
    """Width that the kernel uses (bpf/tables/widths.py)."""

    @property
    def in_record(self) -> bool:
        """Whether the record has a cell for it. Arguments derived from others have none."""
        return self.form not in (ROOT, HASH, ASIDE)


@dataclass(frozen=True)
class Blob:
    """Data that the programs read for an argument (layout.h, `struct blob_spec`): at most `bytes` bytes. The number of
    elements of `unit` bytes (0: bits in 64-bit words) is in argument `sized`, or in memory that it points to if
    `pointed`. It is at most the value of argument `limit` - 1 (0: no limit).
    """

    arg: int
    kind: int
    bytes: int
    sized: int = layout.SIZED_NONE
    on_success: bool = False
    unit: int = 1
    limit: int = 0
    pointed: bool = False

    @property
    def room(self) -> int:
        """Bytes of a frame that the programs reserve before they read the data (bpf/c/arguments.h)."""
        vector = layout.VECTOR_BYTES + layout.VECTOR_STRING
        most = {layout.KIND_VECTOR: vector, layout.KIND_SMALL: layout.SMALL_BYTES}.get(self.kind, layout.STRING_BYTES)
        return layout.BLOB.itemsize + 8 + most

    @property
    def is_detail(self) -> bool:
        """Whether the program for detailed calls reads it: data other than strings and buffers with a length."""
        return self.kind in (layout.KIND_SMALL, layout.KIND_ADDRESS) or bool(self.limit or self.pointed)

    def packed(self) -> tuple[Any, ...]:
        """The fields of layout.BLOB_SPEC."""
        counts = self.sized, self.on_success, self.bytes, self.unit, self.limit, self.pointed
        return self.kind, self.arg, *map(int, counts), (0, 0)


BUFFERS = {
    "write": (1, 2, None),
    "pwrite64": (1, 2, None),
    "sendto": (1, 2, None),
    "read": (1, layout.SIZED_BY_RESULT, None),
    "pread64": (1, layout.SIZED_BY_RESULT, None),
    "recvfrom": (1, layout.SIZED_BY_RESULT, 2),
    "add_key": (2, 3, None),
}
"""Buffers whose first bytes are read on request (`capture_bytes`): event -> (argument, length, limit of a result)."""
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
"""Calls with an address that the kernel writes or that is in a msghdr: (argument, `enum address` of layout.h)."""
MESSAGES = (layout.ADDRESS_MSG_RECEIVED, layout.ADDRESS_MSG_SENT)
"""For these, the iovecs and control messages that the msghdr points to are also read."""
SOCKADDR_IN, SOCKADDR_BYTES = {"bind": (1, 2), "connect": (1, 2), "sendto": (4, 5)}, 128


def asides_of(name: str, arguments: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """Arguments that are appended to those of the call: the contents of its msghdr."""
    if name not in ADDRESSES or ADDRESSES[name][0] != len(arguments):
        return ()
    address = Argument("addr", SOCKADDR, ASIDE, "u64")
    if ADDRESSES[name][1] not in MESSAGES:
        return (address,)
    return address, Argument("iov", IOVEC, ASIDE, "u64"), Argument("control", CONTROL, ASIDE, "u64")


def blobs_of(name: str, arguments: tuple[Argument, ...], compat: bool, structs: bool = True) -> tuple[Blob, ...]:
    """Data that is read for a call with any command. `structs` is false for x32 calls, which mix both ABIs."""
    found: list[Blob] = []
    for i, argument in enumerate(arguments):
        how = shown.of(name, argument.name, argument.type)
        if name in SOCKADDR_IN and SOCKADDR_IN[name][0] == i:
            found.append(Blob(i, layout.KIND_SIZED, SOCKADDR_BYTES, SOCKADDR_IN[name][1]))
        elif how is not None and how.is_pointer:
            found += [blob_of(how, i, arguments, compat)] if structs or how.text else []
        elif argument.type == STRING and not _is_commanded(name, argument):
            found.append(Blob(i, layout.KIND_STRING, layout.STRING_BYTES))
        elif argument.type == VECTOR:
            found.append(Blob(i, layout.KIND_VECTOR, 8192))
    found = found[: layout.CALL_BLOBS]
    if name in ADDRESSES:
        found.append(Blob(ADDRESSES[name][0], layout.KIND_ADDRESS, SOCKADDR_BYTES, ADDRESSES[name][1]))
    return tuple(found)


def _is_commanded(name: str, argument: Argument) -> bool:
    commands = shown.commands_of(name)
    return commands is not None and argument.name in commands.arguments


def blob_of(how: Shown, index: int, arguments: tuple[Argument, ...], compat: bool) -> Blob:
    """The data that the table says to read for one argument."""
    names = [argument.name for argument in arguments]
    if how.text and not how.count:
        return Blob(index, layout.KIND_STRING, layout.STRING_BYTES, on_success=how.written)
    count = how.count.removeprefix("*")
    sized = layout.SIZED_NONE if not count else layout.SIZED_BY_RESULT if count == RESULT else names.index(count)
    limit = names.index(how.limit) + 1 if how.limit else 0
    if how.text:
        most, unit, kind = layout.STRING_BYTES, 1, layout.KIND_SIZED
    else:
        size = struct_size(how.struct, compat)
        unit = {"bits": 0, "bytes": 1}.get(how.unit, size * how.fixed)
        most = size if how.unit == "bytes" and size > 1 else size * how.fixed if not count else layout.SMALL_BYTES
        most = min(most, layout.SMALL_BYTES)
        kind = layout.KIND_SMALL
    return Blob(index, kind, most, sized, how.written, unit, limit, how.count.startswith("*"))


@cache
def struct_size(name: str, compat: bool) -> int:
    """Size of a struct in bytes; if it has variants, of the largest one."""
    variants = [each for each in declared() if each.startswith(f"{name}/") and each != f"{name}/32"]
    return max(layout_of(each, compat).size for each in variants or [name])


def commanded(name: str, arguments: tuple[Argument, ...], compat: bool) -> dict[int, tuple[Blob, ...]]:
    """Data that is read only for certain commands of a call, by command number."""
    commands = shown.commands_of(name)
    names = [argument.name for argument in arguments]
    if commands is None or not commands.arguments <= set(names):
        return {}
    found = {}
    for value, each in commands.by_value.items():
        blobs = tuple(
            blob_of(how, names.index(argument), arguments, compat) for argument, how in each.items() if how.is_pointer
        )
        if blobs:
            found[value] = blobs[: layout.COMMAND_BLOBS]
    return found
