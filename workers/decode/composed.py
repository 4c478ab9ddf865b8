"""Parsers for numbers that are composed of parts or in no table: `:NAME` in bpf/tables/arguments.txt, structs.txt."""

from __future__ import annotations

from functools import partial

from headrace.bpf.tables import words
from headrace.bpf.tables.errors import ERRNO
from headrace.workers.decode import tables
from headrace.workers.decode.numbers import LOW, Parser, bits, both, flagged, signed32, word
from headrace.workers.decode.operations import futex_bitset, futex_operation, futex_wake, ioctl_request, request_number


def open_flags(raw: int) -> str:
    """`flags` of open: the access mode, then the rest."""
    value = raw & LOW
    return both(words.names_of("open_access")[value & 3], bits(value & ~3, words.bits_of("open"), ""))


def how_flags(raw: int) -> str:
    """`flags` of openat2. No bits are dropped."""
    return both(open_flags(raw), hex(raw >> 32 << 32) if raw >> 32 else "")


def open_rest(raw: int) -> str:
    """Flags that F_SETFL can change, and the access mode if one is set."""
    return open_flags(raw) if raw & 3 else bits(raw, words.bits_of("open"))


prot = flagged("prot")


def mmap_flags(raw: int) -> str:
    """`flags` of mmap: the type of mapping, then the rest. A huge page size is shown by its log2."""
    kind = raw & 0xF
    found = [words.names_of("map_type").get(kind, hex(kind))]
    rest = raw & ~0xF
    if rest & 0x40000 and (rest & LOW) >> 26:
        found.append(f"{(rest & LOW) >> 26}<<MAP_HUGE_SHIFT")
        rest &= ~0xFC000000
    return "|".join([*found, *([bits(rest, words.bits_of("map"))] if rest else [])])


def huge_flags(table: str, raw: int) -> str:
    """Flags with the log2 of a huge page size from bit 26 on, as for memfd_create."""
    size = raw >> 26 & 0x3F
    rest = bits(raw & ~0xFC000000, words.bits_of(table), "")
    return both(rest, f"{size}<<MFD_HUGE_SHIFT" if size else "")


def clone_flags(raw: int) -> str:
    """`flags` of clone: the flags, then the signal that is sent when the child exits."""
    return both(bits(raw & ~0xFF, words.bits_of("clone"), ""), signal_name(raw & 0xFF) if raw & 0xFF else "")


clone3_flags = flagged("clone")


def socket_type(raw: int) -> str:
    """`type` of socket: the type, then SOCK_NONBLOCK and SOCK_CLOEXEC."""
    value = raw & LOW
    kind = words.names_of("socket_type").get(value & 0xF, str(value & 0xF))
    return both(kind, bits(value & ~0xF, words.bits_of("socket_flags"), ""))


def access_mode(raw: int) -> str:
    """`mode` of access."""
    return bits(raw, words.bits_of("access"), "F_OK")


def mode(raw: int) -> str:
    """A mode_t: the file type if there is one, then the permissions."""
    value = raw & 0xFFFF
    kind = value & 0o170000
    found = [tables.FILE_TYPE.get(kind, oct(kind))] if kind else []
    rest = value & 0o7777
    return "|".join([*found, *([bits(rest, tables.MODE)] if rest or not found else [])])


def mode64(raw: int) -> str:
    """A mode of 64 bits. No bits are dropped."""
    return both(mode(raw) if raw & 0xFFFF or not raw else "", hex(raw & ~0xFFFF) if raw & ~0xFFFF else "")


def dirfd(raw: int) -> str:
    """A directory's descriptor."""
    value = signed32(raw)
    return "AT_FDCWD" if value == -100 else str(value)


def pointer(raw: int) -> str:
    """An address."""
    return hex(raw)


def unsigned32(raw: int) -> str:
    """The low 32 bits."""
    return str(raw & LOW)


def own_id(raw: int) -> str:
    """A user or group id. -1 stands for no id: the caller's own, or no change."""
    return "-1" if raw & LOW == LOW else unsigned32(raw)


def decimal32(raw: int) -> str:
    """The low 32 bits, signed."""
    return str(signed32(raw))


def signal_name(raw: int) -> str:
    """A signal. Unnamed real-time signals are numbered from SIGRT_0, signal 32."""
    value = signed32(raw)
    return words.names_of("signal").get(value) or (f"SIGRT_{value - 32}" if 32 <= value <= 64 else str(value))


NO_SIGNALS = "[]"


def no_signals(text: str) -> int | None:
    """0 for the text of the empty set, else None."""
    return 0 if text == NO_SIGNALS else None


def signal_set(raw: int) -> str:
    """A set of signals: bit 0 is signal 1."""
    return "|".join(signal_name(n + 1) for n in range(64) if raw >> n & 1) or NO_SIGNALS


def capabilities(raw: int) -> str:
    """A set of capabilities: bit 0 is CAP_CHOWN."""
    return bits(raw, [(1 << number, name) for number, name in words.words_of("capability")])


def high_capabilities(raw: int) -> str:
    """The upper half of a set of capabilities: bit 0 is capability 32."""
    return capabilities(raw << 32)


def wait_status(raw: int) -> str:
    """Wait status of a child that exited, was killed, stopped or continued (include/uapi/linux/wait.h)."""
    value, signal = raw & 0xFFFF, raw & 0x7F
    if value == 0xFFFF:
        return "continued"
    if signal == 0x7F:
        return f"stopped by {signal_name(value >> 8 & 0xFF)}"
    if not signal:
        return f"exited with {value >> 8}"
    return f"killed by {signal_name(signal)}" + (", core dumped" if value & 0x80 else "")


def handler(raw: int) -> str:
    """A signal handler."""
    return {0: "SIG_DFL", 1: "SIG_IGN", 0xFFFFFFFFFFFFFFFF: "SIG_ERR"}.get(raw) or hex(raw)


def device(raw: int) -> str:
    """A device number in the encoding of user space, as `major:minor`."""
    major = (raw >> 8 & 0xFFF) | (raw >> 32 & 0xFFFFF000)
    return f"{major}:{(raw & 0xFF) | (raw >> 12 & 0xFFFFFF00)}"


def device_number(text: str) -> int | None:
    """The number of `major:minor`; None if it is invalid."""
    major, _, minor = text.partition(":")
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    high, low = int(major), int(minor)
    return (high & 0xFFF) << 8 | (high & 0xFFFFF000) << 32 | low & 0xFF | (low & 0xFFFFFF00) << 12


def limit(raw: int) -> str:
    """A resource limit."""
    return "RLIM_INFINITY" if raw == 0xFFFFFFFFFFFFFFFF else str(raw)


def touched(raw: int) -> str:
    """Nanoseconds of utimensat, or the special value in their place."""
    return {0x3FFFFFFF: "UTIME_NOW", 0x3FFFFFFE: "UTIME_OMIT"}.get(raw, str(raw))


def errno_name(raw: int) -> str:
    """An error code that is passed as a positive number."""
    return ERRNO.get(raw, str(raw & LOW))


def signal_code(raw: int) -> str:
    """The si_code of a signal. For faults and children, the meaning depends on the signal, so these stay numbers."""
    return words.names_of("sigcode").get(signed32(raw) & 0xFFFFFFFFFFFFFFFF) or str(signed32(raw))


def mount_flags(raw: int) -> str:
    """`flags` of mount, without the magic number that old programs put in the upper half."""
    return bits(raw & 0xFFFF if raw & 0xFFFF0000 == tables.MOUNT_MAGIC else raw, words.bits_of("mount"))


def mount_attributes(raw: int) -> str:
    """`attr_flags` of fsmount. A field of several bits holds the access time policy."""
    policy = {0x10: "MOUNT_ATTR_NOATIME", 0x20: "MOUNT_ATTR_STRICTATIME", 0x30: "0x30"}.get(raw & 0x70, "")
    plain = [word for word in words.bits_of("mount_attr") if not word[0] & 0x70]
    return both(bits(raw & ~(0x70 if policy else 0), plain, ""), policy)


def swap_flags(raw: int) -> str:
    """`swap_flags` of swapon, with the priority."""
    priority = raw & 0x7FFF
    rest = bits(raw & ~0x7FFF, words.bits_of("swap"), "")
    return both(rest, str(priority) if priority else "")


def quota_command(raw: int) -> str:
    """`cmd` of quotactl: the command and the quota type."""
    kind = raw & 0xFF
    return f"{word('quota_cmd', raw >> 8)}|{word('quota_type', kind)}"


def mempolicy(raw: int) -> str:
    """A memory policy and its mode flags."""
    flags = sum(number for number, _ in words.words_of("mempolicy_mode"))
    return both(word("mempolicy", raw & ~flags), bits(raw & flags, words.bits_of("mempolicy_mode"), ""))


def io_priority(raw: int) -> str:
    """The I/O priority class and the priority within it."""
    return f"{word('ioprio_class', raw >> 13)}|{raw & 0x1FFF}"


def personality(raw: int) -> str:
    """A personality: the execution domain and its flags."""
    if raw == LOW:
        return hex(raw)
    names = {number & 0xFF: name for number, name in reversed(words.words_of("personality"))}
    return both(names.get(raw & 0xFF, hex(raw & 0xFF)), bits(raw & ~0xFF, words.bits_of("personality_flags"), ""))


def sched_policy(raw: int) -> str:
    """A scheduling policy, with SCHED_RESET_ON_FORK if it is set."""
    return both(word("sched", raw & ~0x40000000 & LOW), "SCHED_RESET_ON_FORK" if raw & 0x40000000 else "")


def ptracer(raw: int) -> str:
    """Argument of PR_SET_PTRACER: the process that may trace."""
    return "PR_SET_PTRACER_ANY" if raw in (0xFFFFFFFFFFFFFFFF, LOW) else str(signed32(raw))


def kexec_flags(raw: int) -> str:
    """`flags` of kexec_load, with the architecture in the upper half."""
    return both(bits(raw & 0xFFFF, words.bits_of("kexec"), ""), hex(raw & ~0xFFFF) if raw & ~0xFFFF else "")


def ethertype(raw: int) -> str:
    """`protocol` of a packet socket, in network order."""
    value = raw & 0xFFFF
    swapped = value >> 8 | (value & 0xFF) << 8
    name = words.names_of("ethertype").get(swapped)
    return f"htons({name})" if name and not raw >> 16 else hex(raw) if raw else "0"


def clock(raw: int) -> str:
    """A clock. Negative ones belong to a process or a descriptor (include/linux/posix-timers.h)."""
    value = signed32(raw)
    if value >= 0:
        return word("clock", value)
    number = ~(value >> 3)
    if value & 7 == 3:
        return f"FD_TO_CLOCKID({number})"
    kind = {0: "CPUCLOCK_PROF", 1: "CPUCLOCK_VIRT", 2: "CPUCLOCK_SCHED"}.get(value & 3, str(value & 3))
    return f"{'CPUCLOCK_PERTHREAD|' if value & 4 else ''}{kind}|{number}"


def _with_mode(table: str, raw: int) -> str:
    rest = bits(raw & ~0o777, words.bits_of(table), "")
    return both(rest, f"{raw & 0o777:#o}" if raw & 0o777 else "")


def shm_get(raw: int) -> str:
    """`shmflg` of shmget."""
    size = raw >> 26 & 0x3F
    return both(_with_mode("shm_get", raw & ~0xFC000000), f"{size}<<SHM_HUGE_SHIFT" if size else "")


def ipc_key(raw: int) -> str:
    """A key of System V IPC."""
    return hex(raw) if raw else "IPC_PRIVATE"


def ipc_command(table: str, raw: int) -> str:
    """A command of System V IPC, with IPC_64 if it uses the newer structs."""
    return both("IPC_64" if raw & 0x100 else "", word(table, raw & ~0x100))


def kernel_version(raw: int) -> str:
    """A kernel version as BPF programs carry it."""
    return f"{raw >> 16}.{raw >> 8 & 0xFF}.{raw & 0xFF}" if raw else "0"


def version_number(text: str) -> int | None:
    """The number of a version such as `6.1.0`; None if it is invalid."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    return int(parts[0]) << 16 | int(parts[1]) << 8 | int(parts[2])


def huge_number(text: str) -> int | None:
    """The number of a page size such as `21<<MAP_HUGE_SHIFT`; None if it is invalid."""
    size, shift, _ = text.partition("<<")
    return int(size) << 26 if shift and size.isdecimal() else None


PERF_BITS = """disabled inherit pinned exclusive exclude_user exclude_kernel exclude_hv exclude_idle mmap comm freq
    inherit_stat enable_on_exec task watermark precise_ip precise_ip_2 mmap_data sample_id_all exclude_host
    exclude_guest exclude_callchain_kernel exclude_callchain_user mmap2 comm_exec use_clockid context_switch
    write_backward namespaces
    ksymbol bpf_event aux_output cgroup text_poke build_id inherit_thread remove_on_exec sigtrap defer_callchain
    defer_output""".split()
"""The bit fields of struct perf_event_attr (include/uapi/linux/perf_event.h)."""


def perf_flags(raw: int) -> str:
    """The bit fields of struct perf_event_attr."""
    return bits(raw, [(1 << number, name) for number, name in enumerate(PERF_BITS)])


COMPOSED: dict[str, Parser] = {
    "open_flags": open_flags,
    "how_flags": how_flags,
    "open_rest": open_rest,
    "mmap_flags": mmap_flags,
    "memfd": partial(huge_flags, "memfd"),
    "clone_flags": clone_flags,
    "socket_type": socket_type,
    "mode": mode,
    "mode64": mode64,
    "dirfd": dirfd,
    "pointer": pointer,
    "hex": hex,
    "s32": decimal32,
    "u32": unsigned32,
    "id": own_id,
    "futex_wake": futex_wake,
    "bitset": futex_bitset,
    "ioctl_request": ioctl_request,
    "signal": signal_name,
    "sigset": signal_set,
    "capset": capabilities,
    "capset_high": high_capabilities,
    "wait_status": wait_status,
    "handler": handler,
    "device": device,
    "limit": limit,
    "utime": touched,
    "errno": errno_name,
    "sigcode": signal_code,
    "mount_flags": mount_flags,
    "mount_attributes": mount_attributes,
    "swap_flags": swap_flags,
    "quota_command": quota_command,
    "mempolicy": mempolicy,
    "ioprio": io_priority,
    "personality": personality,
    "sched_policy": sched_policy,
    "ptracer": ptracer,
    "kexec_flags": kexec_flags,
    "ethertype": ethertype,
    "clock": clock,
    "futex_operation": futex_operation,
    "shm_get": shm_get,
    "ipc_get": partial(_with_mode, "ipc_get"),
    "ipc_key": ipc_key,
    "shm_command": partial(ipc_command, "shm_cmd"),
    "msg_command": partial(ipc_command, "msg_cmd"),
    "sem_command": partial(ipc_command, "sem_cmd"),
    "kernel_version": kernel_version,
    "perf_flags": perf_flags,
}
"""Parsers by their `:NAME` in bpf/tables/arguments.txt and structs.txt."""
BACK = {
    device: device_number,
    kernel_version: version_number,
    mmap_flags: huge_number,
    signal_set: no_signals,
    ioctl_request: request_number,
}
"""For parsers whose texts contain more than words: the function that converts such a part back to a number."""
