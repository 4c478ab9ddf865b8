"""`headrace.trace`: forms, findings, an early end, and what a run that cannot begin says."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pyarrow as pa
import pytest

import headrace

pytestmark = pytest.mark.kernel


def test_batches_come_as_arrow_tables() -> None:
    with headrace.trace(["/bin/cat", "/etc/hostname"], events="openat", form="arrow") as run:
        table = pa.concat_tables(list(run))
    assert "/etc/hostname" in headrace.by_event(table)["openat"]["args.pathname"].to_pylist()
    assert run.status == 0
    assert run.ledger is not None
    assert run.ledger["balanced"]
    assert run.ledger["produced"] == len(table)


def test_findings_come_instead_of_events() -> None:
    command = ["sh", "-c", "cp /bin/true /tmp/.headrace-test && /tmp/.headrace-test; rm /tmp/.headrace-test"]
    with headrace.trace(command, findings=True) as run:
        found = [finding["signatureID"] for finding in run]
    assert "HR-1015" in found


def test_leaving_early_ends_the_run_and_what_it_traces() -> None:
    with headrace.trace(["sh", "-c", "while :; do true; cat /dev/null; done"], events="openat,execve") as run:
        event = next(iter(run))
    child = event["hostProcessId"]
    assert run.status == 128 + 15
    assert run.ledger is not None
    assert run.ledger["balanced"]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_scope_without_a_command_is_traced_until_it_is_stopped() -> None:
    with headrace.trace(events="execve", scope=[f"tree={os.getpid()}"]) as run:
        subprocess.run(["/bin/true"], check=True)
        run.stop()
        paths = [a["value"] for event in run for a in event["args"] if a["name"] == "pathname"]
    assert "/bin/true" in paths


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"events": "nosuch"}, "no such event or set: nosuch"),
        ({"scope": ["nosuch=1"]}, "nosuch"),
        ({"form": "csv"}, "form: dicts arrow polars"),
        ({"form": "arrow", "findings": True}, "dicts for findings"),
        ({"options": ["--nosuch"]}, "No such option"),
    ],
)
def test_a_run_that_cannot_begin_says_why(options: dict[str, object], why: str) -> None:
    with pytest.raises(headrace.Error, match=why):
        headrace.trace(["true"], **options)  # type: ignore[arg-type]


def test_what_the_command_says_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with headrace.trace([sys.executable, "-c", "import sys; print('heard', file=sys.stderr)"], events="execve") as run:
        list(run)
    assert capsys.readouterr().err == "heard\n"


def test_what_is_no_text_and_goes_on_after_the_end_holds_up_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    script = r"printf '\377\n' >&2; (sleep 20 >/dev/null; true) & exec sleep 20"
    began = time.monotonic()
    with headrace.trace(["sh", "-c", script], events="execve") as run:
        next(iter(run))
    assert time.monotonic() - began < 15
    assert run.status == 128 + 15
    assert run.ledger is not None
    assert "\\xff" in capsys.readouterr().err
