"""BTF: hand-made blobs against ctypes' own offsets, and the running kernel's against its ABI."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

from headrace.bpf.host.btf import VMLINUX, Btf, BtfError, UnknownMember

# Documentation/bpf/btf.rst
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = 12, 13, 14, 15, 16, 17, 18, 19


class Inner(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_long))


class Choice(ctypes.Union):
    _fields_ = (("x", ctypes.c_int), ("inner", Inner))


class Outer(ctypes.Structure):
    _anonymous_ = ("choice",)
    _fields_ = (("first", ctypes.c_char), ("choice", Choice), ("nested", Inner), ("next", ctypes.c_void_p))


class Blob:
    """Writes BTF."""

    def __init__(self) -> None:
        self.types, self.strings, self.count = b"", bytearray(b"\0"), 0

    def add(
        self, kind: int, name: str = "", vlen: int = 0, size: int = 0, trailer: bytes = b"", flag: bool = False
    ) -> int:
        at = 0
        if name:
            at = len(self.strings)
            self.strings += name.encode() + b"\0"
        self.types += struct.pack("<III", at, kind << 24 | vlen | flag << 31, size) + trailer
        self.count += 1
        return self.count

    def record(self, kind: int, name: str, size: int, members: list[tuple[str, int, int]], flag: bool = False) -> int:
        trailer = b""
        for member, type_id, bits in members:
            at = len(self.strings) if member else 0
            self.strings += member.encode() + b"\0" if member else b""
            trailer += struct.pack("<III", at, type_id, bits)
        return self.add(kind, name, len(members), size, trailer, flag)

    def data(self) -> bytes:
        lead = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return lead + self.types + bytes(self.strings)


def outer(blob: Blob) -> None:
    """Adds `struct outer`, laid out as ctypes lays out Outer."""
    number = blob.add(INT, "int", size=4, trailer=struct.pack("<I", 32))
    long = blob.add(INT, "long", size=8, trailer=struct.pack("<I", 64))
    inner = blob.record(STRUCT, "inner", ctypes.sizeof(Inner), [("a", number, 0), ("b", long, Inner.b.offset * 8)])
    alias = blob.add(TYPEDEF, "inner_t", size=inner)
    constant = blob.add(CONST, size=alias)
    choice = blob.record(UNION, "", ctypes.sizeof(Choice), [("x", number, 0), ("inner", constant, 0)])
    pointer = blob.add(PTR, size=inner)
    members = [
        ("first", number, 0),
        ("", choice, Outer.choice.offset * 8),
        ("nested", constant, Outer.nested.offset * 8),
        ("next", pointer, Outer.next.offset * 8),
    ]
    blob.record(STRUCT, "outer", ctypes.sizeof(Outer), members)


@pytest.fixture(scope="module")
def made() -> bytes:
    blob = Blob()
    outer(blob)
    return blob.data()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("first", Outer.first.offset),
        ("x", Outer.choice.offset),
        ("inner.b", Outer.choice.offset + Inner.b.offset),
        ("nested", Outer.nested.offset),
        ("nested.b", Outer.nested.offset + Inner.b.offset),
        ("next", Outer.next.offset),
    ],
)
def test_offsets_are_those_of_the_c_compiler(made: bytes, path: str, expected: int) -> None:
    assert Btf(made).offset("outer", path) == expected


def test_size_is_that_of_the_c_compiler(made: bytes) -> None:
    assert Btf(made).size("outer") == ctypes.sizeof(Outer)


def test_types_behind_every_other_kind_are_found() -> None:
    blob = Blob()
    word = struct.pack("<I", 0)
    for kind, vlen, trailer in (
        (INT, 0, word),
        (ARRAY, 0, word * 3),
        (ENUM, 2, word * 4),
        (FWD, 0, b""),
        (VOLATILE, 0, b""),
        (FUNC, 0, b""),
        (FUNC_PROTO, 3, word * 6),
        (VAR, 0, word),
        (DATASEC, 2, word * 6),
        (FLOAT, 0, b""),
        (DECL_TAG, 0, word),
        (TYPE_TAG, 0, b""),
        (ENUM64, 2, word * 6),
    ):
        blob.add(kind, "other", vlen, 0, trailer)
    before = blob.count
    number = blob.add(INT, "int", size=4, trailer=word)
    blob.record(STRUCT, "last", 8, [("pad", number, 0), ("wanted", number, 32)])
    assert before == 13
    assert Btf(blob.data()).offset("last", "wanted") == 4


def test_a_bit_fields_width_is_no_part_of_its_offset() -> None:
    blob = Blob()
    number = blob.add(INT, "int", size=4, trailer=struct.pack("<I", 32))
    blob.record(STRUCT, "flags", 8, [("whole", number, 0), ("bit", number, 3 << 24 | 37)], flag=True)
    assert Btf(blob.data()).offset("flags", "bit") == 37 // 8


def test_typedefs_are_known_by_name(made: bytes) -> None:
    assert Btf(made).has_typedef("inner_t")
    assert not Btf(made).has_typedef("inner")


def test_functions_and_structs_have_the_ids_by_which_programs_name_them() -> None:
    blob = Blob()
    number = blob.add(INT, "int", size=4, trailer=struct.pack("<I", 32))
    function = blob.add(FUNC, "bpf_rdonly_cast")
    record = blob.record(STRUCT, "task_struct", 4, [("pid", number, 0)])
    btf = Btf(blob.data())
    assert (btf.function("bpf_rdonly_cast"), btf.aggregate("task_struct")) == (function, record)
    for absent in (lambda: btf.function("task_struct"), lambda: btf.aggregate("bpf_rdonly_cast")):
        with pytest.raises(UnknownMember):
            absent()


@pytest.mark.parametrize("path", ["nothing", "nested.nothing", "next.a", "first.a"])
def test_a_member_that_is_not_there_is_named_with_its_struct(made: bytes, path: str) -> None:
    with pytest.raises(UnknownMember, match=f"outer.{path}") as raised:
        Btf(made).offset("outer", path)
    assert (raised.value.struct_name, raised.value.member) == ("outer", path)


def test_a_struct_that_is_not_there_is_named(made: bytes) -> None:
    with pytest.raises(UnknownMember, match="missing_struct"):
        Btf(made).size("missing_struct")
    with pytest.raises(UnknownMember, match="missing_struct"):
        Btf(made).offset("missing_struct", "a")


def test_other_bytes_are_refused_with_their_magic(made: bytes) -> None:
    with pytest.raises(BtfError, match="0x457f"):
        Btf(b"\x7fELF" + made[4:])


def test_btf_cut_off_at_any_byte_is_refused_or_still_right(made: bytes) -> None:
    for n in range(len(made)):
        try:
            assert Btf(made[:n]).offset("outer", "nested.b") == Outer.nested.offset + Inner.b.offset
        except BtfError:
            continue


def test_a_kernel_without_btf_is_told_by_path(tmp_path: Path) -> None:
    with pytest.raises(BtfError, match=r"vmlinux.*No such file"):
        Btf.of_kernel(tmp_path / "vmlinux")


@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel was built without CONFIG_DEBUG_INFO_BTF")
def test_the_running_kernels_registers_stand_where_its_abi_puts_them() -> None:
    # struct user_regs_struct of <sys/user.h>: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs ...
    order = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax")
    kernel = Btf.of_kernel()
    assert [kernel.offset("pt_regs", name) for name in order] == [8 * i for i in range(len(order))]
    # include/uapi/linux/utsname.h: six arrays of 65 bytes
    assert kernel.offset("uts_namespace", "name.nodename") - kernel.offset("uts_namespace", "name.sysname") == 65
    assert kernel.size("new_utsname") == 6 * 65
