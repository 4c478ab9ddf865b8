"""Registers that a call does not use: null, and no condition or signature matches them.."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import parse
from headrace.workers.conditions.filters import Predicates
from headrace.workers.decode.ignored import Ignored, rules
from headrace.workers.detect.columns.recorded import NumberColumn
from headrace.workers.detect.rules.fields import field_of
from headrace.workers.records.rows import Contexts, Rows, read_frames
from headrace.workers.views.json_lines import JsonStyle
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from tests.unit.frames import COMPAT, Record, frame, view

ANYTHING = 0x5EED
F_GETFD, F_SETFD, F_GETFL, F_DUPFD = 1, 2, 3, 0
O_CREAT, O_TMPFILE, O_PATH, O_RDWR = 0o100, 0o20200000, 0o10000000, 2
MAP_PRIVATE, MAP_ANONYMOUS = 2, 0x20
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_MGC_VAL = 32, 4096, 16384, 1 << 18, 0xC0ED0000


def rows_of(name: str, *args: int, flags: int = 0) -> tuple[Rows, Contexts]:
    contexts = Contexts()
    record = Record(catalogue().by_name[name].id, args=args, flags=flags)
    # a call has all its registers, whatever is made of them
    return read_frames([view(frame([record]))], contexts).rows, contexts


def unused(name: str, *args: int, flags: int = 0) -> set[str]:
    """Names of the arguments that this call does not use."""
    event = catalogue().by_name[name]
    args = (*args, *[0] * (event.cells - len(args)))
    rows, _ = rows_of(name, *args, flags=flags)
    return {a.name for i, a in enumerate(event.arguments) if Ignored(event, i).of(rows, np.arange(1))[0]}


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("fcntl", (3, F_GETFD, ANYTHING), {"arg"}),
        ("fcntl", (3, F_GETFL, ANYTHING), {"arg"}),
        ("fcntl", (3, F_SETFD, 1), set()),
        ("fcntl", (3, F_DUPFD, 10), set()),
        ("fcntl", (3, F_GETFD | 1 << 40, ANYTHING), {"arg"}),
        ("prctl", (15, 1, ANYTHING, 2, 3), {"arg3", "arg4", "arg5"}),
        ("prctl", (3, ANYTHING, 1, 2, 3), {"arg2", "arg3", "arg4", "arg5"}),
        ("prctl", (38, 1, 0, 0, 0), set()),
        ("prctl", (0x53564D41, 0, 1, 2, 3), set()),
        ("ioctl", (3, 0x5451, ANYTHING), {"arg"}),
        ("ioctl", (3, 0x5413, ANYTHING), set()),
        ("open", (0, O_RDWR, 0o777), {"mode"}),
        ("open", (0, O_RDWR | O_CREAT, 0o777), set()),
        ("openat", (0, 0, O_TMPFILE | O_RDWR, 0o777), set()),
        ("openat", (0, 0, O_PATH | O_CREAT, 0o777), {"mode"}),
        ("mq_open", (0, O_RDWR, 0o777, 1), {"mode"}),
        ("mmap", (0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, 5, 4096), {"fd", "off"}),
        ("mmap", (0, 4096, 3, MAP_PRIVATE, 5, 4096), set()),
        ("mremap", (0, 1, 2, 1, ANYTHING), {"new_addr"}),
        ("mremap", (0, 1, 2, 3, ANYTHING), set()),
        ("futex", (1, 0x80, 2, 3, 4, 5), {"uaddr2", "val3"}),
        ("futex", (1, 0x81, 2, 3, 4, 5), {"utime", "uaddr2", "val3"}),
        ("futex", (1, 3, 2, 3, 4, 5), {"val3"}),
        ("futex", (1, 5, 2, 3, 4, 5), set()),
        ("futex", (1, 0x189, 2, 3, 4, 5), {"uaddr2"}),
        ("futex", (1, 7, 2, 3, 4, 5), {"val", "utime", "uaddr2", "val3"}),
        ("sendto", (3, 1, 1, 0, 0, 16), {"addrlen"}),
        ("accept4", (3, 0, ANYTHING, 0), {"addrlen"}),
        ("semctl", (1, 7, 0, ANYTHING), {"arg", "semnum"}),
        ("semctl", (1, 7, 16, 5), set()),
        ("shmctl", (1, 0, ANYTHING), {"buf"}),
        ("ptrace", (0, 7, 8, 9), {"pid", "addr", "data"}),
        ("ptrace", (16, 7, 8, 9), {"addr", "data"}),
        ("ptrace", (4, 7, 8, 9), set()),
        ("ptrace", (7, 7, 8, 9), {"addr"}),
        ("clone", (17, 0, 1, 2, 3), {"parent_tid", "child_tid", "tls"}),
        ("clone", (0x1000, 0, 1, 2, 3), {"child_tid", "tls"}),
        ("waitid", (0, 77, 0, 4, 0), {"upid"}),
        ("epoll_ctl", (3, 2, 4, ANYTHING), {"event"}),
        ("epoll_ctl", (3, 1, 4, ANYTHING), set()),
        ("keyctl", (3, 1, ANYTHING, 0, 0), {"arg3", "arg4", "arg5"}),
        ("mount", (1, 2, 3, 0, 4), set()),
        ("mount", (1, 2, 3, MS_BIND | MS_REC, 4), {"filesystemtype", "data"}),
        ("mount", (1, 2, 3, MS_REMOUNT, 4), {"source", "filesystemtype"}),
        ("mount", (1, 2, 3, MS_REMOUNT | MS_BIND, 4), {"source", "filesystemtype", "data"}),
        ("mount", (1, 2, 3, MS_PRIVATE | MS_REC, 4), {"source", "filesystemtype", "data"}),
        ("mount", (1, 2, 3, MS_MGC_VAL, 4), set()),
        ("reboot", (1, 2, 3, ANYTHING), {"arg"}),
        ("reboot", (1, 2, 0xA1B2C3D4, 1), set()),
        ("clock_nanosleep", (0, 1, 1, ANYTHING), {"rmtp"}),
        ("io_uring_enter", (3, 1, 1, 0, 1, 8), {"min_complete", "argp", "argsz"}),
        ("membarrier", (1, 0, 3), {"cpu_id"}),
        ("syslog", (5, 1, 2), {"buf", "len"}),
        ("getcpu", (1, 2, ANYTHING), {"unused"}),
        ("getgroups", (0, ANYTHING), {"grouplist"}),
        ("ppoll", (ANYTHING, 0, 0, 0, 8), {"ufds", "sigsetsize"}),
        ("rt_sigprocmask", (77, 0, 0, 8), {"how"}),
        ("preadv", (3, 1, 1, 0, ANYTHING), {"pos_h"}),
        ("getxattr", (1, 2, ANYTHING, 0), {"value"}),
    ],
)
def test_what_decides_whether_an_argument_is_used(name: str, args: tuple[int, ...], expected: set[str]) -> None:
    assert unused(name, *args) == expected


def test_calls_of_32_bits_have_their_arguments_elsewhere() -> None:
    assert unused("mmap", 0, 4096, 3, MAP_ANONYMOUS, 5, 0, flags=COMPAT) == {"fd", "off"}
    assert unused("clone", 17, 0, 1, 2, 3, flags=COMPAT) == set()
    assert unused("preadv", 3, 1, 1, 0, 5, flags=COMPAT) == set()
    assert unused("fcntl", 3, F_GETFD, 5, flags=COMPAT) == {"arg"}


def test_every_rule_names_a_call_and_arguments_of_it() -> None:
    for (name, argument), rule in rules().items():
        event = catalogue().by_name[name]
        assert event.is_syscall
        assert event.index(argument) is not None, (name, argument)
        assert event.index(rule.of) is not None, (name, rule.of)


@pytest.mark.parametrize("condition", ["fcntl.args.arg=5", "fcntl.args.arg!=5", "fcntl.args.arg!=6"])
def test_no_condition_matches_an_argument_that_is_not_used(condition: str) -> None:
    selection = parse([condition], catalogue())
    contexts = Contexts()
    fcntl = catalogue().by_name["fcntl"].id
    records = [Record(fcntl, args=(3, command, 5)) for command in (F_GETFD, F_SETFD)]
    rows = read_frames([view(frame(records))], contexts).rows
    expected = condition in ("fcntl.args.arg=5", "fcntl.args.arg!=6")
    assert Predicates(catalogue(), selection.conditions)(rows, contexts).tolist() == [False, expected]


def test_a_signatures_field_has_no_value_then() -> None:
    rows, contexts = rows_of("fcntl", 3, F_GETFD, 5)
    found: Any = NumberColumn(field_of(catalogue().by_name["fcntl"], "arg"))
    keys = found.keys(type("View", (), {"rows": rows, "contexts": contexts}), np.arange(1))
    assert list(keys) == [None]
    rows, contexts = rows_of("fcntl", 3, F_SETFD, 5)
    keys = found.keys(type("View", (), {"rows": rows, "contexts": contexts}), np.arange(1))
    assert list(keys) == [(5, F_SETFD)]


def test_outputs_show_null_and_why() -> None:
    contexts, fcntl = Contexts(), catalogue().by_name["fcntl"].id
    records = [Record(fcntl, args=(3, command, 1)) for command in (F_SETFD, F_GETFD, F_SETFD)]
    rows = read_frames([view(frame(records))], contexts).rows
    lines = Lines(catalogue(), JsonStyle(HostFacts(0))).render(rows, contexts).data.splitlines()
    assert b'"reason":"ignored"' in lines[1]
    assert [b"ignored" in line for line in lines] == [False, True, False]
    assert b'"name":"arg","type":"unsigned long","value":null' in lines[1]
