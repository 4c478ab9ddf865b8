"""What sys_exit does not tell, and what is read behind pointers, on the live kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from headrace.bpf.host.btf import Btf
from tests.live import NEEDS_LOOPS, Event, Traced, arguments, details, kernel_has, trace

pytestmark = pytest.mark.kernel


def only(events: list[Event]) -> Event:
    assert len(events) == 1, [e["eventName"] for e in events]
    return events[0]


def test_the_books_balance(quirks: Traced) -> None:
    assert quirks.status == 0
    assert quirks.ledger["balanced"] is True
    assert quirks.ledger["produced"] == quirks.ledger["delivered"] == len(quirks.events)
    assert quirks.ledger["lost"] == quirks.ledger["dropped"] == quirks.ledger["rejected"] == 0


def test_events_come_in_the_order_of_time(quirks: Traced) -> None:
    times = [e["timestamp"] for e in quirks.events]
    assert times == sorted(times)
    if "HEADRACE_TESTS_DEADLINE" not in os.environ:  # a guest under TCG may be late
        assert not any(e.get("late") for e in quirks.events)


def test_return_from_a_signal_handler_is_rt_sigreturn_at_its_entry(quirks: Traced) -> None:
    event = only(quirks.of("handled", "rt_sigreturn"))
    assert event["returnValue"] is None
    assert event["entryTime"] == event["timestamp"]
    assert not quirks.of("handled", "unknown_syscall")


def test_a_call_of_number_minus_one_is_shown_as_such(quirks: Traced) -> None:
    event = only(quirks.of("minusone", "unknown_syscall"))
    assert arguments(event) == {"number": -1}
    assert (event["returnValue"], event["error"]) == (-38, "ENOSYS")


def test_a_restarted_call_names_erestartsys_then_the_result(quirks: Traced) -> None:
    parent = list(quirks.of("restart", "read"))
    assert [(e["returnValue"], e.get("error")) for e in parent] == [(-512, "ERESTARTSYS"), (1, None)]


def test_a_restartable_sleep_names_its_restart_block(quirks: Traced) -> None:
    first = quirks.of("sleeping", "nanosleep")[0]
    assert (first["returnValue"], first["error"]) == (-516, "ERESTART_RESTARTBLOCK")


@pytest.mark.skipif(not kernel_has("loop"), reason="before Linux 5.16 a call that seccomp kills has no end")
def test_a_call_that_seccomp_killed_has_no_result(quirks: Traced) -> None:
    event = only(quirks.of("seccomp", "getppid"))
    assert event["returnValue"] is None
    assert event["notRun"] == "seccomp"
    assert arguments(only(quirks.of("seccomp", "sched_process_exit")))["exit_code"] == 31


def test_a_call_that_seccomp_trapped_has_no_result(quirks: Traced) -> None:
    event = only(quirks.of("trapped", "getppid"))
    assert (event["returnValue"], event["notRun"]) == (None, "seccomp")
    assert arguments(only(quirks.of("trapped", "sched_process_exit")))["exit_code"] == 0


def test_an_error_that_seccomp_gave_is_the_calls_result(quirks: Traced) -> None:
    event = only(quirks.of("refused", "getppid"))
    assert (event["returnValue"], event["error"]) == (-13, "EACCES")
    assert "notRun" not in event


def test_a_buffer_that_is_input_and_output_shows_the_output(quirks: Traced) -> None:
    event = only(quirks.of("aliasing", "readlink"))
    assert arguments(event)["pathname"][: event["returnValue"]] == arguments(event)["buf"]
    assert arguments(event)["buf"].endswith("/quirks")


@pytest.mark.parametrize("call", ["vfork", "clone"])
def test_a_child_shows_the_call_that_made_it_with_result_0(quirks: Traced, call: str) -> None:
    child, parent = sorted(quirks.of("children", call), key=lambda e: e["returnValue"])
    assert child["returnValue"] == 0
    assert parent["returnValue"] == child["hostProcessId"]
    assert child["hostParentProcessId"] == parent["hostProcessId"]
    assert arguments(child) == arguments(parent)


def test_execveat_keeps_its_name_and_arguments(quirks: Traced) -> None:
    event, in_thread = (e for e in quirks.events if e["eventName"] == "execveat")
    assert event["returnValue"] == 0
    assert arguments(event)["argv"] == ["true", "an argument"]
    opened = only(quirks.of("execat", "openat"))
    assert details(event, "dirfd")["raw"] == opened["returnValue"]
    assert arguments(event)["flags"] == "AT_EMPTY_PATH"
    image = only(
        [
            e
            for e in quirks.events
            if e["eventName"] == "sched_process_exec" and e["hostProcessId"] == event["hostProcessId"]
        ]
    )
    assert arguments(image)["pathname"].endswith("/true")
    # a thread that execs takes its leader's id
    assert (arguments(in_thread)["pathname"], arguments(in_thread)["argv"]) == ("/bin/true", ["true", "in a thread"])
    assert arguments(in_thread)["dirfd"] == "AT_FDCWD"


def test_exec_of_a_64_bit_program_from_a_32_bit_one(quirks: Traced) -> None:
    there = only(quirks.of("from32", "execve"))
    assert there["contextFlags"]["isCompat"] is True
    back = only([e for e in quirks.of("true", "execve") if e["hostProcessId"] == there["hostProcessId"]])
    assert back["contextFlags"]["isCompat"] is False
    assert (back["returnValue"], arguments(back)["pathname"], arguments(back)["argv"]) == (
        0,
        "/bin/true",
        ["/bin/true"],
    )


def test_int80_in_a_64_bit_program_is_named_by_the_i386_table(quirks: Traced) -> None:
    event = only([e for e in quirks.of("int80") if e["contextFlags"]["isCompat"]])
    assert event["eventName"] == "open"
    assert arguments(event)["pathname"] == "/int80/path"
    assert event["error"] == "ENOENT"


def test_exec_of_a_32_bit_program_keeps_path_and_arguments(quirks: Traced) -> None:
    event = only(quirks.of("other32", "execve"))
    assert event["returnValue"] == 0
    assert event["contextFlags"]["isCompat"] is True
    assert arguments(event)["pathname"].endswith("/other32")
    assert arguments(event)["argv"][1] == "an argument"
    assert not [e for e in quirks.events if e["eventName"] == "unknown_syscall" and e["processName"] == "other32"]


def test_calls_of_a_32_bit_program_are_named(quirks: Traced) -> None:
    names = {e["eventName"] for e in quirks.of("other32") if e["contextFlags"]["isCompat"]}
    assert {"mmap2", "openat", "brk"} <= names


def test_memory_that_faults_is_null_with_its_reason(quirks: Traced) -> None:
    first, second = quirks.of("fault", "openat")
    assert (details(first, "pathname")["value"], details(first, "pathname")["reason"]) == (None, "fault")
    assert details(second, "pathname")["reason"] == "null"
    assert first["error"] == "EFAULT"
    assert quirks.ledger["faults"] >= 1


def test_a_path_beyond_path_max_is_marked_cut_and_one_of_path_max_is_not(quirks: Traced) -> None:
    longer, exact = (details(e, "pathname") for e in quirks.of("longpath", "openat"))
    assert (len(longer["value"]), longer.get("cut")) == (4096, True)
    assert (len(exact["value"]), exact.get("cut")) == (4095, None)


def test_bytes_that_are_not_utf8_keep_their_base64(quirks: Traced) -> None:
    import base64

    path = details(only(quirks.of("bytes", "openat")), "pathname")
    assert base64.b64decode(path["base64"]) == b'/\xff\x01"\\\n\xe2\x82\xac'


def test_socket_addresses_of_every_family(quirks: Traced) -> None:
    addresses = [arguments(e)["addr"] for e in quirks.of("sockets") if e["eventName"] in ("connect", "bind")]
    assert addresses == [
        {"sa_family": "AF_UNIX", "sun_path": "/nonexistent/socket"},
        {"sa_family": "AF_UNIX", "sun_path": "@abstract"},
        {"sa_family": "AF_INET", "sin_port": "9", "sin_addr": "127.0.0.1"},
        {"sa_family": "AF_INET6", "sin6_port": "9", "sin6_flowinfo": "0", "sin6_addr": "::1", "sin6_scopeid": "0"},
        {"sa_family": "AF_NETLINK", "nl_pid": "0", "nl_groups": "0x0"},
        {
            "sa_family": "AF_PACKET",
            "sll_protocol": "0x3",
            "sll_ifindex": "1",
            "sll_hatype": "0",
            "sll_pkttype": "0",
            "sll_addr": "",
        },
    ]
    assert arguments(only(quirks.of("sockets", "getsockname")))["addr"]["sa_family"] == "AF_NETLINK"
    assert arguments(quirks.of("sockets", "socket")[0])["type"] == "SOCK_STREAM|SOCK_CLOEXEC"


def test_structs_behind_pointers(quirks: Traced) -> None:
    assert arguments(only(quirks.of("structs", "nanosleep")))["req"] == {"tv_sec": 0, "tv_nsec": 1000}
    how = arguments(only(quirks.of("structs", "openat2")))["how"]
    assert how == {"flags": "O_RDONLY|O_CLOEXEC", "mode": "0", "resolve": "RESOLVE_NO_SYMLINKS"}
    clone = arguments(quirks.of("structs", "clone3")[0])["cl_args"]
    assert (clone["flags"], clone["exit_signal"]) == ("CLONE_PARENT_SETTID", "SIGCHLD")
    pair = arguments(only(quirks.of("structs", "socketpair")))["sv"]
    assert len(pair) == 2
    assert pair[1] == pair[0] + 1
    assert arguments(only(quirks.of("structs", "readlink")))["buf"].endswith("/quirks")


def test_numbers_are_words_and_keep_their_raw_value(quirks: Traced) -> None:
    event = only(quirks.of("words", "open"))
    flags = details(event, "flags")
    assert flags["value"] == "O_WRONLY|O_EXCL|0x40000000"
    assert flags["raw"] == 0x40000000 | 0o1 | 0o200
    assert arguments(only(quirks.of("words", "access")))["mode"] == "R_OK|X_OK"
    assert arguments(only(quirks.of("words", "mkdir")))["mode"] == "S_IRWXU|S_IRGRP|S_IXGRP"


def test_a_failed_exec_has_its_arguments(quirks: Traced) -> None:
    event = only(quirks.of("badexec", "execve"))
    assert event["error"] == "ENOENT"
    assert arguments(event)["argv"] == ["nothing", "one", "", "three"]


@NEEDS_LOOPS
def test_what_is_cut_of_a_failed_execs_arguments_is_marked(quirks: Traced) -> None:
    cut, whole, many, full = (details(event, "argv") for event in quirks.of("longexec", "execve"))
    assert (cut["value"], cut["cut"]) == (["long", "f" * 1023, "e" * 1023, "last"], True)
    assert (whole["value"], "cut" in whole) == (["long", "f" * 1023, "", "last"], False)
    assert (many["value"], "cut" in many) == (["x"] * 65, False)
    assert (full["value"], "cut" in full) == (["x"] * 64, False)


def test_exit_tells_thread_from_group_and_carries_the_code(quirks: Traced) -> None:
    exits = [arguments(event) for event in quirks.of("threads", "sched_process_exit")]
    thread, group = sorted(exits, key=lambda each: int(each["exit_code"]))
    # before 6.16 the tracepoint comes some time after the count of those who live, which another may have ended by then
    at_once = Btf.of_kernel().parameters("__traceiter_sched_process_exit") == 3
    assert not (at_once and thread["process_group_exit"])
    assert (group["exit_code"], group["process_group_exit"]) == (3 << 8, True)
    assert arguments(only(quirks.of("killed", "sched_process_exit")))["exit_code"] == 9


def test_fork_names_the_child_before_its_first_event(quirks: Traced) -> None:
    seen: set[int] = set()
    for event in quirks.events:
        if event["eventName"] == "sched_process_fork":
            seen.add(arguments(event)["child_tid"])
        assert event["hostThreadId"] in seen or event["processName"] == "quirks" or event["hostThreadId"] in seen


def test_exec_carries_the_file_and_the_previous_comm(binaries: dict[str, Path]) -> None:
    path = binaries["other32"]
    script = path.parent / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    stat = path.stat()  # before: since 6.13 the kernel marks a ctime that was asked for, in the ctime itself
    run = trace(["sh", "-c", f"{path}; {script} x; exit 5"], "-e", "sched_process_exec", "--exec-env")
    assert run.status == 5
    first, plain, interpreted = run.events
    found = arguments(plain)
    assert (found["inode"], found["ctime"]) == (stat.st_ino, stat.st_ctime_ns)
    assert found["pathname"] == str(path)
    assert (found["prev_comm"], plain["processName"]) == ("sh", "other32")
    assert any(item.startswith("PATH=") for item in found["env"])
    assert arguments(first)["stdin_type"].startswith("S_IFCHR")
    # for a script the file is the interpreter; how it was asked for is the script
    assert arguments(interpreted)["cmdpath"] == str(script)
    assert arguments(interpreted)["pathname"] == str(Path("/bin/sh").resolve())
    assert arguments(interpreted)["argv"] == ["/bin/sh", str(script), "x"]
    assert arguments(interpreted)["interp"] == "/bin/sh"


def test_exec_names_the_elf_interpreter(binaries: dict[str, Path]) -> None:
    static = shutil.which("busybox")
    assert static is not None
    run = trace(["sh", "-c", f"{binaries['other32']}; {static} true"], "-e", "sched_process_exec")
    wide, narrow, none = (
        {name: arguments(e)[f"interpreter_{name}"] for name in ("pathname", "dev", "inode")} for e in run.events
    )
    for found, asked in ((wide, "/lib64/ld-linux-x86-64.so.2"), (narrow, "/lib/ld-linux.so.2")):
        real = Path(asked).resolve()
        assert (found["pathname"], found["inode"]) == (str(real), real.stat().st_ino)
    assert set(none.values()) == {None}
    for name in ("pathname", "inode"):
        assert details(run.events[2], f"interpreter_{name}") | {"type": "", "source": ""} == {
            "name": f"interpreter_{name}",
            "type": "",
            "value": None,
            "reason": "no object",
            "source": "",
        }


def test_memfd_program_has_a_name(tmp_path: Path) -> None:
    code = (
        "import os; fd = os.memfd_create('payload'); os.write(fd, open('/bin/true', 'rb').read());"
        " os.execve(fd, ['payload'], {})"
    )
    run = trace(["python3", "-S", "-c", code], "-e", "sched_process_exec")
    assert arguments(run.events[-1])["pathname"] == "memfd:payload"


def test_captured_buffers_hold_the_first_bytes() -> None:
    run = trace(["sh", "-c", "echo 0123456789abcdef"], "-e", "write", "--capture-bytes", "8")
    buffer = details(run.events[-1], "buf")
    assert (buffer["value"], buffer["cut"]) == ("01234567", True)


def test_acceptance_command_shows_everything_in_order() -> None:
    run = trace(["sh", "-c", "cat /etc/hostname; (exec ls /nonexistent)"])
    names = [(e["eventName"], e["processName"]) for e in run.events]
    assert names[:2] == [("security_bprm_check", "sh"), ("sched_process_exec", "sh")]
    at = [
        names.index(("sched_process_fork", "sh")),
        names.index(("sched_process_exec", "cat")),
        next(
            i
            for i, e in enumerate(run.events)
            if e["eventName"] == "openat" and arguments(e)["pathname"] == "/etc/hostname"
        ),
        names.index(("sched_process_exit", "cat")),
        names.index(("sched_process_exec", "ls")),
        names.index(("sched_process_exit", "ls")),
        names.index(("sched_process_exit", "sh")),
    ]
    assert at == sorted(at)
    opened = run.events[at[2]]
    assert arguments(opened)["flags"].startswith("O_RDONLY")
    assert run.status == 2
    assert run.ledger["balanced"]
