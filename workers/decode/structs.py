"""Small structs that calls point to, as maps of numbers and words."""

from __future__ import annotations

import struct
from collections.abc import Callable

from workers.decode import flags
from workers.decode.sockaddr import decode as decode_sockaddr

Value = object
CLONE_ARGS = ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
CLONE_ARGS_LATER = ("set_tid", "set_tid_size", "cgroup")


def _timespec(data: bytes) -> Value:
    seconds, nanoseconds = struct.unpack_from("<qq", data)
    return {"tv_sec": seconds, "tv_nsec": nanoseconds}


def _int_pair(data: bytes) -> Value:
    return list(struct.unpack_from("<ii", data))


def _clone_args(data: bytes) -> Value:
    words = struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
    found: dict[str, Value] = dict(zip(CLONE_ARGS + CLONE_ARGS_LATER, words, strict=False))
    if "flags" in found:
        found["flags"] = flags.clone3_flags(words[0])
    if "exit_signal" in found and words[4]:
        found["exit_signal"] = flags.signal_name(words[4])
    return found


def _open_how(data: bytes) -> Value:
    open_flags, mode, resolve = struct.unpack_from("<QQQ", data)
    names = (
        (1, "RESOLVE_NO_XDEV"),
        (2, "RESOLVE_NO_MAGICLINKS"),
        (4, "RESOLVE_NO_SYMLINKS"),
        (8, "RESOLVE_BENEATH"),
        (16, "RESOLVE_IN_ROOT"),
        (32, "RESOLVE_CACHED"),
    )
    return {
        "flags": "|".join([flags.open_flags(open_flags), *([hex(open_flags >> 32 << 32)] if open_flags >> 32 else [])]),
        "mode": flags.mode(mode) if mode else "0",
        "resolve": flags.bits(resolve, names),
    }


IDS = ("Uid", "Gid", "Suid", "Sgid", "Euid", "Egid", "Fsuid", "Fsgid", "UserNamespace", "SecureBits")
CAPABILITIES = ("CapInheritable", "CapPermitted", "CapEffective", "CapBounding", "CapAmbient")


def _credentials(data: bytes) -> Value:
    return dict(zip(IDS + CAPABILITIES, struct.unpack_from("<10I5Q", data), strict=True))


"""C type -> (decoder, bytes that it needs at least)."""
STRUCTS: dict[str, tuple[Callable[[bytes], Value], int]] = {
    "struct sockaddr*": (decode_sockaddr, 2),
    "const struct timespec*": (_timespec, 16),
    "struct timespec*": (_timespec, 16),
    "int[2]": (_int_pair, 8),
    "struct clone_args*": (_clone_args, 8),
    "struct open_how*": (_open_how, 24),
    "slim_cred_t": (_credentials, 80),
}
