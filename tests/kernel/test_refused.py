"""A program that the kernel does not take costs its events, and not the run."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.bpf import syscall
from headrace.bpf.host import offsets
from headrace.bpf.host.btf import Btf
from headrace.bpf.load import loader
from headrace.bpf.programs import scope, source
from headrace.bpf.programs.looks import PROGRAMS
from headrace.bpf.programs.source import WantedPrograms
from headrace.bpf.tables.catalogue import catalogue

pytestmark = pytest.mark.kernel

NAMES = ("openat", "security_inode_rename", "security_inode_unlink", "cap_capable")
WANTED = WantedPrograms(events=tuple(catalogue().by_name[name] for name in NAMES), scope=scope.Scope(), shards=1)


def refusing(monkeypatch: pytest.MonkeyPatch, *functions: str) -> None:
    load = syscall.load_program

    def refuse(name: str, *more: Any) -> int:
        if name in functions:
            raise OSError(13, "Permission denied: for a test")
        return load(name, *more)

    monkeypatch.setattr(syscall, "load_program", refuse)


def test_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "on_inode_rename", "on_cap_capable")
    programs = loader.Programs(WANTED, Btf.of_kernel())
    try:
        assert programs.refused == dict.fromkeys(("on_inode_rename", "on_cap_capable"), "Permission denied: for a test")
        present = {key for key, _ in programs._maps["objects"].items()}
        assert PROGRAMS.index("inode_unlink") in present
        assert PROGRAMS.index("inode_rename") not in present
        programs.attach()
    finally:
        programs.close()


@pytest.mark.parametrize(
    ("function", "whole"),
    [("on_sys_exit", False), ("on_walk", False), ("on_sched_process_fork", False), ("on_inode_rename", True)],
)
def test_what_every_run_needs_must_be_taken(function: str, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, function)
    with pytest.raises(loader.RefusedError, match=f"refused the program {function}: .*for a test"):
        loader.Programs(WANTED, Btf.of_kernel(), whole=whole)


OLD = {"KERNEL_mm_struct_mm_rb": 8, "KERNEL_vm_area_struct_vm_rb": 32, "KERNEL_rb_node_rb_left": 16} | {
    "KERNEL_rb_node_rb_right": 8,
    "KERNEL_inode_ctime_sec": 120,
    "KERNEL_inode_ctime_nsec": 128,
}
"""Where the regions of a process stand before 6.1: anywhere, nothing is run here; and an inode as long as 5.10's, since
what is read of it at once takes stack.
"""
NEW = ("KERNEL_mm_struct_mm_mt", "KERNEL_rdonly_cast", "KERNEL_task_struct")


def test_programs_for_a_kernel_that_has_nothing_new_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without typed tasks, fetching atomics, loops, maple trees: as 5.10 has them, though not its verifier."""
    resolve = offsets.resolve
    monkeypatch.setattr(offsets, "resolve", lambda *of: {k: v for k, v in resolve(*of).items() if k not in NEW} | OLD)
    monkeypatch.setattr(source, "features", lambda *_: {})
    names = (
        "security_file_open",
        "mem_prot_alert",
        "security_file_mprotect",
        "security_inode_rename",
        "sched_process_exec",
        "connect",
    )
    wanted = WantedPrograms(events=tuple(catalogue().by_name[name] for name in names), scope=scope.Scope(), shards=1)
    programs = loader.Programs(wanted, Btf.of_kernel())
    assert programs.refused == {}
    programs.close()


@pytest.mark.parametrize(
    ("function", "events"),
    [
        ("on_inode_rename", ["security_inode_rename"]),
        ("on_rename_back", ["security_inode_rename"]),
        ("on_cap_capable", ["cap_capable"]),
        ("on_walk", []),
        ("flush_now", []),
    ],
)
def test_a_program_names_its_events(function: str, events: list[str]) -> None:
    assert WANTED.raised_by(function) == events
