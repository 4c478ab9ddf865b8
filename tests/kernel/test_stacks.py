"""The caller's stack, on the live kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live import compile_c, headrace, trace

pytestmark = pytest.mark.kernel
NESTED = r"""
#include <stdio.h>
#include <sys/syscall.h>
__attribute__((noinline)) long inner(long n) {
	long result;
	void *volatile frame = __builtin_frame_address(0); /* a leaf has a frame only if it is asked for */
	asm volatile("syscall" : "=a"(result) : "a"(n) : "rcx", "r11", "memory");
	return result;
}
__attribute__((noinline)) long outer(long n) { return inner(n) + 1; }
int main(void) {
	printf("%lu %lu %lu\n", (unsigned long)inner, (unsigned long)outer, (unsigned long)main);
	fflush(stdout);
	return outer(SYS_getppid) < 0;
}
"""
LONGEST_FUNCTION = 160
FLAGS = ("-no-pie", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")


def test_the_callers_are_named_from_the_innermost_outwards(tmp_path: Path) -> None:
    source = tmp_path / "nested.c"
    source.write_text(NESTED)
    program = compile_c(source, tmp_path / "nested", *FLAGS)
    recording = tmp_path / "run.hrc"
    wanted = ("-e", "getppid,openat,sched_process_exit", "--stack-addresses")
    run = trace([str(program)], *wanted, "--record", str(recording))
    assert run.ledger["balanced"]
    (event,) = (e for e in run.events if e["eventName"] == "getppid")
    stack = event["stackAddresses"]
    for address, function in zip(stack, map(int, run.out.split()), strict=False):
        assert function < address < function + LONGEST_FUNCTION
    assert 3 <= len(stack) <= 20
    # other events have theirs, and a replay shows them if it is asked to
    assert all(e["stackAddresses"] for e in run.events if e["eventName"] == "openat")
    again = headrace("replay", str(recording), "-o", "json:-", "--stack-addresses").stdout
    assert [json.loads(line) for line in again.splitlines()] == run.events
    without = headrace("replay", str(recording), "-o", "json:-").stdout
    assert {json.loads(line)["stackAddresses"] for line in without.splitlines()} == {None}
