"""Findings for people: at 80 columns and wide, with a name that they recognise, and repeats as repeats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from headrace.workers.detect.findings.shapes import header, shape

SIGMA = "c0a6f1f4-3f4c-4c5a-9c1d-0d2b1a2a3b4c"


@dataclass
class Screen:
    colour: bool = False
    columns: int = 0


def finding(**more: Any) -> bytes:
    made = {
        "timestamp": 1_700_000_000_123_456_789,
        "signatureID": "TRC-109",
        "signatureName": "aslr_inspection",
        "title": "ASLR is inspected",
        "severity": "info",
        "process": {"name": "cat", "pid": 7, "path": "/bin/cat", "commandLine": "cat /proc/x"},
        "container": {},
        "data": {"pathname": "/proc/sys/kernel/randomize_va_space"},
        "events": [{"args": [{"name": "pathname", "value": "/proc/sys/kernel/randomize_va_space"}]}],
        "complete": True,
    }
    return json.dumps(made | more).encode()


def line(columns: int = 0, **more: Any) -> str:
    return shape("table", finding(**more), Screen(columns=columns)).decode().rstrip("\n")


def test_a_narrow_line_has_the_title_and_the_path() -> None:
    shown = line(80)
    assert shown.startswith("22:13:20 info     TRC-109    ASLR is inspected  pathname=/proc/sys/kernel/rand")
    assert len(shown) == 80
    assert shown.endswith("…")
    assert header(80).split() == ["TIME", "SEVERITY", "SIGNATURE", "WHAT"]


def test_a_wide_line_has_columns() -> None:
    shown = line()
    assert shown.startswith("22:13:20.123456 info     TRC-109 aslr_inspection")
    assert shown.endswith("ASLR is inspected  pathname=/proc/sys/kernel/randomize_va_space")
    assert shown.index("cat ") == header(0).index("COMM")


def test_a_signature_without_data_shows_command_line_and_path() -> None:
    assert line(200, data={}).endswith('"cat /proc/x"  /proc/sys/kernel/randomize_va_space')
    assert line(200, data={"x": None}, events=[{"args": []}]).endswith('"cat /proc/x"')


def test_a_sigma_rule_is_known_by_its_title() -> None:
    for columns in (80, 200):
        shown = line(columns, signatureID=SIGMA, signatureName=SIGMA, title="Suspicious Curl")
        assert SIGMA[:8] not in shown
        assert shown.count("Suspicious Curl") == 1


def test_repeats_say_how_many_and_when_the_last_was() -> None:
    more = {"count": 6, "firstTime": 10**9, "lastTime": 31 * 10**9}
    for columns in (80, 200):
        assert "x7, last 22:13:50" in line(columns, **more)


def test_hostile_names_stay_on_one_line() -> None:
    who = {"name": "a\nb", "pid": 1, "path": "", "commandLine": "c\r"}
    shown = line(200, title="x\ny\x1b[2J", process=who, data={})
    assert shown.isprintable()
