"""Conditions as masks over rows."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import parse
from headrace.pipeline.transport.frames import Loss, loss_frame
from headrace.workers.conditions import filters as filters_module
from headrace.workers.conditions.filters import Predicates
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import (
    CLOSE,
    CUT,
    EXECVE,
    FAULT,
    GETPPID,
    NULL,
    OPENAT,
    Blob,
    Record,
    frame,
    view,
)


def stays(condition: str, *records: Record) -> list[bool]:
    """Which records a condition lets stay."""
    selection = parse([condition], catalogue())
    contexts = Contexts()
    rows = read_frames([view(frame(records))], contexts).rows
    found: list[bool] = Predicates(catalogue(), selection.conditions)(rows, contexts).tolist()
    return found


def opened(path: bytes, status: int = 0, **fields: object) -> Record:
    return Record(OPENAT, blobs=(Blob(1, path, status),), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("openat.args.pathname=/etc/passwd", [True, False, False]),
        ("openat.args.pathname!=/etc/passwd", [False, True, True]),
        ("openat.args.pathname=/etc/*", [True, True, False]),
        ("openat.args.pathname=/tmp/?,/etc/shadow", [False, True, True]),
        ("openat.args.pathname!=/etc/*,/tmp/*", [False, False, False]),
        ("openat.args.pathname=/ETC/*", [False, False, False]),
    ],
)
def test_text_matches_by_glob(condition: str, expected: list[bool]) -> None:
    assert stays(condition, opened(b"/etc/passwd"), opened(b"/etc/shadow"), opened(b"/tmp/x")) == expected


@pytest.mark.parametrize("condition", ["openat.args.pathname=*", "openat.args.pathname!=/x"])
@pytest.mark.parametrize("status", [CUT, FAULT, NULL])
def test_what_could_not_be_read_whole_matches_neither_way(condition: str, status: int) -> None:
    assert stays(condition, opened(b"/y" if status == CUT else b"", status), opened(b"/y")) == [False, True]
    assert stays(condition, Record(OPENAT)) == [False]


def test_a_string_longer_than_any_block_matches_whole() -> None:
    path = b"/" + b"x" * 3000
    assert stays("openat.args.pathname=*xy", opened(path), opened(path + b"y")) == [False, True]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("close.args.fd=3", [True, False, False]),
        ("close.args.fd=3,4", [True, True, False]),
        ("close.args.fd!=3", [False, True, True]),
        ("close.args.fd<0", [False, False, True]),
        ("close.args.fd>=3", [True, True, False]),
        ("close.args.fd<=3", [True, False, True]),
        ("close.args.fd>-1", [True, True, False]),
        ("close.args.fd=0x4", [False, True, False]),
        ("close.args.fd=-1", [False, False, True]),
    ],
)
def test_numbers_compare_as_their_c_type_has_them(condition: str, expected: list[bool]) -> None:
    records = [Record(CLOSE, args=(fd,)) for fd in (3, 4, 0xFFFFFFFF)]
    assert stays(condition, *records) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("openat.args.flags=O_RDONLY", [True, False, False]),
        ("openat.args.flags=O_CREAT", [False, False, True]),
        ("openat.args.flags=O_WRONLY|O_CREAT", [False, False, True]),
        ("openat.args.flags=O_WRONLY", [False, True, True]),
        ("openat.args.flags!=O_CREAT", [True, True, False]),
        ("openat.args.flags=65", [False, False, True]),
        ("openat.args.dirfd=AT_FDCWD", [True, True, True]),
    ],
)
def test_flags_match_by_word_or_number(condition: str, expected: list[bool]) -> None:
    records = [Record(OPENAT, args=(2**64 - 100, 0, flags, 0)) for flags in (0, 1, 0o101)]
    assert stays(condition, *records) == expected


def test_arguments_are_compared_by_the_bits_that_the_kernel_uses() -> None:
    assert stays("setns.args.flags=CLONE_NEWNET", Record(308, args=(1, 0xDEFACEC040000000))) == [True]
    assert stays("ptrace.args.request=PTRACE_ATTACH", Record(101, args=(0xDEADBEEF00000010, 1, 0, 0))) == [False]
    assert stays("read.args.fd=5", Record(0, args=(5 | 1 << 40, 2, 5))) == [True]
    assert stays("read.args.count=5", Record(0, args=(1, 2, 5 | 1 << 40))) == [False]


def test_results_outside_a_range_are_compared_here() -> None:
    records = [Record(OPENAT, retval=r) for r in (-2, -13, 0, 3)]
    assert stays("openat.retval=-2,-13", *records) == [True, True, False, False]
    assert stays("openat.retval!=-2", *records) == [False, True, True, True]


def test_conditions_of_one_event_are_anded() -> None:
    records = [opened(b"/etc/x", args=(0, 0, 1)), opened(b"/etc/x"), opened(b"/tmp/x", args=(0, 0, 1))]
    assert stays("openat.args.pathname=/etc/*,openat.args.flags=1", *records) == [True, False, False]


def test_a_condition_leaves_other_events_alone() -> None:
    assert stays("openat.args.pathname=/x", Record(GETPPID), opened(b"/y"), Record(CLOSE)) == [True, False, True]


def test_only_narrows_to_the_events_asked_for() -> None:
    contexts = Contexts()
    rows = read_frames([view(frame([Record(GETPPID), Record(CLOSE), Record(OPENAT)]))], contexts).rows
    only = [catalogue().by_name["close"], catalogue().by_name["openat"]]
    assert Predicates(catalogue(), (), only)(rows, contexts).tolist() == [False, True, True]


def test_losses_are_announced_whatever_is_asked_for() -> None:
    contexts = Contexts()
    lost = view(loss_frame(Loss(0, 0, 5, 1, 2), 10, 0, b"host"))
    rows = read_frames([lost], contexts).rows
    assert len(rows) == 1
    assert Predicates(catalogue(), (), [catalogue().by_name["close"]])(rows, contexts).tolist() == [True]


def test_argv_matches_over_all_its_strings() -> None:
    record = Record(EXECVE, retval=-2, blobs=(Blob(0, b"/bin/ls"), Blob(1, b"ls\0-l\0/etc\0"), Blob(2, b"")))
    assert stays("execve.args.argv=*/etc*", record) == [True]
    assert stays("execve.args.argv=*/tmp*", record) == [False]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters_module, "CACHE_ENTRIES", 10)
    predicates = Predicates(catalogue(), parse(["close.args.fd<50"], catalogue()).conditions)
    memory = predicates._conditions[0][2]
    for first in range(0, 100, 5):
        contexts = Contexts()
        records = [Record(CLOSE, args=(fd,)) for fd in range(first, first + 5)]
        rows = read_frames([view(frame(records))], contexts).rows
        assert predicates(rows, contexts).tolist() == [fd < 50 for fd in range(first, first + 5)]
        assert len(memory) <= 10


PATTERN = st.text("ab*?/", min_size=1, max_size=4)


@given(st.lists(st.text("ab/", max_size=5), min_size=1, max_size=8), PATTERN, st.booleans())
def test_globs_are_fnmatchs(paths: list[str], pattern: str, negated: bool) -> None:
    records = [opened(p.encode()) for p in paths]
    expected = [fnmatch.fnmatchcase(p, pattern) != negated for p in paths]
    assert stays(f"openat.args.pathname{'!=' if negated else '='}{pattern}", *records) == expected


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
def test_any_bytes_can_be_asked_about(paths: list[bytes]) -> None:
    assert stays("openat.args.pathname=*", *(opened(p) for p in paths)) == [True] * len(paths)
