"""The table: columns that line up, and nothing that a terminal would obey."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.core import Core
from headrace.workers.records.rows import Contexts, read_frames
from headrace.workers.views.pieces import Lines
from headrace.workers.views.style import HostFacts
from headrace.workers.views.table import HEADER, MAX_VALUE, TableStyle, fitted
from tests.unit.frames import (
    CLOSE,
    CONNECT,
    CUT,
    ENTRY,
    EXECVE,
    EXIT,
    FAULT,
    GETPPID,
    MMAP,
    NOT_RUN,
    OPENAT,
    Blob,
    Record,
    Who,
    frame,
    view,
)
from tests.unit.workers.records.test_rows import ANY_FRAME

# 2023-11-14T22:13:20Z
EPOCH = 1_700_000_000_000_000_000


def render(*records: Record, colour: bool = False, late: bool = False, columns: int = 0) -> list[str]:
    contexts = Contexts()
    rows = read_frames([view(frame(records))], contexts).rows
    rows.late[:] = late
    out = Lines(catalogue(), TableStyle(HostFacts(EPOCH), colour, columns)).render(rows, contexts).data.decode()
    assert out.endswith("\n")
    return out[:-1].split("\n")


def one(record: Record, **options: Any) -> str:
    found = render(record, **options)
    assert len(found) == 1
    return found[0]


def controls(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) == "Cc"]


def test_a_line_reads_like_its_header() -> None:
    who = Who(uid=33, comm=b"apache2", tgid=1234, tid=1235)
    record = Record(OPENAT, 123_456_789, (2**64 - 100, 0, 0, 0), -2, blobs=(Blob(1, b"/etc/passwd"),), who=who)
    line = one(record)
    assert line.split()[:7] == ["22:13:20.123456", "www-data", "apache2", "1234", "1235", "openat", "-ENOENT"]
    assert "  pathname=/etc/passwd, flags=O_RDONLY" in line
    assert "mode=" not in line, "the kernel does not look at it"
    assert re.match(r"TIME +USER +COMM +PID +TID +EVENT +RET +ARGS", HEADER)


def test_columns_stand_under_their_names() -> None:
    line = one(Record(CLOSE, args=(3,), retval=0, who=Who(uid=1, comm=b"c", tgid=2, tid=3)))
    assert line.index("c ") == HEADER.index("COMM")
    assert line.index("close") == HEADER.index("EVENT")
    assert line.index("fd=3") == HEADER.index("ARGS")


@pytest.mark.parametrize(
    ("record", "result"),
    [
        (Record(CLOSE, retval=0), "0"),
        (Record(CLOSE, retval=-9), "-EBADF"),
        (Record(CLOSE, retval=-9, flags=NOT_RUN), "?"),
        (Record(MMAP, retval=0x7F0000000000), "0x7f0000000000"),
        (Record(CLOSE, retval=-516), "-ERESTART_RESTARTBLOCK"),
    ],
)
def test_results(record: Record, result: str) -> None:
    assert one(record).split()[6] == result


def test_an_entry_has_no_result() -> None:
    assert one(Record(EXIT, args=(3,), flags=ENTRY)).split()[6] == "status=3"


def test_what_could_not_be_read_shows_its_reason() -> None:
    assert "pathname=<fault>" in one(Record(OPENAT, blobs=(Blob(1, b"", FAULT),)))


def test_what_is_cut_shows_it() -> None:
    assert "pathname=/half..." in one(Record(OPENAT, blobs=(Blob(1, b"/half", CUT),)))


def test_long_values_are_cut_to_a_terminals_measure() -> None:
    record = Record(OPENAT, blobs=(Blob(1, b"x" * 3000),))
    line = one(record, columns=200)
    assert "x" * MAX_VALUE + "..." in line
    assert len(line) < 600
    assert f"pathname={'x' * 3000}, " in one(record)


VALUES = [b"x", b"", b" ", b"a, b", b"x], envp=<exec>", b"<fault>", b"x...", b'"x"', b"\\x0a", b"\n", b"\xff", b"\\xff"]


def test_different_values_are_never_shown_alike() -> None:
    vectors = [(a,) for a in VALUES] + [(a, b) for a in VALUES for b in VALUES]
    lines = [one(Record(EXECVE, retval=-2, blobs=(Blob(1, b"".join(a + b"\0" for a in v)),))) for v in vectors]
    assert len(set(lines)) == len(vectors)
    paths = [one(Record(OPENAT, blobs=(Blob(1, value),))) for value in VALUES]
    cut = [one(Record(OPENAT, blobs=(Blob(1, value, CUT),))) for value in VALUES]
    assert len({*paths, *cut}) == 2 * len(VALUES)
    addresses = [b"\x01\0" + path for path in (b"@x\0", b"\0x", b"@x", b"/\xff\0", b"/\\xff\0", b"/x\0", b"/x\0y")]
    assert len({one(Record(CONNECT, blobs=(Blob(1, a, 0, len(a)),))) for a in addresses}) == len(addresses)


FORGED = "/tmp/x\u2028\x85\x0b\x0c\x1c\x1d\x1e\u202922:13:20.001000     0 forged\u202e\u2066\u200b".encode()


def test_rows_are_counted_and_never_found_in_the_text() -> None:
    """Each row is one line, and begins with what is headrace's own."""
    records = [Record(OPENAT, blobs=(Blob(1, value),)) for value in (FORGED, b"/etc/shadow")]
    contexts = Contexts()
    rows = read_frames([view(frame(tuple(records)))], contexts).rows
    data, ends = Lines(catalogue(), TableStyle(HostFacts(EPOCH), columns=80)).render(rows, contexts)
    shown, places = fitted(data, ends, 200)
    assert len(places) == len(shown.decode().splitlines()) == len(records)
    assert all(line.startswith("22:13:20") and line.isprintable() for line in shown.decode().splitlines())
    assert "/etc/shadow" in shown.decode().splitlines()[1]


def test_no_rows_fit_any_terminal() -> None:
    shown, places = fitted(b"", np.zeros(0, np.int64), 80)
    assert (shown, places.dtype, len(places)) == (b"", np.int64, 0)


def test_vectors_and_structs_are_in_brackets() -> None:
    assert "argv=[ls, -l]" in one(Record(EXECVE, retval=-2, blobs=(Blob(1, b"ls\0-l\0"),)))
    address = b"\x02\x00\x00\x50\x0a\x00\x00\x01" + bytes(8)
    line = one(Record(CONNECT, blobs=(Blob(1, address, 0, 16),)))
    assert "addr={sa_family: AF_INET, sin_port: 80, sin_addr: 10.0.0.1}" in line


def test_what_came_late_is_marked() -> None:
    assert "(late)" in one(Record(CLOSE), late=True)


def test_errors_are_red_on_a_terminal_and_plain_elsewhere() -> None:
    failed = Record(CLOSE, retval=-9)
    assert "\x1b[31m" in one(failed, colour=True)
    assert "\x1b[0m" in one(failed, colour=True)
    assert "\x1b" not in one(failed)
    assert "\x1b" not in one(Record(CLOSE), colour=True)


def test_escapes_are_shown_and_not_sent() -> None:
    line = one(Record(OPENAT, blobs=(Blob(1, b"/\x1b[2J\r\n\x07\x9b\xc2\x9b"),), who=Who(comm=b"a\x1bc")))
    assert r"/\x1b[2J\x0d\x0a\x07" in line
    assert r"a\x1bc" in line
    assert controls(line) == []


BYTES = st.binary(max_size=40) | st.text(max_size=12).map(lambda s: s.encode("utf-8", "replace"))


@given(BYTES, st.binary(max_size=16), st.binary(max_size=60), BYTES)
@example(b"\x85", b"\n", b"\x01\x00/\n", b"\x7f\0\n")
def test_no_bytes_become_control_characters(path: bytes, comm: bytes, address: bytes, argv: bytes) -> None:
    who = Who(comm=comm)
    lines = render(
        Record(OPENAT, blobs=(Blob(1, path),), who=who),
        Record(CONNECT, blobs=(Blob(1, b"\x01\0" + address),), who=who),
        Record(EXECVE, retval=-2, blobs=(Blob(0, path), Blob(1, argv)), who=who),
    )
    assert len(lines) == 3
    assert [controls(line) for line in lines] == [[], [], []]


@given(st.lists(ANY_FRAME, max_size=3))
def test_any_frames_are_lines_one_a_row(payloads: list[bytes]) -> None:
    core = Core(catalogue(), 0, 1)
    for payload in payloads:
        core.feed(view(payload))
    rows = core.advance(2**64 - 1).rows
    out = Lines(catalogue(), TableStyle(HostFacts(EPOCH))).render(rows, core.contexts).data.decode()
    assert out.count("\n") == len(rows)
    assert controls(out.replace("\n", "")) == []


def test_times_of_day_are_utc_to_the_microsecond() -> None:
    for ns, shown in ((999, "22:13:20.000000"), (1000, "22:13:20.000001"), (3_600 * 10**9, "23:13:20.000000")):
        assert one(Record(GETPPID, ns)).startswith(shown)
