"""Words for numbers, against Python's own modules and the kernel's headers."""

from __future__ import annotations

import mmap
import os
import re
import signal
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.bpf.tables import words
from headrace.workers.decode import composed, flags, numbers, operations
from headrace.workers.decode.numbers import Parser, named

HEADERS = Path("/usr/include")
RAW = st.integers(0, 2**64 - 1)


def defined(header: str, pattern: str) -> dict[str, int]:
    """`#define NAME number` of a kernel header."""
    text = (HEADERS / header).read_text()
    found = re.findall(rf"^#\s*define\s+({pattern})\s+(0x[0-9a-fA-F]+|\d+)(?:[UL]*)\b(?!\s*<<)", text, re.M)
    return {name: int(value, 8 if re.fullmatch(r"0\d+", value) else 0) for name, value in found}


def total(text: str, values: dict[str, int]) -> int:
    """The number that `A|B|0x4` stands for."""
    return sum(values[word] if word in values else int(word, 0) for word in text.split("|"))


# -- open


OPEN = defined("asm-generic/fcntl.h", r"O_\w+|FASYNC|__O_\w+")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (os.O_RDONLY, "O_RDONLY"),
        (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "O_WRONLY|O_CREAT|O_TRUNC"),
        (os.O_RDWR | os.O_CLOEXEC, "O_RDWR|O_CLOEXEC"),
        (os.O_RDONLY | os.O_DIRECTORY, "O_RDONLY|O_DIRECTORY"),
        (os.O_RDWR | os.O_TMPFILE, "O_RDWR|O_TMPFILE"),
        (os.O_WRONLY | os.O_SYNC, "O_WRONLY|O_SYNC"),
        (os.O_WRONLY | os.O_DSYNC, "O_WRONLY|O_DSYNC"),
        (3, "O_ACCMODE"),
        (os.O_PATH, "O_RDONLY|O_PATH"),
        (1 << 30, "O_RDONLY|0x40000000"),
        (0xFFFFFFFF00000000 | os.O_APPEND, "O_RDONLY|O_APPEND"),
    ],
)
def test_open_flags_are_the_manual_pages_words(value: int, expected: str) -> None:
    assert composed.open_flags(value) == expected


@given(RAW)
@example(0xFFFFFFFF)
def test_open_flags_name_every_bit_or_show_it(raw: int) -> None:
    values = {
        name: getattr(os, name)
        for name in dir(os)
        if re.fullmatch(r"O_[A-Z]+", name) and name not in ("O_LARGEFILE", "O_ASYNC", "O_FSYNC", "O_NDELAY", "O_RSYNC")
    }
    values |= {name: OPEN[name] for name in ("O_LARGEFILE", "FASYNC", "__O_SYNC", "__O_TMPFILE")} | {"O_ACCMODE": 3}
    assert total(composed.open_flags(raw), values) == raw & 0xFFFFFFFF


# -- mmap


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, "MAP_PRIVATE|MAP_ANONYMOUS"),
        (mmap.MAP_SHARED, "MAP_SHARED"),
        (3, "MAP_SHARED_VALIDATE"),
        (0, "0x0"),
        (5, "0x5"),
        (mmap.MAP_SHARED | mmap.MAP_POPULATE | mmap.MAP_STACK, "MAP_SHARED|MAP_POPULATE|MAP_STACK"),
        # MAP_HUGE_2MB of linux/mman.h: 21 << 26
        (mmap.MAP_PRIVATE | 0x40000 | 21 << 26, "MAP_PRIVATE|21<<MAP_HUGE_SHIFT|MAP_HUGETLB"),
        (mmap.MAP_PRIVATE | 0x40000, "MAP_PRIVATE|MAP_HUGETLB"),
        (mmap.MAP_PRIVATE | 1 << 31, "MAP_PRIVATE|0x80000000"),
    ],
)
def test_mmap_flags_begin_with_the_type_of_mapping(value: int, expected: str) -> None:
    assert composed.mmap_flags(value) == expected


def test_mmap_flags_have_the_kernels_names() -> None:
    known = defined("asm-generic/mman-common.h", r"MAP_\w+") | defined("asm-generic/mman.h", r"MAP_\w+")
    for name, value in known.items():
        if name not in ("MAP_TYPE", "MAP_FILE", "MAP_HUGE_SHIFT", "MAP_HUGE_MASK", "MAP_SYNC") and value > 0xF:
            assert composed.mmap_flags(value | 1) == f"MAP_SHARED|{name}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (mmap.PROT_READ | mmap.PROT_WRITE, "PROT_READ|PROT_WRITE"),
        (mmap.PROT_EXEC, "PROT_EXEC"),
        (0, "PROT_NONE"),
        (0x02000000 | 1, "PROT_READ|PROT_GROWSUP"),
        (0x40, "0x40"),
    ],
)
def test_protection(value: int, expected: str) -> None:
    assert composed.prot(value) == expected


# -- clone


CLONE = defined("linux/sched.h", r"CLONE_(?!ARGS)\w+")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (signal.SIGCHLD, "SIGCHLD"),
        (CLONE["CLONE_VM"] | CLONE["CLONE_VFORK"] | signal.SIGCHLD, "CLONE_VM|CLONE_VFORK|SIGCHLD"),
        (CLONE["CLONE_NEWUSER"] | CLONE["CLONE_NEWNET"], "CLONE_NEWUSER|CLONE_NEWNET"),
        (0, "0"),
        (0x11 | CLONE["CLONE_IO"], "CLONE_IO|SIGCHLD"),
    ],
)
def test_clone_flags_end_with_the_exit_signal(value: int, expected: str) -> None:
    assert composed.clone_flags(value) == expected


def test_clones_low_byte_is_the_signal_whole() -> None:
    # CSIGNAL is 0xff; CLONE_NEWTIME intersects it and is for unshare and clone3 only (linux/sched.h)
    assert defined("linux/sched.h", "CSIGNAL") == {"CSIGNAL": 0xFF}
    assert "CLONE_NEWTIME" not in composed.clone_flags(CLONE["CLONE_NEWTIME"] | signal.SIGCHLD)
    assert composed.clone3_flags(CLONE["CLONE_NEWTIME"]) == "CLONE_NEWTIME"


def test_every_clone_flag_of_the_header_has_its_name() -> None:
    for name, value in CLONE.items():
        if value > 0xFF:
            assert composed.clone_flags(value) == name
        assert composed.clone3_flags(value) == name


@given(RAW)
def test_clone3_flags_name_every_bit_or_show_it(raw: int) -> None:
    values = CLONE | words.numbers_of("clone")
    assert total(composed.clone3_flags(raw), values) == raw


# -- sockets


@pytest.mark.parametrize("name", ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"])
def test_families_are_pythons(name: str) -> None:
    assert named("family")(int(getattr(socket, name))) == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (socket.SOCK_STREAM, "SOCK_STREAM"),
        (socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"),
        (
            socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            "SOCK_SEQPACKET|SOCK_NONBLOCK|SOCK_CLOEXEC",
        ),
        (9, "9"),
        (socket.SOCK_RAW | 0x100000, "SOCK_RAW|0x100000"),
    ],
)
def test_socket_types(value: int, expected: str) -> None:
    assert composed.socket_type(value) == expected


# -- modes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0o750, "S_IRWXU|S_IRGRP|S_IXGRP"),
        (0o644, "S_IRUSR|S_IWUSR|S_IRGRP|S_IROTH"),
        (0o4755, "S_ISUID|S_IRWXU|S_IRGRP|S_IXGRP|S_IROTH|S_IXOTH"),
        (stat.S_IFREG | 0o600, "S_IFREG|S_IRUSR|S_IWUSR"),
        (stat.S_IFDIR | stat.S_ISVTX | 0o777, "S_IFDIR|S_ISVTX|S_IRWXU|S_IRWXG|S_IRWXO"),
        (stat.S_IFCHR, "S_IFCHR"),
        (0, "0"),
        (0o030000, "0o30000"),
    ],
)
def test_modes(value: int, expected: str) -> None:
    assert composed.mode(value) == expected


@given(st.integers(0, 0xFFFF))
def test_modes_name_every_bit_or_show_it(value: int) -> None:
    values = {name: getattr(stat, name) for name in dir(stat) if re.fullmatch(r"S_I[A-Z]{4}", name)}
    values |= {name: getattr(stat, name) for name in dir(stat) if re.fullmatch(r"S_IF[A-Z]+", name)}
    assert total(composed.mode(value), values) == value


@pytest.mark.parametrize(
    ("value", "expected"), [(os.F_OK, "F_OK"), (os.R_OK | os.X_OK, "R_OK|X_OK"), (os.W_OK, "W_OK"), (8, "0x8")]
)
def test_access_modes(value: int, expected: str) -> None:
    assert composed.access_mode(value) == expected


# -- signals, errors


@pytest.mark.parametrize("number", [s for s in signal.Signals if s < 32])
def test_signals_are_pythons(number: signal.Signals) -> None:
    assert composed.signal_name(number) == number.name


def test_signals_beyond_are_shown() -> None:
    assert composed.signal_name(34).endswith("2")
    assert composed.signal_name(0) == "0"
    assert composed.signal_name(100) == "100"


ERRORS = defined("asm-generic/errno-base.h", r"E\w+") | defined("asm-generic/errno.h", r"E\w+")


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_have_the_kernels_names(name: str) -> None:
    assert flags.error_name(-ERRORS[name]) == name


@pytest.mark.parametrize(
    ("number", "name"),
    # include/linux/errno.h: never seen by user space
    [(512, "ERESTARTSYS"), (513, "ERESTARTNOINTR"), (514, "ERESTARTNOHAND"), (516, "ERESTART_RESTARTBLOCK")],
)
def test_restarts_have_names_of_their_own(number: int, name: str) -> None:
    assert flags.error_name(-number) == name


@pytest.mark.parametrize("result", [0, 1, 5, -4096, -5000, -(2**63), 2**63 - 1, -4095])
def test_what_is_no_error_has_no_name(result: int) -> None:
    assert flags.error_name(result) is None


# -- which parser


def test_dirfd_names_the_working_directory() -> None:
    # AT_FDCWD, linux/fcntl.h
    for raw in (2**64 - 100, 2**32 - 100):
        assert composed.dirfd(raw) == "AT_FDCWD"
    assert composed.dirfd(7) == "7"
    assert composed.dirfd(0xFFFFFFFF) == "-1"


@pytest.mark.parametrize(
    ("event", "argument", "kind", "raw", "expected"),
    [
        ("openat", "flags", "int", 1, "O_WRONLY"),
        ("openat", "mode", "mode_t", 0o600, "S_IRUSR|S_IWUSR"),
        ("access", "mode", "int", 4, "R_OK"),
        ("unlinkat", "flags", "int", 0x200, "AT_REMOVEDIR"),
        ("faccessat2", "flags", "int", 0x200, "AT_EACCESS"),
        ("unlinkat", "dirfd", "int", 2**32 - 100, "AT_FDCWD"),
        ("kill", "sig", "int", 9, "SIGKILL"),
        ("ptrace", "request", "long", 16, "PTRACE_ATTACH"),
        ("prctl", "option", "int", 15, "PR_SET_NAME"),
        ("bpf", "cmd", "int", 5, "BPF_PROG_LOAD"),
        ("pipe2", "flags", "int", os.O_CLOEXEC, "O_CLOEXEC"),
        ("unshare", "flags", "int", CLONE["CLONE_NEWNS"], "CLONE_NEWNS"),
    ],
)
def test_arguments_get_the_parser_of_their_meaning(
    event: str, argument: str, kind: str, raw: int, expected: str
) -> None:
    parser = flags.parser_of(event, argument, kind)
    assert parser is not None
    assert parser(raw) == expected


def test_a_plain_number_has_no_parser() -> None:
    assert flags.parser_of("close", "fd", "int") is None


PRCTL = r"PR_(?:GET|SET|CAPBSET)_(?:PDEATHSIG|DUMPABLE|KEEPCAPS|NAME|SECCOMP|NO_NEW_PRIVS|READ|DROP)"
PTRACE = r"PTRACE_(?:TRACEME|PEEKTEXT|PEEKDATA|POKETEXT|POKEDATA|CONT|ATTACH|DETACH|SEIZE|[GS]ETREGSET)"


@pytest.mark.parametrize(
    ("header", "pattern", "parser"),
    [
        ("linux/prctl.h", PRCTL, named("prctl")),
        ("linux/capability.h", r"CAP_(?!LAST)[A-Z_]+", named("capability")),
        ("linux/ptrace.h", PTRACE, named("ptrace")),
    ],
    ids=["prctl", "capability", "ptrace"],
)
def test_enumerations_have_the_headers_names(header: str, pattern: str, parser: Parser) -> None:
    known = defined(header, pattern)
    assert len(known) > 5
    assert {name: parser(value) for name, value in known.items()} == {name: name for name in known}


@given(RAW)
def test_every_parser_takes_every_number(raw: int) -> None:
    for parser in {*flags.PARSERS.values(), *flags.TYPE_PARSERS.values(), *flags.NAME_PARSERS.values()}:
        assert parser(raw).isprintable()


# -- requests of ioctl, operations of futex


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (0x5412, "TIOCSTI"),
        (0x80084806, "HIDIOCGNAME(8)"),
        (0x80004806, "HIDIOCGNAME(0)"),
        (0xC0107E99, "_IOWR(0x7e, 0x99, 16)"),
        (0x40007E99, "_IOW(0x7e, 0x99, 0)"),
        (0x7E99, "_IO(0x7e, 0x99)"),
        (0, "_IO(0x0, 0x0)"),
    ],
)
def test_a_request_of_ioctl_is_named_with_its_size_or_shown_by_its_parts(raw: int, shown: str) -> None:
    assert composed.ioctl_request(raw) == shown
    if "(" in shown:
        assert operations.request_number(shown) == raw


@pytest.mark.parametrize("text", ["HIDIOCGNAME", "HIDIOCGNAME(x)", "_IOX(0x1, 0x2)", "TIOCSTI(3)", ""])
def test_what_is_no_request_has_no_number(text: str) -> None:
    assert operations.request_number(text) is None


def test_what_a_futex_is_asked_to_do_to_the_second_one_is_told() -> None:
    # FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_GT, 2), and with the operand as a shift, by linux/futex.h
    assert composed.futex_wake(1 << 28 | 4 << 24 | 1 << 12 | 2) == "FUTEX_OP_ADD(1) if FUTEX_OP_CMP_GT(2)"
    assert composed.futex_wake(0x80000000) == "FUTEX_OP_OPARG_SHIFT|FUTEX_OP_SET(0) if FUTEX_OP_CMP_EQ(0)"


def test_no_signals_are_an_empty_set() -> None:
    assert composed.signal_set(0) == "[]"
    assert composed.no_signals("[]") == 0


@pytest.mark.parametrize(("raw", "shown"), [(999, "999"), (0xFFFFFFFF, "-1"), (0xFACEFEED, "0xfacefeed")])
def test_a_number_without_a_name_is_hex_unless_it_is_small(raw: int, shown: str) -> None:
    assert numbers.word("bpf_cmd", raw) == shown
