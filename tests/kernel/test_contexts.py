"""Who did it is who did it then: objects that were freed and made again at the same address are told apart."""

from __future__ import annotations

import sys

import pytest

from tests.live import trace

pytestmark = pytest.mark.kernel
CREDENTIALS, NAMESPACES = 40, 40
# An object is free some milliseconds after its last use (RCU), and the next one of its kind on this CPU gets its place.
# The CPU is kept busy: one that goes idle sends its frames, and a frame has contexts of its own.
PROGRAM = f"""
import ctypes, os, time
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
unshare = ctypes.CDLL(None).unshare

def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

for uid in range(1, {CREDENTIALS} + 1):
    os.setresuid(uid, 0, 0)
    os.getpgid(0)
    os.setresuid(100000 + uid, 0, 0)
    spin(0.03)
os.setresuid(0, 0, 0)
for number in range({NAMESPACES}):
    unshare(0x20000)
    print(os.stat("/proc/self/ns/mnt").st_ino)
    os.getsid(0)
    for _ in range(1 + number % 2):  # their numbers are given again as well
        unshare(0x20000)
"""


def test_credentials_and_namespaces_at_a_reused_address_are_those_of_the_event() -> None:
    run = trace([sys.executable, "-c", PROGRAM], "--interval-ms", "1000", "-e", "getpgid,getsid")
    assert run.ledger["balanced"] is True
    uids = [event["userId"] for event in run.events if event["eventName"] == "getpgid"]
    assert uids == list(range(1, CREDENTIALS + 1))
    namespaces = [event["mountNamespace"] for event in run.events if event["eventName"] == "getsid"]
    assert namespaces == [int(text) for text in run.out.split()]
    assert len(namespaces) == NAMESPACES
    assert len(set(namespaces)) > 1
