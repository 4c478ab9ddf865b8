"""The record layout: numpy's side against the C header, compiled here, and against hand-made formats."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np

from headrace.bpf import layout
from tests.unit import frames

HEADER = Path(layout.__file__).parent / "c" / "layout.h"
TYPES = "".join(
    f"typedef __{sign}{bits} {letter}{bits};\n" for letter, sign in (("u", "u"), ("s", "s")) for bits in (8, 16, 32, 64)
)


def compiles(asserts: str) -> subprocess.CompletedProcess[str]:
    defines = f"#define FRAME_CELLS {layout.FRAME_CELLS}\n#define EVENTS {layout.EVENTS}\n"
    source = f"#include <linux/types.h>\n{TYPES}{defines}{HEADER.read_text()}\n{asserts}"
    return subprocess.run(
        ["cc", "-fsyntax-only", "-x", "c", "-"], input=source, capture_output=True, text=True, check=False
    )


def test_the_c_compiler_puts_every_field_where_numpy_does() -> None:
    done = compiles(layout.static_asserts())
    assert done.returncode == 0, done.stderr


def test_a_field_that_moved_stops_the_compilation() -> None:
    moved = re.sub(r"(offsetof\(struct head, event\) == )16", r"\g<1>18", layout.static_asserts())
    assert moved != layout.static_asserts()
    done = compiles(moved)
    assert done.returncode != 0
    assert "head.event" in done.stderr


def test_a_struct_that_grew_stops_the_compilation() -> None:
    done = compiles(layout.static_asserts().replace(f"sizeof(struct context) == {layout.CONTEXT.itemsize}", "0"))
    assert done.returncode != 0


def test_the_formats_that_the_tests_pack_by_are_the_layouts() -> None:
    for packed, dtype in (
        (frames.HEADER, layout.FRAME),
        (frames.CONTEXT, layout.CONTEXT),
        (frames.HEAD, layout.HEAD),
        (frames.BLOB, layout.BLOB),
    ):
        assert packed.size == dtype.itemsize
    assert frames.CELL == layout.CELL_BYTES


def test_packed_bytes_read_back_by_name() -> None:
    head = np.frombuffer(frames.HEAD.pack(1, -2, 3, 4, 5, 6, 7, 8), layout.HEAD)[0]
    assert head.tolist() == (1, -2, 3, 4, 5, 6, 7, 8)
    who = np.frombuffer(frames.Who(tgid=7, comm=b"sh", cgroup_id=9).packed(), layout.CONTEXT)[0]
    assert (who["tgid"], who["comm"], who["cgroup_id"], who["uid"]) == (7, b"sh", 9, 1000)


def test_a_frame_fits_a_per_cpu_map_value() -> None:
    # PCPU_MIN_UNIT_SIZE, include/linux/percpu.h
    assert layout.FRAME_BYTES <= 32 << 10


def test_every_cell_has_a_bit() -> None:
    assert layout.BITMAP_WORDS * 64 >= layout.FRAME_CELLS
