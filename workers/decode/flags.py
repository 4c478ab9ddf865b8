"""Numbers as the words of the manual pages. Bits without a name show as hex; nothing is dropped.

A parser is a function of one unsigned 64-bit raw value. `PARSERS` says which argument of which event
gets which; the raw value stays beside the text in every output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from workers.decode import options, tables

Parser = Callable[[int], str]
Paired = Callable[[int, int], str]
"""A parser that needs another argument's value, too."""
Bits = Iterable[tuple[int, str]]


def signed32(raw: int) -> int:
    """The low 32 bits as a C int."""
    value = raw & 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def bits(value: int, names: Bits, none: str = "0") -> str:
    """Names of the set bits, joined by `|`, the unnamed rest in hex."""
    found = []
    left = value
    for mask, name in names:
        if mask and left & mask == mask:
            found.append(name)
            left &= ~mask
    if left:
        found.append(hex(left))
    return "|".join(found) or none


def _named(names: Mapping[int, str]) -> Parser:
    def parse(raw: int) -> str:
        named = names.get(raw)
        return named or (hex(raw) if 0xFFFF < raw < 1 << 31 or raw >> 32 else str(signed32(raw)))

    return parse


def open_flags(raw: int) -> str:
    """`flags` of open: the access mode, then the rest."""
    value = raw & 0xFFFFFFFF
    rest = bits(value & ~3, tables.OPEN, "")
    return tables.OPEN_ACCESS[value & 3] + (f"|{rest}" if rest else "")


def prot(raw: int) -> str:
    """`prot` of mmap and mprotect."""
    return bits(raw, tables.PROT, "PROT_NONE")


def mmap_flags(raw: int) -> str:
    """`flags` of mmap: the type of mapping, then the rest; a huge page size by its log2."""
    value = raw & 0xFFFFFFFF
    kind = value & 0xF
    found = [tables.MAP_TYPE.get(kind, hex(kind))]
    rest = value & ~0xF
    if rest & 0x40000 and rest >> 26:
        found.append(f"{rest >> 26}<<MAP_HUGE_SHIFT")
        rest &= (1 << 26) - 1
    return "|".join([*found, *([bits(rest, tables.MAP)] if rest else [])])


def clone_flags(raw: int) -> str:
    """`flags` of clone: the flags, then the signal that the child's end sends."""
    signal = raw & 0xFF
    text = bits(raw & ~0xFF, tables.CLONE, "")
    name = tables.SIGNAL.get(signal, str(signal)) if signal else ""
    return "|".join(part for part in (text, name) if part) or "0"


def clone3_flags(raw: int) -> str:
    """`flags` of struct clone_args, which holds the signal apart."""
    return bits(raw, tables.CLONE)


def socket_type(raw: int) -> str:
    """`type` of socket: the kind, then SOCK_NONBLOCK and SOCK_CLOEXEC."""
    value = raw & 0xFFFFFFFF
    kind = tables.SOCKET_TYPE.get(value & 0xF, str(value & 0xF))
    rest = bits(value & ~0xF, tables.SOCKET, "")
    return kind + (f"|{rest}" if rest else "")


def access_mode(raw: int) -> str:
    """`mode` of access."""
    return bits(raw & 0xFFFFFFFF, tables.ACCESS, "F_OK")


def mode(raw: int) -> str:
    """A mode_t: the file's type if there is one, then the permissions."""
    value = raw & 0xFFFF
    kind = value & 0o170000
    found = [tables.FILE_TYPE.get(kind, oct(kind))] if kind else []
    rest = value & 0o7777
    return "|".join([*found, *([bits(rest, tables.MODE)] if rest or not found else [])])


def at_flags(raw: int) -> str:
    """`flags` of the *at calls."""
    return bits(raw & 0xFFFFFFFF, tables.AT)


def at_access_flags(raw: int) -> str:
    """`flags` of faccessat2."""
    return bits(raw & 0xFFFFFFFF, tables.AT_ACCESS)


def dirfd(raw: int) -> str:
    """A directory's descriptor."""
    value = signed32(raw)
    return "AT_FDCWD" if value == -100 else str(value)


def pointer(raw: int) -> str:
    """An address."""
    return hex(raw)


def error_name(retval: int) -> str | None:
    """Name of the error that a result stands for, or None."""
    return tables.ERRNO.get(-retval) if -4096 < retval < 0 else None


domain = _named(tables.ADDRESS_FAMILY)
ptrace_request = _named(tables.PTRACE)
prctl_option = _named(tables.PRCTL)
capability = _named(tables.CAPABILITY)
signal_name = _named(tables.SIGNAL)
bpf_command = _named(tables.BPF_COMMAND)

fcntl_command = _named(options.FCNTL)
socket_level = _named(options.LEVEL)


def ioctl_request(raw: int) -> str:
    """`request` of ioctl: a number of the terminal or network ones by name, others in hex."""
    value = raw & 0xFFFFFFFF
    return options.IOCTL.get(value) or hex(value)


def mount_flags(raw: int) -> str:
    """`flags` of mount, without the magic number that old programs put into the upper half."""
    return bits(raw & 0xFFFF if raw & 0xFFFF0000 == options.MOUNT_MAGIC else raw, options.MOUNT)


def socket_option(raw: int, level: int) -> str:
    """`optname` of setsockopt, which means something else at each level."""
    value = raw & 0xFFFFFFFF
    return options.OPTIONS.get(level & 0xFFFFFFFF, {}).get(value) or str(signed32(raw))


def _flags(names: Bits) -> Parser:
    return lambda raw: bits(raw & 0xFFFFFFFF, names)


"""(event, argument) -> (parser, the other argument)."""
PAIRED: dict[tuple[str, str], tuple[Paired, str]] = {
    (event, "optname"): (socket_option, "level") for event in ("setsockopt", "getsockopt", "security_socket_setsockopt")
}
PARSERS: dict[tuple[str, str], Parser] = {
    **{(event, "flags"): open_flags for event in ("open", "openat", "open_by_handle_at", "security_file_open")},
    ("mq_open", "oflag"): open_flags,
    **{(event, "prot"): prot for event in ("mmap", "mprotect", "pkey_mprotect", "mmap2")},
    **{(event, "flags"): mmap_flags for event in ("mmap", "mmap2")},
    ("clone", "flags"): clone_flags,
    ("unshare", "flags"): clone3_flags,
    ("setns", "flags"): clone3_flags,
    **{(event, "domain"): domain for event in ("socket", "socketpair")},
    **{(event, "type"): socket_type for event in ("socket", "socketpair")},
    ("accept4", "flags"): lambda raw: bits(raw & 0xFFFFFFFF, tables.SOCKET),
    ("ptrace", "request"): ptrace_request,
    ("prctl", "option"): prctl_option,
    **{(event, "mode"): access_mode for event in ("access", "faccessat", "faccessat2")},
    ("faccessat2", "flags"): at_access_flags,
    **{(event, "flags"): at_flags for event in ("execveat", "newfstatat", "fchownat", "unlinkat", "linkat", "statx")},
    **{(event, "sig"): signal_name for event in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_send_signal")},
    ("rt_sigaction", "signum"): signal_name,
    ("bpf", "cmd"): bpf_command,
    ("security_bpf", "cmd"): bpf_command,
    ("cap_capable", "cap"): capability,
    **{
        (event, "prot"): prot for event in ("security_mmap_file", "security_file_mprotect", "mem_prot_alert", "do_mmap")
    },
    ("mem_prot_alert", "prev_prot"): prot,
    ("mem_prot_alert", "alert"): _named(options.ALERT),
    **{(event, "mmap_flags"): mmap_flags for event in ("security_mmap_file", "do_mmap")},
    **{(event, "flags"): open_flags for event in ("security_mmap_file", "shared_object_loaded", "do_mmap")},
    ("io_uring_submit", "opcode"): _named(options.IO_URING_OPERATION),
    ("io_uring_create", "flags"): _flags(options.IO_URING_SETUP),
    ("security_socket_create", "family"): domain,
    ("security_socket_create", "type"): socket_type,
    **{(event, "level"): socket_level for event in ("setsockopt", "getsockopt", "security_socket_setsockopt")},
    **{(event, "cmd"): fcntl_command for event in ("fcntl", "fcntl64")},
    ("ioctl", "request"): ioctl_request,
    **{(event, "flags"): mount_flags for event in ("mount", "security_sb_mount")},
    **{(event, "flags"): _flags(options.UMOUNT) for event in ("umount2", "security_sb_umount")},
    ("move_mount", "flags"): _flags(options.MOVE_MOUNT),
    ("renameat2", "flags"): _flags(options.RENAME),
    ("memfd_create", "flags"): _flags(options.MEMFD),
    ("lseek", "whence"): _named(options.WHENCE),
    ("shutdown", "how"): _named(options.SHUTDOWN),
    ("dup3", "flags"): lambda raw: bits(raw & 0xFFFFFFFF, tables.OPEN),
    ("pipe2", "flags"): lambda raw: bits(raw & 0xFFFFFFFF, tables.OPEN),
}
"""Arguments whose type alone says how they read."""
TYPE_PARSERS: dict[str, Parser] = {"mode_t": mode, "umode_t": mode}
NAME_PARSERS: dict[str, Parser] = {"dirfd": dirfd, "olddirfd": dirfd, "newdirfd": dirfd}


def parser_of(event: str, argument: str, kind: str) -> Parser | None:
    """The parser of an argument, or None if its number is best shown as it is."""
    return PARSERS.get((event, argument)) or TYPE_PARSERS.get(kind) or NAME_PARSERS.get(argument)
