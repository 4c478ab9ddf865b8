"""The catalogue against the kernel's own headers, and what its users may ask of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.bpf import layout
from headrace.bpf.programs.looks import LOOKS, MULTIPLEXED
from headrace.bpf.programs.uring import CALLS, evades
from headrace.bpf.tables.catalogue import Call, Event, UnknownName, catalogue
from headrace.bpf.tables.sets import SETS

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
C_SOURCES = Path(layout.__file__).parent / "c"


def numbers(header: str) -> dict[int, str]:
    found = re.findall(r"#define __NR_(\w+) (\d+)", (HEADERS / header).read_text())
    return {int(number): name for name, number in found}


def constant(name: str) -> int:
    for header in ("arguments.h", "layout.h"):
        match = re.search(rf"#define {name} (\d+)", (C_SOURCES / header).read_text())
        if match:
            return int(match[1])
    raise AssertionError(name)


@pytest.mark.parametrize(("header", "compat"), [("unistd_64.h", False), ("unistd_32.h", True)])
def test_numbers_are_the_kernels(header: str, compat: bool) -> None:
    ours = {call.number: call.event.name for call in catalogue().calls if call.compat == compat}
    kernel = numbers(header)
    if compat:
        # these numbers have other arguments than the calls of their names
        kernel |= {kernel_number: f"old_{name}" for kernel_number, name in kernel.items() if name in ("mmap", "select")}
    assert len(kernel) > 300
    assert {number: ours.get(number) for number in kernel} == kernel


def test_a_64_bit_call_has_its_number_as_its_id() -> None:
    assert {name: catalogue().by_name[name].id for name in ("read", "openat", "execve", "clone3")} == {
        "read": 0,
        "openat": 257,
        "execve": 59,
        "clone3": 435,
    }


def test_a_32_bit_call_shares_the_event_of_its_name() -> None:
    openat = next(c for c in catalogue().calls if c.compat and c.number == 295)
    assert openat.event is catalogue().by_name["openat"]
    mmap2 = next(c for c in catalogue().calls if c.compat and c.number == 192)
    assert mmap2.event.id == 512 + 192
    assert "32bit_unique" in mmap2.event.sets


def test_ids_are_unique_and_fit_the_counters() -> None:
    ids = [event.id for event in catalogue().by_name.values()]
    assert len(ids) == len(set(ids))
    assert max(ids) < layout.EVENTS


def test_arguments_are_those_of_the_manual_pages() -> None:
    openat = catalogue().event("openat")
    assert [(a.type, a.name) for a in openat.arguments] == [
        ("int", "dirfd"),
        ("const char*", "pathname"),
        ("int", "flags"),
        ("mode_t", "mode"),
    ]
    assert openat.index("flags") == 2
    assert openat.index("nothing") is None


def test_no_call_has_more_arguments_than_registers() -> None:
    assert all(len(call.arguments) <= 6 for call in catalogue().calls)


def test_the_default_set_is_tracees_75_and_fork() -> None:
    names = {event.name for event in catalogue().sets()["default"]}
    assert len(names) == 76
    assert {"openat", "execve", "sched_process_exec", "security_file_open", "sched_process_fork"} <= names
    assert "read" not in names


"""Sets of Tracee 0.8.0 and how many events they have there."""
TRACEES = """fs_read_write 13 fs_file_ops 23 fs_file_attr 32 fs_mux_io 12 fs_fd_ops 6 fs_sync 6 fs_dir_ops 10
    fs_link_ops 8 fs_info 4 fs_async_io 6 fs_monitor 6 proc_mem 20 proc_sched 16 proc_ids 24 signals 19 ipc 26
    ipc_pipe 5 ipc_shm 4 ipc_sem 4 ipc_msgq 10 ipc_futex 3 time 21 time_timer 12
    time_tod 3 time_clock 6 net 26 net_sock 18 net_snd_rcv 6
    system 31 system_module 6 system_numa 6 system_keys 3 lsm_hooks 19 network_events 3""".split()


@pytest.mark.parametrize(("name", "size"), list(zip(TRACEES[::2], map(int, TRACEES[1::2]), strict=True)))
def test_sets_have_as_many_events_as_tracees(name: str, size: int) -> None:
    assert len(catalogue().sets()[name]) == size


def test_the_life_of_processes_has_tracees_events_and_fork_and_exec() -> None:
    added = {"sched_process_fork", "sched_process_exec"}
    sets = catalogue().sets()
    assert (len(sets["proc_life"]), len(sets["proc"])) == (13 + len(added), 99 + len(added - {"sched_process_exec"}))
    assert added <= {event.name for event in sets["proc_life"]}


def test_every_member_of_a_set_exists() -> None:
    assert set().union(*SETS.values()) <= catalogue().by_name.keys()


def test_one_program_looks_at_a_call() -> None:
    calls = [look.call for look in LOOKS]
    assert len(calls) == len(set(calls))
    assert set(calls) <= catalogue().by_name.keys()
    raised = {program for event in catalogue().by_name.values() for program in event.programs}
    # socketcall and ipc are looked at for the calls that they stand for
    assert raised | {MULTIPLEXED} == {look.program for look in LOOKS}


def asked(expression: str) -> set[str]:
    return {event.name for event in catalogue().select(expression)}


def test_names_sets_globs_and_exclusions_combine() -> None:
    assert asked("openat") == {"openat"}
    assert asked("open*") == {"open", "openat", "openat2", "open_tree", "open_by_handle_at", "open_tree_attr"}
    assert asked("open*,!open_*") == {"open", "openat", "openat2"}
    assert asked("signals,!kill") == {e.name for e in catalogue().sets()["signals"]} - {"kill"}
    assert asked("openat , close") == {"openat", "close"}


def test_exclusions_alone_take_away_from_the_default() -> None:
    assert asked("!openat") == {e.name for e in catalogue().sets()["default"]} - {"openat"}


def test_a_name_that_is_event_and_set_is_the_event() -> None:
    both = set(catalogue().by_name) & set(catalogue().sets())
    for name in both:
        assert asked(name) == {name}


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("opnat", "openat"), ("execv", "execve"), ("sched_proces_exec", "sched_process_exec"), ("signal_s", "signals")],
)
def test_a_misspelt_name_gets_a_suggestion(misspelt: str, meant: str) -> None:
    with pytest.raises(UnknownName, match=f"{misspelt}; did you mean {meant}") as raised:
        catalogue().select(misspelt)
    assert raised.value.nearest == meant


def test_a_name_like_no_other_gets_none() -> None:
    with pytest.raises(UnknownName, match=r"zzzzqqqq$"):
        catalogue().event("zzzzqqqq")


@pytest.mark.parametrize("pattern", ["zz*", "!zz*", "!opnat"])
def test_what_matches_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(UnknownName):
        catalogue().select(pattern)


def test_an_event_that_cannot_be_provided_says_why() -> None:
    for event in catalogue().by_name.values():
        assert bool(event.hook) != bool(event.missing), event.name


def test_buffers_are_read_only_on_request() -> None:
    write = catalogue().event("write")
    assert write.blobs_with(0) == write.blobs
    assert [(b.arg, b.bytes, b.sized) for b in write.blobs_with(64)] == [(1, 64, 2)]
    assert [b.bytes for b in write.blobs_with(1 << 20)] == [layout.STRING_BYTES]
    assert catalogue().event("close").blobs_with(64) == ()


def needed(call: Call) -> int:
    """Bytes of a frame that the programs ask for at worst (bpf/c/arguments.h, blob_begin)."""
    head, begin = 8, constant("STRING_BYTES") + 16
    used = most = 0
    for blob in call.blobs:
        vector = blob.kind == layout.KIND_VECTOR
        plain = constant("SMALL_BYTES") + 16 if blob.kind == layout.KIND_SMALL else begin
        asks = head + constant("VECTOR_BYTES") + constant("VECTOR_STRING") if vector else plain
        most = max(most, used + asks)
        used += head + (asks - head if vector else (blob.bytes + 7) & ~7)
    return most


def test_room_of_a_call_covers_what_the_programs_ask_for_before_each_blob() -> None:
    # else the blob is left out where the frame is nearly full, and the argument shows as "not read"
    execs = ("execve", "execveat")  # the loader has a room of its own for these
    short = [
        (c.event.name, needed(c), sum(b.room for b in c.blobs))
        for c in catalogue().calls
        if c.blobs and c.event.name not in execs and sum(b.room for b in c.blobs) < needed(c)
    ]
    assert short == []


def test_events_are_frozen() -> None:
    event: Event = catalogue().event("openat")
    with pytest.raises(AttributeError):
        event.name = "other"  # type: ignore[misc]


def test_what_io_uring_does_unseen() -> None:
    by_name = catalogue().by_name
    assert set(by_name) >= CALLS
    assert all(
        evades(by_name[name]) for name in ("openat", "security_file_open", "security_socket_connect", "vfs_write")
    )
    assert not any(evades(by_name[name]) for name in ("ptrace", "execve", "sched_process_exec", "mem_prot_alert"))
