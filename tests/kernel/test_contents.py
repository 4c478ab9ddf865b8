"""What is written to files and what may be executed is seen, in whatever way it is asked for."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.live import NEEDS_LOOPS, Event, Traced, arguments, compile_c, details, trace

pytestmark = pytest.mark.kernel
EVENTS = "magic_write,vfs_write,vfs_writev,mem_prot_alert,suspicious_syscall_source,commit_creds"
SCRIPT = b"#!/bin/sh"
PAGE = 4096
MAPPED, ADDED_EXEC, TOOK_WRITE = 1, 2, 4
"""Alerts, by number."""


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("contents")
    program = compile_c(Path(__file__).with_name("contents.c"), folder / "contents")
    return trace([str(program), str(folder)], "-e", EVENTS)


def _first_bytes(events: list[Event]) -> list[bytes]:
    return [base64.b64decode(arguments(event)["bytes"]) for event in events]


def _alerts(events: list[Event]) -> list[tuple[int, int]]:
    return [(details(event, "alert")["raw"], arguments(event)["len"]) for event in events]


def test_a_32_bit_call_writes_as_a_64_bit_one_does(contents: Traced) -> None:
    assert _first_bytes(contents.of("narrow", "magic_write")) == [SCRIPT, SCRIPT, SCRIPT[:3]]
    assert [arguments(e)["pos"] for e in contents.of("narrow", "vfs_writev")] == [0, 1 << 32, 0]
    assert [arguments(e)["pos"] for e in contents.of("narrow", "vfs_write")] == [5 | 1 << 32, 0]


def test_what_is_appended_is_written_to_the_end_whatever_its_position(contents: Traced) -> None:
    assert _first_bytes(contents.of("appended", "magic_write")) == [SCRIPT, SCRIPT]
    assert [arguments(e)["pos"] for e in contents.of("appended", "vfs_write")] == [0, 9]
    assert [arguments(e)["pos"] for e in contents.of("appended", "vfs_writev")] == [0, 9]


@NEEDS_LOOPS
def test_empty_buffers_do_not_hide_the_first_bytes(contents: Traced) -> None:
    assert _first_bytes(contents.of("empty_buffers", "magic_write")) == [SCRIPT]


def test_a_call_that_failed_after_the_first_regions_has_changed_those(contents: Traced) -> None:
    assert _alerts(contents.of("partly", "mem_prot_alert")) == [(TOOK_WRITE, PAGE)]


def test_memory_is_executable_if_reading_implies_it(contents: Traced) -> None:
    assert _alerts(contents.of("implied", "mem_prot_alert")) == [(MAPPED, PAGE), (TOOK_WRITE, PAGE)]


def test_shared_memory_can_be_attached_to_be_executed(contents: Traced) -> None:
    events = contents.of("attached", "mem_prot_alert")
    assert _alerts(events) == [(MAPPED, PAGE)] * 2
    assert {arguments(e)["prot"] for e in events} == {"PROT_READ|PROT_WRITE|PROT_EXEC"}
    assert "0x0" not in {arguments(e)["addr"] for e in events}


@NEEDS_LOOPS
def test_a_region_is_not_hidden_by_those_before_it(contents: Traced) -> None:
    assert _alerts(contents.of("behind_others", "mem_prot_alert")) == [(TOOK_WRITE, PAGE)]


def test_more_regions_than_are_kept_have_one_alert_for_the_rest(contents: Traced) -> None:
    events = contents.of("many", "mem_prot_alert")
    assert _alerts(events) == [(ADDED_EXEC, PAGE)] * 7 + [(ADDED_EXEC, 13 * PAGE)]


def test_a_call_from_memory_of_no_file_is_told(contents: Traced) -> None:
    found = [arguments(e) for e in contents.of("injected", "suspicious_syscall_source")]
    told = [(a["syscall"], a["vma_type"]) for a in found]
    assert told == [("dup2", "anonymous"), ("socket", "heap"), ("mprotect", "stack"), ("setuid32", "anonymous")]
    for a in found:
        assert 0 <= int(a["ip"], 16) - int(a["vma_start"], 16) < a["vma_size"]
    assert not [
        e for e in contents.events if e["eventName"] == "suspicious_syscall_source" and e not in contents.of("injected")
    ]


def test_the_books_balance(contents: Traced) -> None:
    assert contents.ledger["balanced"] is True
