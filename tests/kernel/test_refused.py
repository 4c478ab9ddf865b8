"""A program that the kernel does not take costs its events, and not the run."""

from __future__ import annotations

from typing import Any

import pytest

from bpf import loader, scope, syscall
from bpf.btf import Btf
from bpf.catalogue import catalogue
from bpf.looks import PROGRAMS
from bpf.source import Wanted

pytestmark = pytest.mark.kernel

NAMES = ("openat", "security_inode_rename", "security_inode_unlink", "cap_capable")
WANTED = Wanted(events=tuple(catalogue().by_name[name] for name in NAMES), scope=scope.Scope(), shards=1)


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
