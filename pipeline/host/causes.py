"""Causes each event once. `headrace check --live` traces this program:

    python -m headrace.pipeline.host.causes FOLDER CGROUP    FOLDER holds `plan`; CGROUP: where to create groups, or -

Everything except OUTSIDE runs in new namespaces (user, PID, mount, network, IPC, UTS, cgroup). The host's files, mounts
and names stay unchanged, and the program has no privileges on the host. System calls are made with invalid arguments:
all are -1. Events that need a successful operation are caused by ACTIONS.

Prints to standard output, as JSON: the reason for each event that could not be caused. Imports only the standard
library, because this program is what is traced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.syscall.argtypes = [ctypes.c_long] * 7
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_PRIVATE_REC = 0x44000
PR_SET_NAME = 15
IO_URING_SETUP, IO_URING_ENTER, RING_PARAMETERS, SQE_BYTES, RING_ENTRIES = 425, 426, 120, 64, 0x10000000
CAPABILITY_VERSION = 0x20080522
DEADLINE_S = 2.0
"""Deadline per system call. A process that still waits then, as in pause(2), is killed, which ends the call."""
AT_ONCE = 16
COMPAT = b"\x53\x55\x89\xf8" + b"".join(bytes([to]) + b"\xff" * 4 for to in (0xBB, 0xB9, 0xBA, 0xBE, 0xBF, 0xBD))
COMPAT += b"\xcd\x80\x5d\x5b\xc3"
"""x86-64 code: push rbx, rbp; eax = the argument; all argument registers of a 32-bit call = -1; int 0x80; pop; ret"""
NATIVE, SETNS = b"\x48\x89\xf8\x0f\x05\xc3", 308
"""mov rax, rdi; syscall; ret"""
COMPAT_CALLS = "32-bit calls"
"""Key for all 32-bit calls in the output."""
COMPAT_GETPID = 20
BPF, PERF_EVENT_OPEN, FINIT_MODULE = 321, 298, 313
KPROBES = Path("/sys/bus/event_source/devices/kprobe/type")
BPF_ATTR_BYTES, PERF_ATTR_BYTES, PERF_ATTR_CONFIG1 = 128, 112, 56
RETURN_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
AF_SECURITY = 14
ELF = b"\x7fELF" + bytes(60)
CONTAINER = "c4ec" * 16
GROUP = f"docker-{CONTAINER}.scope"
"""Name of a container's control group in the format of Docker."""
Action = Callable[[Path, Path | None], object]


def checked(result: int) -> int:
    """Return the result of a call; raise OSError if it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def native(number: int) -> None:
    """Make a system call with invalid arguments."""
    LIBC.syscall(number, *[-1] * 6)


def compat(number: int) -> None:
    """Make a system call with invalid arguments through the 32-bit entry (int 0x80)."""
    _injected(COMPAT, number)


def _injected(code: bytes, number: int) -> None:
    """Run machine code that takes a number, in anonymous memory."""
    memory = mmap.mmap(
        -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    )
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(address)(number)


def injected(_folder: Path, _: Path | None) -> None:
    _injected(NATIVE, SETNS)


def opened(folder: Path, _: Path | None) -> None:
    (folder / "opened").write_bytes(b"text")
    os.truncate(folder / "opened", 2)


def written(folder: Path, _: Path | None) -> None:
    file = os.open(folder / "written", os.O_RDWR | os.O_CREAT)
    os.write(file, ELF)
    os.writev(file, [b"a", b"b"])


def named(folder: Path, _: Path | None) -> None:
    one, two = folder / "one", folder / "two"
    os.mknod(one)
    os.rename(one, two)
    os.link(two, one)
    os.symlink(one, folder / "three")
    os.unlink(two)


def mounted(folder: Path, _: Path | None) -> None:
    (folder / "mnt").mkdir()
    place = bytes(folder / "mnt")
    checked(LIBC.mount(b"none", place, b"tmpfs", 0, None))
    checked(LIBC.umount2(place, 0))


def connected(folder: Path, _: Path | None) -> None:
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    server.bind(str(folder / "socket"))
    server.listen()
    client.connect(str(folder / "socket"))
    server.accept()
    os.dup2(client.fileno(), 100)


def mapped(folder: Path, _: Path | None) -> None:
    (folder / "mapped").write_bytes(bytes(mmap.PAGESIZE))
    with (folder / "mapped").open("rb") as file:
        mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ)
    LIBC.mmap.restype = ctypes.c_void_p
    LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    place = LIBC.mmap(None, mmap.PAGESIZE, writable, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    checked(LIBC.mprotect(place, mmap.PAGESIZE, writable | mmap.PROT_EXEC))


def executed(_folder: Path, _: Path | None) -> None:
    subprocess.run(["/bin/true"], check=False)
    checked(LIBC.prctl(PR_SET_NAME, b"hr-check", 0, 0, 0))


def lowered(_folder: Path, _: Path | None) -> None:
    """Drop all capabilities."""
    checked(LIBC.capset(struct.pack("<Ii", CAPABILITY_VERSION, 0), bytes(24)))


def moved(_folder: Path, _: Path | None) -> None:
    checked(LIBC.unshare(CLONE_NEWUTS))


def signalled(_folder: Path, _: Path | None) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)


def submitted(_folder: Path, _: Path | None) -> None:
    """Submit a no-op through an io_uring with one entry."""
    parameters = ctypes.create_string_buffer(RING_PARAMETERS)
    ring = checked(LIBC.syscall(IO_URING_SETUP, 1, ctypes.addressof(parameters), 0, 0, 0, 0))
    tail, array = (struct.unpack_from("<I", parameters, at)[0] for at in (44, 64))
    mmap.mmap(ring, SQE_BYTES, offset=RING_ENTRIES)  # an all-zero entry is a no-op
    queue = mmap.mmap(ring, max(array + 4, mmap.PAGESIZE))
    struct.pack_into("<I", queue, array, 0)
    struct.pack_into("<I", queue, tail, 1)
    checked(LIBC.syscall(IO_URING_ENTER, ring, 1, 0, 0, 0, 0))


def programmed(_folder: Path, _: Path | None) -> None:
    """Create a map and a program without attaching it."""
    described = ctypes.create_string_buffer(struct.pack("<IIII", 2, 4, 4, 1), BPF_ATTR_BYTES)
    checked(LIBC.syscall(BPF, 0, ctypes.addressof(described), BPF_ATTR_BYTES, 0, 0, 0))
    code, licence = ctypes.create_string_buffer(RETURN_0), ctypes.create_string_buffer(b"GPL")
    where = struct.pack("<IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(licence))
    described = ctypes.create_string_buffer(where, BPF_ATTR_BYTES)
    checked(LIBC.syscall(BPF, 5, ctypes.addressof(described), BPF_ATTR_BYTES, 0, 0, 0))


def refused_module(folder: Path, _: Path | None) -> None:
    """Try to load a file that is not a module."""
    nothing = ctypes.create_string_buffer(1)
    with (folder / "plan").open("rb") as file:
        LIBC.syscall(FINIT_MODULE, file.fileno(), ctypes.addressof(nothing), 0, 0, 0, 0)
    if (number := ctypes.get_errno()) != errno.ENOEXEC:
        raise OSError(number, os.strerror(number))


def probed(_folder: Path, _: Path | None) -> None:
    """Create a kprobe that is never enabled."""
    attr = ctypes.create_string_buffer(PERF_ATTR_BYTES)
    name = ctypes.create_string_buffer(b"security_path_notify")
    struct.pack_into("<IIQQ", attr, 0, int(KPROBES.read_text()), PERF_ATTR_BYTES, 0, 1)
    struct.pack_into("<Q", attr, PERF_ATTR_CONFIG1, ctypes.addressof(name))
    checked(LIBC.syscall(PERF_EVENT_OPEN, ctypes.addressof(attr), -1, 0, -1, 0, 0))


def unknown_family(_folder: Path, _: Path | None) -> None:
    """Open a socket of a family that does not exist: the kernel starts a helper to load a module for it."""
    with contextlib.suppress(OSError):
        socket.socket(AF_SECURITY, socket.SOCK_RAW)


def looked_at(folder: Path, _: Path | None) -> None:
    path = folder / "looked"
    path.write_bytes(b"text")
    with path.open("rb", buffering=0) as file:
        file.read(1)
        os.readv(file.fileno(), [bytearray(1)])
    os.utime(path, ns=(1, 2))
    checked(LIBC.inotify_add_watch(checked(LIBC.inotify_init1(0)), bytes(path), 2))
    os.chdir(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    # fails: not permitted to set the clock
    LIBC.settimeofday(struct.pack("<qq", 1, 0), None)


def grouped(_folder: Path, groups: Path | None) -> None:
    """Create a control group that is named like a container's, and put a process into it."""
    if groups is None:
        raise OSError(0, "no control group in which others may be made")
    made = groups / GROUP.replace("c4ec", "c4ed")
    made.mkdir()
    try:
        child = os.fork()
        if not child:
            signal.pause()
        (made / "cgroup.procs").write_text(str(child))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finally:
        _remove(made)


def _remove(group: Path) -> None:
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


_OBJECTS = "security_inode_unlink security_inode_rename security_inode_link security_inode_symlink security_inode_mknod"
_SOCKETS = """security_socket_create security_socket_listen security_socket_connect security_socket_accept
    security_socket_bind security_socket_setsockopt socket_accept socket_dup"""
ACTIONS: dict[Action, str] = {
    opened: "security_file_open security_path_truncate do_truncate",
    written: "vfs_write vfs_writev magic_write",
    named: _OBJECTS,
    mounted: "security_sb_mount security_sb_umount",
    connected: _SOCKETS,
    mapped: "security_mmap_file security_file_mprotect mem_prot_alert do_mmap",
    executed: """load_elf_phdrs sched_process_exec security_bprm_check shared_object_loaded task_rename vfork
        process_execute_failed""",
    lowered: "commit_creds",
    moved: "switch_task_ns",
    signalled: "rt_sigreturn do_sigaction",
    injected: "suspicious_syscall_source",
    unknown_family: "call_usermodehelper",
    looked_at: """vfs_read vfs_readv vfs_utimes security_path_notify inotify_watch set_fs_pwd security_task_setrlimit
        security_task_prctl security_settime64""",
    grouped: "cgroup_mkdir cgroup_rmdir cgroup_attach_task container_create container_remove",
}
"""Actions and the events that they cause."""
OUTSIDE: dict[Action, str] = {
    submitted: "io_uring_create io_uring_submit",
    programmed: "security_bpf security_bpf_map security_bpf_prog",
    refused_module: "security_kernel_read_file security_kernel_post_read_file",
    probed: "kprobe_attach kallsyms_lookup_name",
}
"""Actions that run before the namespaces are created. In a user namespace, io_uring rings count as locked memory, and
the other actions need privileges on the host."""


def _child(act: Callable[[], object], said: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        act()
    except OSError as error:
        os.write(said, (error.strerror or str(error)).encode())
    finally:
        os._exit(0)


def _wait(children: dict[int, float]) -> None:
    """Wait until one child has ended. Kills children whose deadline has passed."""
    while True:
        for child, until in list(children.items()):
            if os.waitpid(child, os.WNOHANG)[0]:
                del children[child]
                return
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.001)


def swept(calls: list[tuple[int, bool]]) -> None:
    """Make all calls, each in a separate process."""
    children: dict[int, float] = {}
    for number, is_compat in calls:
        if len(children) == AT_ONCE:
            _wait(children)
        child = _child(lambda number=number, by=compat if is_compat else native: by(number), 2)  # type: ignore[misc]
        children[child] = time.monotonic() + DEADLINE_S
    while children:
        _wait(children)


def acted(actions: dict[Action, str], folder: Path, groups: Path | None) -> Iterator[tuple[str, str]]:
    """Run actions; yield (event, reason) for each event that could not be caused."""
    for action, events in actions.items():
        read_end, write_end = os.pipe()
        child = _child(lambda action=action: action(folder, groups), write_end)  # type: ignore[misc]
        os.close(write_end)
        _wait({child: time.monotonic() + DEADLINE_S * 5})
        said = os.read(read_end, 4096).decode()
        os.close(read_end)
        yield from ((event, said) for event in events.split() if said)


def lacks_compat() -> bool:
    """Whether the kernel kills a process that makes a 32-bit call."""
    child = os.fork()
    if not child:
        compat(COMPAT_GETPID)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def own_namespaces(folder: Path) -> None:
    """Enter new namespaces, with all capabilities in them, and mount a tmpfs over the folder. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    every = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    checked(LIBC.unshare(CLONE_NEWUSER | every))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    checked(LIBC.mount(b"none", b"/", None, MS_PRIVATE_REC, None))
    checked(LIBC.mount(b"none", bytes(folder), b"tmpfs", 0, None))


def main() -> int:
    """Run all actions and the planned system calls. Returns 1 if the namespaces cannot be created."""
    folder, groups = Path(sys.argv[1]), None if sys.argv[2] == "-" else Path(sys.argv[2])
    calls: list[tuple[int, bool]] = json.loads((folder / "plan").read_text())
    failed = dict(acted(OUTSIDE, folder, groups))
    try:
        own_namespaces(folder)
    except OSError as error:
        print(json.dumps({"": f"no namespaces of its own: {error.strerror}"}))
        return 1
    # PID 1 of the new namespace, which reaps orphans
    child = os.fork()
    if not child:
        with contextlib.suppress(KeyboardInterrupt):
            failed |= dict(acted(ACTIONS, folder, groups))
            if lacks_compat():
                failed[COMPAT_CALLS] = "this kernel runs no 32-bit programs"
            swept([(number, by_compat) for number, by_compat in calls if not by_compat or COMPAT_CALLS not in failed])
            print(json.dumps(failed), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
