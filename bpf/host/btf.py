"""Offsets of kernel structs, from the BTF of the running kernel.

Used by the loader once per start. Reads `/sys/kernel/btf/vmlinux` (format: Documentation/bpf/btf.rst of the kernel) to
look up byte offsets of members and sizes of types. Nothing here depends on a kernel version. A member that this kernel
lacks raises `UnknownMember`, which the loader converts to a clear message.
"""

from __future__ import annotations

import functools
import os
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VMLINUX = Path("/sys/kernel/btf/vmlinux")
EXTERNAL = "HEADRACE_BTF"
"""Environment variable with the path of a BTF file to read instead, for a kernel that was built without BTF."""

BTF_MAGIC = 0xEB9F
HEADER = struct.Struct("<HBBIIIII")
TYPE = struct.Struct("<III")
MEMBER = struct.Struct("<III")
ENUMERATOR = struct.Struct("<Ii")

KIND_INT, KIND_PTR, KIND_ARRAY, KIND_STRUCT, KIND_UNION, KIND_ENUM = 1, 2, 3, 4, 5, 6
KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT = 8, 9, 10, 11
KIND_FUNC, KIND_FUNC_PROTO, KIND_VAR, KIND_DATASEC = 12, 13, 14, 15
KIND_DECL_TAG, KIND_TYPE_TAG, KIND_ENUM64 = 17, 18, 19
MODIFIERS = frozenset({KIND_TYPEDEF, KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG})
AGGREGATES, ENUMS = frozenset({KIND_STRUCT, KIND_UNION}), frozenset({KIND_ENUM})
TYPEDEFS, FUNCTIONS = frozenset({KIND_TYPEDEF}), frozenset({KIND_FUNC})
TRAILER = {
    KIND_INT: (4, 0),
    KIND_ARRAY: (12, 0),
    KIND_STRUCT: (0, 12),
    KIND_UNION: (0, 12),
    KIND_ENUM: (0, 8),
    KIND_FUNC_PROTO: (0, 8),
    KIND_VAR: (4, 0),
    KIND_DATASEC: (0, 12),
    KIND_DECL_TAG: (4, 0),
    KIND_ENUM64: (0, 12),
}
"""Bytes after `struct btf_type`: a fixed part, and a part per `vlen`."""


def place() -> Path:
    """Path of the BTF to read."""
    return Path(os.environ.get(EXTERNAL) or VMLINUX)


class BtfError(Exception):
    """The BTF of this kernel is missing or invalid."""


class UnknownMember(BtfError):
    """This kernel has no such struct or member."""

    def __init__(self, struct_name: str, member: str) -> None:
        super().__init__(f"this kernel's BTF has no {struct_name}.{member}")
        self.struct_name = struct_name
        self.member = member


@dataclass(frozen=True)
class Type:
    """One BTF type. `at` is the offset of its trailer, `size_or_type` as in `struct btf_type`."""

    kind: int
    vlen: int
    kind_flag: bool
    name_offset: int
    size_or_type: int
    at: int


class Btf:
    """Types of one BTF blob. Construction only indexes the types; each is parsed on request."""

    def __init__(self, data: bytes) -> None:
        if len(data) < HEADER.size:
            raise BtfError("BTF is shorter than its header")
        magic, _, _, header_bytes, type_at, type_bytes, string_at, _ = HEADER.unpack_from(data)
        if magic != BTF_MAGIC:
            raise BtfError(f"BTF magic is {magic:#x}, expected {BTF_MAGIC:#x}")
        self._data = data
        self._strings = header_bytes + string_at
        self._starts, self._names, self._kinds = array("I", [0]), array("I", [0]), bytearray(1)
        """Offset of each type, offset of its name, and its kind. Type ids start at 1."""
        try:
            self._index(header_bytes + type_at, header_bytes + type_at + type_bytes)
        except (struct.error, ValueError) as error:
            raise BtfError(f"BTF is cut off: {error}") from error

    @classmethod
    @functools.cache
    def of_kernel(cls, path: Path | None = None) -> Btf:
        """BTF of the running kernel, from `path` or from place(). Raises BtfError if it is missing or invalid."""
        path = path or place()
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise BtfError(f"cannot read the kernel's BTF at {path}: {error.strerror}") from error

    def _index(self, at: int, end: int) -> None:
        data, unpack = self._data, TYPE.unpack_from
        start, name_it, kind_it = self._starts.append, self._names.append, self._kinds.append
        sizes = [(TYPE.size + fixed, each) for fixed, each in (TRAILER.get(kind, (0, 0)) for kind in range(32))]
        while at < end:
            name, info, _ = unpack(data, at)
            kind = info >> 24 & 0x1F
            start(at)
            name_it(name)
            kind_it(kind)
            fixed, each = sizes[kind]
            at += fixed + each * (info & 0xFFFF)

    def _string(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)].decode("ascii", "replace")

    def _type(self, type_id: int) -> Type | None:
        if not type_id:
            return None
        at = self._starts[type_id]
        name, info, size_or_type = TYPE.unpack_from(self._data, at)
        return Type((info >> 24) & 0x1F, info & 0xFFFF, bool(info >> 31), name, size_or_type, at + TYPE.size)

    def _named(self, name: str, kinds: frozenset[int]) -> int:
        """Id of the first type of these kinds with that name; 0 if there is none."""
        text, at = b"\0%s\0" % name.encode(), self._strings - 1
        names = np.frombuffer(self._names, "u4")
        while (at := self._data.find(text, at + 1)) >= 0:
            for found in np.flatnonzero(names == at + 1 - self._strings).tolist():
                if self._kinds[found] in kinds:
                    return int(found)
        return 0

    def _resolve(self, type_id: int) -> Type | None:
        found = self._type(type_id)
        while found is not None and found.kind in MODIFIERS:
            found = self._type(found.size_or_type)
        return found

    def _find(self, aggregate: Type, member: str) -> tuple[int, Type | None] | None:
        """(bit offset, type) of a member; searches anonymous structs and unions. None if there is none."""
        for i in range(aggregate.vlen):
            name, type_id, offset = MEMBER.unpack_from(self._data, aggregate.at + i * MEMBER.size)
            bits = offset & 0xFFFFFF if aggregate.kind_flag else offset
            inner = self._resolve(type_id)
            if name and self._string(name) == member:
                return bits, inner
            if not name and inner is not None and inner.kind in AGGREGATES:
                below = self._find(inner, member)
                if below is not None:
                    return bits + below[0], below[1]
        return None

    def has_name(self, name: str) -> bool:
        """Whether anything in this kernel has that name: a type, a function, a per-CPU variable."""
        return b"\0%s\0" % name.encode() in self._data

    def has_typedef(self, name: str) -> bool:
        """Whether this kernel has a typedef of that name."""
        return bool(self._named(name, TYPEDEFS))

    def function(self, name: str) -> int:
        """Id of a function. Raises UnknownMember if there is none of that name."""
        found = self._named(name, FUNCTIONS)
        if not found:
            raise UnknownMember(name, "()")
        return found

    def parameters(self, name: str) -> int:
        """Number of parameters of a function. Raises UnknownMember if there is none of that name."""
        function = self._type(self.function(name))
        prototype = self._type(function.size_or_type) if function else None
        return prototype.vlen if prototype else 0

    def aggregate(self, name: str) -> int:
        """Id of a struct or union. Raises UnknownMember if there is none of that name."""
        found = self._named(name, AGGREGATES)
        if not found:
            raise UnknownMember(name, "(id)")
        return found

    def offset(self, struct_name: str, path: str) -> int:
        """Byte offset of `path` (dots separate nested members). Raises UnknownMember if there is none."""
        current = self._resolve(self._named(struct_name, AGGREGATES))
        bits = 0
        for member in path.split("."):
            found = self._find(current, member) if current is not None and current.kind in AGGREGATES else None
            if found is None:
                raise UnknownMember(struct_name, path)
            bits += found[0]
            current = found[1]
        return bits // 8

    def enumerator(self, enum_name: str, name: str) -> int:
        """Value of `name` in `enum enum_name`. Raises UnknownMember if there is none."""
        found = self._type(self._named(enum_name, ENUMS))
        for i in range(found.vlen if found else 0):
            assert found is not None
            offset, value = ENUMERATOR.unpack_from(self._data, found.at + i * ENUMERATOR.size)
            if self._string(offset) == name:
                return int(value)
        raise UnknownMember(enum_name, name)

    def size(self, struct_name: str) -> int:
        """Size of `struct struct_name` in bytes. Raises UnknownMember if there is none."""
        found = self._resolve(self._named(struct_name, AGGREGATES))
        if found is None:
            raise UnknownMember(struct_name, "(size)")
        return found.size_or_type
