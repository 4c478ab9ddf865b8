"""Conditions that the kernel side decides: its very C, compiled for user space, against the workers' predicates."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.bpf.layout import EVENTS
from headrace.bpf.programs import early as generator
from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import parse
from headrace.workers.conditions.early import common_bits, early_tests
from headrace.workers.conditions.filters import Predicates
from headrace.workers.decode.flags import PARSERS
from headrace.workers.decode.numbers import Parser
from headrace.workers.records.rows import Contexts, read_frames
from tests.unit.frames import CLOSE, COMPAT, CUT, FAULT, NULL, OPENAT, Blob, Record, frame, view

C = Path(generator.__file__).parents[1] / "c"
FILE_OPEN = catalogue().by_name["security_file_open"].id
KERNEL, OWN_ROOT, NO_OBJECT, RACED = 16, 32, 8, 4
# stands in for bpf/c/kernel.h and for what bcc and the kernel give
SHIM = """
#include <string.h>
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
typedef int s32; typedef long long s64; typedef _Bool bool;
#define true 1
#define false 0
#define __always_inline inline __attribute__((always_inline))
#define KREAD(type, at) ({ type v_; memcpy(&v_, (void *)(at), sizeof(v_)); v_; })
#define COMPONENT_BYTES 256
#define BPF_PERCPU_ARRAY(name, type, n) static type name##_one; \
	static struct { type *(*lookup)(u32 *); } name; \
	static type *name##_lookup(u32 *at) { return &name##_one; } \
	__attribute__((constructor)) static void name##_begin(void) { name.lookup = name##_lookup; }
static inline u32 round_up(u32 n, u32 to) { return (n + to - 1) & ~(to - 1); }
static long bpf_probe_read_kernel(void *to, u32 n, const void *from) { memcpy(to, from, n); return 0; }
static long bpf_probe_read_kernel_str(void *to, u32 n, const char *from)
{ char *at = to; u32 i = 0; while (i < n - 1 && from[i]) { at[i] = from[i]; i++; } at[i] = 0; return i + 1; }
#define EARLY 1
"""
Passes = Callable[[Record], bool]


def built(tests: Sequence[generator.Test], path: Path, let_pass: bool = False) -> Passes:
    """What the C that is generated for tests says of a record."""
    text = (C / "early.h").read_text().replace("\nEARLY_TESTS\n", f"\n{generator.c_source(tests)}\n")
    shared = f"{(C / 'layout.h').read_text()}\nBPF_PERCPU_ARRAY(status, struct status, 1);"
    text = f"{SHIM}\n#define EVENTS {EVENTS}\n#define FRAME_CELLS 1016\n{shared}\n{text}"
    source, library = path.with_suffix(".c"), path.with_suffix(".so")
    source.write_text(
        text + "\nint passes(void *h, u32 event) { return record_passes(h, event) && record_wanted(h, event); }\n"
        f"__attribute__((constructor)) static void begin(void) {{ status_one.let_pass = {int(let_pass)}; }}\n"
    )
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    function = ctypes.CDLL(str(library)).passes

    def passes(record: Record) -> bool:
        data = record.packed(0)
        blobs = sum(len(blob.packed()) for blob in record.blobs)
        # when it is tested, a record's cells are those of its arguments, and other records stand before and behind it
        cells = (len(data) - -(-blobs // 32) * 32) // 32
        memory = bytes(512) + data[:20] + cells.to_bytes(2, "little") + data[22:] + bytes(512)
        buffer = ctypes.create_string_buffer(memory, len(memory))
        return bool(function(ctypes.c_void_p(ctypes.addressof(buffer) + 512), record.event))

    return passes


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Passes]:
    """condition -> what the C that is generated for it says of a record."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("early")
    known: dict[str, Passes] = {}

    def make(condition: str) -> Passes:
        tests = early_tests(parse([condition], catalogue()).conditions)
        assert tests, f"{condition} is not for the kernel"
        return built(tests, folder / str(len(known)))

    def cached(condition: str) -> Passes:
        if condition not in known:
            known[condition] = make(condition)
        return known[condition]

    return cached


def stays(condition: str, record: Record) -> bool:
    contexts = Contexts()
    rows = read_frames([view(frame([record]))], contexts).rows
    return bool(Predicates(catalogue(), parse([condition], catalogue()).conditions)(rows, contexts)[0])


def walked(path: bytes) -> bytes:
    """As bpf/c/path.h writes it."""
    if path == b"/":
        return b"/\0"
    names = b"".join(name + b"\0" for name in reversed(path.removeprefix(b"/").split(b"/")))
    return names + (b"/\0" if path.startswith(b"/") else b"")


def file_open(path: bytes, status: int = KERNEL, whole: int = 0, flags: int = 0) -> Record:
    return Record(FILE_OPEN, args=(0,) * 7, flags=flags, blobs=(Blob(5, b"x"), Blob(0, walked(path), status, whole)))


def opened(path: bytes, status: int = 0, flags: int = 0, mode: int = 0) -> Record:
    return Record(OPENAT, args=(0, 0, mode, 0), flags=flags, blobs=(Blob(1, path, status),))


PATTERNS = ("/a/b", "/a/*", "/a/b*", "/*b", "*/b", "*b", "*a/b", "/a*b", "/a/*b", "/ab*/b", "/aa/bb*ab/a", "/", "/é*")
NAMES = st.text("ab", min_size=1, max_size=3)
PATHS = st.one_of(
    st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names)),
    st.just("/"),
    st.sampled_from(["/é", "/éa/b", "/ab", "/a/b", "/aa/bbab/a", "/aa/bbaab/a", "/a/b/b", "a", "b", "a/b"]),
).map(str.encode)


@pytest.mark.parametrize("op", ["=", "!="])
@pytest.mark.parametrize("pattern", [*PATTERNS, "/a/b,*/ab", "/" + "x" * 240, "/b/*," + "/" + "y" * 250 + "*"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS)
def test_a_path_passes_exactly_if_the_worker_keeps_it(
    compiled: Callable[[str], Passes], op: str, pattern: str, path: bytes
) -> None:
    condition = f"security_file_open.args.pathname{op}{pattern}"
    if not early_tests(parse([condition], catalogue()).conditions):
        assert (op, pattern[:5]) == ("=", "/b/*,"), "one of several values is too long"
        return
    record = file_open(path)
    if not path.startswith(b"/"):
        # without a root it can be one name, slashes and all
        assert compiled(condition)(record)
        return
    if op == "=":
        assert compiled(condition)(record) == stays(condition, record)
    else:
        assert compiled(condition)(record) or not stays(condition, record)
        assert not compiled(condition)(record) or stays(condition, record) or "," in pattern


@pytest.mark.parametrize("op", ["=", "!="])
@pytest.mark.parametrize("pattern", ["ab", "a*", "*b", "a*b", "ab*ab", "*", "x" * 255])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("ab/", max_size=6).map(str.encode))
def test_a_string_passes_exactly_if_the_worker_keeps_it(
    compiled: Callable[[str], Passes], op: str, pattern: str, text: bytes
) -> None:
    condition = f"openat.args.pathname{op}{pattern}"
    record = opened(text)
    passes, kept = compiled(condition)(record), stays(condition, record)
    # an empty text has no last byte to look at
    assert passes == kept or (passes and not text)


@pytest.mark.parametrize("pattern", ["/a/b", "/a/*", "*b"])
@pytest.mark.parametrize("op", ["=", "!="])
@pytest.mark.parametrize(
    "record",
    [
        file_open(b"/c", status=KERNEL | FAULT),
        file_open(b"/a/b", status=KERNEL | CUT),
        file_open(b"/a/b", status=KERNEL | RACED),
        file_open(b"/a/b", flags=NO_OBJECT),
        Record(FILE_OPEN, args=(0,) * 7),
    ],
)
def test_what_was_not_read_whole_is_the_workers_to_count(
    compiled: Callable[[str], Passes], pattern: str, op: str, record: Record
) -> None:
    assert compiled(f"security_file_open.args.pathname{op}{pattern}")(record)


def test_a_path_below_an_own_root_matches_as_either(compiled: Callable[[str], Passes]) -> None:
    # /jail/a/b, and the process's root is /jail
    record = file_open(b"/jail/a/b", whole=5, flags=OWN_ROOT)
    for condition, expected in (("=/a/*", True), ("=/jail/*", True), ("!=/jail/*", False)):
        condition = f"security_file_open.args.pathname{condition}"
        assert stays(condition, record) == compiled(condition)(record) == expected
    assert compiled("security_file_open.args.pathname=/c/*")(record), "as the own root has it, only the worker can tell"


def test_a_text_that_was_cut_faulted_or_null_passes(compiled: Callable[[str], Passes]) -> None:
    for status in (CUT, FAULT, NULL):
        assert compiled("openat.args.pathname=a*")(opened(b"b", status))


@pytest.mark.parametrize("condition", ["close.args.fd=3", "close.args.fd!=3", "close.args.fd<3", "close.args.fd>=-1"])
@pytest.mark.parametrize("fd", [0, 3, 4, 2**32 - 1, 2**64 - 1, 2**32 + 3])
def test_a_number_passes_exactly_if_the_worker_keeps_it(
    compiled: Callable[[str], Passes], condition: str, fd: int
) -> None:
    record = Record(CLOSE, args=(fd,))
    assert compiled(condition)(record) == stays(condition, record)
    assert compiled(condition)(Record(CLOSE, args=(fd,), flags=COMPAT))


@pytest.mark.parametrize("condition", ["close.retval=-9,-4", "close.retval!=0", "close.retval!=-9,0"])
@pytest.mark.parametrize("result", [0, -9, -4, 2**63 - 1, -(2**63)])
def test_results_too(compiled: Callable[[str], Passes], condition: str, result: int) -> None:
    record = Record(CLOSE, retval=result)
    assert compiled(condition)(record) == stays(condition, record)


@pytest.mark.parametrize(
    ("condition", "value", "passes"),
    [
        ("O_CREAT", 0o102, True),
        ("O_CREAT", 0o1002, False),
        ("O_WRONLY|O_CREAT", 0o101, True),
        ("O_WRONLY|O_CREAT", 0o1, False),
        ("O_CREAT,O_EXCL", 0o200, True),
        ("O_CREAT,1", 1, True),
        ("O_CREAT,1", 2, False),
    ],
)
def test_words_are_bits(compiled: Callable[[str], Passes], condition: str, value: int, passes: bool) -> None:
    condition = f"openat.args.flags={condition}"
    assert compiled(condition)(opened(b"x", mode=value)) == passes
    assert passes or not stays(condition, opened(b"x", mode=value))


@pytest.mark.parametrize("parser", set(PARSERS.values()), ids=lambda parser: str(getattr(parser, "__name__", "")))
@settings(max_examples=400, deadline=None)
@given(raw=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**13)))
def test_a_word_never_comes_without_its_bits(parser: Parser, raw: int) -> None:
    text = parser(raw)
    for word in filter(re.compile("[A-Z][A-Z0-9_|]*").fullmatch, {text, *text.split("|")}):
        bits = common_bits(parser, word)
        assert raw & bits == bits, (word, bits)


@pytest.mark.parametrize(
    "condition",
    [
        "openat.args.pathname=/a/?",  # not a beginning, an end or the whole
        "openat.args.pathname=*a*",
        "openat.args.pathname=" + "x" * 256,
        "openat.args.flags=O_RDONLY",  # no bits
        "openat.args.flags!=O_CREAT",
        "execve.args.argv=*x",
        "getcwd.args.buf=/a",  # may end with NULs
        "security_inode_unlink.args.pathname=/a",  # joined by the worker
        "security_file_open.args.root_pathname=/a",
        "sched_process_exec.args.pathname=/a",  # the process tree needs them all
        "openat.args.pathname=\udcff*",
    ],
)
def test_what_cannot_be_told_there_stays_with_the_workers(condition: str) -> None:
    assert early_tests(parse([condition], catalogue()).conditions) == ()
