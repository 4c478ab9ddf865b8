"""Every shipped signature that this kernel can provoke, for real: the whole live pipeline to a finding, and a near miss
that stays silent. What is done stands in triggers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace.bpf.host import cgroups
from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.detect.rules.rulesets import build
from tests.kernel.test_containers import A, below
from tests.live import DEADLINE_S, HEADRACE, NEEDS_LOOPS

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("only_containers")]
__all__ = ["below"]
NOT_HERE = {
    "TRC-1017": "this kernel has no modules",
    "TRC-1020": "this kernel has no symbols of its data (CONFIG_KALLSYMS_ALL)",
    "TRC-1030": "this kernel has no symbols of its data (CONFIG_KALLSYMS_ALL)",
}
BY_NAMES = {"HR-1015", "HR-1026", "HR-1027", "HR-1028"}
"""Those that are triggered by names that lead through links."""


class Outcome(NamedTuple):
    """What was done, (signature, hit or miss, pid, status), and what was found."""

    done: list[tuple[str, str, int, int]]
    findings: list[dict[str, Any]]
    ledger: dict[str, Any]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("triggers")
    found = cgroups.hierarchy()
    assert found is not None
    group = found.path / f"docker-{A}.scope"
    group.mkdir()
    try:
        findings, ledger = folder / "findings", folder / "ledger"
        inner = folder / "files"
        inner.mkdir()
        script = Path(__file__).with_name("triggers.py")
        line = [HEADRACE, "run", "--workers", "2", "--fold", "0", "--findings", f"json:{findings}"]
        line += ["--ledger", str(ledger), "--", sys.executable, "-S", str(script), str(inner), str(group)]
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        return Outcome(
            [(name, kind, int(pid), int(status)) for name, kind, pid, status in rows],
            [json.loads(line) for line in findings.read_text().splitlines()],
            json.loads(ledger.read_text()),
        )
    finally:
        group.rmdir()


def test_the_triggers_could_all_be_done(outcome: Outcome) -> None:
    failed = [row for row in outcome.done if row[3] == 99]
    assert failed == []
    assert outcome.ledger["balanced"]
    assert outcome.ledger["findings"]["found"] == len(outcome.findings)


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(rule.id, marks=[NEEDS_LOOPS] if rule.id in BY_NAMES else [])
        for rule in build(catalogue()).rules
        if rule.id not in NOT_HERE
    ],
)
def test_a_signature_fires_when_it_should_and_only_then(outcome: Outcome, signature: str) -> None:
    found = {f["process"]["pid"] for f in outcome.findings if f["signatureID"] == signature}
    children = {f["process"]["ppid"] for f in outcome.findings if f["signatureID"] == signature}
    mine = [(kind, pid) for name, kind, pid, _ in outcome.done if name == signature]
    hits = [pid for kind, pid in mine if kind in ("hit", "both")]
    assert hits
    assert [pid for pid in hits if pid not in found and pid not in children] == []
    assert [pid for kind, pid in mine if kind == "miss" and pid in found] == []


def test_a_finding_says_who_and_what(outcome: Outcome) -> None:
    pid = next(pid for name, kind, pid, _ in outcome.done if (name, kind) == ("TRC-1010", "hit"))
    one = next(f for f in outcome.findings if f["process"]["pid"] == pid and f["signatureID"] == "TRC-1010")
    assert one["container"] == {"id": A, "runtime": "docker", "enrichment": "off"}
    assert one["severity"] == "high"
    assert one["mitre"]["id"] == "T1611"
    assert one["events"][0]["eventName"] == "security_file_open"
    assert one["complete"] is True
    assert one["ancestors"][0]["commandLine"].endswith(f"docker-{A}.scope")
