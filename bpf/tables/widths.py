"""Width and signedness of arguments: `s32`, `u32`, `s64`, `u64`, `u16`, `id16` or `bool`."""

from __future__ import annotations

WIDTHS = {
    **dict.fromkeys("int pid_t key_t clockid_t key_serial_t timer_t mqd_t rwf_t __s32".split(), "s32"),
    **dict.fromkeys("u32 uid_t gid_t old_uid_t old_gid_t dev_t qid_t fmode_t".split(), "u32"),
    **dict.fromkeys("mode_t umode_t".split(), "u16"),
    **dict.fromkeys("long off_t loff_t __kernel_old_time_t ssize_t".split(), "s64"),
    "unsigned int": "u32",
    "bool": "bool",
}


def width_of(kind: str) -> str:
    """Width of a C type in a register."""
    return "s32" if kind.startswith("enum ") else WIDTHS.get(kind, "u64")


DESCRIPTORS = ("fd", "fildes")


def shown_width(name: str, kind: str, width: str) -> str:
    """Width with which an argument is shown. A u32 whose documented type `kind` is signed, and an unsigned descriptor,
    are shown as s32, so that -1 is not shown as 4294967295.

    Even if a prototype declares a wider unsigned descriptor, fdget() (fs/file.c) uses an unsigned int.
    """
    is_int = width == "u32" and width_of(kind) == "s32"
    return "s32" if is_int or (name in DESCRIPTORS and kind.startswith("unsigned")) else width


def bits_of(width: str) -> int:
    """Number of bits that are used. A 16-bit id is already extended to 32 bits (bpf/c/dispatch.h)."""
    return {"bool": 1, "id16": 32}.get(width) or int(width[1:])


def mask_of(width: str) -> int:
    """Mask of the bits that are used."""
    return (1 << bits_of(width)) - 1


def number(raw: int, width: str) -> int:
    """Converts a raw register to a number of that width."""
    low = raw & mask_of(width)
    return low - (1 << bits_of(width)) if width[0] == "s" and low >> (bits_of(width) - 1) else low
