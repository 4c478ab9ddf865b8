"""What is shown of calls' arguments is what a program says of its own calls, in the words of the kernel's headers."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.live import Traced, arguments, compile_c, trace

pytestmark = pytest.mark.kernel
CALLS = """bpf perf_event_open prctl ptrace setns unshare seccomp capget capset rt_sigaction fcntl ioctl utimensat mount
    epoll_ctl writev setxattr mq_timedsend add_key keyctl landlock_create_ruleset landlock_add_rule socket setsockopt
    getsockopt sendmsg recvfrom pread64 fallocate sync_file_range readahead lseek nanosleep
    futex kcmp rt_sigprocmask io_uring_register mkdir fchdir modify_ldt""".split()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traced, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("arguments")
    program = compile_c(Path(__file__).with_name("arguments.c"), folder / "arguments")
    run = trace([str(program), str(folder)], "-e", ",".join([*CALLS, "execve"]))
    return run, [json.loads(line) for line in run.out.splitlines()]


def agrees(said: object, shown: object) -> bool:
    """Whether a value is what was said of it: of a structure, of the members that were said."""
    if isinstance(said, dict):
        return isinstance(shown, dict) and all(name in shown and agrees(v, shown[name]) for name, v in said.items())
    if isinstance(said, list):
        same = isinstance(shown, list) and len(said) == len(shown)
        return same and all(agrees(a, b) for a, b in zip(said, shown, strict=True))  # type: ignore[call-overload]
    return bool(said == shown)


def test_every_call_is_shown_as_the_program_says(traced: tuple[Traced, list[dict[str, Any]]]) -> None:
    run, said = traced
    main = next(e["hostProcessId"] for e in run.events if e["eventName"] == "bpf")
    begun = next(i for i, e in enumerate(run.events) if e["eventName"] == "bpf")
    made: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in run.events[begun:]:
        if event["hostProcessId"] == main:
            made[event["eventName"]].append(arguments(event))
    wrong = []
    for line in said:
        name = line["call"]
        shown = made[name].pop(0) if made[name] else {}
        wrong += [
            (name, argument, value, shown.get(argument))
            for argument, value in line["args"].items()
            if not agrees(value, shown.get(argument))
        ]
    assert wrong == []
    assert len(said) > 50
    assert run.ledger["balanced"]


def test_the_numbers_of_errors_stay_what_the_kernel_returned(traced: tuple[Traced, list[dict[str, Any]]]) -> None:
    run, _ = traced
    assert {e["returnValue"] for e in run.events if e["eventName"] == "ptrace"} <= {-3, -5, -22}
    # the kernel's own result has 0 in its upper half
    assert [e["error"] for e in run.events if e["eventName"] == "modify_ldt"] == ["ENOSYS"]
