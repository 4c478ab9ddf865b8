"""Registers that a real call does not use: null in the output, and matched by nothing, wherever conditions run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.live import details, trace

pytestmark = pytest.mark.kernel
CALLS = """
import ctypes
libc = ctypes.CDLL(None)
F_GETFD, F_SETFD, F_GETFL = 1, 2, 3
for command in (F_GETFD, F_SETFD, F_GETFL):
    libc.syscall(72, 0, command, 4242)
libc.syscall(157, 15, b"renamed", 4242, 4242, 4242)
libc.syscall(2, b"/etc/hostname", 0, 0o4242)
"""


def test_what_the_kernel_ignores_is_null_and_no_condition_matches_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CALLS]
    run = trace(command, "-e", "fcntl,prctl,open,fcntl.args.arg=4242")
    assert run.ledger["balanced"] is True
    found = [e for e in run.events if e["eventName"] == "fcntl"]
    assert [details(e, "cmd")["raw"] for e in found] == [2], "F_SETFD alone uses it"
    assert details(found[0], "arg")["raw"] == 4242
    named = next(e for e in run.events if e["eventName"] == "prctl" and details(e, "option")["raw"] == 15)
    for name in ("arg3", "arg4", "arg5"):
        assert (details(named, name)["value"], details(named, name)["reason"]) == (None, "ignored")
    opened = next(e for e in run.events if e["eventName"] == "open")
    assert details(opened, "mode")["reason"] == "ignored"
