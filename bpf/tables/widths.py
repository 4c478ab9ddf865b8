"""How wide an argument is, and whether it is signed: `s32`, `u32`, `s64`, `u64`, `u16`, `id16` or `bool`."""

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
    """Of a C type, as it stands in a register."""
    return "s32" if kind.startswith("enum ") else WIDTHS.get(kind, "u64")


DESCRIPTORS = ("fd", "fildes")


def shown_width(name: str, kind: str, width: str) -> str:
    """Of an argument that the kernel takes as `width` and people know as `kind`: no descriptor is 4294967295.

    Where a prototype has an unsigned descriptor, it is an unsigned int at the latest in fdget() (fs/file.c).
    """
    is_int = width == "u32" and width_of(kind) == "s32"
    return "s32" if is_int or (name in DESCRIPTORS and kind.startswith("unsigned")) else width


def bits_of(width: str) -> int:
    """Bits that count; an id of 16 bits has 32 by then (bpf/c/dispatch.h)."""
    return {"bool": 1, "id16": 32}.get(width) or int(width[1:])


def mask_of(width: str) -> int:
    """Those bits, set."""
    return (1 << bits_of(width)) - 1


def number(raw: int, width: str) -> int:
    """A raw register as that width has it."""
    low = raw & mask_of(width)
    return low - (1 << bits_of(width)) if width[0] == "s" and low >> (bits_of(width) - 1) else low
