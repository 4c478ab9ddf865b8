"""The record layout: numpy dtypes for the structs of `bpf/c/layout.h`.

Both definitions are compared twice. `static_asserts()` is compiled with the programs, so a field that moves in only
one of them prevents loading. A test compares the sizes with the kernel's view of the maps. layout.h has a drawing of a
frame.

All integers are little-endian (x86-64, arm64). Times are nanoseconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import numpy as np

CELL_BYTES = 32
FRAME_CELLS = 1016
"""Cells of a frame. Per-CPU map values are limited to 32 KiB (PCPU_MIN_UNIT_SIZE, kernel/bpf/arraymap.c)."""
BITMAP_WORDS = 16
PRIVATE_BYTES = 72
"""Bytes before the wire part of `struct frame`: kernel pointers, never sent."""
EVENTS = 1152
"""Event ids are below this."""
CALL_SLOTS = 560
"""Rows of system calls per table. The last row is for all unknown numbers."""
UNKNOWN_CALL = CALL_SLOTS - 1
X32_ONLY, X32_END = 512, 548
"""Rows of the 64-bit table that only x32 numbers reach. These calls use 32-bit structs."""
MULTIPLEXED_SLOT, MULTIPLEXED = CALL_SLOTS * 2, 32
"""First row of the calls that multiplexing 32-bit calls stand for, and rows per family (events.py, MULTIPLEXED)."""
ALL_SLOTS = MULTIPLEXED_SLOT + 3 * MULTIPLEXED
FRAME_VERSION, POLICED_VERSION = 2, 3
"""A frame of POLICED_VERSION has contexts with a cell more (POLICY_CELL)."""
TIME_END = 1 << 63
"""Times of records are below it. As a watermark, it is after all of them."""
STRING_BYTES = 4096
PATH_ROOM = 4096 + 256 + 8
"""Bytes of a frame to reserve for a walked path (bpf/c/path.h)."""
VECTOR_BYTES, VECTOR_STRING = 8192, 1024
ARGV_BYTES = 16384
ENVP_BYTES = 8192
BROADCAST = 0xFFFF
STREAM_BULK, STREAM_URGENT, STREAM_FACTS = 0, 1, 2
EXTRA_SLOTS = 2
"""Frames of a CPU in addition to those of the shards: the urgent one, then the one for facts (bpf/c/maps.h)."""

HEAD_COMPAT, HEAD_ENTRY, HEAD_NOT_RUN, HEAD_NO_OBJECT, HEAD_EXEC_IMAGE, HEAD_OWN_ROOT = 1, 2, 4, 8, 16, 32
HEAD_OWN_TARGET, HEAD_ANSWERED = 64, 128
BLOB_OK, BLOB_CUT, BLOB_FAULT, BLOB_NULL, BLOB_RACED, BLOB_BYPASS = 0, 1, 2, 3, 4, 5
BLOB_STATUS = 15
"""Mask of a blob's status. The upper bits hold the source of the blob."""
SOURCE_USER_EXIT, SOURCE_KERNEL, SOURCE_USER_ENTRY = 0 << 4, 1 << 4, 2 << 4
BLOB_BASE = 0x80
"""Added to a blob's argument: the blob is the directory from which that argument's path starts."""
BLOB_STACK = 0x7F
"""In place of an argument: the addresses of the caller's stack, u64 each."""
ROOT_NOT_MET = 0xFFFFFFFF
"""`whole` of a walked path that is outside the root of the process."""
ARG_NONE, ARG_RESULT = 0xFF, 0xFE
KIND_NONE, KIND_STRING, KIND_FIXED, KIND_SIZED, KIND_VECTOR = 0, 1, 2, 3, 5
KIND_SMALL, KIND_ADDRESS = 4, 9
"""For KIND_ADDRESS, `sized` is an `enum address` of layout.h."""
SMALL_BYTES = 1024
ADDRESS_OWN, ADDRESS_PEER, ADDRESS_ACCEPTED, ADDRESS_RECEIVED = 1, 2, 3, 4
ADDRESS_MSG_RECEIVED, ADDRESS_MSG_SENT, ADDRESS_MMSG_SENT = 5, 6, 7
SIZED_BY_RESULT, SIZED_NONE = 0xFF, 0xFE

HEAD = np.dtype(
    [
        ("time_ns", "<u8"),
        ("retval", "<i8"),
        ("event", "<u2"),
        ("context", "<u2"),
        ("cells", "<u2"),
        ("flags", "u1"),
        ("blobs", "u1"),
        ("arg0", "<u8"),
    ]
)
BLOB = np.dtype([("bytes", "<u2"), ("arg", "u1"), ("status", "u1"), ("whole", "<u4")])
CONTEXT = np.dtype(
    [
        ("thread_start_ns", "<u8"),
        ("process_start_ns", "<u8"),
        ("parent_start_ns", "<u8"),
        ("cgroup_id", "<u8"),
        ("exe_inode", "<u8"),
        ("cap_effective", "<u8"),
        ("container", "u1", 32),
        ("tgid", "<u4"),
        ("tid", "<u4"),
        ("ppid", "<u4"),
        ("ns_tgid", "<u4"),
        ("ns_tid", "<u4"),
        ("ns_ppid", "<u4"),
        ("uid", "<u4"),
        ("gid", "<u4"),
        ("euid", "<u4"),
        ("mntns", "<u4"),
        ("pidns", "<u4"),
        ("utsns", "<u4"),
        ("exe_dev", "<u4"),
        ("loginuid", "<u4"),
        ("sessionid", "<u4"),
        ("runtime", "u1"),
        ("container_state", "u1"),
        ("pad", "<u2"),
        ("comm", "S16"),
        ("nodename", "S64"),
    ]
)
POLICY_CELL = np.dtype([("policies", "<u8"), ("pad", "<u8", 3)])
"""Follows a context if the run has policies: the mask of those whose scope the task is in."""
PIECE = np.dtype(
    [
        ("sequence", "<u8"),
        ("tgid", "<u4"),
        ("tid", "<u4"),
        ("offset", "<u4"),
        ("bytes", "<u4"),
        ("whole", "<u4"),
        ("stream", "u1"),
        ("arg", "u1"),
        ("pad", "<u2"),
    ]
)
LONG_BLOB = 0xFFFF
"""`bytes` of a blob whose length is in `whole` instead. Only workers create such blobs."""
FRAME = np.dtype(
    [
        ("size", "<u4"),
        ("cpu", "<u4"),
        ("sequence", "<u8"),
        ("first_ns", "<u8"),
        ("last_ns", "<u8"),
        ("shard", "<u2"),
        ("stream", "u1"),
        ("version", "u1"),
        ("heads", "<u2"),
        ("context", "<u2"),
        ("used", "<u4"),
        ("shards", "<u4"),
        ("bitmap", "<u8", BITMAP_WORDS),
        ("piece", "<u8"),
    ]
)
"""The wire header of a frame; `used` bytes of cells follow it."""
MARK = np.dtype(
    [
        ("busy", "<u8"),
        ("first_ns", "<u8"),
        ("frames", "<u8"),
        ("lost_frames", "<u8"),
        ("lost_full", "<u8"),
        ("lost_other", "<u8"),
        ("lost_nested", "<u8"),
        ("lost_room", "<u8"),
        ("lost_first_ns", "<u8"),
        ("lost_last_ns", "<u8"),
        ("last_error", "<u8"),
        ("faults", "<u8"),
        ("cut", "<u8"),
        ("raced", "<u8"),
        ("facts", "<u8"),
        ("pad", "<u8"),
    ]
)
BLOB_SPEC = np.dtype(
    [
        ("kind", "u1"),
        ("arg", "u1"),
        ("sized", "u1"),
        ("needs", "u1"),
        ("bytes", "<u2"),
        ("unit", "<u2"),
        ("limit", "u1"),
        ("pointed", "u1"),
        ("pad", "u1", 2),
    ]
)
CALL_BLOBS, COMMAND_BLOBS = 5, 3
COMMAND_KEY = np.dtype([("slot", "<u4"), ("value", "<u4")])
COMMAND = np.dtype([("blobs", BLOB_SPEC, COMMAND_BLOBS)])
CALL = np.dtype(
    [
        ("wanted", "u1"),
        ("arguments", "u1"),
        ("urgent", "u1"),
        ("exec", "u1"),
        ("event", "<u2"),
        ("room", "<u2"),
        ("retval_min", "<i8"),
        ("retval_max", "<i8"),
        ("masks", "<u8", 6),
        ("program", "u1"),
        ("command", "u1"),
        ("object", "u1"),
        ("variant", "u1"),
        ("fd", "u1"),
        ("path", "u1"),
        ("dir", "u1"),
        ("path2", "u1"),
        ("dir2", "u1"),
        ("flags", "u1"),
        ("descriptor", "u1"),
        ("narrow", "u1"),
        ("address", "u1"),
        ("joined", "u1"),
        ("extended", "u1"),
        ("ids", "u1"),
        ("registers", "u1", 6),
        ("pages", "u1"),
        ("pad", "u1"),
        ("command_mask", "<u4"),
        ("blobs", BLOB_SPEC, CALL_BLOBS),
    ]
)
STATUS = np.dtype(
    [
        ("tree_live", "<i8"),
        ("groups_overflow", "<u8"),
        ("epoch", "<u8"),
        ("user_epoch", "<u8"),
        ("containers_epoch", "<u8"),
        ("containers_overflow", "<u8"),
        ("told_epoch", "<u8"),
        ("boot_epoch_ns", "<i8"),
        ("let_pass", "<u8"),
        ("names_table", "<u8"),
        ("names_shift", "<u8"),
        ("modules_loaded", "<u8"),
    ]
)
PEEK_WORDS = 512
PEEKED = np.dtype([("failed", "<u8"), ("words", "<u8", PEEK_WORDS)])
NAME_SAMPLE = np.dtype(
    [("bucket", "<u8"), ("folder", "<u8"), ("hash", "<u4"), ("length", "<u4"), ("name", "u1", 32), ("pad", "<u8")]
)
CONTAINER = np.dtype(
    [
        ("id", "u1", 32),
        ("root", "<u8"),
        ("ctime_ns", "<u8"),
        ("runtime", "u1"),
        ("state", "u1"),
        ("pad", "u1", 6),
    ]
)
CONTAINER_CREATED, CONTAINER_STARTED, CONTAINER_EXISTING = 1, 2, 3
RUNTIMES = ("", "docker", "containerd", "crio", "podman", "lxc", "buildkit", "ecs")
"""Indexed by `enum runtime` of layout.h."""
RUNTIME_LXC, RUNTIME_ECS = RUNTIMES.index("lxc"), RUNTIMES.index("ecs")
LOST_REASONS = ("lost_full", "lost_other", "lost_nested", "lost_room")

FRAME_BYTES = PRIVATE_BYTES + FRAME.itemsize + FRAME_CELLS * CELL_BYTES
_STRUCTS = {
    "head": (HEAD, 0, HEAD.itemsize),
    "blob": (BLOB, 0, BLOB.itemsize),
    "piece": (PIECE, 0, PIECE.itemsize),
    "context": (CONTEXT, 0, CONTEXT.itemsize),
    "frame": (FRAME, PRIVATE_BYTES, FRAME_BYTES),
    "mark": (MARK, 0, MARK.itemsize),
    "blob_spec": (BLOB_SPEC, 0, BLOB_SPEC.itemsize),
    "call": (CALL, 0, CALL.itemsize),
    "command_key": (COMMAND_KEY, 0, COMMAND_KEY.itemsize),
    "command": (COMMAND, 0, COMMAND.itemsize),
    "status": (STATUS, 0, STATUS.itemsize),
    "peeked": (PEEKED, 0, PEEKED.itemsize),
    "name_sample": (NAME_SAMPLE, 0, NAME_SAMPLE.itemsize),
    "container": (CONTAINER, 0, CONTAINER.itemsize),
}


def static_asserts() -> str:
    """C that fails to compile unless layout.h has the offsets and sizes of these dtypes."""
    lines = []
    for name, (dtype, shift, size) in _STRUCTS.items():
        assert dtype.fields is not None
        for field, (_, offset, *_rest) in dtype.fields.items():
            lines.append(
                f'_Static_assert(__builtin_offsetof(struct {name}, {field}) == {shift + offset}, "{name}.{field}");'
            )
        lines.append(f'_Static_assert(sizeof(struct {name}) == {_size(name, size)}, "{name}");')
    return "\n".join(lines) + "\n"


def _size(name: str, size: int) -> str:
    """C: the size of a struct. A context is longer with policies."""
    return f"{size} + POLICY_BYTES" if name == "context" else str(size)
