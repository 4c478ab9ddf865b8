"""Structs behind pointers: every one of `bpf/tables/structs.txt` that a header has is laid out by a C compiler, too."""

from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables import shown
from headrace.bpf.tables.structs import declared, layout_of
from headrace.workers.decode.structs import control_messages, decode, decoder_of, option_value, typed_decoder

ROOTS = "/usr/include", "/usr/include/x86_64-linux-gnu"
HEADERS = """linux/types.h linux/time.h linux/time_types.h linux/stat.h linux/resource.h asm/stat.h linux/uio.h
    linux/sched/types.h
    linux/sched.h linux/openat2.h linux/io_uring.h linux/aio_abi.h linux/perf_event.h linux/landlock.h linux/futex.h
    linux/utsname.h asm/posix_types.h linux/timex.h linux/times.h linux/poll.h linux/eventpoll.h linux/capability.h
    linux/mount.h linux/mqueue.h linux/rseq.h linux/filter.h linux/utime.h asm/signal.h linux/loop.h
    linux/userfaultfd.h linux/sysinfo.h asm/ldt.h linux/prctl.h linux/seccomp.h linux/quota.h
    asm-generic/termios.h""".split()
OF_C = {
    "timespec64": "struct __kernel_timespec",
    "timeval": "struct __kernel_old_timeval",
    "itimerspec64": "struct __kernel_itimerspec",
    "stat": "struct stat",
    "statx": "struct statx",
    "statx_time": "struct statx_timestamp",
    "iovec": "struct iovec",
    "pollfd": "struct pollfd",
    "epoll_event": "struct epoll_event",
    "open_how": "struct open_how",
    "clone_args": "struct clone_args",
    "rlimit64": "struct rlimit64",
    "sched_attr": "struct sched_attr",
    "uring_params": "struct io_uring_params",
    "iocb": "struct iocb",
    "io_event": "struct io_event",
    "perf_attr": "struct perf_event_attr",
    "landlock_path": "struct landlock_path_beneath_attr",
    "futex_waitv": "struct futex_waitv",
    "utsname": "struct new_utsname",
    "tms": "struct tms",
    "mount_attr": "struct mount_attr",
    "mq_attr": "struct mq_attr",
    "sock_fprog": "struct sock_fprog",
    "utimbuf": "struct utimbuf",
    "loop_info64": "struct loop_info64",
    "sysinfo": "struct sysinfo",
    "prctl_mm_map": "struct prctl_mm_map",
    "winsize": "struct winsize",
    "sigaction": "struct sigaction",
    "timex64": "struct __kernel_timex",
}
UNLIKE = {("stat", "st_atime_nsec"), ("stat", "st_mtime_nsec"), ("stat", "st_ctime_nsec")}
"""Members that C calls otherwise."""


def members(name: str) -> list[str]:
    return [m.name for m in declared()[name].members if not m.name.startswith("pad") and (name, m.name) not in UNLIKE]


def compiled(source: list[str], program: Path) -> set[int]:
    """Compile lines of C; the numbers of those that cannot be, from 1 on."""
    program.with_suffix(".c").write_text("\n".join(source))
    command = ["gcc", "-w", "-fmax-errors=0", program.with_suffix(".c"), "-o", program]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
    return {int(line.split(":")[1]) for line in said if ": error:" in line}


@pytest.fixture(scope="module")
def offsets(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], int]:
    """What the compiler says, of every member that this machine's headers have."""
    program = tmp_path_factory.mktemp("offsets") / "offsets"
    there = [h for h in HEADERS if any((Path(root) / h).exists() for root in ROOTS)]
    lines = [*(f"#include <{header}>" for header in there), "#include <stddef.h>"]
    lines += ["extern int printf(const char *, ...);", "int main(void) {"]
    lines += [
        f'printf("{name} {member} %d\\n", (int)offsetof({OF_C[name]}, {member}));'
        for name in OF_C
        for member in members(name)
    ]
    lines += ["return 0; }"]
    bad = compiled(lines, program)
    assert not compiled(["" if n in bad else line for n, line in enumerate(lines, 1)], program)
    shown_lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    return {(name, member): int(offset) for name, member, offset in map(str.split, shown_lines)}


def test_members_stand_where_the_compiler_puts_them(offsets: dict[tuple[str, str], int]) -> None:
    ours = {(name, p.member.name): p.offset for name in OF_C for p in layout_of(name, False).places}
    wrong = {key: (ours[key], offset) for key, offset in offsets.items() if ours[key] != offset}
    assert wrong == {}
    assert len(offsets) > 200


def test_a_32_bit_call_has_smaller_longs_and_pointers() -> None:
    assert (layout_of("iovec", True).size, layout_of("timespec", True).size, layout_of("msghdr", True).size) == (
        8,
        8,
        28,
    )
    assert layout_of("stat/32" if "stat/32" in declared() else "stat", True).size == 56
    assert decode("timespec", struct.pack("<ii", -1, 5), compat=True) == {"tv_sec": -1, "tv_nsec": 5}


def test_members_that_are_not_there_are_left_out() -> None:
    assert decode("clone_args", struct.pack("<QQ", 0x111, 0)) == {"flags": "CLONE_VM|0x11", "pidfd": "0x0"}


def test_words_numbers_texts_and_what_is_nested() -> None:
    data = struct.pack("<IIQQIIQII16s", 2, 3, 0x1000, 0, 0, 0, 0, 0x060100, 0x10, b"myprog")
    how = shown.of("bpf", "attr", "union bpf_attr*")
    assert how is not None
    found = decoder_of(how, False, "BPF_PROG_LOAD").read(data)
    assert isinstance(found, dict)
    assert found["prog_type"] == "BPF_PROG_TYPE_KPROBE"
    assert (found["insns"], found["kern_version"], found["prog_name"]) == ("0x1000", "6.1.0", "myprog")
    assert found["prog_flags"] == "BPF_F_SLEEPABLE"
    assert decoder_of(how, False, "").read(b"\x01") == {"raw": "01"}
    timer = decode("itimerspec", struct.pack("<4q", 1, 2, 3, 4))
    assert timer == {"it_interval": {"tv_sec": 1, "tv_nsec": 2}, "it_value": {"tv_sec": 3, "tv_nsec": 4}}


def test_arrays_are_lists_of_what_is_whole() -> None:
    how = shown.of("writev", "vec", "const struct iovec*")
    assert how is not None
    assert decoder_of(how, False).read(struct.pack("<4Q", 1, 2, 3, 4) + b"\0" * 5) == [
        {"iov_base": "0x1", "iov_len": 2},
        {"iov_base": "0x3", "iov_len": 4},
    ]


def test_sets_of_descriptors_are_numbers() -> None:
    how = shown.of("select", "inp", "fd_set*")
    assert how is not None
    assert decoder_of(how, False).read(b"\x05" + bytes(7) + b"\x01") == [0, 2, 64]


def test_control_messages_name_passed_descriptors_and_credentials() -> None:
    fds = struct.pack("<Qii2i", 24, socket.SOL_SOCKET, 1, 3, 4)
    credentials = struct.pack("<QiiiII", 28, socket.SOL_SOCKET, 2, 7, 8, 9) + bytes(4)
    assert control_messages(fds + credentials, False) == [
        {"cmsg_level": "SOL_SOCKET", "cmsg_type": "SCM_RIGHTS", "fds": [3, 4]},
        {"cmsg_level": "SOL_SOCKET", "cmsg_type": "SCM_CREDENTIALS", "credentials": {"pid": 7, "uid": 8, "gid": 9}},
    ]
    narrow = struct.pack("<Iiii", 16, socket.SOL_SOCKET, 1, 5)
    assert control_messages(narrow, True) == [{"cmsg_level": "SOL_SOCKET", "cmsg_type": "SCM_RIGHTS", "fds": [5]}]


def test_values_of_socket_options() -> None:
    assert option_value(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("<ii", 1, 5), False) == {
        "l_onoff": 1,
        "l_linger": 5,
    }
    assert option_value(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0", False) == "lo"
    assert option_value(socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("<i", -1), False) == -1
    assert option_value(77, 77, b"\x01\x02", False) == "0102"


def every_name() -> list[str]:
    return sorted(name for name in declared() if not name.endswith("/32"))


@given(st.sampled_from(every_name()), st.booleans(), st.binary(max_size=400))
def test_any_bytes_give_a_value(name: str, compat: bool, data: bytes) -> None:
    layout = layout_of(name, compat)
    if len(data) >= layout.places[0].size:
        assert decode(name, data, compat) is not None


@given(
    st.sampled_from(["struct sockaddr*", "const struct iovec*", "struct cmsghdr*"]),
    st.booleans(),
    st.binary(max_size=200),
)
def test_any_bytes_give_a_value_of_a_type(kind: str, compat: bool, data: bytes) -> None:
    decoder = typed_decoder(kind, compat)
    assert decoder is not None
    if len(data) >= decoder.least:
        assert decoder.read(data) is not None
